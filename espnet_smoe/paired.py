"""Two systems, several seeds each, on the same utterances: is there a difference?

Two things vary: which sentences are in the test set, and what a training makes of its seed. Both
are crossed: every seed's model hears every sentence. So an interval needs both, and neither
utterances alone (which say nothing about another training) nor seeds alone will do.

The interval is that of the crossed random-effects analysis known from multi-reader multi-case
studies (Obuchowski and Rockette 1995, df of Hillis 2007), with seeds for readers and sentences for
cases. For a difference ``d`` of two systems, averaged over ``K`` seeds,

    Var(d) = s2_seed / K + max(c, 0)

``s2_seed`` is the variance over seeds of the difference within a seed: it holds the seeds' own
effect and what a seed does to single sentences. ``c`` is the covariance, over bootstrap samples of
the sentences, of the differences of two seeds: what the choice of sentences does to all alike.
The quantile is Student's t with ``df = Var(d)^2 / ((s2_seed / K)^2 / df_seed)``.

A bootstrap over utterances and seeds (`bootstrap_interval`) is there as well. With few seeds its
interval is wrong in both directions: resampling 3 seeds gives 2/3 of their variance and ignores
that it is itself uncertain, and what a seed does to single sentences is counted three times (Owen
2007, "The pigeonhole bootstrap").

Shape letters: ``K`` seeds, ``U`` utterances, ``S`` counts per utterance, ``R`` bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from espnet_smoe.scoring import RESAMPLES, SEED, corpus_value, resampled_sums

LEVEL = 0.95
LOW_HIGH = (50 * (1 - LEVEL), 50 * (1 + LEVEL))  # percentiles
MIXED_UP = 1 << 20  # the seeds' draws must not be the utterances'


class NoSeeds(ValueError):
    """Two systems have no seed in common."""


@dataclass(frozen=True)
class Runs:
    """What the runs of one system got right and wrong.

    Attributes:
        metric: One of `scoring.METRICS`.
        counts: Seed to ``(U, S)`` counts of `scoring.utterance_counts`; the rows are the same
            utterances, in the same order, for every system that is compared.
        resamples: Bootstrap samples of the utterances.
    """

    metric: str
    counts: Mapping[int, np.ndarray]
    resamples: int = RESAMPLES

    @cached_property
    def seeds(self) -> list[int]:
        """In order."""
        return sorted(self.counts)

    def values(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """``(K,)`` corpus figures of some seeds; default: of all."""
        sums = [self.counts[seed].sum(axis=0) for seed in seeds or self.seeds]
        return corpus_value(self.metric, np.array(sums))

    def resampled(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """``(R, K)`` corpus figures of bootstrap samples of the utterances.

        A sample holds the same utterances for every seed, system, and bandwidth (whose rows are
        the same sentences).
        """
        return self._resampled[:, [self.seeds.index(seed) for seed in seeds or self.seeds]]

    @cached_property
    def _resampled(self) -> np.ndarray:
        sums = (
            resampled_sums(self.counts[seed], resamples=self.resamples, seed=SEED)
            for seed in self.seeds
        )
        return np.stack([corpus_value(self.metric, sums_RS) for sums_RS in sums], axis=1)


@dataclass(frozen=True)
class SeedVariance:
    """How much a figure varies over seeds, and from how many degrees of freedom that is known."""

    variance: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low, high: The interval's ends.
        p: Two-sided, of the figure being 0 (of a ratio being 1).
        df: Degrees of freedom of Student's t.
        seed_share: Share of the variance that is the seeds'; NaN: they are not in it.
    """

    value: float
    low: float
    high: float
    p: float
    df: float
    seed_share: float


@dataclass(frozen=True)
class Comparison:
    """System B against system A on the utterances and seeds that they share.

    Attributes:
        seeds: Those of both.
        base, system: Mean figures of A and B over these seeds.
        absolute: B - A.
        relative: 100 (B / A - 1) percent, of geometric means over seeds; None: a figure is 0.
        bootstrap: Percentile interval of the relative change (else of B - A), over utterances and
            seeds.
        own: The relative (else absolute) change from the variance of this pair's seeds alone;
            None with one seed.
        per_seed: ``(K,)`` relative (else absolute) changes.
        seeds_known: Is the seeds' variance in the intervals? If not, they speak of these trained
            models, not of the systems.
    """

    seeds: tuple[int, ...]
    base: float
    system: float
    absolute: Estimate
    relative: Estimate | None
    bootstrap: tuple[float, float]
    own: Estimate | None
    per_seed: tuple[float, ...]
    seeds_known: bool

    @property
    def change(self) -> Estimate:
        """The relative change, or the absolute one where there is none."""
        return self.relative or self.absolute


def estimate(value: float, resampled_RK: np.ndarray, seeds: SeedVariance | None) -> Estimate:
    """The interval of a figure that is a mean over seeds.

    Args:
        value: The figure.
        resampled_RK: ``(R, K)`` it, of each seed, on bootstrap samples of the utterances.
        seeds: The variance over seeds of what is averaged; None: unknown, left out.
    """
    from scipy import stats

    k = resampled_RK.shape[1]
    shared = shared_variance(resampled_RK)
    own = seeds.variance / k if seeds else 0.0
    total = own + shared
    df = math.inf
    if seeds and own > 0:
        df = total**2 / (own**2 / seeds.df)
    if total <= 0:  # every sample gives the same
        return Estimate(value, value, value, float(value == 0), df, math.nan)
    error = math.sqrt(total)
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(value) / error, df))
    share = own / total if seeds else math.nan
    return Estimate(value, value - half, value + half, p, df, share)


