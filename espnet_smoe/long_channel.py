"""One channel of a long recording as it is read: resampled, cut at pauses, its bandwidth known.

What is held are the last minutes, whatever the recording's length. Shapes: N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from espnet_smoe.bandwidth import BandwidthEstimate
from espnet_smoe.bandwidth_stream import BandwidthStream, Decided
from espnet_smoe.pauses import PauseCutter
from espnet_smoe.speech_frames import RATE, SpeechFrames

QUIET_SECONDS = 0.1  # over which the level is taken where there is no pause


class Resampler:
    """`espnet_smoe.audio.resample` on a stream, to the same bits."""

    def __init__(self, rate: int, target: int) -> None:
        self._stream = (
            None
            if rate == target
            else soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
        )

    def push(self, x: np.ndarray, last: bool = False) -> np.ndarray:
        """Take samples (N,); returns those that come out by now, float32 (N,)."""
        if self._stream is None:
            return x
        return np.asarray(self._stream.resample_chunk(x, last=last))


@dataclass(frozen=True)
class Cut:
    """A piece of the channel: times in seconds, samples float32 (N,), its stretch's bandwidth."""

    start: float
    end: float
    x: np.ndarray
    bandwidth: BandwidthEstimate


class LongChannel:
    """Takes a channel block by block and gives its pieces."""

    def __init__(self, rate: int, fs: int, max_seconds: float, pause: float) -> None:
        self.rate, self.fs = rate, fs
        self._limit = int(max_seconds * fs)
        self._to_fs = Resampler(rate, fs)
        self._to_vad = None if fs == RATE else Resampler(rate, RATE)
        self._frames = SpeechFrames()
        self._bandwidth = BandwidthStream(rate)
        self._cutter = PauseCutter(max_seconds, self._quietest, pause)
        self._x = np.zeros(0, np.float32)  # at fs
        self._first = 0  # number of its first sample
        self._count = 0  # samples read, at the original rate
        self._estimate: BandwidthEstimate | None = None

    @property
    def bound(self) -> float:
        """No piece still to come starts earlier; seconds."""
        return self._cutter.bound

    def push(self, x: np.ndarray) -> list[Cut]:
        """Take samples (N,) at the original rate; returns the pieces that are decided by now."""
        self._count += len(x)
        self._hear(x, last=False)
        return list(self._cuts(self._bandwidth.push(x), last=False))

    def finish(self) -> list[Cut]:
        """The remaining pieces."""
        self._hear(np.zeros(0, np.float32), last=True)
        self._cutter.push(self._frames.finish())
        return list(self._cuts(self._bandwidth.finish(), last=True))

    def _hear(self, x: np.ndarray, last: bool) -> None:
        heard = self._to_fs.push(x, last)
        self._cutter.push(
            self._frames.push(heard if self._to_vad is None else self._to_vad.push(x, last))
        )
        done = max(0, min(int(self.bound * self.fs) - self._first, len(self._x)))
        self._x = np.concatenate([self._x[done:], heard])
        self._first += done

    def _cuts(self, decided: list[Decided], last: bool) -> Iterator[Cut]:
        for part in decided:
            if part.changed:
                yield from self._up_to(self._cutter.snap(part.start), border=True)
            self._estimate = part.estimate
            yield from self._up_to(min(part.end, self._cutter.heard), border=False)
        if last:
            yield from self._up_to(self._count / self.rate, border=True)

    def _up_to(self, known: float, border: bool) -> Iterator[Cut]:
        for start, end in self._cutter.spans(known, border):
            first = round(start * self.fs) - self._first
            count = min(round(end * self.fs) - self._first - first, self._limit)
            x = self._x[first : first + count].copy()
            assert self._estimate is not None
            yield Cut(start, end, x, self._estimate)

    def _quietest(self, low: float, high: float) -> float:
        """The middle of the quietest `QUIET_SECONDS` between two times, in seconds."""
        size = round(QUIET_SECONDS * self.fs)
        first = round(low * self.fs) - self._first
        x = self._x[first : round(high * self.fs) - self._first].astype(np.float64)
        total = np.cumsum(np.pad(np.square(x), (1, 0)))
        power = total[size:] - total[:-size]
        place = int(power.argmin()) if len(power) else 0
        return min((self._first + first + place + size / 2) / self.fs, high)
