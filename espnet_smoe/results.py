"""What `Speech2Text` gives for a recording and a task: text, scores, route, bandwidth, times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from espnet_smoe.bandwidth import BandwidthEstimate

TIME = re.compile(r"<(\d+\.\d+)>")


class Entry(NamedTuple):
    """One of the n best hypotheses, in the form of ESPnet's ``Speech2Text``.

    Attributes:
        text: With the special tokens; None without a tokenizer.
        token: Behind ``<sos>``, as strings.
        token_int: Their ids.
        text_nospecial: Without the special tokens; None without a tokenizer.
        hyp: ESPnet's ``Hypothesis``, with ``yseq``, ``score`` and ``scores``.
    """

    text: str | None
    token: list[str]
    token_int: list[int]
    text_nospecial: str | None
    hyp: Any


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said in it.

    Attributes:
        start: Seconds from the recording's start.
        end: Likewise.
        text: Without special tokens.
        score: Of the hypothesis that it comes from.
        channel: Counted from 1; None: the only one, or all mixed.
        route: The experts that heard and wrote it, such as ``nb/asr``; without the dense sides.
        bandwidth: What its spectrum says.
    """

    start: float
    end: float
    text: str
    score: float
    channel: int | None
    route: str
    bandwidth: BandwidthEstimate


@dataclass(frozen=True, eq=False)
class Result(Sequence[Entry]):
    """The n best hypotheses for a recording and a task; as a sequence, ESPnet's list of them.

    Attributes:
        name: The recording's.
        task: Such as ``asr``.
        language: The language spoken, such as ``spa``.
        text: The best hypothesis without special tokens; of several stretches, with spaces
            between.
        score: The best hypothesis's, summed over the stretches; NaN if none was found.
        nbest: The hypotheses, best first. Of several stretches there is one, their best joined.
        duration: Seconds of audio heard (per channel, where channels are decoded apart: of all).
        segments: One per stretch decoded, or per pair of timestamps.
    """

    name: str
    task: str
    language: str
    text: str
    score: float
    nbest: tuple[Entry, ...] = field(repr=False)
    duration: float
    segments: tuple[Segment, ...] = field(repr=False)

    @property
    def tokens(self) -> list[str]:
        """The best hypothesis's tokens behind ``<sos>``."""
        return list(self.nbest[0].token) if self.nbest else []

    @property
    def bandwidth(self) -> BandwidthEstimate | None:
        """The measured bandwidth, of the longest stretch; None if there is none."""
        longest = max(self.segments, key=lambda s: s.end - s.start, default=None)
        return longest.bandwidth if longest is not None else None

    @property
    def route(self) -> str:
        """The route, of the longest stretch; empty if there is none."""
        longest = max(self.segments, key=lambda s: s.end - s.start, default=None)
        return longest.route if longest is not None else ""

    @property
    def route_changes(self) -> list[tuple[float, int | None, str]]:
        """Where the route changes within a channel: seconds, channel, the new route."""
        changes, last = [], {}  # type: ignore[var-annotated]
        for segment in self.segments:
            if last.get(segment.channel, segment.route) != segment.route:
                changes.append((segment.start, segment.channel, segment.route))
            last[segment.channel] = segment.route
        return changes

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        return self.nbest[index]

    def __len__(self) -> int:
        return len(self.nbest)


@dataclass(frozen=True)
class Failure:
    """A recording that could not be decoded.

    Attributes:
        name: The recording's.
        error: Why; its message names the recording.
    """

    name: str
    error: Exception


def timed_texts(
    tokens: Sequence[str], start: float, end: float
) -> list[tuple[float, float, list[str]]]:
    """Split a hypothesis at its timestamps.

    Args:
        tokens: Behind the prompt.
        start: Seconds at which the stretch starts, to which the timestamps are relative.
        end: Where it ends; a timestamp beyond counts as it, a lacking one too.

    Returns:
        ``(start, end, tokens)`` per pair of timestamps; one for the whole without timestamps.
    """
    times = [(i, float(found[1])) for i, t in enumerate(tokens) if (found := TIME.fullmatch(t))]
    if not times:
        return [(start, end, list(tokens))]
    spans = []
    ends = [*times[1::2], (len(tokens), end - start)]
    for (i, first), (j, last) in zip(times[::2], ends, strict=False):
        spans.append((min(start + first, end), min(start + last, end), list(tokens[i + 1 : j])))
    return spans
