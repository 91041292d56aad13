"""A trained model from where it lies: a directory, a packed zip, a hub tag, or two files.

Checkpoints are read without unpickling (``weights_only=True``), unlike by ESPnet's own loaders.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from espnet2.text.build_tokenizer import build_tokenizer
from typeguard import TypeCheckError

from espnet_smoe.allocator import return_freed_memory
from espnet_smoe.checkpoints import SUFFIXES, ModelError, load_weights
from espnet_smoe.expert_subset import keep_experts

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "XDG_CACHE_HOME"
AVERAGED = "valid.acc.ave.pth"  # what the recipe decodes with
META = "meta.yaml"  # of a packed model
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
SPEECH_LENGTH = 30.0  # seconds, ESPnet's default
TRAINING_OPTIONS = ("train_only", "train_rows")  # of model_conf: no matter of a trained model
CONFIG_KEY, MODEL_KEY = "s2t_train_config", "s2t_model_file"  # in a packed model's meta.yaml


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's parts are.

    Attributes:
        config: The training config that ESPnet saved.
        weights: The checkpoint; None: random weights, as in ESPnet (for tests).
    """

    config: Path
    weights: Path | None


@dataclass(frozen=True)
class Pretrained:
    """A loaded model.

    Attributes:
        model: The S2T model, in eval mode.
        args: Its training config, as ESPnet's programs hold it.
        tokenizer: ESPnet's tokenizer; None if the config names none.
        files: Where it came from.
    """

    model: Any
    args: argparse.Namespace
    tokenizer: Any
    files: ModelFiles = field(repr=False)

    @property
    def preprocessor_conf(self) -> dict[str, Any]:
        """The training config's options of the preprocessor."""
        return dict(getattr(self.args, "preprocessor_conf", None) or {})

    @property
    def speech_length(self) -> float:
        """Seconds of the longest stretch that it knows; ESPnet's default where it says nothing."""
        length = float(self.preprocessor_conf.get("speech_length", SPEECH_LENGTH))
        return length if length >= 0 else SPEECH_LENGTH

    @property
    def trained_padded(self) -> bool:
        """Whether it knows audio padded to `speech_length`, as ESPnet's preprocessor gives it.

        Ours does not pad; neither does a model that trims padding, nor an exported one with a
        negative length (`espnet_smoe.stock_config.no_padding`).
        """
        own = getattr(self.args, "preprocessor", "s2t") == "smoe"
        exported = float(self.preprocessor_conf.get("speech_length", SPEECH_LENGTH)) < 0
        return not (own or exported or getattr(self.model, "trim_padding", False))


def find_model(source: str | Path, *, model_file: str | None = None) -> ModelFiles:
    """Find a model's files.

    Args:
        source: A directory that holds ``config.yaml`` and checkpoints (the recipe's
            ``exp/.../s2t_*``), or an unpacked model; a packed model (`espnet2.bin.pack`); or the
            tag of a published one, which ``espnet_model_zoo`` downloads.
        model_file: The checkpoint's name in the directory; default ``valid.acc.ave.pth``, else the
            only one.

    Raises:
        ModelError: Says what is missing.
    """
    path = Path(source)
    if path.is_dir() and not (path / META).is_file():
        return _in_directory(path, model_file)
    if model_file is not None:
        raise ModelError(
            f"model {str(source)!r}: model_file is {model_file!r}; accepted with a packed or "
            "published model, which holds one checkpoint, is None"
        )
    if path.is_dir():
        return _unpacked_model(path)
    if path.is_file():
        if not path.name.endswith(ARCHIVES):
            raise ModelError(
                f"model {str(source)!r}: accepted are a directory, a packed model "
                f"({', '.join(ARCHIVES)}) and a hub tag"
            )
        return _unpacked_model(_unpacked(path))
    if path.name.endswith(ARCHIVES) or path.is_absolute() or str(source).startswith("."):
        raise ModelError(f"model {str(source)!r} does not exist")
    return _from_hub(str(source))


