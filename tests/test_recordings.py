"""recordings.py: whatever audio is handed over is heard, or named with what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
from test_bandwidth import narrow, speech

from espnet_smoe.audio import resample
from espnet_smoe.audio_blocks import InputError
from espnet_smoe.bandwidth import measure
from espnet_smoe.locator import AudioError
from espnet_smoe.recordings import Piece, pieces

RATE = 16000


def heard(audio: Any, **options: Any) -> list[Piece]:
    return list(pieces(audio, **{"fs": RATE, "max_seconds": 30.0, **options}))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Two seconds of something like speech at 16 kHz, on the 16-bit grid."""
    return np.round(speech(3) * 32768).astype(np.int16) / np.float32(32768)


def test_a_short_recording_is_one_piece(x: np.ndarray) -> None:
    (piece,) = heard(x)
    np.testing.assert_array_equal(piece.x, x)
    assert (piece.start, piece.end, piece.channel) == (0.0, len(x) / RATE, None)
    assert piece.bandwidth == measure(x, RATE)


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda x: (x * 32768).astype(np.int16), 0),
        (lambda x: (x.astype(np.float64) * 2**31).astype(np.int32), 0),
        (lambda x: np.round(x * 128).clip(-128, 127).astype(np.int8), 1 / 128),
        (lambda x: (np.round(x * 128) + 128).clip(0, 255).astype(np.uint8), 1 / 128),
        (lambda x: x.astype(np.float64), 0),
        (lambda x: x.astype(np.float16), 1e-3),
        (lambda x: x[:, None], 0),
        (lambda x: np.stack([x, x], axis=1), 0),
        (lambda x: (x, RATE), 0),
        (lambda x: (x, float(RATE)), 0),
        (lambda x: torch.tensor(x, requires_grad=True), 0),
        (lambda x: torch.tensor(x).bfloat16(), 1e-2),
        (lambda x: (torch.tensor(x * 32768).short(), np.int64(RATE)), 0),
    ],
)
def test_arrays_and_tensors_of_every_type_are_heard_alike(
    x: np.ndarray, make: Any, tolerance: float
) -> None:
    (piece,) = heard(make(x))
    assert piece.x.dtype == np.float32
    np.testing.assert_allclose(piece.x, x, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 128), ("wav", "PCM_16", 0), ("wav", "PCM_24", 0),
        ("wav", "FLOAT", 0), ("flac", "PCM_24", 0), ("ogg", "OPUS", 0.5), ("mp3", None, 0.5),
    ],
)  # fmt: skip
def test_files_of_every_coding_are_heard(
    tmp_path: Path, x: np.ndarray, suffix: str, subtype: str | None, tolerance: float
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, x, RATE, subtype=subtype)
    (piece,) = heard(path)
    np.testing.assert_allclose(piece.x[: len(x)], x, atol=tolerance)
    assert piece.end == pytest.approx(len(x) / RATE, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
def test_the_bandwidth_is_that_of_the_original_rate(
    tmp_path: Path, x: np.ndarray, rate: int
) -> None:
    own = resample(x, RATE, rate)
    soundfile.write(tmp_path / "a.wav", own, rate, subtype="FLOAT")
    for audio in (tmp_path / "a.wav", (own, rate)):
        (piece,) = heard(audio)
        np.testing.assert_array_equal(piece.x, resample(own, rate, RATE))
        assert piece.end == len(own) / rate
        assert piece.bandwidth == measure(own, rate)
    assert heard((own, rate), fs=8000)[0].bandwidth == measure(own, rate)


@pytest.mark.parametrize("count", [1, 100, 160])
def test_too_little_to_measure_is_heard_all_the_same(x: np.ndarray, count: int) -> None:
    (piece,) = heard(x[:count])
    assert len(piece.x) == count
    assert piece.bandwidth.reason == "no speech"


def test_parts_archives_and_commands(tmp_path: Path, x: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([x, x / 2], axis=1), RATE, subtype="FLOAT")
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"u": (RATE, (x * 32768).astype(np.int16))})
    (piece,) = heard(f"{tmp_path}/a.wav#t=0.5,1.25&channel=2")
    np.testing.assert_array_equal(piece.x, x[8000:20000] / 2)
    assert (piece.start, piece.end, piece.channel) == (0.0, 0.75, 2)
    np.testing.assert_array_equal(heard(f"{tmp_path}/a.ark:2")[0].x, x)
    np.testing.assert_array_equal(heard(f"cat {tmp_path}/a.wav |#channel=1")[0].x, x)


