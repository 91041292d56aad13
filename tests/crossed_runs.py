"""Simulated studies: word errors of systems, seeds and utterances with known effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_smoe.paired import Comparison, Runs, SeedVariance, compare, residual_variance

WORDS = 40  # of an utterance
RESAMPLES = 100


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects, all on the logarithm of the error rate.

    Attributes:
        rate: Base's expected errors per word.
        ratio: The other systems' expected rate against Base's.
        seeds: Of a training's seed.
        utterances: Of an utterance's difficulty, for all systems alike.
        tastes: Of what an utterance is to one system, whatever the seed.
    """

    rate: float = 0.15
    ratio: float = 1.0
    seeds: float = 0.05
    utterances: float = 0.6
    tastes: float = 0.2

    def draw(
        self, rng: np.random.Generator, systems: int, seeds: Sequence[int], utterances: int
    ) -> dict[str, Runs]:
        """A study's runs; ``s0`` is Base. Errors are Poisson around what the effects say."""
        difficulty = rng.normal(0, self.utterances, utterances)
        found = {}
        for number in range(systems):
            taste = rng.normal(0, self.tastes, utterances)
            counts = {}
            for seed in seeds:
                own = rng.normal(0, self.seeds)
                rate = self.rate * (self.ratio if number else 1.0)
                errors = rng.poisson(WORDS * rate * np.exp(difficulty + taste + own))
                counts[seed] = np.stack([errors, np.full(utterances, WORDS)], axis=1).astype(float)
            found[f"s{number}"] = Runs("wer", counts, RESAMPLES)
        return found


def variances(runs: dict[str, Runs]) -> tuple[SeedVariance | None, SeedVariance | None]:
    """What `compare` takes as pooled."""
    values = {
        (name, seed): float(value)
        for name, some in runs.items()
        for seed, value in zip(some.seeds, some.values(), strict=True)
    }
    logs = {key: float(np.log(value)) for key, value in values.items()}
    return residual_variance(values), residual_variance(logs)


def comparison(runs: dict[str, Runs], system: str = "s1") -> Comparison:
    """A system against ``s0``, the variance of seeds pooled over all."""
    return compare(runs["s0"], runs[system], pooled=variances(runs))
