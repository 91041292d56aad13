"""A recording of any kind and length as the pieces that a model hears one at a time.

A recording that is short enough is one piece a channel, the whole of it; a longer one is read in
blocks and cut at pauses and where its bandwidth changes. Bandwidth is measured before resampling,
which moves the band's edge. Shapes: N samples, C channels, K channels kept.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_smoe.audio import resample
from espnet_smoe.audio_blocks import Audio, InputError, audio_blocks, checked_rate
from espnet_smoe.bandwidth import BandwidthEstimate, measure
from espnet_smoe.locator import parse_locator
from espnet_smoe.long_channel import Cut, LongChannel
from espnet_smoe.pauses import LEAST_PAUSE_LEFT_OUT, LONG_PAUSE

__all__ = ["Audio", "InputError", "Piece", "pieces"]

LEAST_SECONDS = 1.0  # of `max_seconds`


@dataclass(frozen=True)
class Piece:
    """What a model hears at once.

    Attributes:
        x: Samples at the model's rate, float32 (N,).
        start: Seconds from the recording's start (of the part that a ``#t=`` names).
        end: Seconds from there.
        channel: Counted from 1; None: the recording's only one, or a mix.
        bandwidth: Measured at the original rate: of the stretch of one bandwidth around it.
    """

    x: np.ndarray
    start: float
    end: float
    channel: int | None
    bandwidth: BandwidthEstimate


class ChannelPicker:
    """Takes the channels asked for out of each block of a recording."""

    def __init__(self, channels: None | str | int, own: int | None, named: str) -> None:
        """Check the choice.

        Args:
            channels: As for `pieces`.
            own: The channel that the recording's locator picks already, from 1.
            named: The recording, for errors.
        """
        number = 0
        if isinstance(channels, int | np.integer) and not isinstance(channels, bool):
            number = int(channels)
        if number < 1 and channels not in (None, "mix", "each"):
            raise InputError(
                f"{named}: channels={channels!r}; accepted are None, 'mix', 'each' and a number "
                "from 1"
            )
        if number and own not in (None, number):
            raise InputError(f"{named}: channels={channels}, but its locator picks {own}")
        self.channels = (number if own is None else None) if number else channels
        self.own, self.named = own, named
        self.seconds = 0.0

    def __call__(self, x_NC: np.ndarray, rate: int) -> list[np.ndarray]:
        """The channels kept, each float32 (N,).

        Raises:
            InputError: The channel does not exist, or none is chosen and they differ.
        """
        count = x_NC.shape[1]
        channels, start = self.channels, self.seconds
        self.seconds += len(x_NC) / rate
        if isinstance(channels, int):
            if channels > count:
                raise InputError(
                    f"{self.named}: channel {channels} is asked for; accepted is 1 to {count}"
                )
            return [np.ascontiguousarray(x_NC[:, channels - 1])]
        if channels == "each":
            return [np.ascontiguousarray(x_C) for x_C in x_NC.T]
        if channels == "mix":
            return [x_NC.mean(axis=1)]
        differ = np.flatnonzero((x_NC != x_NC[:, :1]).any(axis=1))
        if len(differ):
            raise InputError(
                f"{self.named} has {count} channels, which differ from "
                f"{start + differ[0] / rate:.2f} s on; accepted is one channel, or a choice: "
                "channels='mix', 'each' or a number from 1"
            )
        return [np.ascontiguousarray(x_NC[:, 0])]

    def number(self, kept: int, count: int) -> int | None:
        """`Piece.channel` of a channel kept (from 0) of a recording of so many channels."""
        if count == 1 or self.channels is None or self.channels == "mix":
            return self.own
        return kept + 1 if self.channels == "each" else int(self.channels)


def _whole(parts: list[np.ndarray], rate: int, fs: int, named: str) -> Cut:
    """A channel that is one piece."""
    x = np.concatenate(parts)
    heard = resample(x, rate, fs)
    if len(heard) == 0:
        raise InputError(
            f"{named} is too short: {len(x)} samples at {rate} Hz leave none at {fs} Hz"
        )
    return Cut(0.0, len(x) / rate, heard, measure(x, rate))


def _ordered(
    blocks: Iterable[list[np.ndarray]], rate: int, fs: int, max_seconds: float, pause: float
) -> Iterator[tuple[Cut, int]]:
    """The pieces of all channels by start, each with its channel's position."""
    channels: list[LongChannel] = []
    waiting: list[tuple[float, int, int, Cut]] = []
    count = itertools.count()

    def take(kept: int, cuts: list[Cut]) -> None:
        for cut in cuts:
            heapq.heappush(waiting, (cut.start, kept, next(count), cut))

    for block in blocks:
        channels = channels or [LongChannel(rate, fs, max_seconds, pause) for _ in block]
        for kept, x in enumerate(block):
            take(kept, channels[kept].push(x))
        bound = min(channel.bound for channel in channels)
        while waiting and waiting[0][0] < bound:
            _, kept, _, cut = heapq.heappop(waiting)
            yield cut, kept
    for kept, channel in enumerate(channels):
        take(kept, channel.finish())
    while waiting:
        _, kept, _, cut = heapq.heappop(waiting)
        yield cut, kept