def test_channels(x: np.ndarray) -> None:
    call = np.stack([x, narrow(x)[: len(x)]], axis=1)
    with pytest.raises(InputError, match=r"'array' has 2 channels, which differ from 0\.\d\d s on"):
        heard(call)
    each = heard(call, channels="each")
    assert [(p.channel, p.start, p.bandwidth.label) for p in each] == [(1, 0, "wb"), (2, 0, "nb")]
    for number in (1, 2):
        (piece,) = heard(call, channels=number)
        np.testing.assert_array_equal(piece.x, call[:, number - 1])
        assert (piece.channel, piece.bandwidth) == (number, each[number - 1].bandwidth)
    (mixed,) = heard(call, channels="mix")
    np.testing.assert_allclose(mixed.x, call.mean(axis=1), atol=1e-7)
    assert mixed.channel is None
    for choice in (None, "mix", "each", 1):
        assert [p.channel for p in heard(x, channels=choice)] == [None]
    assert len(heard(np.zeros((RATE, 6)), channels="each")) == 6


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0), "audio 'array' holds no samples"),
        (np.zeros((0, 2)), "holds no samples"),
        (np.array([0, 1, np.nan]), r"NaN or infinite samples, the first at 2 \(0.00 s\)"),
        (np.full(4, 1e300), "NaN or infinite samples, the first at 0"),
        (np.zeros(4, complex), "has dtype complex128; accepted are floating-point"),
        (np.zeros(4, bool), "has dtype bool"),
        (np.array(["a"]), "has dtype <U1"),
        (np.array([None]), "has dtype object"),
        (np.zeros(4, np.int64), "has dtype int64; .* int8, int16, int32, uint8"),
        (np.zeros((2, 800)), r"has shape \(2, 800\) \(transpose it\)"),
        (np.zeros((3, 4, 5)), r"has shape \(3, 4, 5\)"),
        (np.float32(0), "is a float32; accepted is a path, an array"),
        ([0.0, 0.1], "is a list; accepted is a path"),
        (b"abc", "is a bytes"),
        (None, "is a NoneType"),
        (torch.zeros(4, dtype=torch.complex64), "has dtype complex64"),
        ((np.zeros(4), 16), "has sampling rate 16; accepted is a whole number of Hz from 1000"),
        ((np.zeros(4), -8000), "has sampling rate -8000"),
        ((np.zeros(4), float("nan")), "has sampling rate nan"),
        ((np.zeros(4), 8000.5), "has sampling rate 8000.5"),
        ((np.zeros(4), "8000"), "has sampling rate '8000'"),
        ((np.zeros(4), True), "has sampling rate True"),
        ((8000, np.zeros(4)), r"is the pair \(rate, array\)"),
        ((np.zeros(4), 8000, 1), "is a tuple of 3"),
        ((np.zeros(1), 96000), "too short: 1 samples at 96000 Hz leave none at 16000 Hz"),
    ],
)
def test_arrays_that_cannot_be_heard(audio: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        heard(audio)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files that cannot be heard."""
    root = tmp_path_factory.mktemp("bad")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    (root / "text.wav").write_text("this is not audio\n" * 100)
    (root / "none.wav").write_bytes(b"")
    (root / "dir.wav").mkdir()
    soundfile.write(root / "empty.wav", np.zeros(0), RATE)
    soundfile.write(root / "nan.wav", np.full(10, np.nan), RATE, subtype="FLOAT")
    soundfile.write(root / "six.wav", np.stack([noise] * 5 + [-noise], axis=1), RATE)
    soundfile.write(root / "whole.flac", noise, RATE)
    (root / "cut.flac").write_bytes((root / "whole.flac").read_bytes()[:20000])
    return root


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("gone.wav", {}, "gone.wav' does not exist"),
        ("dir.wav", {}, "dir.wav' is a directory"),
        ("text.wav", {}, r"text.wav' cannot be read \(.*accepted is what libsndfile decodes"),
        ("none.wav", {}, "none.wav' cannot be read"),
        ("empty.wav", {}, "empty.wav' holds no samples"),
        ("nan.wav", {}, "nan.wav' holds NaN or infinite samples, the first at 0"),
        ("six.wav", {}, "six.wav' has 6 channels, which differ from 0.00 s on; accepted is one"),
        ("six.wav", {"channels": 7}, "six.wav': channel 7 is asked for; accepted is 1 to 6"),
        ("six.wav#channel=7", {}, "channel 7 is asked for; the recording has 6"),
        ("six.wav#channel=2", {"channels": 1}, "channels=1, but its locator picks 2"),
        ("six.wav#t=2,1", {}, "ends at 1 s, not behind its start"),
        ("six.wav#t=5,6", {}, "lies outside the recording, which has 1.00 s"),
        ("cut.flac", {}, r"cut.flac' is cut short or damaged: 0 of the 16000 samples"),
        ("whole.flac", {"channels": "left"}, "channels='left'; accepted are None, 'mix'"),
        ("whole.flac", {"channels": 0}, "channels=0"),
        ("whole.flac", {"channels": True}, "channels=True"),
        ("whole.flac", {"fs": 16}, "the model has sampling rate 16"),
        ("whole.flac", {"max_seconds": 0}, "max_seconds=0; accepted is 1.0 or more"),
        ("whole.flac", {"max_seconds": float("nan")}, "max_seconds=nan"),
    ],
)
def test_files_that_cannot_be_heard(bad: Path, file: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        heard(f"{bad}/{file}", **options)


def test_the_name_given_stands_in_the_error(bad: Path) -> None:
    with pytest.raises(AudioError, match=r"utterance 'call 7': audio file '.*gone.wav'"):
        heard(bad / "gone.wav", name="call 7")
    with pytest.raises(AudioError, match="audio 'array 3' holds no samples"):
        heard(np.zeros(0), name="array 3")


def test_a_command_that_fails(bad: Path) -> None:
    with pytest.raises(InputError, match="its command ended with status 3"):
        heard("exit 3 |")


def test_what_a_command_writes_is_fetched_anew(tmp_path: Path, x: np.ndarray) -> None:
    for command in (f"cat {tmp_path}/a.wav |", f"cat {tmp_path}/a.wav |#t=0,0.1"):
        lengths = []
        for samples in (8000, 4000):
            soundfile.write(tmp_path / "a.wav", x[:samples], RATE)
            lengths.append(len(heard(command)[0].x))
        assert lengths == ([8000, 4000] if command.endswith("|") else [1600, 1600])


def test_an_archive_that_is_written_anew_is_read_anew(tmp_path: Path, x: np.ndarray) -> None:
    for samples in (8000, 4000):
        whole = (x[:samples] * 32768).astype(np.int16)
        kaldiio.save_ark(str(tmp_path / "a.ark"), {"u": (RATE, whole)})
        assert len(heard(f"{tmp_path}/a.ark:2")[0].x) == samples


def test_flac_of_unknown_length_is_named(tmp_path: Path, x: np.ndarray) -> None:
    soundfile.write(tmp_path / "pipe.flac", x, RATE)
    data = bytearray((tmp_path / "pipe.flac").read_bytes())
    data[21] &= (
        0xF0  # STREAMINFO's number of samples, 36 bits: 0, as an encoder leaves it on a pipe
    )
    data[22:26] = bytes(4)
    (tmp_path / "pipe.flac").write_bytes(data)
    with pytest.raises(InputError, match=r"pipe.flac': its header does not say how long it is"):
        heard(tmp_path / "pipe.flac")
