"""Where the bandwidth changes inside a recording: a call passed on to another line.

Windows of a few seconds are judged as whole recordings are. The sequence of narrowband and
wideband that explains them best, at a price per change, gives the changes to within a window;
how often the upper band is loud on either side, and the noise in pauses, give each its place.

Shapes: T frames, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from espnet_smoe.bandwidth import LEAST_RATE, BandwidthEstimate, analyse, judge, log_odds
from espnet_smoe.bandwidth_features import FIRST_WIDE, Spectrogram, features

WINDOW_SECONDS = 3.0  # long enough for a fricative or two
STEP_SECONDS = 0.5
SHORTEST_SECONDS = 2.0  # of a segment
CHANGE_PRICE = 12.0  # log-odds that a change must win back, summed over windows
LOUD_SHARE = 90  # percentile of a side's upper band that stands for its loud frames
PAUSE_SHARE = 30  # percentile of the frames' power up to which a frame counts as a pause
PAUSE_SPREAD_DB = 5.0  # of a noise's level from frame to frame
PAUSE_FLOOR_DB = -110.0  # full scale 0; lower is digital silence
WINDOW_SAY = 3.0  # log-odds a window can contribute: windows overlap and err together


@dataclass(frozen=True)
class BandwidthSegment:
    """A stretch of one bandwidth.

    Attributes:
        start: Seconds from the recording's start.
        end: Seconds from the recording's start.
        estimate: What its spectrum says.
    """

    start: float
    end: float
    estimate: BandwidthEstimate


def _windows(s: Spectrogram) -> tuple[np.ndarray, np.ndarray]:
    """First frames (W,) and bounded log-odds of wideband (W,) of the windows."""
    per_second = s.rate / s.hop
    size, step = round(WINDOW_SECONDS * per_second), round(STEP_SECONDS * per_second)
    starts = np.arange(0, max(1, len(s.power_T) - size + 1), step)
    odds = np.zeros(len(starts))
    for i, start in enumerate(starts):
        found = features(s, int(start), int(start) + size)
        if found.n_active:
            odds[i] = log_odds(found)
    return starts, odds.clip(-WINDOW_SAY, WINDOW_SAY)


def _changes(odds_W: np.ndarray) -> list[tuple[int, bool]]:
    """Windows at which the likeliest sequence of two states changes its state (Viterbi).

    Returns:
        The first window of each new state, and whether that is wideband.
    """
    score = np.zeros(2)  # narrowband, wideband
    came_from = np.zeros((len(odds_W), 2), dtype=int)
    for i, odds in enumerate(odds_W):
        moved = score[::-1] - CHANGE_PRICE
        came_from[i] = np.where(moved > score, (1, 0), (0, 1))
        score = np.maximum(score, moved) + np.array([-odds, odds]) / 2
    state = int(score.argmax())
    changes = []
    for i in range(len(odds_W) - 1, 0, -1):
        before = int(came_from[i, state])
        if before != state:
            changes.append((i, state == 1))
        state = before
    return changes[::-1]


def _place(s: Spectrogram, low: int, high: int, to_wide: bool) -> int:
    """The frame between `low` and `high` at which the bandwidth changes.

    Frames whose upper band is louder than narrowband's gets are rare on the one side and common
    on the other; how rare and how common is read off the outer thirds. In a pause, the noise of
    each line says whose it is.
    """
    level_TK, power_T = s.level_TK[low:high].clip(min=PAUSE_FLOOR_DB), s.power_T[low:high]
    upper_T = level_TK[:, FIRST_WIDE:].mean(axis=1)
    third = max(1, len(power_T) // 3)
    narrow, wide = slice(0, third), slice(len(power_T) - third, None)
    if not to_wide:
        narrow, wide = wide, narrow
    threshold = np.mean([np.percentile(upper_T[side], LOUD_SHARE) for side in (narrow, wide)])
    rare = float(np.clip((upper_T[narrow] > threshold).mean(), 0.01, 0.98))
    common = float(np.clip((upper_T[wide] > threshold).mean(), rare + 0.01, 0.99))
    loud, soft = np.log(common / rare), np.log((1 - common) / (1 - rare))
    odds_T = np.asarray(np.where(upper_T > threshold, loud, soft))
    pause_T = power_T <= np.percentile(power_T, PAUSE_SHARE)
    if pause_T[narrow].any() and pause_T[wide].any():
        noise = [np.median(level_TK[side][pause_T[side]], axis=0) for side in (narrow, wide)]
        distance_TK = (level_TK - noise[0]) ** 2 - (level_TK - noise[1]) ** 2
        pause_odds_T = (distance_TK / (2 * PAUSE_SPREAD_DB**2)).clip(-1, 1).mean(axis=1)
        odds_T[pause_T] = pause_odds_T[pause_T]
    before_T = np.cumsum(odds_T)[:-1] * (-1 if to_wide else 1)
    return low + 1 + int(before_T.argmax())


def measure_segments(x: np.ndarray, rate: int) -> list[BandwidthSegment]:
    """Split a recording where its bandwidth changes, and measure the parts.

    Args:
        x: Samples (N,), as for `espnet_smoe.bandwidth.measure`.
        rate: Their sampling rate in Hz.

    Returns:
        The segments in order, without gaps, from 0 to the recording's end; one when nothing
        changes. Neighbours differ in their likelier bandwidth, and both decide.

    Raises:
        BandwidthError: As `espnet_smoe.bandwidth.measure`.
    """
    s = analyse(x, rate)
    seconds = len(x) / rate
    whole = [BandwidthSegment(0.0, seconds, judge(features(s), rate))]
    if rate < LEAST_RATE or len(s.power_T) == 0:
        return whole
    per_second = s.rate / s.hop
    size = round(WINDOW_SECONDS * per_second)
    starts, odds_W = _windows(s)
    cuts = [0, len(s.power_T)]
    for i, to_wide in _changes(odds_W):
        # The state changes where most of a window lies beyond the change.
        middle = int(starts[i]) + size // 2
        low, high = max(cuts[-2], middle - size), min(len(s.power_T), middle + size)
        cuts.insert(-1, _place(s, low, high, to_wide))
    least = round(SHORTEST_SECONDS * per_second)
    while len(cuts) > 2:
        estimates = [judge(features(s, a, b), rate) for a, b in zip(cuts, cuts[1:], strict=False)]
        bad = [
            i
            for i in range(1, len(cuts) - 1)
            if estimates[i - 1].likelier == estimates[i].likelier
            or estimates[i - 1].reason != ""
            or estimates[i].reason != ""
            or min(cuts[i] - cuts[i - 1], cuts[i + 1] - cuts[i]) < least
        ]
        if not bad:
            break
        del cuts[bad[0]]
    if len(cuts) == 2:
        return whole
    times = [(s.offset + cut * s.hop) / rate for cut in cuts]
    times[0], times[-1] = 0.0, seconds
    return [
        BandwidthSegment(start, end, estimate)
        for start, end, estimate in zip(times, times[1:], estimates, strict=False)
    ]
