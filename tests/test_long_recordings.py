"""recordings.py, long recordings: cut at pauses, in blocks, whatever they come in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import soundfile
from test_bandwidth import narrow, sixteen_bit

from espnet_smoe import audio_blocks
from espnet_smoe.audio import resample
from espnet_smoe.audio_blocks import InputError
from espnet_smoe.recordings import Piece, pieces

RATE = 16000
LONGEST = 8.0


def heard(audio: Any, **options: Any) -> list[Piece]:
    return list(pieces(audio, **{"fs": RATE, "max_seconds": LONGEST, **options}))


def conversation(spoken: list[np.ndarray], seconds: float, seed: int) -> np.ndarray:
    """Sentences with pauses of 0.2 to 5 s and a little noise, (N,) on the 16-bit grid."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * RATE:
        pause = int(RATE * rng.choice([0.2, 0.5, 0.8, 1.5, 3, 5]))
        parts += [spoken[int(rng.integers(len(spoken)))], np.zeros(pause, np.float32)]
    x = np.concatenate(parts)[: int(seconds * RATE)]
    return sixteen_bit(x + 1e-4 * rng.standard_normal(len(x)).astype(np.float32))


@pytest.fixture(scope="module")
def x(spoken: list[np.ndarray]) -> np.ndarray:
    """40 s of sentences."""
    return conversation(spoken, 40, 1)


def check(found: list[Piece], x: np.ndarray, rate: int = RATE) -> None:
    """The pieces hold the recording's samples, fit, and leave out nothing loud."""
    left = np.ones(len(x), bool)
    for piece in found:
        first, last = round(piece.start * rate), round(piece.end * rate)
        assert 0 < len(piece.x) <= LONGEST * rate
        np.testing.assert_array_equal(piece.x, x[first : first + len(piece.x)])
        assert abs(len(piece.x) - (last - first)) <= 1
        left[first:last] = False
    assert all(a.end <= b.start for a, b in pairwise(found))
    loud = np.abs(x) > 0.1 * np.abs(x).max()
    assert (loud & left).sum() < 0.002 * loud.sum()


def same(a: list[Piece], b: list[Piece], start: float = 0.0) -> None:
    assert len(a) == len(b) > 0
    for p, q in zip(a, b, strict=True):
        np.testing.assert_array_equal(p.x, q.x)
        assert (p.start, p.end, p.channel) == (q.start, q.end, q.channel)
        assert p.bandwidth == q.bandwidth


def test_pieces_hold_the_speech_and_leave_long_pauses_out(x: np.ndarray) -> None:
    found = heard(x)
    check(found, x)
    assert sum(p.end - p.start for p in found) < 0.9 * len(x) / RATE
    assert {p.bandwidth.label for p in found} == {"wb"}
    assert len({p.bandwidth for p in found}) == 1  # the stretch's, not the piece's
    assert np.mean([p.end - p.start for p in found]) > LONGEST / 3


@pytest.mark.parametrize("block", [1.0, 7.3])
def test_a_file_in_blocks_gives_what_the_array_gives(
    tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch, block: float
) -> None:
    expected = heard(x)
    soundfile.write(tmp_path / "a.flac", x, RATE)
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"u": (RATE, (x * 32768).astype(np.int16))})
    monkeypatch.setattr(audio_blocks, "BLOCK_SECONDS", block)
    same(heard(tmp_path / "a.flac"), expected)
    same(heard(f"{tmp_path}/a.ark:2"), expected)
    same(heard(f"cat {tmp_path}/a.flac |"), expected)


def test_a_part_is_timed_from_its_start(tmp_path: Path, x: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", x, RATE)
    same(heard(f"{tmp_path}/a.wav#t=10,35"), heard(x[10 * RATE : 35 * RATE]))


@pytest.mark.parametrize(("rate", "fs"), [(44100, 16000), (16000, 8000), (8000, 16000)])
def test_pieces_are_cut_from_the_resampled_recording(x: np.ndarray, rate: int, fs: int) -> None:
    own = resample(x, RATE, rate)
    check(heard((own, rate), fs=fs), resample(own, rate, fs), fs)


def test_the_channels_of_a_call_come_in_order(spoken: list[np.ndarray], x: np.ndarray) -> None:
    call = np.stack([x, narrow(conversation(spoken, 40, 2))[: len(x)]], axis=1)
    found = heard(call, channels="each")
    starts = [(p.start, p.channel) for p in found]
    assert starts == sorted(starts)
    for channel, label in ((1, "wb"), (2, "nb")):
        mine = [p for p in found if p.channel == channel]
        check(mine, np.ascontiguousarray(call[:, channel - 1]))
        assert {p.bandwidth.label for p in mine} == {label}
        same(mine, heard(call, channels=channel))
    check(heard(call, channels="mix"), call.mean(axis=1))
    same(heard(np.stack([x, x], axis=1)), heard(x))


def test_channels_that_come_to_differ_are_an_error_with_the_time(x: np.ndarray) -> None:
    call = np.stack([x, x], axis=1)
    call[-5 * RATE :, 1] = 0
    with pytest.raises(InputError, match=r"2 channels, which differ from 35\.\d\d s on"):
        heard(call)


def test_no_piece_lies_on_both_sides_of_a_change_of_line(spoken: list[np.ndarray]) -> None:
    x = np.concatenate([conversation(spoken, 30, 3), narrow(conversation(spoken, 30, 4))])
    found = heard(x)
    check(found, x)
    for piece in found:
        assert piece.end <= 31 or piece.start >= 29
        assert piece.bandwidth.label == ("wb" if piece.end <= 31 else "nb")


def test_speech_without_a_pause_is_cut_where_it_is_quietest(spoken: list[np.ndarray]) -> None:
    word = spoken[0][RATE // 2 : RATE // 2 + 4000]
    x = np.tile(word, 120)[: 30 * RATE]
    found = heard(x)
    check(found, x)
    assert found[-1].end == 30
    assert min(p.end - p.start for p in found) >= LONGEST / 4


def test_where_nobody_speaks_there_are_no_pieces() -> None:
    assert heard(np.zeros(30 * RATE)) == []
    assert heard(1e-3 * np.random.default_rng(0).standard_normal(30 * RATE)) == []


def test_a_little_too_long_is_cut(x: np.ndarray) -> None:
    assert len(heard(x[: round(LONGEST * RATE)])) == 1
    check(heard(x[: round(LONGEST * RATE) + 1]), x[: round(LONGEST * RATE) + 1])


def test_a_file_that_is_cut_short_raises_behind_its_whole_blocks(
    tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", np.tile(x, 7), RATE)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: int(0.7 * len(data))])
    found = []
    with pytest.raises(InputError, match=r"cut.flac' is cut short.*; read up to 180.00 s"):
        for piece in pieces(tmp_path / "cut.flac", fs=RATE, max_seconds=LONGEST):
            found.append(piece)
    assert found[-1].end > 100
    bad = np.tile(x, 2)
    bad[-1] = np.nan
    with pytest.raises(InputError, match=r"NaN.*the first at 1279999 \(80.00 s\)"):
        heard(bad)