def _unpacked_model(path: Path) -> ModelFiles:
    try:
        meta = yaml.safe_load((path / META).read_text(encoding="utf-8"))
        files = {**meta.get("yaml_files", {}), **meta.get("files", {})}
        found = {key: str(path / name) for key, name in files.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ModelError(
            f"packed model {str(path)!r}: its {META} cannot be read: {error}; accepted is what "
            "espnet2.bin.pack writes"
        ) from error
    return _from_meta(found, str(path))


def _in_directory(path: Path, model_file: str | None) -> ModelFiles:
    config = path / "config.yaml"
    if not config.is_file():
        raise ModelError(f"model directory {str(path)!r} has no config.yaml (stage 11 writes it)")
    names = sorted(
        p.name for p in path.iterdir() if p.suffix in SUFFIXES and p.name != "checkpoint.pth"
    )
    if model_file is None:
        if AVERAGED not in names and len({Path(name).stem for name in names}) != 1:
            raise ModelError(
                f"model directory {str(path)!r} has no {AVERAGED}; name one with model_file "
                f"(there: {', '.join(names) or 'no checkpoint'})"
            )
        model_file = AVERAGED if AVERAGED in names else names[-1]  # safetensors, where both are
    if not (path / model_file).is_file():
        raise ModelError(
            f"model directory {str(path)!r} has no {model_file} (there: "
            f"{', '.join(names) or 'no checkpoint'})"
        )
    return ModelFiles(config, path / model_file)


def _from_meta(files: dict[str, str], source: str) -> ModelFiles:
    if CONFIG_KEY not in files or MODEL_KEY not in files:
        raise ModelError(
            f"packed model {source!r} holds {', '.join(sorted(files)) or 'nothing'}; needed are "
            f"{CONFIG_KEY} and {MODEL_KEY} (a model of ESPnet's S2T task)"
        )
    return ModelFiles(Path(files[CONFIG_KEY]), Path(files[MODEL_KEY]))


def _unpacked(path: Path) -> Path:
    """Unpack into a directory named by the content, once."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache") / "espnet_smoe"
    target = cache / f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial.", dir=cache))
    try:
        safe: dict[str, Any] = {} if path.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(str(path), str(partial), **safe)
        if not (partial / META).is_file():
            raise ModelError("it holds no meta.yaml; accepted is what espnet2.bin.pack writes")
        partial.rename(target)
    except (shutil.ReadError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if target.is_dir():  # another process was quicker
            return target
        raise ModelError(f"packed model {str(path)!r} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _from_hub(tag: str) -> ModelFiles:
    try:
        from espnet_model_zoo.downloader import ModelDownloader
    except ImportError as error:
        raise ModelError(
            f"model {tag!r} is no directory and no file, so it is taken for the tag of a published "
            "model, which 'pip install espnet_model_zoo' can download"
        ) from error
    return _from_meta(ModelDownloader().download_and_unpack(tag), tag)


def load(
    files: ModelFiles,
    *,
    device: str = "cpu",
    token_type: str | None = None,
    bpemodel: Any = None,
    experts: Sequence[str] | None = None,
) -> Pretrained:
    """Build the model and load its weights.

    Args:
        files: See `find_model`.
        device: Where to put it.
        token_type: ESPnet's; None: the config's.
        bpemodel: The sentencepiece model; None: the config's.
        experts: Load only these, by name; a side of which none is named keeps all of its.

    Raises:
        ModelError: The config or a file it names is missing, or the checkpoint is another model's.
    """
    args = _config(files.config)
    only = (lambda name: True) if experts is None else keep_experts(args, experts)
    model = build(args, origin=f"config {str(files.config)!r}")
    if getattr(args, "use_adapter", False):
        raise ModelError(f"{files.config}: use_adapter is set; models with adapters are not read")
    if files.weights is not None:
        load_weights(model, files.weights, only=only)
    else:
        logger.warning("%s: no checkpoint is given, so the weights are random", files.config)
    token_type = token_type or args.token_type
    bpemodel = bpemodel or args.bpemodel
    tokenizer = None
    if token_type == "bpe" or token_type == "hugging_face" or "whisper" in str(token_type):
        if token_type == "bpe" and bpemodel is not None and not Path(bpemodel).is_file():
            raise ModelError(f"{files.config}: bpemodel {str(bpemodel)!r} does not exist")
        if bpemodel is not None:
            tokenizer = build_tokenizer(token_type=token_type, bpemodel=str(bpemodel))
    elif token_type is not None:
        tokenizer = build_tokenizer(token_type=token_type)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} cannot be used: {error}") from error
    return_freed_memory()
    return Pretrained(model.eval(), args, tokenizer, files)


def build(args: argparse.Namespace, *, origin: str) -> Any:
    """A model with random weights, as ESPnet builds it.

    Args:
        args: The training config.
        origin: Where it came from, for error messages.

    Raises:
        ModelError: An option has a value or a name that its class does not take.
        ValueError: As the classes raise it.
    """
    from espnet2.tasks.s2t import S2TTask

    try:
        return S2TTask.build_model(args)
    except (TypeError, TypeCheckError, AttributeError, AssertionError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise ModelError(f"{origin} describes no model: {reason}") from error


def _config(path: Path) -> argparse.Namespace:
    """Read the training config and find the files that it names.

    Their names are relative to the directory in which the model was trained: one of those above
    the config, or the present one.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"config {str(path)!r} cannot be read: {error}") from error
    if not isinstance(config, dict) or "encoder" not in config:
        raise ModelError(f"config {str(path)!r} is no training config of ESPnet's S2T task")
    if not config.get("token_list"):
        raise ModelError(
            f"config {str(path)!r} has no tokens: its token_list is {config.get('token_list')!r}; "
            "accepted is a list, or a file's name"
        )
    from espnet2.tasks.s2t import S2TTask

    # not get_default_config(), which reads this program's own command line
    args = vars(S2TTask.get_parser().parse_args([]))
    args.update(config)
    if isinstance(args["token_list"], str):
        args["token_list"] = _resolve(path, "token_list", args["token_list"])
    if args["token_type"] == "bpe" and args["bpemodel"]:
        args["bpemodel"] = _resolve(path, "bpemodel", args["bpemodel"])
    normalize_conf = dict(args["normalize_conf"] or {})
    if normalize_conf.get("stats_file"):
        normalize_conf["stats_file"] = _resolve(path, "stats_file", normalize_conf["stats_file"])
        args["normalize_conf"] = normalize_conf
    args["init"] = None  # the weights come from the checkpoint
    model_conf = dict(args["model_conf"] or {})
    for option in TRAINING_OPTIONS:
        model_conf.pop(option, None)
    args["model_conf"] = model_conf
    return argparse.Namespace(**args)


def _resolve(config: Path, key: str, name: str) -> str:
    for directory in (*config.absolute().parents, Path.cwd()):
        if (directory / name).is_file():
            return str(directory / name)
    moved = config.absolute().parent / Path(name).name  # `model_files` puts it there
    if Path(name).is_absolute() and moved.is_file():
        return str(moved)
    raise ModelError(
        f"config {str(config)!r} names the {key} {name!r}, which is neither below one of the "
        "directories above the config nor below the present one"
    )
