"""`espnet-smoe export`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from saved_model import STOCK, model_directory, save_model
from tiny import speech

from espnet_smoe import Speech2Text
from espnet_smoe.cli import main

CHECKPOINT = "valid.acc.ave.pth"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory(), tmp_path / "exp/model"))


def export(model: Path, out: Path, *arguments: str) -> int:
    return main(["export", "--model", str(model), "--out", str(out), *arguments])


ROUTE = ("--bandwidth", "nb", "--task", "asr")
TASKS = ("asr", "st")


def test_one_route(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(model, tmp_path / "out", *ROUTE, "--safetensors") == 0
    printed = capsys.readouterr().out
    assert "route nb_asr, " in printed and "stock Speech2Text will not pad" in printed
    assert "What padding costs is measured with --audio." in printed
    assert "decode with ctc_weight 0 in stock ESPnet" in printed
    names = {"config.yaml", "model.pth", "model.safetensors", "README.md"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names


def test_every_route(model: Path, tmp_path: Path) -> None:
    assert export(model, tmp_path / "out", "--all") == 0
    routes = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert routes == ["nb_asr", "nb_st", "wb_asr", "wb_st"]
    for route in routes:
        weights = torch.load(tmp_path / "out" / route / "model.pth", weights_only=True)
        whole = torch.load(model / CHECKPOINT, weights_only=True)
        encoder, decoder = route.split("_")
        for side, expert in (("encoder", encoder), ("decoder", decoder)):
            name = f"{side}.{side}s.0.feed_forward."
            expected = whole[f"{name}experts.{expert}.w_2.bias"]
            assert torch.equal(weights[f"{name}w_2.bias"], expected)


def test_packed_routes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed, and how, is tested in test_export.py; here, where."""
    packed: list[tuple[Path, str]] = []

    def pack(archive: Path, config: dict[str, Any], weights: Any, *, texts: Any) -> Path:
        packed.append((archive, config["decoder"]))
        return archive

    monkeypatch.setattr("espnet_smoe.export.pack_model", pack)
    assert export(model, tmp_path / "out", *ROUTE, "--pack") == 0
    assert export(model, tmp_path / "m.zip", *ROUTE) == 0
    assert export(model, tmp_path / "all", "--all", "--pack") == 0
    names = ["out/nb_asr.zip", "m.zip", *(f"all/{b}_{t}.zip" for b in ("wb", "nb") for t in TASKS)]
    assert packed == [(tmp_path / name, "transformer") for name in names]


def test_what_padding_costs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, samples in enumerate((5000, 7000, 9000, 17000)):
        soundfile.write(tmp_path / f"{index}.wav", speech(samples, seed=index), 16000)
    files = [str(tmp_path / f"{index}.wav") for index in range(4)]
    arguments = (*ROUTE, "--speech_length", "1", "--audio", *files)
    assert export(model, tmp_path / "out", *arguments) == 0
    printed = capsys.readouterr().out
    texts = {}
    for pad in (False, True):
        s2t = Speech2Text.from_pretrained(tmp_path / "out", pad=pad)
        texts[pad] = [s2t(file).text for file in files[:3]]
    changed = sum(a != b for a, b in zip(texts[False], texts[True], strict=True))
    assert changed > 0, "or nothing is tested"
    sentence = f"padding to 1 s changes {changed} of 3 texts (1 longer ones left out)"
    assert sentence in printed
    assert sentence in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def edit(model: Path, part: str, **changes: Any) -> None:
    path = model / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config[part] = {**config[part], **changes}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def refused(model: Path, out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails and leaves nothing."""
    before = sorted(out.parent.iterdir())
    assert export(model, out, *arguments) == 1
    assert sorted(out.parent.iterdir()) == before
    captured = capsys.readouterr()
    assert captured.err.startswith("espnet-smoe export: ")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bandwidth", "uwb", "--task", "asr"), "'uwb' has no expert in the encoder; "),
        (("--bandwidth", "nb", "--task", "st_fra"), "'st_fra' has no expert in the decoder; "),
        (("--bandwidth", "nb"), "the decoder has 2 experts; name one with task: asr, st, <asr>"),
        (("--all", "--task", "asr"), "accepted beside it is no bandwidth and no task"),
        ((*ROUTE, "--pack", "--safetensors"), "accepted: pack or safetensors"),
        ((*ROUTE, "--speech_length", "0"), "speech_length is 0.0; accepted: seconds"),
        ((*ROUTE, "--audio", "gone.wav"), "gone.wav"),
    ],
)
def test_wrong_choices(
    arguments: tuple[str, ...],
    message: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(model, tmp_path / "out", capsys, *arguments)


def test_wrong_places(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine", encoding="utf-8")
    for arguments in (ROUTE, ("--all",)):
        error = refused(model, tmp_path / "full", capsys, *arguments)
        assert "full' exists and holds something; nothing is overwritten" in error
    error = refused(model, tmp_path / "m.zip", capsys, "--all")
    assert "accepted with all: a directory" in error
    (tmp_path / "m.zip").write_text("mine", encoding="utf-8")
    assert "exists and holds something; nothing" in refused(
        model, tmp_path / "m.zip", capsys, *ROUTE
    )
    error = refused(tmp_path / "gone", tmp_path / "out", capsys, *ROUTE)
    assert "gone' does not exist" in error


def test_a_dense_model_has_no_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = save_model(tmp_path / "dense", "transformer", encoder="transformer", **STOCK)
    assert "the model has no experts" in refused(dense, tmp_path / "out", capsys, "--all")


class Payload:
    """Unpickling it runs code."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Payload, "ran", True)


def test_checkpoints_that_hold_code(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torch.load(model / CHECKPOINT, weights_only=True)
    torch.save({**weights, "more": Payload()}, model / CHECKPOINT)
    error = refused(model, tmp_path / "out", capsys, *ROUTE)
    assert f"{CHECKPOINT}' is broken, or holds more than weights" in error
    assert not Payload.ran


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_checkpoints(
    share: float, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (model / CHECKPOINT).read_bytes()
    (model / CHECKPOINT).write_bytes(data[: int(share * len(data))])
    error = refused(model, tmp_path / "out", capsys, *ROUTE)
    assert f"{CHECKPOINT}' is broken" in error or f"{CHECKPOINT}' cannot be read" in error


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder_conf", {"linear_units": 12}, "does not fit its config"),
        ("encoder_conf", {"num_blocks": 3}, "does not fit its config"),
        ("encoder_conf", {"experts": ["nb", "wb", "uwb"]}, "never picks uwb (accepted: wb, nb)"),
        ("encoder_conf", {"experts": ["nb"]}, "unknown: wb"),
        ("decoder_conf", {"experts": {"asr": ["<asr>"], "st2": ["<st_*>"]}}, "missing: st2"),
        ("decoder_conf", {"experts": {"asr": ["<asr>"]}}, "unknown: st"),
        ("decoder_conf", {"attention_heads": 3}, "describes no model"),
        ("encoder_conf", {"no_such_option": 1}, "argument 'no_such_option'"),
        ("model_conf", {"ctc_weight": "much"}, "describes no model: "),
    ],
)
def test_configs_that_do_not_fit_the_weights(
    part: str,
    changes: dict[str, Any],
    message: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit(model, part, **changes)
    error = refused(model, tmp_path / "out", capsys, *ROUTE)
    assert message in error and "Traceback" not in error
