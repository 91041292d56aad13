"""The smallest difference that a study can show agrees with simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crossed_runs import WORDS, World, comparison

from espnet_smoe.paired import Runs
from espnet_smoe.power import (
    PairVariance,
    assumed,
    detection_power,
    error_and_df,
    observed,
    smallest_difference,
)

STUDIES = 120
PILOTS = 20
UTTERANCES = 80
SEEDS = (1, 2, 3)


@pytest.mark.parametrize("systems", [2, 4])
@pytest.mark.parametrize("seed_deviation", [0.03, 0.12])
def test_simulated_studies_find_the_smallest_difference_four_times_in_five(
    seed_deviation: float, systems: int
) -> None:
    """A pilot without a difference says how small a difference a study of the same size finds."""
    rng = np.random.default_rng(5)
    quiet = World(seeds=seed_deviation)
    pilots = [observed(quiet.draw(rng, systems, SEEDS, UTTERANCES), "s0") for _ in range(PILOTS)]
    mean = PairVariance(
        float(np.mean([p.seeds for p in pilots if p])),
        float(np.mean([p.utterances for p in pilots if p])),
        "",
    )
    smallest = smallest_difference(mean, seeds=len(SEEDS), systems=systems)
    world = World(seeds=seed_deviation, ratio=math.exp(-smallest))
    found = [
        comparison(world.draw(rng, systems, SEEDS, UTTERANCES)).change.p < 0.05
        for _ in range(STUDIES)
    ]
    assert 0.65 <= np.mean(found) <= 0.95


def test_power_is_alpha_without_a_difference_and_80_percent_at_the_smallest() -> None:
    variance = PairVariance(0.05**2, 0.03**2, "")
    sizes = {"seeds": 3, "systems": 4}
    assert detection_power(0.0, variance, **sizes) == pytest.approx(0.05, abs=1e-6)
    smallest = smallest_difference(variance, **sizes)
    assert detection_power(smallest, variance, **sizes) == pytest.approx(0.8, abs=1e-6)
    assert detection_power(-smallest, variance, **sizes) == pytest.approx(0.8, abs=1e-6)
    assert detection_power(100.0, variance, **sizes) == pytest.approx(1.0)


def test_more_seeds_and_more_systems_show_less() -> None:
    variance = PairVariance(0.05**2, 0.01**2, "")
    by_seeds = [smallest_difference(variance, seeds=k, systems=4) for k in (2, 3, 5, 10)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    by_systems = [smallest_difference(variance, seeds=3, systems=n) for n in (2, 3, 6, 12)]
    assert by_systems == sorted(by_systems, reverse=True)


def test_seeds_do_not_help_where_utterances_are_all() -> None:
    variance = PairVariance(0.0, 0.02**2, "")
    found = [smallest_difference(variance, seeds=k, systems=3) for k in (1, 3, 30)]
    assert found == pytest.approx([found[0]] * 3)
    assert found[0] == pytest.approx((1.959964 + 0.841621) * 0.02, rel=1e-4)
    assert smallest_difference(PairVariance(0.0, 0.0, ""), seeds=1, systems=2) == 0.0


def test_the_assumption_is_right_for_independent_words() -> None:
    """Two systems that err independently, one binomial draw a word."""
    rng = np.random.default_rng(6)
    rate, words = 0.2, 400
    errors = rng.binomial(words, rate, (4000, 2))
    ratio = np.log(errors[:, 0] / errors[:, 1])
    found = assumed(rate, words, design_effect=1, correlation=0, seed_cv=0)
    assert found.utterances == pytest.approx(ratio.var(), rel=0.1)
    assert found.seeds == 0.0
    assert "design effect 1, correlation 0, 0 %" in found.source


@pytest.mark.parametrize(("rate", "units"), [(0.0, 10), (1.0, 10), (0.5, 0)])
def test_an_assumption_that_is_none_is_refused(rate: float, units: int) -> None:
    with pytest.raises(ValueError, match=rf"rate {rate} of {units} words; accepted: 0 < rate < 1"):
        assumed(rate, units)


def test_a_pilot_says_what_it_knows() -> None:
    rng = np.random.default_rng(7)
    runs = World().draw(rng, 3, SEEDS, UTTERANCES)
    several = observed(runs, "s0")
    assert several is not None
    assert several.source == "seeds: all systems; utterances: 2 paired difference(s)"
    alone = observed({"s0": runs["s0"]}, "s0")
    assert alone is not None
    assert alone.source == "seeds: Base; utterances: two seeds of Base"
    single = observed({"s0": Runs("wer", {1: runs["s0"].counts[1]})}, "s0", seed_cv=0.1)
    assert single is not None
    assert single.seeds == pytest.approx(0.02)
    assert "seeds: assumed 10 %" in single.source
    assert observed(runs, "other") is None
    nothing = np.array([[0.0, float(WORDS)]] * 4)
    assert observed({"s0": Runs("wer", {1: nothing})}, "s0") is None


def test_degrees_of_freedom_grow_with_the_utterances_part() -> None:
    seeds_only = error_and_df(PairVariance(0.01, 0.0, ""), seeds=3, systems=2)
    assert seeds_only == pytest.approx((math.sqrt(0.01 / 3), 2))
    mixed = error_and_df(PairVariance(0.01, 0.01, ""), seeds=3, systems=2)
    assert mixed[1] == pytest.approx(2 * 4**2)
    assert error_and_df(PairVariance(0.01, 0.0, ""), seeds=1, systems=4)[1] == math.inf
