"""How much a choice made at every frame tells of a label that a whole utterance has.

The frames of an utterance depend on each other, so chance is measured by giving whole utterances
other labels, not frames.

Shape letters: U utterances, E choices (experts), L labels, P permutations.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERMUTATIONS = 1000
SEED = 2025


@dataclass(frozen=True)
class Dependence:
    """A normalised mutual information beside what chance gives.

    Attributes:
        nmi: Twice the mutual information over the sum of both entropies, 0 to 1.
        p_value: Share of the label permutations with at least this much, the observed one
            included.
        null_mean: Mean over the permutations.
        null_95: Their 95 % quantile.
        choice_entropy: Of the choices, bits; 0 where one expert takes all.
        utterances: How many there are.
        labels: How many kinds of label.
    """

    nmi: float
    p_value: float
    null_mean: float
    null_95: float
    choice_entropy: float
    utterances: int
    labels: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def normalised(tables: np.ndarray) -> np.ndarray:
    """Normalised mutual information of contingency tables.

    Args:
        tables: Counts, (..., L, E).

    Returns:
        (...): I / ((H(label) + H(choice)) / 2); 0 where both entropies are 0.
    """
    total = tables.sum(axis=(-2, -1), keepdims=True)
    joint = tables / np.where(total > 0, total, 1.0)
    rows, columns = _entropy(joint.sum(axis=-1)), _entropy(joint.sum(axis=-2))
    both = _entropy(joint.reshape(*joint.shape[:-2], -1))
    information = np.maximum(rows + columns - both, 0.0)
    mean = (rows + columns) / 2
    return np.where(mean > 1e-12, information / np.where(mean > 1e-12, mean, 1.0), 0.0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """In bits, over the last axis."""
    logs = np.log2(np.where(shares > 0, shares, 1.0))
    return -(shares * logs).sum(axis=-1)


def dependence(
    counts_UE: np.ndarray,
    labels: Sequence[Hashable],
    *,
    strata: Sequence[Hashable] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> Dependence:
    """Measure how much the choices tell of the labels, against chance.

    Args:
        counts_UE: How often each utterance's frames or tokens took each expert, (U, E).
        labels: One per utterance.
        strata: Labels are exchanged among utterances of one stratum only: name the sentence where
            each is there with every label, so that what is said is the same on both sides. None:
            among all.
        permutations: Of the labels.
        seed: Of the permutations.

    Raises:
        ValueError: No utterance, another number of labels or strata, or no count.
    """
    n_utts = len(counts_UE)
    lengths = {len(labels), n_utts if strata is None else len(strata)}
    if n_utts == 0 or lengths != {n_utts} or counts_UE.sum() <= 0:
        raise ValueError(
            f"{n_utts} utterances with {int(counts_UE.sum())} choices, and {sorted(lengths)} "
            "labels or strata; accepted: one per utterance, and at least one choice"
        )
    label_U, n_labels = _codes(labels)
    stratum_U = np.zeros(n_utts, np.int64) if strata is None else _codes(strata)[0]
    one_hot_LL = np.eye(n_labels)
    observed = float(normalised(one_hot_LL[label_U].T @ counts_UE))
    rng = np.random.default_rng(seed)
    places_U = np.argsort(stratum_U, kind="stable")
    null_P = np.empty(permutations)
    permuted_U = np.empty_like(label_U)
    for i in range(permutations):
        permuted_U[places_U] = label_U[np.lexsort((rng.random(n_utts), stratum_U))]
        null_P[i] = normalised(one_hot_LL[permuted_U].T @ counts_UE)
    at_least = int((null_P >= observed - 1e-12).sum())
    shares_E = counts_UE.sum(axis=0) / counts_UE.sum()
    return Dependence(
        nmi=observed,
        p_value=(1 + at_least) / (1 + permutations),
        null_mean=float(null_P.mean()),
        null_95=float(np.quantile(null_P, 0.95)),
        choice_entropy=float(_entropy(shares_E)),
        utterances=n_utts,
        labels=n_labels,
    )


def summed(counts_UE: np.ndarray, groups: Sequence[Hashable]) -> tuple[np.ndarray, list[Hashable]]:
    """Add the counts of utterances that belong together, such as the two copies of a sentence.

    Returns:
        Counts (G, E) and the groups' names, in the order of their first utterance.
    """
    names = list(dict.fromkeys(groups))
    place = {name: i for i, name in enumerate(names)}
    total = np.zeros((len(names), counts_UE.shape[1]))
    np.add.at(total, [place[group] for group in groups], counts_UE)
    return total, names


def _codes(values: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Numbers for values, and how many different ones there are."""
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return np.array([place[value] for value in values], dtype=np.int64), len(place)
