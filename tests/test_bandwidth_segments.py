"""bandwidth_segments.py: a change of line inside a recording is found and placed."""

from __future__ import annotations

import numpy as np
import pytest
from test_bandwidth import RATE, narrow, sixteen_bit, speech

from espnet_smoe.bandwidth import BandwidthError, measure
from espnet_smoe.bandwidth_segments import measure_segments


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ["nb wb", "wb nb"])
def test_a_change_of_line_is_found_within_a_second(seed: int, order: str) -> None:
    wide, phone = speech(seed, 20), narrow(speech(seed + 50, 20))
    x = sixteen_bit(np.concatenate([phone, wide] if order == "nb wb" else [wide, phone]))
    segments = measure_segments(x, RATE)
    assert [s.estimate.label for s in segments] == order.split()
    assert segments[0].end == segments[1].start == pytest.approx(20, abs=1)
    assert (segments[0].start, segments[-1].end) == (0, 40)


def test_two_changes_are_found() -> None:
    parts = [speech(1, 12), narrow(speech(2, 12)), speech(3, 12)]
    segments = measure_segments(sixteen_bit(np.concatenate(parts)), RATE)
    assert [s.estimate.label for s in segments] == ["wb", "nb", "wb"]
    assert [s.end for s in segments] == pytest.approx([12, 24, 36], abs=1)


@pytest.mark.parametrize("make", [lambda x: x, narrow])
def test_a_uniform_recording_is_one_segment(make) -> None:  # type: ignore[no-untyped-def]
    x = sixteen_bit(make(speech(4, 30)))
    (segment,) = measure_segments(x, RATE)
    assert (segment.start, segment.end) == (0, len(x) / RATE)
    assert segment.estimate == measure(x, RATE)


def test_pauses_and_stretches_without_a_fricative_do_not_split() -> None:
    x = speech(5, 12)
    nasal = speech(6, 1.5, hiss_db=-80)
    pause = np.zeros(3 * RATE, np.float32)
    assert len(measure_segments(np.concatenate([x, nasal, x, pause, x]), RATE)) == 1


def test_the_leading_silence_counts_in_the_times() -> None:
    lead = np.zeros(5 * RATE, np.float32)
    x = np.concatenate([lead, narrow(speech(7, 15)), speech(8, 15)])
    segments = measure_segments(sixteen_bit(x), RATE)
    assert [s.end for s in segments] == pytest.approx([20, 35], abs=1)


@pytest.mark.parametrize(
    ("x", "rate"), [(np.zeros(0), RATE), (np.zeros(RATE), RATE), (speech(9), 8000)]
)
def test_what_holds_no_change_is_one_segment(x: np.ndarray, rate: int) -> None:
    (segment,) = measure_segments(x, rate)
    assert segment.end == len(x) / rate
    assert segment.estimate == measure(x, rate)


def test_impossible_audio_is_an_error() -> None:
    with pytest.raises(BandwidthError, match="sample 0 is NaN"):
        measure_segments(np.array([np.nan]), RATE)
