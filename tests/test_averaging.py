"""`espnet-smoe average`: the mean of checkpoints, as ESPnet takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from espnet2.main_funcs.average_nbest_models import average_nbest_models
from espnet2.train.reporter import Reporter
from saved_model import save_model

from espnet_smoe.averaging import average_checkpoints
from espnet_smoe.checkpoints import ModelError, read_weights, write_weights
from espnet_smoe.cli import main

FIRST = {
    "a.weight": torch.tensor([1.0, 2.0]),
    "norm.num_batches_tracked": torch.tensor(3),
    "index": torch.tensor([0, 1]),
    "half": torch.ones(1, dtype=torch.bfloat16),
}


def write(directory: Path, *states: dict[str, torch.Tensor]) -> list[Path]:
    paths = [directory / f"{epoch}epoch.pth" for epoch in range(1, len(states) + 1)]
    for path, state in zip(paths, states, strict=True):
        write_weights(state, path)
    return paths


def test_the_mean_keeps_dtypes_and_constants(tmp_path: Path) -> None:
    second = FIRST | {"a.weight": torch.tensor([3.0, 5.0]), "half": torch.tensor([2.0]).bfloat16()}
    mean = average_checkpoints(write(tmp_path, FIRST, second))
    assert torch.equal(mean["a.weight"], torch.tensor([2.0, 3.5]))
    assert torch.equal(mean["half"], torch.tensor([1.5]).bfloat16())
    assert torch.equal(mean["index"], FIRST["index"])
    assert mean["norm.num_batches_tracked"] == 6
    assert {name: value.dtype for name, value in mean.items()} == {
        name: value.dtype for name, value in FIRST.items()
    }


def test_it_is_espnets_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    states = [
        {"w": torch.randn(4, 5), "norm.num_batches_tracked": torch.tensor(10 * epoch)}
        for epoch in range(1, 4)
    ]
    paths = write(tmp_path, *states)
    reporter = Reporter()
    for epoch in range(1, 4):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as sub:
            sub.register({"acc": torch.tensor(float(epoch))})
            sub.next()
    average_nbest_models(tmp_path, reporter, [("valid", "acc", "max")], 3)
    stock, ours = read_weights(tmp_path / "valid.acc.ave.pth"), average_checkpoints(paths)
    torch.testing.assert_close(ours["w"], stock["w"], rtol=0, atol=1e-6)
    assert ours["norm.num_batches_tracked"] == stock["norm.num_batches_tracked"] == 60


def test_other_names_and_shapes_are_named_all_at_once(tmp_path: Path) -> None:
    second = {"a.weight": torch.ones(3), "half": torch.ones(1), "new": torch.ones(1)}
    paths = write(tmp_path, FIRST, second | {"index": FIRST["index"]})
    with pytest.raises(ModelError, match="cannot be averaged") as caught:
        average_checkpoints(paths)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for words in (
        f"norm.num_batches_tracked is in {str(paths[0])!r} alone",
        f"new is in {str(paths[1])!r} alone",
        "a.weight is float32 of shape (2,) in",
        "half is bfloat16 of shape (1,) in",
    ):
        assert any(words in line for line in lines)


def test_constants_must_be_equal(tmp_path: Path) -> None:
    paths = write(tmp_path, FIRST, FIRST | {"index": torch.tensor([0, 2])})
    with pytest.raises(ModelError, match=r"index differs between .* accepted are equal ones"):
        average_checkpoints(paths)


@pytest.mark.parametrize("names", [[], ["1epoch.pth"], ["1epoch.pth", "./1epoch.pth"]])
def test_two_different_checkpoints_are_needed(names: list[str], tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    with pytest.raises(ModelError, match="accepted are two or more different ones"):
        average_checkpoints([tmp_path / name for name in names])


def test_the_command_writes_a_checkpoint_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", "transformer")
    first = read_weights(model / "valid.acc.ave.pth")
    write_weights(
        {k: v + 1.0 if v.is_floating_point() else v for k, v in first.items()}, model / "b.pth"
    )
    out = tmp_path / "mean.safetensors"
    command = ["average", str(model), "--out", str(out), "--checkpoints"]
    assert main([*command, "valid.acc.ave.pth", str(model / "b.pth")]) == 0
    mean = read_weights(out)
    key = "encoder.encoders.0.feed_forward.experts.nb.w_1.weight"
    torch.testing.assert_close(mean[key], first[key] + 0.5)
    assert main([*command, "valid.acc.ave.pth", "b.pth"]) == 1
    assert "exists; nothing is overwritten" in capsys.readouterr().err
    command[3] = str(tmp_path / "mean.bin")
    assert main([*command, "valid.acc.ave.pth", "b.pth"]) == 1
    assert "accepted are names that end in .pth, .safetensors" in capsys.readouterr().err
    others = write(tmp_path, FIRST, FIRST | {"half": FIRST["half"] + 1})
    command[3] = str(tmp_path / "mean.pth")
    assert main([*command, *map(str, others)]) == 1
    assert "does not fit its config" in capsys.readouterr().err
    assert not (tmp_path / "mean.pth").exists()
