"""Models from directories, zips and hub tags; everything that can be wrong with one."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from saved_model import MAXLEN, model_directory, save_model
from tiny import TOKENS, speech

from espnet_smoe import Speech2Text
from espnet_smoe.pretrained import ModelError, find_model

X = speech(8000)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory(), tmp_path / "exp" / "model"))


def edit(directory: Path, **changes: Any) -> None:
    """Change the config; None removes a key."""
    path = directory / "config.yaml"
    config = {**yaml.safe_load(path.read_text(encoding="utf-8")), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def text_of(model: str | Path) -> str:
    return str(Speech2Text.from_pretrained(model, maxlenratio=MAXLEN)(X).text)


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_packed_models(
    suffix: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet2.main_funcs.pack_funcs import pack

    expected = text_of(directory)
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    edit(directory, token_list="tokens.txt")  # relative to where the model was trained
    monkeypatch.chdir(tmp_path)
    pack(
        files={"s2t_model_file": "exp/model/valid.acc.ave.pth"},
        yaml_files={"s2t_train_config": "exp/model/config.yaml"},
        outpath=f"packed{suffix}",
        option=["tokens.txt"],
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = (tmp_path / f"packed{suffix}").absolute()
    shutil.rmtree(directory)
    (tmp_path / "tokens.txt").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert text_of(packed) == expected
    (unpacked,) = (tmp_path / "cache/espnet_smoe").iterdir()
    before = os.stat(unpacked / "meta.yaml").st_mtime_ns
    assert text_of(packed) == text_of(unpacked) == expected  # not unpacked again
    assert os.stat(unpacked / "meta.yaml").st_mtime_ns == before


def test_hub_tag(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("espnet_model_zoo.downloader")

    class ModelDownloader:
        def download_and_unpack(self, tag: str) -> dict[str, str]:
            assert tag == "someone/a_model"
            return {
                "s2t_train_config": str(directory / "config.yaml"),
                "s2t_model_file": str(directory / "valid.acc.ave.pth"),
            }

    module.ModelDownloader = ModelDownloader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "espnet_model_zoo", types.ModuleType("espnet_model_zoo"))
    monkeypatch.setitem(sys.modules, "espnet_model_zoo.downloader", module)
    assert text_of("someone/a_model") == text_of(directory)


def test_hub_tag_without_the_downloader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espnet_model_zoo", None)
    with pytest.raises(ModelError, match="'someone/a_model' .*pip install espnet_model_zoo"):
        find_model("someone/a_model")


def test_which_checkpoint(directory: Path) -> None:
    assert find_model(directory).weights == directory / "valid.acc.ave.pth"
    shutil.copy(directory / "valid.acc.ave.pth", directory / "3epoch.pth")
    assert find_model(directory).weights == directory / "valid.acc.ave.pth"
    assert find_model(directory, model_file="3epoch.pth").weights == directory / "3epoch.pth"
    (directory / "valid.acc.ave.pth").rename(directory / "4epoch.pth")
    with pytest.raises(ModelError, match=r"name one with model_file \(there: 3epoch.*4epoch"):
        find_model(directory)
    with pytest.raises(ModelError, match=r"has no 5epoch\.pth \(there: 3epoch"):
        find_model(directory, model_file="5epoch.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_list": None}, "has no tokens"),
        ({"token_list": []}, "has no tokens"),
        ({"token_list": "gone.txt"}, "names the token_list 'gone.txt'"),
        ({"token_type": "bpe", "bpemodel": "gone.model"}, "names the bpemodel 'gone.model'"),
        ({"encoder": None}, "no training config of ESPnet's S2T task"),
        (
            {"normalize": "global_mvn", "normalize_conf": {"stats_file": "gone.npz"}},
            "names the stats_file 'gone.npz'",
        ),
    ],
)
def test_broken_configs(directory: Path, changes: dict[str, Any], message: str) -> None:
    edit(directory, **changes)
    with pytest.raises(ModelError, match=message):
        Speech2Text.from_pretrained(directory)


def test_broken_places(directory: Path, tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "nowhere", "does not exist"),
        ("./nowhere", "does not exist"),
        ("nowhere.zip", "does not exist"),
        (tmp_path / "exp", "has no config.yaml"),
        (directory / "config.yaml", r"accepted are a directory, a packed model \(\.zip"),
    ):
        with pytest.raises(ModelError, match=message):
            Speech2Text.from_pretrained(source)
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(ModelError, match="cannot be unpacked"):
        Speech2Text.from_pretrained(tmp_path / "no.zip")
    with pytest.raises(ModelError, match="neither s2t_train_config nor s2t_model_file"):
        Speech2Text()


def test_a_checkpoint_must_hold_every_weight(directory: Path) -> None:
    path = directory / "valid.acc.ave.pth"
    state = torch.load(path, weights_only=True)
    name = "decoder.output_layer.bias"
    torch.save({k: v for k, v in state.items() if k != name}, path)
    with pytest.raises(ModelError, match=rf"lacks {name}"):
        Speech2Text.from_pretrained(directory)
    expert = ".feed_forward.experts.nb."
    torch.save({k: v for k, v in state.items() if expert not in k}, path)
    with pytest.raises(ModelError, match="does not fit its config.*missing: nb"):
        Speech2Text.from_pretrained(directory)
    torch.save({**state, "extra": torch.zeros(1)}, path)
    assert Speech2Text.from_pretrained(directory)


class Payload:
    """Unpickling it runs code."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Payload, "ran", True)


def test_checkpoints_are_not_unpickled(directory: Path) -> None:
    torch.save({"weight": Payload()}, directory / "valid.acc.ave.pth")
    with pytest.raises(ModelError, match="holds more than weights"):
        Speech2Text.from_pretrained(directory)
    assert not Payload.ran
    (directory / "valid.acc.ave.pth").write_bytes(b"PK broken")
    with pytest.raises(ModelError, match=r"checkpoint '.*ave\.pth' is broken"):
        Speech2Text.from_pretrained(directory)


def test_decoders_of_other_kinds_are_named(tmp_path: Path) -> None:
    other = {"decoder": "lightweight_conv", "model": "espnet", "preprocessor": "s2t"}
    other["decoder_conf"] = {"num_blocks": 1, "conv_kernel_length": [3]}  # type: ignore[assignment]
    directory = save_model(tmp_path, encoder="conformer", **other)
    with pytest.raises(ValueError, match="the decoder is a Lightweight.*; accepted: ESPnet's 'tra"):
        Speech2Text.from_pretrained(directory)


@pytest.mark.parametrize("text", ["{", "- a", "files: [1]", "\x00"])
def test_a_broken_list_of_files_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "meta.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"packed model '.*': its meta.yaml cannot be read"):
        find_model(tmp_path)


def test_random_weights_are_no_secret(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    Speech2Text(directory / "config.yaml")
    assert "model/config.yaml: no checkpoint is given, so the weights are random" in caplog.text
