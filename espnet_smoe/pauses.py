"""Where a long recording is cut: at the longest pause within reach of the greatest length.

Speech that is parted by short pauses forms a group. A group that fits is one span; from a longer
one, spans of half to all of the greatest length are cut off at pauses. Spans touch, except where
nobody speaks for long. All times are seconds from the recording's start. T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from espnet_smoe.speech_frames import FRAME_SECONDS

LONG_PAUSE = 2.0  # seconds; parts groups, and is left out (default)
LEAST_PAUSE_LEFT_OUT = 0.3  # seconds; shorter ones are part of speaking
MARGIN = 0.2  # seconds kept on either side of speech next to what is left out
LEAST_SPEECH = 0.1  # seconds; less is a click
LEAST_PAUSE = 0.09  # seconds: three frames; a shorter one is no better than any quiet place
LEAST_SHARE = 0.25  # of the greatest length, left for what follows a cut
SNAP = 0.5  # seconds by which a border moves to reach a pause

Span = tuple[float, float]


def _longest(pauses: list[Span], low: float, high: float) -> float | None:
    """The middle of the longest pause between two times; of equals, the last."""
    best, cut = LEAST_PAUSE, None
    for start, end in pauses:
        start, end = max(start, low), min(end, high)
        if end - start >= best:
            best, cut = end - start, (start + end) / 2
    return cut


class PauseCutter:
    """Cuts spans off a stream of frames as soon as their ends are decided."""

    def __init__(
        self,
        max_seconds: float,
        quietest: Callable[[float, float], float],
        pause: float = LONG_PAUSE,
    ) -> None:
        """Start at 0.

        Args:
            max_seconds: The greatest length of a span.
            quietest: Gives the quietest time between two; asked where there is no pause.
            pause: Seconds without speech that part groups and are left out.
        """
        self.max_seconds, self.quietest, self.pause = max_seconds, quietest, pause
        self.bound = 0.0  # no span still to come starts earlier
        self._begin = 0.0  # what lies before is dealt with
        self._first = 0  # number of the first frame kept
        self._speech_T = np.zeros(0, bool)

    def push(self, speech_T: np.ndarray) -> None:
        """Take the next frames, bool (T,)."""
        self._speech_T = np.concatenate([self._speech_T, speech_T])

    @property
    def heard(self) -> float:
        """Up to where speech is known."""
        return (self._first + len(self._speech_T)) * FRAME_SECONDS

    def snap(self, border: float) -> float:
        """A border moved to the nearest pause, if there is one within `SNAP`."""
        times = (self._first + np.flatnonzero(~self._speech_T) + 0.5) * FRAME_SECONDS
        near = times[(np.abs(times - border) <= SNAP) & (times > self._begin)]
        inside = int(border / FRAME_SECONDS) - self._first
        if not len(near) or not self._speech_T[inside : inside + 1].any():
            return border
        return float(near[np.abs(near - border).argmin()])

    def spans(self, known: float, border: bool) -> Iterator[Span]:
        """The spans that are decided.

        Args:
            known: Up to where speech is known and no border lies.
            border: No span may cross `known`.
        """
        while (span := self._next(known, border)) is not None:
            yield span
        if border:
            self._begin = self.bound = known
        done = int(self.bound / FRAME_SECONDS) - 1 - self._first
        done = max(0, min(done, len(self._speech_T)))
        self._speech_T = self._speech_T[done:]
        self._first += done

    def _runs(self, known: float, border: bool) -> list[Span]:
        """Stretches of speech between what is dealt with and `known`."""
        edges = np.flatnonzero(np.diff(self._speech_T, prepend=False, append=False))
        times = ((edges + self._first) * FRAME_SECONDS).reshape(-1, 2)
        runs = []
        for start, end in times.tolist():
            start, end = max(start, self._begin), min(end, known)
            undecided = end == known and not border
            if start < end and (undecided or end - start >= LEAST_SPEECH):
                runs.append((start, end))
        return runs

    def _next(self, known: float, border: bool) -> Span | None:
        """The next span, and move on behind it; None: there is none, or it is not decided."""
        begin, longest = self._begin, self.max_seconds
        runs = self._runs(known, border)
        if not runs:
            self.bound = begin if known - begin < self.pause else known - MARGIN
            return None
        near = runs[0][0] - begin < self.pause
        start = begin if near else runs[0][0] - MARGIN
        self.bound = start
        group = 1
        while group < len(runs) and runs[group][0] - runs[group - 1][1] < self.pause:
            group += 1
        last = runs[group - 1][1]
        over = border or known - last >= self.pause or group < len(runs)
        stop = last + MARGIN
        if over:
            if border and group == len(runs) and known - last < self.pause:
                stop = known
            if stop - start > longest:  # perhaps it fits without the silence around it
                tight = max(start, runs[0][0] - MARGIN), min(stop, last + MARGIN)
                start, stop = tight if tight[1] - tight[0] <= longest else (start, stop)
            if stop - start <= longest:
                self._begin = self.bound = stop
                return start, stop
        elif known - start < (1 + LEAST_SHARE) * longest + self.pause:  # blocks decide nothing
            return None
        low, high = start + longest / 2, start + longest
        if over:
            high = min(high, stop - LEAST_SHARE * longest)
        pauses = [(a[1], b[0]) for a, b in pairwise(runs[:group])]
        cut = _longest(pauses, low, high)
        if cut is None:
            cut = _longest(pauses, start + LEAST_SHARE * longest, low)
        if cut is None:
            cut = self.quietest(low, high)
        self._begin = self.bound = cut
        return start, cut