def shared_variance(resampled_RK: np.ndarray) -> float:
    """Variance of a mean over seeds that the choice of utterances causes for all seeds alike.

    With one seed: all of the variance over utterances, which also holds what this seed alone
    does to them; an upper bound.
    """
    k = resampled_RK.shape[1]
    covariance = np.atleast_2d(np.cov(resampled_RK, rowvar=False))
    if k == 1:
        return float(covariance[0, 0])
    off_diagonal = (covariance.sum() - np.trace(covariance)) / (k * (k - 1))
    return max(float(off_diagonal), 0.0)


def residual_variance(values: Mapping[tuple[str, int], float]) -> SeedVariance | None:
    """Variance of (system, seed) figures that neither the system nor the seed explains.

    Least squares with an effect of each system and of each seed (a seed is a block: the same order
    of the data). A difference of two systems within a seed varies by twice as much.

    Returns:
        None where nothing is left to estimate it from.
    """
    systems = sorted({system for system, _ in values})
    seeds = sorted({seed for _, seed in values})
    rows = np.zeros((len(values), len(systems) + len(seeds)))
    for row, (system, seed) in zip(rows, values, strict=True):
        row[systems.index(system)] = 1.0
        row[len(systems) + seeds.index(seed)] = 1.0
    observed = np.array(list(values.values()))
    solution, _, rank, _ = np.linalg.lstsq(rows, observed, rcond=None)
    df = len(values) - int(rank)
    if df < 1:
        return None
    return SeedVariance(float(((observed - rows @ solution) ** 2).sum() / df), df)


def within_variance(values: Sequence[np.ndarray]) -> SeedVariance | None:
    """Variance over seeds within systems, pooled over the systems."""
    df = sum(len(v) - 1 for v in values)
    if df < 1:
        return None
    return SeedVariance(float(sum(((v - v.mean()) ** 2).sum() for v in values) / df), df)


def mean_over_seeds(runs: Runs, variance: SeedVariance | None) -> Estimate:
    """A system's mean figure with its interval.

    Args:
        runs: Its runs.
        variance: Of its figure over seeds, as `within_variance` has it.
    """
    return estimate(float(runs.values().mean()), runs.resampled(), variance)


def compare(
    base: Runs, system: Runs, *, pooled: tuple[SeedVariance | None, SeedVariance | None]
) -> Comparison:
    """Compare two systems on their common seeds.

    Seeds are paired: a seed means the same batches in the same order for both, and the same
    initial weights where shapes agree. Pairing is right whether or not that makes their figures
    alike; its price is degrees of freedom, which pooling over systems gives back.

    Args:
        base: System A.
        system: System B.
        pooled: `residual_variance` of the figures and of their logarithms over all systems of the
            corpus; None: not known, or not wanted.

    Raises:
        NoSeeds: They have no common seed.
    """
    seeds = sorted(set(base.seeds) & set(system.seeds))
    if not seeds:
        raise NoSeeds(f"no common seed: {base.seeds} and {system.seeds}")
    a_K, b_K = base.values(seeds), system.values(seeds)
    a_RK, b_RK = base.resampled(seeds), system.resampled(seeds)
    plain, logs = (SeedVariance(2 * v.variance, v.df) if v else None for v in pooled)
    own = within_variance([b_K - a_K])
    absolute = estimate(float((b_K - a_K).mean()), b_RK - a_RK, plain or own)
    relative = pair_alone = None
    per_seed = b_K - a_K
    if min(a_K.min(), b_K.min(), a_RK.min(), b_RK.min()) > 0:
        logs_K, logs_RK = np.log(b_K / a_K), np.log(b_RK / a_RK)
        own = within_variance([logs_K])
        ratio = float(logs_K.mean())
        relative = percent(estimate(ratio, logs_RK, logs or own))
        pair_alone = percent(estimate(ratio, logs_RK, own)) if own else None
        per_seed = 100 * np.expm1(logs_K)
    elif own:
        pair_alone = estimate(float((b_K - a_K).mean()), b_RK - a_RK, own)
    return Comparison(
        seeds=tuple(seeds),
        base=float(a_K.mean()),
        system=float(b_K.mean()),
        absolute=absolute,
        relative=relative,
        bootstrap=bootstrap_interval(a_RK, b_RK, relative=relative is not None),
        own=pair_alone,
        per_seed=tuple(float(x) for x in per_seed),
        seeds_known=(logs if relative else plain) is not None or own is not None,
    )


def percent(log_ratio: Estimate) -> Estimate:
    """A log ratio as a relative change in percent."""
    value, low, high = (
        100 * math.expm1(x) for x in (log_ratio.value, log_ratio.low, log_ratio.high)
    )
    return Estimate(value, low, high, log_ratio.p, log_ratio.df, log_ratio.seed_share)


def bootstrap_interval(
    a_RK: np.ndarray, b_RK: np.ndarray, *, relative: bool
) -> tuple[float, float]:
    """Percentile interval of B against A: utterances and seeds resampled, both for A and B alike.

    Args:
        a_RK, b_RK: ``(R, K)`` figures on bootstrap samples of the utterances.
        relative: Of the relative change in percent; else of B - A.
    """
    resamples, k = a_RK.shape
    drawn = np.random.default_rng(SEED + MIXED_UP).integers(k, size=(resamples, k))
    a_R = np.take_along_axis(a_RK, drawn, axis=1).mean(axis=1)
    b_R = np.take_along_axis(b_RK, drawn, axis=1).mean(axis=1)
    low, high = np.percentile(100 * (b_R / a_R - 1) if relative else b_R - a_R, LOW_HIGH)
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several comparisons; order is kept."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected.tolist()
