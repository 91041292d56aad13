"""pauses.py, speech_frames.py: spans fit, lose no speech, and end at pauses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import silero_vad
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe import speech_frames
from espnet_smoe.pauses import LEAST_SPEECH, LONG_PAUSE, PauseCutter, Span
from espnet_smoe.speech_frames import FRAME, FRAME_SECONDS, SpeechFrames

LONGEST = 10.0


def cut(
    speech_T: np.ndarray,
    step: int = 10**9,
    quietest: float | None = None,
    pause: float = LONG_PAUSE,
) -> list[Span]:
    """All spans of some frames that come in blocks; the end is a border."""
    cutter = PauseCutter(LONGEST, lambda low, high: quietest or (low + high) / 2, pause)
    found = []
    for start in range(0, len(speech_T), step):
        cutter.push(speech_T[start : start + step])
        for span in cutter.spans(cutter.heard, border=False):
            found.append(span)
        assert all(begin < cutter.bound for begin, _ in found)
    return found + list(cutter.spans(len(speech_T) * FRAME_SECONDS, border=True))


def frames(*runs: tuple[float, bool]) -> np.ndarray:
    """Frames of (seconds, speech) after each other."""
    return np.concatenate([np.full(round(t / FRAME_SECONDS), speech) for t, speech in runs])


def runs_of(speech_T: np.ndarray) -> list[Span]:
    edges = np.flatnonzero(np.diff(speech_T, prepend=False, append=False)) * FRAME_SECONDS
    return [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= LEAST_SPEECH]


RUNS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 150)), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(RUNS, st.integers(1, 400), st.sampled_from([0.3, 0.5, LONG_PAUSE]))
def test_spans_fit_in_order_and_lose_no_speech(
    lengths: list[tuple[int, int]], step: int, pause: float
) -> None:
    speech_T = np.concatenate([np.repeat([True, False], pair) for pair in lengths])
    spans = cut(speech_T, pause=pause)
    assert all(0 < end - start <= LONGEST + 1e-9 for start, end in spans)
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(spans))
    for start, end in runs_of(speech_T):
        covered = sum(max(0.0, min(end, b) - max(start, a)) for a, b in spans)
        assert covered == pytest.approx(end - start, abs=LEAST_SPEECH)
    assert cut(speech_T, step, pause=pause) == spans


def test_a_group_that_fits_is_one_span_and_long_pauses_are_left_out() -> None:
    speech_T = frames((5, False), (2, True), (1, False), (2, True), (4, False), (1, True))
    np.testing.assert_allclose(cut(speech_T), [(4.8, 10.2), (13.8, 15)], atol=0.07)


def test_shorter_pauses_part_spans_where_asked() -> None:
    speech_T = frames((2, True), (0.8, False), (2, True), (0.3, False), (1, True))
    np.testing.assert_allclose(cut(speech_T, pause=0.5), [(0, 2.2), (2.6, 6.1)], atol=0.07)


def test_the_longest_pause_in_the_second_half_is_taken() -> None:
    speech_T = frames(
        (3, True), (1.5, False), (2, True), (0.3, False), (1, True), (0.6, False), (6, True)
    )
    assert cut(speech_T)[0] == pytest.approx((0, 8.1), abs=0.07)


def test_without_one_there_a_pause_before_it_is_taken() -> None:
    assert cut(frames((3, True), (0.5, False), (12, True)))[0][1] == pytest.approx(3.25, abs=0.07)


def test_without_any_pause_the_quietest_place_is_taken() -> None:
    spans = cut(frames((12, True)), quietest=7.0)
    np.testing.assert_allclose(spans, [(0, 7), (7, 12)], atol=0.04)


def test_what_is_left_of_a_group_is_not_needlessly_short() -> None:
    pauses = frames((5.5, True), (0.2, False), (3.9, True), (0.3, False), (0.5, True))
    assert [round(end - start, 1) for start, end in cut(pauses)] == [5.6, 4.8]


def test_nobody_speaks() -> None:
    assert cut(frames((100, False))) == []
    assert cut(frames((50, False), (0.064, True), (50, False))) == []


def test_a_border_ends_a_span_and_the_next_begins_there() -> None:
    cutter = PauseCutter(LONGEST, lambda low, high: high)
    cutter.push(frames((8, True)))
    assert list(cutter.spans(4.0, border=True)) == [(0.0, 4.0)]
    assert list(cutter.spans(cutter.heard, border=True)) == [(4.0, pytest.approx(8))]


def test_a_border_in_a_word_moves_to_the_pause_beside_it() -> None:
    cutter = PauseCutter(LONGEST, lambda low, high: high)
    cutter.push(frames((4, True), (0.5, False), (4, True)))
    assert cutter.snap(3.8) == pytest.approx(4, abs=0.05)
    assert cutter.snap(4.8) == pytest.approx(4.5, abs=0.05)
    assert (cutter.snap(2.0), cutter.snap(4.2)) == (2.0, 4.2)


def test_a_stream_that_is_silent_for_long_is_not_kept() -> None:
    cutter = PauseCutter(LONGEST, lambda low, high: high)
    for _ in range(100):
        cutter.push(frames((60, False)))
        assert list(cutter.spans(cutter.heard, border=False)) == []
        assert len(cutter._speech_T) * FRAME_SECONDS < LONG_PAUSE


@pytest.fixture(scope="module")
def talk(spoken: list[np.ndarray]) -> np.ndarray:
    """Ten sentences with pauses of a second."""
    return np.concatenate([np.pad(x, (0, 16000)) for x in spoken])


def test_the_network_is_what_silero_runs(talk: np.ndarray) -> None:
    x = talk[: 300 * FRAME]
    expected = silero_vad.load_silero_vad().audio_forward(torch.from_numpy(x)[None], 16000)
    frames_TN = x.reshape(-1, FRAME)
    before = np.pad(frames_TN[:-1, -speech_frames.CONTEXT :], ((1, 0), (0, 0)))
    state = (np.zeros(speech_frames.STATE, np.float32),) * 2
    found, _ = speech_frames._run(np.concatenate([before, frames_TN], axis=1), state)
    np.testing.assert_allclose(found, expected[0], atol=1e-4)


@pytest.mark.parametrize("step", [100, 4096, 16000 * 7])
def test_blocks_give_what_the_whole_gives(talk: np.ndarray, step: int) -> None:
    whole, parts = SpeechFrames(), SpeechFrames()
    expected = np.concatenate([whole.push(talk), whole.finish()])
    found = [parts.push(talk[i : i + step]) for i in range(0, len(talk), step)]
    np.testing.assert_array_equal(np.concatenate([*found, parts.finish()]), expected)
    assert len(expected) == -(-len(talk) // FRAME)


@pytest.mark.parametrize("gain", [1.0, 0.01, 0.002])
def test_speech_is_told_from_pauses_at_any_level(spoken: list[np.ndarray], gain: float) -> None:
    x = np.concatenate([np.pad(x, (16000, 16000)) for x in spoken])
    truth = np.concatenate([np.pad(np.ones(len(x)), (16000, 16000)) for x in spoken])
    noise = 1e-5 * np.random.default_rng(0).standard_normal(len(x))
    stream = SpeechFrames()
    found = stream.push((gain * x + noise).astype(np.float32))
    truth_T = truth[: len(found) * FRAME].reshape(-1, FRAME).mean(axis=1)
    assert found[truth_T == 1].mean() > 0.8
    assert found[truth_T == 0].mean() < 0.2
