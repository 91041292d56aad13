"""From the runs' files to rows: means over seeds, changes against Base, verdicts, power."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from study_results import ALL, Cell, Result, cells_of

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.paired import (
    Comparison,
    Estimate,
    NoSeeds,
    Runs,
    SeedVariance,
    compare,
    holm,
    mean_over_seeds,
    residual_variance,
    within_variance,
)
from espnet_smoe.power import PairVariance, observed, smallest_difference
from espnet_smoe.scoring import LOWER_IS_BETTER, metrics_for

BETTER, WORSE, NEITHER = "better", "worse", "no significant difference"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Row:
    """A system's figure in a cell.

    Attributes:
        corpus, cell, system: Of what.
        seeds: Its runs.
        values: ``(K,)`` their figures.
        mean: Over the seeds.
        other: What it is compared with (`base_of`).
        change: Against that; None for Base itself, or without a common seed.
        corrected_p: `change`'s p by Holm, over the comparisons of the corpus; None without.
    """

    corpus: str
    cell: Cell
    system: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: Estimate
    other: str
    change: Comparison | None
    corrected_p: float | None = None

    @property
    def primary(self) -> bool:
        """Is the metric its task's first one, on which the verdicts are?"""
        return metrics_for(self.cell.task)[0] == self.cell.metric

    @property
    def verdict(self) -> str:
        """Of the 95 % interval; it says so where correction takes the significance away."""
        if self.change is None:
            return ""
        change = self.change.change
        if change.low <= 0 <= change.high:
            return NEITHER
        good = (change.value < 0) == (self.cell.metric in LOWER_IS_BETTER)
        word = BETTER if good else WORSE
        if self.corrected_p is not None and self.corrected_p >= SIGNIFICANT:
            word += " (not after Holm)"
        return word

    @property
    def dagger(self) -> str:
        """Stands behind a claim that is over utterances only, since no seed's variance is known."""
        return "" if self.change is None or self.change.seeds_known else " †"


@dataclass(frozen=True)
class PowerRow:
    """What a cell can show: relative improvement in percent by number of seeds."""

    corpus: str
    cell: Cell
    utterances: int
    variance: PairVariance
    smallest: dict[int, float]


def corpora_of(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each corpus."""
    corpora: dict[str, list[Result]] = {}
    for result in results:
        corpora.setdefault(result.corpus, []).append(result)
    return corpora


def rows_of(results: Sequence[Result], base: str) -> list[Row]:
    """All rows of one corpus, by task, metric, test set, bandwidth, variant; Base first."""
    rows = []
    for cell, systems in sorted(cells_of(results).items(), key=lambda item: order(item[0])):
        pooled = pooled_variances(systems)
        names = sorted(
            systems,
            key=lambda name: (
                *(variant_of(name), name != base_of(name, base, systems)),
                *(-len(systems[name].seeds), name),
            ),
        )
        within = within_variance([runs.values() for runs in systems.values()])
        for name in names:
            runs = systems[name]
            change = None
            other = base_of(name, base, systems)
            if name != other and other in systems:
                with contextlib.suppress(NoSeeds):
                    change = compare(systems[other], runs, pooled=pooled)
            rows.append(
                Row(
                    results[0].corpus,
                    cell,
                    name,
                    tuple(runs.seeds),
                    tuple(float(v) for v in runs.values()),
                    mean_over_seeds(runs, within),
                    other,
                    change,
                )
            )
    return with_correction(rows)


def variant_of(system: str) -> str:
    """What a system's name has behind a dot, if it does."""
    return system.partition(".")[2]


def base_of(system: str, base: str, systems: Container[str]) -> str:
    """What a system is compared with.

    A variant ``x.v`` with ``x``, which it is a variant of, where that was run; else with Base's
    own variant ``base.v``; else, as any other system, with Base.
    """
    stem, _, variant = system.partition(".")
    for other in (stem, f"{base}.{variant}"):
        if other != system and other in systems and variant:
            return other
    return base


def order(cell: Cell) -> tuple[object, ...]:
    """asr first, its first metric first, wb, nb, all."""
    bands = [*BANDWIDTHS, ALL]
    metric = metrics_for(cell.task).index(cell.metric)
    return cell.task != "asr", cell.task, metric, cell.test_set, bands.index(cell.bandwidth)


def pooled_variances(
    systems: Mapping[str, Runs],
) -> tuple[SeedVariance | None, SeedVariance | None]:
    """`residual_variance` of the figures and of their logarithms."""
    values = {
        (name, seed): float(value)
        for name, runs in systems.items()
        for seed, value in zip(runs.seeds, runs.values(), strict=True)
    }
    logs = None
    if min(values.values()) > 0:
        logs = residual_variance({key: float(np.log(value)) for key, value in values.items()})
    return residual_variance(values), logs


def with_correction(rows: Sequence[Row]) -> list[Row]:
    """Rows with Holm's correction over the primary metrics of the systems, and of each variant."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        if row.primary and row.change is not None:
            families.setdefault(variant_of(row.system), []).append(row)
    found: dict[int, float] = {}
    for compared in families.values():
        corrected = holm([row.change.change.p for row in compared if row.change is not None])
        found |= dict(zip(map(id, compared), corrected, strict=True))
    return [
        Row(**{**vars(row), "corrected_p": found[id(row)]}) if id(row) in found else row
        for row in rows
    ]


def power_rows(results: Sequence[Result], base: str, seeds: Sequence[int]) -> list[PowerRow]:
    """What the primary metrics of one corpus can show, from the variances of its runs."""
    found = []
    for cell, systems in sorted(cells_of(results).items(), key=lambda item: order(item[0])):
        if cell.metric != metrics_for(cell.task)[0]:
            continue
        variance = observed(systems, base)
        if variance is None:
            continue
        # the systems whose seeds are pooled are those with several
        several = sum(len(runs.seeds) > 1 for runs in systems.values())
        smallest = {
            k: improvement(
                smallest_difference(variance, seeds=k, systems=max(2, several)), cell.metric
            )
            for k in seeds
        }
        utterances = len(next(iter(next(iter(systems.values())).counts.values())))
        found.append(PowerRow(results[0].corpus, cell, utterances, variance, smallest))
    return found


def improvement(log_ratio: float, metric: str) -> float:
    """A log ratio as the relative change, percent, of an improvement by it."""
    return float(100 * np.expm1(-log_ratio if metric in LOWER_IS_BETTER else log_ratio))
