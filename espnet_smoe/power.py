"""How small a relative difference of two systems a test set can show with a number of seeds.

The variance of a paired log ratio of two systems has the two parts of `espnet_smoe.paired`: the
seeds' divides by their number, the sentences' does not. Before any run they are assumed
(`assumed`), after a pilot they are observed (`observed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from espnet_smoe.paired import (
    Runs,
    SeedVariance,
    residual_variance,
    shared_variance,
    within_variance,
)

POWER = 0.8
ALPHA = 0.05
DESIGN_EFFECT = 2.0  # errors come in clusters: variance against independent words
CORRELATION = 0.5  # of two systems' errors over sentences
SEED_CV = 0.03  # standard deviation over seeds, relative to the figure
WIDEST = 20.0  # a log ratio that nothing reaches


@dataclass(frozen=True)
class PairVariance:
    """Variance of the log ratio of two systems' figures.

    Attributes:
        seeds: Over seeds, of one pair of runs; divides by the number of seeds.
        utterances: Over test sets of this size, the same for every seed.
        source: Where it is from, in words.
    """

    seeds: float
    utterances: float
    source: str


def assumed(
    rate: float,
    units: int,
    *,
    design_effect: float = DESIGN_EFFECT,
    correlation: float = CORRELATION,
    seed_cv: float = SEED_CV,
) -> PairVariance:
    """The variance to expect before any run, by a binomial approximation.

    A figure that is a share ``rate`` of ``units`` words (word errors, or for BLEU the precision)
    has the relative variance ``design_effect * (1 - rate) / (rate * units)``. Two systems share
    the part ``correlation`` of it. What is left is taken as equal for all seeds, which is the
    cautious reading.

    Args:
        rate: Expected WER or BLEU, 0 to 1, both exclusive.
        units: Words of the references.
        design_effect: Variance against words that err independently.
        correlation: Of the two systems' errors.
        seed_cv: Standard deviation over seeds, relative to the figure.

    Raises:
        ValueError: `rate` or `units` out of range.
    """
    if not 0 < rate < 1 or units < 1:
        raise ValueError(f"rate {rate} of {units} words; accepted: 0 < rate < 1, 1 word or more")
    single = design_effect * (1 - rate) / (rate * units)
    source = (
        f"assumed: design effect {design_effect:g}, correlation {correlation:g}, "
        f"{100 * seed_cv:g} % between seeds"
    )
    return PairVariance(2 * seed_cv**2, 2 * (1 - correlation) * single, source)


def observed(
    systems: Mapping[str, Runs],
    base: str,
    *,
    correlation: float = CORRELATION,
    seed_cv: float = SEED_CV,
) -> PairVariance | None:
    """The variance that finished runs show.

    - Seeds: the residual of system and seed over all runs; with Base alone, its variance over
      seeds; with one seed of each, `seed_cv` is assumed.
    - Utterances: the mean over the other systems of what the sentences do to their difference
      from Base; with Base alone, its variance between two of its own seeds (an upper bound if
      systems are alike), or with one seed its own variance less `correlation`.

    Args:
        systems: The runs of each system on the same utterances.
        base: Name of the system that the others are compared with.
        correlation: Assumed, of two systems' errors; used with a single run only.
        seed_cv: Assumed, used without a second seed only.

    Returns:
        None: Base has no run, or a figure is 0, so that there is no ratio.
    """
    if base not in systems:
        return None
    resampled = {name: runs.resampled() for name, runs in systems.items()}
    if any(values.min() <= 0 for values in resampled.values()):
        return None
    logs = {name: np.log(values) for name, values in resampled.items()}
    figures = {name: np.log(runs.values()) for name, runs in systems.items()}
    seeds = residual_variance(
        {
            (name, seed): float(value)
            for name, runs in systems.items()
            for seed, value in zip(runs.seeds, figures[name], strict=True)
        }
    )
    notes = ["seeds: all systems"]
    if seeds is None:
        seeds, notes = within_variance([figures[base]]), ["seeds: Base"]
    if seeds is None:
        seeds, notes = SeedVariance(seed_cv**2, math.inf), [f"seeds: assumed {100 * seed_cv:g} %"]
    parts = []
    for name, runs in systems.items():
        common = sorted(set(runs.seeds) & set(systems[base].seeds))
        if name != base and common:
            columns = [[systems[s].seeds.index(seed) for seed in common] for s in (name, base)]
            parts.append(shared_variance(logs[name][:, columns[0]] - logs[base][:, columns[1]]))
    if parts:
        utterances = float(np.mean(parts))
        notes.append(f"utterances: {len(parts)} paired difference(s)")
    elif logs[base].shape[1] > 1:
        utterances = float(np.var(logs[base][:, 1] - logs[base][:, 0], ddof=1))
        notes.append("utterances: two seeds of Base")
    else:
        utterances = 2 * (1 - correlation) * float(np.var(logs[base][:, 0], ddof=1))
        notes.append(f"utterances: one run of Base, correlation {correlation:g} assumed")
    return PairVariance(2 * seeds.variance, utterances, "; ".join(notes))


def error_and_df(variance: PairVariance, *, seeds: int, systems: int) -> tuple[float, float]:
    """Standard error of the mean log ratio, and the degrees of freedom of its t.

    Args:
        variance: Of one pair.
        seeds: Runs of each system.
        systems: Systems whose seeds are pooled, Base among them.
    """
    own = variance.seeds / seeds
    total = own + variance.utterances
    df_seeds = (systems - 1) * (seeds - 1)
    df = total**2 / (own**2 / df_seeds) if own > 0 and df_seeds > 0 else math.inf
    return math.sqrt(total), df


def detection_power(
    effect: float, variance: PairVariance, *, seeds: int, systems: int, alpha: float = ALPHA
) -> float:
    """Probability that a true log ratio is found significant."""
    from scipy import stats

    error, df = error_and_df(variance, seeds=seeds, systems=systems)
    if error == 0:
        return float(effect != 0)
    critical = stats.t.ppf(1 - alpha / 2, df)
    shift = abs(effect) / error
    if math.isinf(df):
        return float(stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift))
    above = float(stats.nct.sf(critical, df, shift))
    if math.isnan(above):  # SciPy gives up far out
        return float(stats.norm.sf(critical - shift))
    below = float(stats.nct.cdf(-critical, df, shift))
    return above + (0.0 if math.isnan(below) else below)


def smallest_difference(
    variance: PairVariance,
    *,
    seeds: int,
    systems: int,
    power: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """The smallest log ratio, as a positive number, that is found with a given power.

    A relative change of ``exp(x) - 1`` upwards, ``exp(-x) - 1`` downwards. With one seed it speaks
    of two trained models, whose seeds' variance it holds, not of systems.
    """
    from scipy import optimize

    error, _ = error_and_df(variance, seeds=seeds, systems=systems)
    if error == 0:
        return 0.0

    def lack(effect: float) -> float:
        return detection_power(effect, variance, seeds=seeds, systems=systems, alpha=alpha) - power

    high = error
    while lack(high) < 0 and high < WIDEST:
        high *= 2
    return float(optimize.brentq(lack, 0.0, high)) if high < WIDEST else math.inf
