"""The stretches of one bandwidth in a recording of any length, in bounded memory.

`measure_segments` looks at some minutes at a time. The last seconds stay undecided until more is
heard, and the next look begins with what came before, so that a change near its edges is seen
from both sides. Shapes: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from espnet_smoe.bandwidth import BandwidthEstimate, analyse
from espnet_smoe.bandwidth_features import HOP_SECONDS, features
from espnet_smoe.bandwidth_segments import BandwidthSegment, measure_segments

LOOK_SECONDS = 180.0  # at once
TAIL_SECONDS = 20.0  # at the end of a look, undecided
LEAD_SECONDS = 40.0  # at the beginning of a look, decided before
LEAST_SPEECH = 4.0  # seconds of it in a look that contradicts the one before it


@dataclass(frozen=True)
class Decided:
    """A part of the recording, behind the one decided before it.

    Attributes:
        start: Seconds from the recording's start.
        end: Seconds from there.
        estimate: Of the stretch of one bandwidth that it belongs to, as far as heard.
        changed: The bandwidth changes at its start.
    """

    start: float
    end: float
    estimate: BandwidthEstimate
    changed: bool


class BandwidthStream:
    """Measures one channel at its original rate."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._blocks: list[np.ndarray] = []
        self._base = 0  # sample at which the next look begins
        self._held = 0  # samples from there
        self._settled = 0.0  # seconds; decided so far
        self._estimate: BandwidthEstimate | None = None

    def push(self, x: np.ndarray) -> list[Decided]:
        """Take samples (N,); returns what is decided by now."""
        decided = []
        size = round(LOOK_SECONDS * self.rate)
        while len(x):
            part, x = x[: size - self._held], x[size - self._held :]
            self._blocks.append(part)
            self._held += len(part)
            if self._held == size:
                decided += self._look(last=False)
        return decided

    def finish(self) -> list[Decided]:
        """The rest, up to the recording's end."""
        return self._look(last=True) if self._held else []

    def _look(self, last: bool) -> list[Decided]:
        x, base = np.concatenate(self._blocks), self._base / self.rate
        end = (self._base + self._held) / self.rate
        until = end if last else end - TAIL_SECONDS
        decided, newest = [], self._base
        for segment in measure_segments(x, self.rate):
            start, stop = base + segment.start, min(base + segment.end, until)
            if stop <= self._settled:
                continue
            if start >= until:
                break
            changed = self._judge(segment, start, x[: round(segment.end * self.rate)])
            start = max(start, self._settled)
            if changed:
                newest = round(start * self.rate)
            assert self._estimate is not None
            decided.append(Decided(start, stop, self._estimate, changed))
        self._settled = until
        keep = max(newest, self._base, round((until - LEAD_SECONDS) * self.rate))
        self._blocks = [x[keep - self._base :].copy()]
        self._base, self._held = keep, len(self._blocks[0])
        return decided

    def _judge(self, segment: BandwidthSegment, start: float, x: np.ndarray) -> bool:
        """Take a segment's estimate into that of the stretch; True: another stretch begins.

        Where a look begins, the estimates of both looks have to decide, and differently, and the
        new one by more than a few words. Else the more confident of two that agree, or the
        one that decides, stands for the stretch.

        Args:
            segment: A segment of the look.
            start: Where it begins in the recording, seconds.
            x: The look up to the segment's end (N,).
        """
        old, new = self._estimate, segment.estimate
        if old is None:
            self._estimate = new
            return False
        differ = old.likelier != new.likelier
        if differ and start > self._settled:
            self._estimate = new
            return True
        if differ and not (old.reason or new.reason):
            found = features(analyse(x[round(segment.start * self.rate) :], self.rate))
            if found.n_active * HOP_SECONDS < LEAST_SPEECH:
                return False
            self._estimate = new
            return True
        self._estimate = max(old, new, key=lambda estimate: estimate.confidence)
        return False
