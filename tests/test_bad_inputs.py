"""Every bad input with its error: recording, value and what is accepted; and the odd that work.

docs/bad_inputs.md shows the same table, and must be what this file makes:
``python tests/test_bad_inputs.py`` writes it anew.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import yaml
from saved_model import MAXLEN, load_model, model_directory, save_model, temporary_directory
from tiny import FS, speech

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.audio import resample

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "bad_inputs.md"
RECIPE = {"n_fft": 512, "win_length": 400, "hop_length": 160}
COARSE = 128.0  # steps of 8 bits to full scale


class Bad(NamedTuple):
    """An input and the error that it must give."""

    what: str
    speech: Any
    names: str  # the recording, as the message has it
    value: str
    accepted: str


TABLE = [
    Bad("0 samples", "empty.wav", "'empty.wav'", "no samples", "at least one"),
    Bad("10 ms", "10ms.wav", "'10ms.wav' (0.00 to 0.01 s)", "2 frames", "7 or more"),
    Bad("NaN", "nan.wav", "'nan.wav'", "the first at 8000 (0.50 s)", "finite numbers"),
    Bad("NaN in an array", "array", "'array 1'", "the first at 8000", "finite numbers"),
    Bad("6 channels", "six.wav", "'six.wav'", "6 channels", "channels='mix', 'each' or a number"),
    Bad("truncated FLAC", "cut.flac", "'cut.flac'", "0 of the 16000 samples", "the whole file"),
    Bad("a text file named .wav", "text.wav", "'text.wav'", "cannot be read", "WAV, FLAC"),
    Bad("a directory", "folder", "'folder'", "is a directory", "a file"),
    Bad(
        "an unknown task",
        Speech("good.wav", tasks="sing"),
        "'good.wav'",
        "no task 'sing'",
        "asr, st_eng, st_deu",
    ),
    Bad(
        "a task without an expert",
        Speech("good.wav", tasks="st_deu"),
        "'good.wav'",
        "task 'st_deu'",
        "asr, st_eng",
    ),
    Bad(
        '`bandwidth="fm"`', Speech("good.wav", bandwidth="fm"), "'good.wav'", "'fm'", "auto, wb, nb"
    ),
]
WORKS = {
    "8-bit WAV": ("8bit.wav", "8bit_as_16bit.wav"),
    "24-bit WAV": ("24bit.wav", "good.wav"),
    "96 kHz WAV": ("96khz.wav", "good.wav"),
    "6 channels that are equal": ("six_equal.wav", "good.wav"),
}
NO_TOKENS = "a model directory without tokens"


@functools.cache
def model() -> Speech2Text:
    """Its decoder has no expert for ``<st_deu>``, a token that it has. The recipe's spectrum."""
    experts = {"asr": ["<asr>"], "st": ["<st_eng>"]}
    directory = save_model(
        temporary_directory(), decoder_conf={"experts": experts}, frontend_conf=RECIPE
    )
    return Speech2Text.from_pretrained(directory, maxlenratio=MAXLEN)


def samples() -> np.ndarray:
    """One second in 16 bits, (N,)."""
    x = speech(FS).numpy()
    return (np.round(x / np.abs(x).max() * 2.0**14) / 2.0**15).astype(np.float32)


def broken(x: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(x)) == 8000, np.float32(np.nan), x)


def write_inputs(directory: Path) -> None:
    """All the files of `TABLE` and `WORKS`."""

    def write(name: str, x: np.ndarray, subtype: str = "PCM_16", rate: int = FS) -> None:
        soundfile.write(directory / name, x, rate, subtype=subtype)

    x = samples()
    write("good.wav", x)
    write("empty.wav", x[:0])
    write("10ms.wav", x[:160])
    write("nan.wav", broken(x), "FLOAT")
    write("six.wav", np.stack([x * n / 6 for n in range(1, 7)], axis=1))
    write("six_equal.wav", np.stack([x] * 6, axis=1))
    write("whole.flac", x)
    whole = (directory / "whole.flac").read_bytes()
    (directory / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (directory / "text.wav").write_text("This is not audio.\n" * 50, encoding="utf-8")
    (directory / "folder").mkdir()
    coarse = np.round(x * COARSE) / COARSE
    write("8bit.wav", coarse, "PCM_U8")
    write("8bit_as_16bit.wav", coarse)
    write("24bit.wav", x, "PCM_24")
    write("96khz.wav", resample(x, FS, 6 * FS), "PCM_24", 6 * FS)
    shutil.copytree(model_directory(), directory / "model")
    config = directory / "model" / "config.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["token_list"] = None
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are in the present directory, so that messages have short names."""
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)


def shown(call: Callable[[], Any]) -> str:
    """The error that a call raises, with its type."""
    try:
        call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error")


def message_of(bad: Bad) -> str:
    return shown(lambda: model()(broken(samples()) if bad.speech == "array" else bad.speech))


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.what)
def test_a_bad_input_is_named_with_what_is_accepted(bad: Bad) -> None:
    message, _, accepted = message_of(bad).partition("accepted")
    assert bad.names in message and bad.value in message
    assert bad.accepted in accepted


@pytest.mark.parametrize("what", WORKS)
def test_an_odd_format_gives_the_same_text(what: str) -> None:
    odd, plain = (model()(path) for path in WORKS[what])
    assert odd.text == plain.text != ""
    assert odd.route == plain.route
    assert odd.duration == pytest.approx(plain.duration)


def test_one_bad_input_does_not_harm_the_others() -> None:
    items = [item for bad in TABLE if bad.speech != "array" for item in (bad.speech, "good.wav")]
    found = list(model().stream(items, on_error="return"))
    assert [hasattr(f, "error") for f in found] == [True, False] * (len(items) // 2)
    assert {f.text for f in found[1::2]} == {model()("good.wav").text}


def test_a_model_without_tokens() -> None:
    message = shown(lambda: Speech2Text.from_pretrained("model"))
    assert "config 'model/config.yaml' has no tokens: its token_list is None" in message
    assert "accepted is a list, or a file's name" in message


def test_settings_of_a_call_are_named_too() -> None:
    for keywords in ({"tasks": "sing"}, {"bandwidth": "fm"}):
        with pytest.raises(ValueError, match=r"('sing'|'fm'); accepted: a"):
            load_model()("good.wav", **keywords)


def test_the_document_is_true() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def document() -> str:
    """The content of docs/bad_inputs.md; the files are in the present directory."""
    rows = [(bad.what, f"`{message_of(bad)}`") for bad in TABLE]
    rows.append((NO_TOKENS, f"`{shown(lambda: Speech2Text.from_pretrained('model'))}`"))
    rows += [(what, f"works: the text of `{plain}`") for what, (_, plain) in WORKS.items()]
    lines = [
        "# Inputs that are bad or odd",
        "",
        "What `espnet_smoe.Speech2Text` says of them. `tests/test_bad_inputs.py` makes the inputs",
        "and this table, and fails if one of them differs. In a list or a stream, each error is",
        'that of its recording; with `stream(..., on_error="return")` the others are done, and a',
        "`Failure` with this error stands in its place.",
        "",
        "| input | what happens |",
        "| --- | --- |",
        *(f"| {what} | {happens} |" for what, happens in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        os.chdir(folder)
        DOCUMENT.write_text(document(), encoding="utf-8")
