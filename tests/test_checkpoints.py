"""Weights in files: read without unpickling, written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from espnet_smoe.checkpoints import ModelError, fit_weights, read_weights, write_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    write_weights(WEIGHTS, tmp_path / name)
    read = read_weights(tmp_path / name)
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[key], value) for key, value in WEIGHTS.items())
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_views_and_shared_memory_are_written_as_they_read(name: str, tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    write_weights({"rows": whole, "columns": whole.t(), "again": whole}, tmp_path / name)
    read = read_weights(tmp_path / name)
    assert torch.equal(read["columns"], whole.t()) and torch.equal(read["again"], whole)
    assert (tmp_path / name).stat().st_size > 3 * whole.numel() * 4


def test_deepspeed_keeps_them_one_level_down(tmp_path: Path) -> None:
    torch.save({"module": WEIGHTS}, tmp_path / "m.pth")
    assert read_weights(tmp_path / "m.pth").keys() == WEIGHTS.keys()


class Payload:
    """Unpickling it runs code."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Payload, "ran", True)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    for name in ("m.pth", "m.safetensors"):
        torch.save({"a": Payload()}, tmp_path / name)
        with pytest.raises(ModelError, match=rf"checkpoint '.*{name}' is broken, or holds more"):
            read_weights(tmp_path / name)
    assert not Payload.ran


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_named(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    write_weights(WEIGHTS, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=rf"checkpoint '.*{name}' (is broken|cannot be read)"):
        read_weights(path)


def test_other_contents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with pytest.raises(ModelError, match=r"checkpoint '.*m\.pth' cannot be read"):
        read_weights(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ModelError, match="holds a list; accepted: weights by name"):
        read_weights(path)
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, path)
    with pytest.raises(ModelError, match="holds a dict named 'model'; accepted: weights by name"):
        read_weights(path)


def test_weights_must_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer = nn.Linear(3, 2)
    fit_weights(layer, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, origin="it")
    assert torch.equal(layer.weight, torch.ones(2, 3))
    with pytest.raises(ModelError, match="it lacks bias, which its config has"):
        fit_weights(layer, {"weight": torch.ones(2, 3)}, origin="it")
    with pytest.raises(ModelError, match=r"(?s)it does not fit its config.*size mismatch"):
        fit_weights(layer, {"weight": torch.ones(9, 3), "bias": torch.ones(2)}, origin="it")
    fit_weights(layer, {**layer.state_dict(), "more": torch.ones(1)}, origin="it")
    assert "it: 1 weights that the config lacks: ['more']" in caplog.text


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.pth").mkdir()
    with pytest.raises(ModelError, match=r"checkpoint '.*m\.pth' cannot be written"):
        write_weights(WEIGHTS, tmp_path / "m.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]
