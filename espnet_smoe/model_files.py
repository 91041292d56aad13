"""Write a model: a directory that ESPnet loads, or a packed file of it.

The directory holds ``config.yaml``, ``model.pth`` and what the config names: the BPE model and the
statistics of the features.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_smoe.checkpoints import ModelError, write_weights
from espnet_smoe.pretrained import ARCHIVES, CONFIG_KEY, MODEL_KEY, ModelFiles

CONFIG, WEIGHTS, SAFE_WEIGHTS = "config.yaml", "model.pth", "model.safetensors"
BPE_MODEL, STATISTICS, NOTES = "bpe.model", "feats_stats.npz", "README.md"
# What a config says of one training on one machine, and a model does not need.
RUN_KEYS = (
    *("config", "print_config", "log_level", "dry_run", "output_dir", "resume", "init_param"),
    *("ngpu", "seed", "num_workers", "num_att_plot"),
    *("dist_backend", "dist_init_method", "dist_world_size", "dist_rank", "local_rank"),
    *("dist_master_addr", "dist_master_port", "dist_launcher", "multiprocessing_distributed"),
    *("train_data_path_and_name_and_type", "valid_data_path_and_name_and_type"),
    *("train_shape_file", "valid_shape_file", "fold_length", "allow_variable_data_keys"),
    *("use_tensorboard", "use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name"),
)


def write_model(
    directory: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    *,
    safe: bool = False,
    notes: str = "",
) -> ModelFiles:
    """Write a model's directory, whole or not at all.

    Args:
        directory: Does not exist, or is empty.
        config: The training config, with ``token_list`` as a list, and ``bpemodel`` and
            ``normalize_conf.stats_file`` as files that exist (`Pretrained.args` has them so). They
            are copied; the config names the copies by absolute paths, which ESPnet needs (our own
            loader also finds them beside the config). What concerns one training is left out.
        weights: By name.
        safe: Write ``model.safetensors`` beside ``model.pth``.
        notes: What a reader must know of the model, as Markdown; goes into ``README.md``.

    Raises:
        ModelError: The directory holds something, or cannot be written.
    """
    directory = Path(directory).absolute()
    with _new_directory(directory) as partial:
        _fill(partial, config, weights, notes, names_below=directory)
        if safe:
            write_weights(weights, partial / SAFE_WEIGHTS)
    return ModelFiles(directory / CONFIG, directory / WEIGHTS)


def pack_model(
    archive: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    *,
    notes: str = "",
) -> Path:
    """Write a packed model with ESPnet's own program: one file, no absolute path in it.

    Args:
        archive: Ends in .zip, .tar, .tgz or .tar.gz, and does not exist.
        config: As for `write_model`.
        weights: By name.
        notes: As for `write_model`.

    Raises:
        ModelError: It exists, has another ending, or cannot be written.
    """
    archive = Path(archive).absolute()
    if not archive.name.endswith(ARCHIVES):
        raise ModelError(f"{str(archive)!r}: accepted are names that end in {', '.join(ARCHIVES)}")
    if archive.exists():
        raise ModelError(f"{str(archive)!r} exists; nothing is overwritten")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=archive.parent) as directory:
        parts = _fill(Path(directory), config, weights, notes, names_below=None)
        options = [word for part in parts for word in ("--option", part)]
        command = [sys.executable, "-m", "espnet2.bin.pack", "s2t", "--outpath", archive.name]
        command += [f"--{CONFIG_KEY}", CONFIG, f"--{MODEL_KEY}", WEIGHTS, *options]
        run = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        if run.returncode != 0:
            last = run.stderr.strip().splitlines()[-1:]
            raise ModelError(f"espnet2.bin.pack failed on {str(archive)!r}: {''.join(last)}")
        (Path(directory) / archive.name).rename(archive)
    return archive


def _fill(
    directory: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    notes: str,
    *,
    names_below: Path | None,
) -> list[str]:
    """Write config, weights and parts; the parts' names. `names_below`: None for relative ones."""
    kept = {key: value for key, value in config.items() if key not in RUN_KEYS}
    parts = []

    def copy(source: Any, name: str) -> str:
        shutil.copy(source, directory / name)
        parts.append(name)
        return str(names_below / name) if names_below else name

    try:
        kept["token_list"] = list(config["token_list"])
        if config.get("bpemodel"):
            kept["bpemodel"] = copy(config["bpemodel"], BPE_MODEL)
        normalize_conf = dict(config.get("normalize_conf") or {})
        if normalize_conf.get("stats_file"):
            normalize_conf["stats_file"] = copy(normalize_conf["stats_file"], STATISTICS)
        kept["normalize_conf"] = normalize_conf
        text = yaml.safe_dump(kept, allow_unicode=True, sort_keys=False)
        (directory / CONFIG).write_text(text, encoding="utf-8")
        if notes:
            (directory / NOTES).write_text(notes, encoding="utf-8")
            parts.append(NOTES)
    except (OSError, yaml.YAMLError) as error:
        raise ModelError(
            f"model directory {str(directory)!r} cannot be written: {error}"
        ) from error
    write_weights(weights, directory / WEIGHTS)
    return parts


@contextmanager
def _new_directory(directory: Path) -> Iterator[Path]:
    """A directory beside the wanted one, which becomes it at the end."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{str(directory)!r} exists and holds something; nothing is overwritten")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.partial.", dir=directory.parent))
        partial.chmod(0o777 & ~_umask())
    except OSError as error:
        raise ModelError(f"{str(directory)!r} cannot be made: {error}") from error
    try:
        yield partial
        if directory.is_dir():
            directory.rmdir()
        partial.rename(directory)
    except OSError as error:
        raise ModelError(f"{str(directory)!r} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