def _pieces(
    blocks: Iterator[tuple[np.ndarray, int]],
    pick: ChannelPicker,
    fs: int,
    max_seconds: float,
    pause: float,
) -> Iterator[Piece]:
    head: list[list[np.ndarray]] = []
    count = rate = samples = 0
    for x_NC, rate in blocks:
        count = x_NC.shape[1]
        samples += len(x_NC)
        head.append(pick(x_NC, rate))
        if samples > max_seconds * rate:
            break
    found: Iterable[tuple[Cut, int]]
    if samples <= max_seconds * rate:
        channels = enumerate(zip(*head, strict=True))
        found = ((_whole(list(parts), rate, fs, pick.named), kept) for kept, parts in channels)
    else:
        rest = (pick(x_NC, rate) for x_NC, _ in blocks)
        first = (head.pop(0) for _ in range(len(head)))  # each is free once it is heard
        found = _ordered(itertools.chain(first, rest), rate, fs, max_seconds, pause)
    for cut, kept in found:
        yield Piece(cut.x, cut.start, cut.end, pick.number(kept, count), cut.bandwidth)


def pieces(
    audio: Audio,
    *,
    fs: int,
    max_seconds: float,
    pause: float = LONG_PAUSE,
    channels: None | str | int = None,
    name: str | None = None,
) -> Iterator[Piece]:
    """Cut a recording into what a model hears at once.

    Args:
        audio: A locator (a path, an entry of an archive, a command, a part of one); an array or
            tensor (N,) or (N, C), C at most 64; or the pair of one and its rate in Hz.
            Integers are scaled to [-1, 1), floats stay as they are.
        fs: The model's rate in Hz; an array without a rate has this one.
        max_seconds: The longest piece. A recording up to this length is one piece a channel.
        pause: Seconds without speech that part the pieces of a longer one, and are left out.
        channels: None: the recording has one channel, or several that are identical; ``"each"``:
            all of them, apart; ``"mix"``: their mean; a number from 1: that one.
        name: The recording's name in errors; default: the path, or ``"array"``.

    Returns:
        The pieces ordered by start, then channel. Reading begins with the first.

    Raises:
        InputError: `channels`, `fs` or `max_seconds` cannot be meant; while iterating, the
            recording cannot be used. Names the recording, the value and what is accepted.
    """
    named = f"audio {name or (str(audio) if isinstance(audio, str | Path) else 'array')!r}"
    fs = checked_rate(fs, "the model")
    fits: Any = isinstance(max_seconds, int | float) and not isinstance(max_seconds, bool)
    if not fits or math.isnan(max_seconds) or max_seconds < LEAST_SECONDS:
        raise InputError(
            f"{named}: max_seconds={max_seconds!r}; accepted is {LEAST_SECONDS} or more"
        )
    if not pause >= LEAST_PAUSE_LEFT_OUT:
        raise InputError(
            f"{named}: pause={pause!r}; accepted is {LEAST_PAUSE_LEFT_OUT} seconds or more"
        )
    own = None
    if isinstance(audio, str | Path):
        try:
            own = parse_locator(audio).channel
        except ValueError as error:
            raise InputError(str(error)) from error
    pick = ChannelPicker(channels, own, named)
    return _pieces(audio_blocks(audio, fs=fs, name=name), pick, fs, max_seconds, pause)
