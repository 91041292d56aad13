"""What a search is told and what it finds: options, hypotheses, where each utterance stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real

# ESPnet's `end_detect`: stop when the best hypotheses of three lengths in a row are this much
# worse than the best of all.
END_LENGTHS = 3
END_MARGIN = -10.0
COUNTS = ("beam_size", "nbest")
NUMBERS = ("ctc_weight", "penalty", "maxlenratio", "minlenratio", "pre_beam_ratio")


def is_whole(value: object) -> bool:
    """A whole number of any type, but no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A real number of any type, but no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search, by the names and defaults of ESPnet's ``Speech2Text``.

    Attributes:
        beam_size: Hypotheses kept; 1 is greedy search.
        ctc_weight: Weight of the CTC scores on rows that transcribe, from 0 to below 1; the
            decoder has the rest. Rows that do not transcribe have 0.
        penalty: Added to the score per token.
        normalize_length: Sort the hypotheses by score per token.
        maxlenratio: Longest hypothesis, as a share of the encoder's frames; 0.0: as many as
            frames, stopping when longer ones get worse; -n: n tokens.
        minlenratio: Shortest hypothesis, likewise.
        nbest: How many hypotheses are given; 0: all that ended.
        pre_beam_ratio: CTC scores this times `beam_size` tokens per hypothesis, the decoder's best.
        notime_symbol: The token of prompts without timestamps.
        first_time_symbol: The first timestamp; None: the token list's first of their look.
        last_time_symbol: The last; None likewise.
    """

    beam_size: int = 5
    ctc_weight: float = 0.0
    penalty: float = 0.0
    normalize_length: bool = False
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    pre_beam_ratio: float = 1.5
    notime_symbol: str = "<notimestamps>"
    first_time_symbol: str | None = None
    last_time_symbol: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a value that is not accepted."""
        for name in COUNTS:
            if not is_whole(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: a whole number")
        for name in NUMBERS:
            if not is_number(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: a number")
        for name, accepted in {
            "beam_size": (self.beam_size >= 1, "1 or more"),
            "ctc_weight": (0.0 <= self.ctc_weight < 1.0, "0.0 to below 1.0"),
            "penalty": (math.isfinite(self.penalty), "a finite number"),
            "maxlenratio": (
                self.maxlenratio >= 0.0 or self.maxlenratio <= -1.0,
                "0.0 or more, or -1 or less for an absolute length",
            ),
            "minlenratio": (math.isfinite(self.minlenratio), "a finite number"),
            "nbest": (self.nbest >= 0, "0 (all) or more"),
            "pre_beam_ratio": (self.pre_beam_ratio >= 1.0, "1.0 or more"),
        }.items():
            if not accepted[0]:
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: {accepted[1]}")

    def longest(self, frames: int) -> int:
        """The most tokens behind the prompt, ``<eos>`` aside."""
        if self.maxlenratio == 0.0:
            return frames
        if self.maxlenratio < 0.0:
            return -int(self.maxlenratio)
        return max(1, int(self.maxlenratio * frames))


def shortest(minlenratio: float, frames: int) -> int:
    """The fewest tokens behind the prompt, ``<eos>`` aside."""
    return -int(minlenratio) if minlenratio < 0 else int(minlenratio * frames)


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis that ended.

    Attributes:
        tokens: Prompt, text and ``<eos>``: ESPnet's ``yseq``. (ESPnet ends a hypothesis of the
            greatest length with ``<eos>`` even behind one that it chose, so there may be two.)
        prompt_length: How many of them are the prompt.
        score: The weighted sum of `scores`.
        scores: The sum of each scorer, by ESPnet's names: ``decoder``, and if they have a weight
            ``ctc``, ``length_bonus`` and ``scorefilter``.
    """

    tokens: list[int]
    prompt_length: int
    score: float
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> list[int]:
        """The tokens behind the prompt, without what ends them."""
        end = self.tokens[-1]
        text = self.tokens[self.prompt_length :]
        while text and text[-1] == end:
            text = text[:-1]
        return text


@dataclass
class Utterance:
    """Where the search of one utterance stands."""

    index: int  # in the caller's batch
    frames: int
    prompt: list[int]
    transcribes: bool
    timed: bool  # predicts timestamps
    longest: int
    shortest: int = 0
    ended: list[Hypothesis] = field(default_factory=list)
    best_of_length: dict[int, float] = field(default_factory=dict)
    done: bool = False

    def end(self, hypothesis: Hypothesis) -> None:
        self.ended.append(hypothesis)
        length = len(hypothesis.tokens)
        best = self.best_of_length.get(length, -math.inf)
        self.best_of_length[length] = max(best, hypothesis.score)

    def gets_worse(self, step: int) -> bool:
        """ESPnet's `end_detect`; like it, with the prompt counted as part of the length."""
        best = max(self.best_of_length.values(), default=0.0)
        lengths = range(step - END_LENGTHS + 1, step + 1)
        return all(
            n in self.best_of_length and self.best_of_length[n] - best < END_MARGIN for n in lengths
        )
