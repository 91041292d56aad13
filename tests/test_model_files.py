"""Models that are written: a directory, or a packed file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import yaml
from saved_model import MAXLEN, model_directory
from tiny import FEATURES, speech

from espnet_smoe import Speech2Text
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.model_files import pack_model, write_model
from espnet_smoe.pretrained import find_model, load

X = speech(8000)


@pytest.fixture
def model() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    loaded = load(find_model(model_directory()))
    config = {**vars(loaded.args), "train_data_path_and_name_and_type": [("/data/a", "b", "c")]}
    return config, loaded.model.state_dict()


@pytest.fixture
def with_files(model: Any, tmp_path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config names a BPE model and statistics."""
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere/my.model").write_bytes(b"bpe")
    statistics = tmp_path / "somewhere/stats.npz"
    numpy.savez(statistics, count=2, sum=numpy.zeros(FEATURES), sum_square=2 * numpy.ones(FEATURES))
    config, weights = model
    files = {"normalize": "global_mvn", "normalize_conf": {"stats_file": str(statistics)}}
    weights = weights | {"normalize.mean": torch.zeros(FEATURES)}
    weights = weights | {"normalize.std": torch.ones(FEATURES)}
    config = {**config, "token_type": "bpe"}
    return {**config, **files, "bpemodel": str(tmp_path / "somewhere/my.model")}, weights


def text_of(model: str | Path) -> str:
    return str(Speech2Text.from_pretrained(model, maxlenratio=MAXLEN)(X).text)


def test_a_written_model_gives_the_same_text(model: Any, tmp_path: Path) -> None:
    files = write_model(tmp_path / "new/model", *model, safe=True)
    assert files.weights == tmp_path / "new/model/model.pth"
    names = {"config.yaml", "model.pth", "model.safetensors"}
    assert {p.name for p in (tmp_path / "new/model").iterdir()} == names
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model"]
    assert text_of(tmp_path / "new/model") == text_of(model_directory())
    (tmp_path / "new/model/model.pth").unlink()  # then the other is read
    assert text_of(tmp_path / "new/model") == text_of(model_directory())


def test_a_config_says_nothing_of_its_training(model: Any, tmp_path: Path) -> None:
    files = write_model(tmp_path / "model", *model)
    config = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    assert "train_data_path_and_name_and_type" not in config
    assert config["encoder"] == model[0]["encoder"]
    assert config["token_list"] == list(model[0]["token_list"])


def test_the_files_of_a_config_go_with_it(with_files: Any, tmp_path: Path) -> None:
    files = write_model(tmp_path / "model", *with_files)
    config = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    assert config["bpemodel"] == str(tmp_path / "model/bpe.model")
    assert config["normalize_conf"]["stats_file"] == str(tmp_path / "model/feats_stats.npz")
    shutil.rmtree(tmp_path / "somewhere")
    assert Path(load(files).args.bpemodel).read_bytes() == b"bpe"
    (tmp_path / "model").rename(tmp_path / "moved")
    moved = load(find_model(tmp_path / "moved"))
    assert moved.args.bpemodel == str(tmp_path / "moved/bpe.model")


def test_a_packed_model_names_nothing_absolutely(
    with_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack_model(tmp_path / "packed/model.zip", *with_files)
    assert [p.name for p in (tmp_path / "packed").iterdir()] == ["model.zip"]
    shutil.unpack_archive(archive, tmp_path / "inside")
    for path in (tmp_path / "inside").rglob("*.yaml"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "somewhere")
    loaded = load(find_model(archive))
    assert Path(loaded.args.bpemodel).read_bytes() == b"bpe"
    with pytest.raises(ModelError, match=r"model\.zip' exists; nothing is overwritten"):
        pack_model(archive, *with_files)
    with pytest.raises(ModelError, match=r"names that end in \.zip"):
        pack_model(tmp_path / "model.rar", *with_files)


def test_nothing_is_overwritten(model: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "empty", *model)
    before = os.stat(tmp_path / "empty/model.pth").st_mtime_ns
    with pytest.raises(ModelError, match="empty' exists and holds something; nothing is overwr"):
        write_model(tmp_path / "empty", *model)
    assert os.stat(tmp_path / "empty/model.pth").st_mtime_ns == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="file' exists and holds something"):
        write_model(tmp_path / "file", *model)
    with pytest.raises(ModelError, match="cannot be made"):
        write_model(tmp_path / "file/below", *model)


def test_a_model_that_cannot_be_written_leaves_nothing(model: Any, tmp_path: Path) -> None:
    config, weights = model
    with pytest.raises(ModelError, match=r"cannot be written: .*gone\.model"):
        write_model(tmp_path / "model", {**config, "bpemodel": "gone.model"}, weights)
    assert list(tmp_path.iterdir()) == []
