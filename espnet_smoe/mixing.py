"""Scores when only a share of the utterances is decoded one way, and the others another way.

Routing is per utterance, so two decodings of a test set, with right and with wrong labels, say
what any share of wrong labels costs: the sums of the counts of `espnet_smoe.scoring` mix.

Shape letters: U utterances, S counts per utterance, P shares, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from espnet_smoe.scoring import RESAMPLES, SEED, corpus_value

# Shares at which the first significant one is looked for.
FINE_SHARES = (
    *(i / 1000 for i in range(1, 10)),
    *(i / 200 for i in range(2, 20)),
    *(i / 50 for i in range(5, 51)),
)


@dataclass(frozen=True)
class Mixed:
    """A test set of which a share of the utterances is decoded the second way.

    Attributes:
        share: 0 to 1.
        value: The corpus figure of the expected counts.
        ci95: Over which utterances are drawn, and which of them are decoded the second way.
        difference: `value` minus the figure of the first way alone.
        difference_ci95: Of the same drawn utterances, paired.
    """

    share: float
    value: float
    ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]

    @property
    def significant(self) -> bool:
        """Whether the difference's interval excludes 0."""
        low, high = self.difference_ci95
        return low > 0.0 or high < 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "significant": self.significant}


def mixed_scores(
    metric: str,
    first_US: np.ndarray,
    second_US: np.ndarray,
    shares: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Mixed]:
    """Corpus figures when each utterance is decoded the second way with some probability.

    For WER, CER and accuracy, whose denominators do not depend on the texts, the value is the
    expected one exactly; for BLEU and chrF it is the figure of the expected counts, which says
    nothing where hardly any 4-gram matches. With one seed, the utterances that are decoded the
    second way at a small share are so at every larger one.

    Args:
        metric: One of `espnet_smoe.scoring.METRICS`.
        first_US: Counts of the first way (`espnet_smoe.scoring.utterance_counts`), (U, S).
        second_US: Of the second way, same utterances.
        shares: Probabilities, 0 to 1.
        resamples: Bootstrap samples behind the 95 % intervals.
        seed: Of the bootstrap.

    Raises:
        ValueError: A share outside [0, 1], or counts of other shapes.
    """
    if first_US.shape != second_US.shape:
        raise ValueError(f"counts of shapes {first_US.shape} and {second_US.shape}; both the same")
    for share in shares:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share {share}; accepted: 0 to 1")
    shares_P = np.asarray(shares, dtype=np.float64)
    change_US = second_US - first_US
    expected_PS = first_US.sum(axis=0) + shares_P[:, None] * change_US.sum(axis=0)
    values_P = corpus_value(metric, expected_PS)
    base = float(corpus_value(metric, first_US.sum(axis=0, keepdims=True))[0])
    mixed_RP, base_R = _resampled(metric, first_US, change_US, shares_P, resamples, seed)
    return [
        Mixed(
            share,
            float(value),
            _interval(mixed_R),
            float(value) - base,
            _interval(mixed_R - base_R),
        )
        for share, value, mixed_R in zip(shares, values_P, mixed_RP.T, strict=True)
    ]


def _resampled(
    metric: str,
    first_US: np.ndarray,
    change_US: np.ndarray,
    shares_P: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Figures of bootstrap samples: mixed (R, P), and of the first way alone (R,)."""
    n_utts, n_counts = first_US.shape
    rng = np.random.default_rng(seed)
    mixed, base = [], []
    for _ in range(resamples):
        drawn = rng.integers(n_utts, size=(n_utts,))
        luck = rng.random((n_utts,))  # decoded the second way where it is below the share
        order = np.argsort(luck)
        change = np.zeros((n_utts + 1, n_counts))
        np.cumsum(change_US[drawn[order]], axis=0, out=change[1:])
        sums_S = first_US[drawn].sum(axis=0)
        mixed.append(sums_S + change[np.searchsorted(luck[order], shares_P)])
        base.append(sums_S)
    mixed_RPS = np.stack(mixed)
    flat = corpus_value(metric, mixed_RPS.reshape(-1, n_counts))
    return flat.reshape(resamples, -1), corpus_value(metric, np.stack(base))


def first_significant(
    metric: str,
    first_US: np.ndarray,
    second_US: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> float | None:
    """The smallest share from which on every difference is significant; None: not even all.

    It depends on the number of utterances: a larger test set shows smaller changes.
    """
    found = None
    scores = mixed_scores(metric, first_US, second_US, FINE_SHARES, resamples=resamples, seed=seed)
    for mixed in reversed(scores):
        if not mixed.significant:
            break
        found = mixed.share
    return found


def _interval(values_R: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)
