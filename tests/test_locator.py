"""locator.py: parts of recordings, channels, archives and commands are read as files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from espnet_smoe.audio import AudioError, read_audio, read_header
from espnet_smoe.locator import Locator, parse_locator

RATE = 8000


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """A two-channel recording of 4 s; the channels differ."""
    x = np.arange(4 * RATE) / (4 * RATE)
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([x, -x], axis=1), RATE, subtype="PCM_16")
    return path


@given(
    st.from_regex(r"[^|#\s][^|\n\r]{0,20}", fullmatch=True).filter(lambda s: s == s.strip()),
    st.none() | st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)),
    st.none() | st.integers(1, 9),
)
def test_a_locator_comes_back(source: str, part: tuple[int, int] | None, channel: int | None):
    if parse_locator(source) != Locator(source):
        return  # the source itself ends in a fragment
    where = Locator(source, channel=channel)
    if part:
        start = part[0] / 1000
        where = Locator(source, start, (part[0] + part[1]) / 1000, channel)
    assert parse_locator(str(where)) == where


def test_a_part_of_a_channel(call: Path) -> None:
    whole, rate = soundfile.read(call, dtype="float32")
    x, read_rate = read_audio(f"{call}#t=1.5,2.25&channel=2")
    assert read_rate == rate
    np.testing.assert_array_equal(x, whole[12000:18000, 1])
    header = read_header(f"{call}#t=1.5,2.25&channel=2")
    assert (header.frames, header.channels) == (6000, 1)


def test_an_end_a_little_behind_the_recordings_is_its_end(call: Path) -> None:
    assert len(read_audio(f"{call}#t=3,4.3&channel=1")[0]) == RATE
    with pytest.raises(AudioError, match=r"part 3 to 4.6 s lies outside .* 4.00 s"):
        read_audio(f"{call}#t=3,4.6&channel=1")


def test_a_command_is_run_as_kaldi_does(call: Path) -> None:
    np.testing.assert_array_equal(
        read_audio(f"cat {call} |#t=1,2&channel=1")[0], read_audio(f"{call}#t=1,2&channel=1")[0]
    )
    with pytest.raises(AudioError, match="utterance 'u1'.*status 3"):
        read_audio("exit 3 |", utt="u1")


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("", "has 2 channels; accepted is 1: pick one"),
        ("#channel=3", "channel 3 is asked for; the recording has 2"),
        ("#channel=0", "first channel is 1"),
        ("#t=2,1", "ends at 1 s, not behind its start 2 s"),
    ],
)
def test_what_cannot_be_meant(call: Path, fragment: str, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        read_audio(f"{call}{fragment}")
