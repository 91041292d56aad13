"""bandwidth_stream.py: minutes at a time give what the whole recording gives."""

from __future__ import annotations

import numpy as np
import pytest
from test_bandwidth import RATE, narrow, sixteen_bit, speech

from espnet_smoe import bandwidth_stream
from espnet_smoe.bandwidth import BandwidthEstimate
from espnet_smoe.bandwidth_segments import BandwidthSegment, measure_segments
from espnet_smoe.bandwidth_stream import BandwidthStream, Decided


def decide(x: np.ndarray, block: int = 30 * RATE) -> list[Decided]:
    stream = BandwidthStream(RATE)
    decided = [part for i in range(0, len(x), block) for part in stream.push(x[i : i + block])]
    return decided + stream.finish()


def stretches(decided: list[Decided]) -> list[tuple[float, str]]:
    """Start and label of every stretch."""
    assert all(a.end == b.start for a, b in zip(decided, decided[1:], strict=False))
    starts = [part for i, part in enumerate(decided) if i == 0 or part.changed]
    return [(part.start, part.estimate.label) for part in starts]


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks of 40 s, so that a test crosses several borders."""
    monkeypatch.setattr(bandwidth_stream, "LOOK_SECONDS", 40.0)
    monkeypatch.setattr(bandwidth_stream, "TAIL_SECONDS", 10.0)
    monkeypatch.setattr(bandwidth_stream, "LEAD_SECONDS", 15.0)


@pytest.mark.parametrize("place", [26, 30, 31, 35, 40])
@pytest.mark.parametrize("order", ["wb nb", "nb wb"])
def test_a_change_near_a_border_is_found(short_looks: None, place: int, order: str) -> None:
    rest = 70 - place
    wide_first = order == "wb nb"
    before, after = speech(1, place)[: place * RATE], speech(2, rest)[: rest * RATE]
    x = np.concatenate([before, narrow(after)] if wide_first else [narrow(before), after])
    decided = decide(sixteen_bit(x))
    (_, first), (start, second) = stretches(decided)
    assert (decided[0].start, decided[-1].end) == (0, len(x) / RATE)
    assert [first, second] == order.split()
    assert start == pytest.approx(place, abs=1)


@pytest.mark.parametrize("make", [lambda x: x, narrow])
def test_a_uniform_recording_is_one_stretch(short_looks: None, make) -> None:  # type: ignore[no-untyped-def]
    x = sixteen_bit(make(speech(4, 100)))
    decided = decide(x)
    assert stretches(decided) == [(0.0, measure_segments(x, RATE)[0].estimate.label)]
    assert len(decided) > 3
    assert decided == decide(x, 12345)


def test_a_minute_of_silence_keeps_the_label(short_looks: None) -> None:
    nasal, silence = speech(6, 1, hiss_db=-80), np.zeros(45 * RATE, np.float32)
    x = np.concatenate([speech(5, 30), nasal, silence, speech(7, 10)])
    assert {part.estimate.label for part in decide(sixteen_bit(x))} == {"wb"}


def estimate(label: str, wide: float) -> BandwidthEstimate:
    reason = "noise" if label == "ambiguous" else ""
    return BandwidthEstimate(label, 4000.0, max(wide, 1 - wide), wide, reason)


@pytest.mark.parametrize(
    ("first", "second", "changed", "label"),
    [
        (("wb", 0.8), ("wb", 0.9), False, "wb"),
        (("wb", 0.9), ("ambiguous", 0.4), False, "wb"),
        (("ambiguous", 0.6), ("nb", 0.1), False, "nb"),
        (("wb", 0.9), ("nb", 0.2), True, "nb"),
    ],
)
def test_looks_that_disagree_change_the_label_if_both_decide(
    monkeypatch: pytest.MonkeyPatch, first: tuple, second: tuple, changed: bool, label: str
) -> None:
    answers = iter([estimate(*first), estimate(*second)])
    monkeypatch.setattr(
        bandwidth_stream,
        "measure_segments",
        lambda x, rate: [BandwidthSegment(0.0, len(x) / rate, next(answers))],
    )
    stream = BandwidthStream(RATE)
    x = np.resize(speech(1, 10), 200 * RATE)
    decided = stream.push(x) + stream.finish()
    assert [(part.start, part.end) for part in decided] == [(0, 160), (160, 200)]
    assert (decided[1].changed, decided[1].estimate.label) == (changed, label)


def test_a_few_words_do_not_change_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([estimate("wb", 0.9), estimate("nb", 0.1)])
    monkeypatch.setattr(
        bandwidth_stream,
        "measure_segments",
        lambda x, rate: [BandwidthSegment(0.0, len(x) / rate, next(answers))],
    )
    stream = BandwidthStream(RATE)
    x = np.zeros(250 * RATE, np.float32)
    x[: 60 * RATE], x[-3 * RATE :] = np.resize(speech(1, 10), 60 * RATE), speech(2, 3)[: 3 * RATE]
    assert {part.estimate.label for part in stream.push(x) + stream.finish()} == {"wb"}
