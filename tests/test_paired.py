"""Systems compared over seeds and utterances: intervals that cover, and what they are made of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from crossed_runs import World, comparison, variances
from hypothesis import given
from hypothesis import strategies as st

from espnet_smoe.paired import (
    Comparison,
    NoSeeds,
    Runs,
    SeedVariance,
    compare,
    estimate,
    holm,
    mean_over_seeds,
    residual_variance,
    shared_variance,
    within_variance,
)

STUDIES = 150
WORDS = 10  # of an utterance written out here
SEEDS = (1, 2, 3)
UTTERANCES = 80
WORLDS = {
    "both": World(ratio=0.9),
    "seeds": World(ratio=0.9, seeds=0.15),
    "utterances": World(ratio=0.9, seeds=0.0, tastes=0.5),
    "no difference": World(),
    "errors alone": World(ratio=0.9, seeds=0.0, utterances=0.0, tastes=0.0),
}


@cache
def studies(name: str, systems: int) -> list[Comparison]:
    """Simulated studies of one world, s1 against s0."""
    rng = np.random.default_rng(1)
    draws = (WORLDS[name].draw(rng, systems, SEEDS, UTTERANCES) for _ in range(STUDIES))
    return [comparison(runs) for runs in draws]


@pytest.mark.parametrize("systems", [2, 5])
@pytest.mark.parametrize("name", WORLDS)
def test_the_interval_covers_the_true_ratio_in_95_of_100_studies(name: str, systems: int) -> None:
    """Whatever varies most; within four standard errors of a count of 150."""
    found = studies(name, systems)
    truth = 100 * (WORLDS[name].ratio - 1)
    covered = np.mean([c.relative.low <= truth <= c.relative.high for c in found if c.relative])
    assert 0.89 <= covered <= 1.0
    both = np.mean([c.own.low <= truth <= c.own.high for c in found if c.own])
    assert 0.89 <= both <= 1.0


def test_the_bootstrap_over_utterances_and_three_seeds_is_too_narrow_where_seeds_matter() -> None:
    """Why no verdict rests on it."""
    found = studies("seeds", 2)
    covered = np.mean([c.bootstrap[0] <= -10 <= c.bootstrap[1] for c in found])
    assert covered < 0.93
    widths = np.array([(c.bootstrap[1] - c.bootstrap[0], c.own.high - c.own.low) for c in found])
    assert (widths[:, 0] < widths[:, 1]).mean() > 0.8


def test_pooling_the_seeds_of_more_systems_narrows_the_interval() -> None:
    widths = [
        np.median([c.change.high - c.change.low for c in studies("seeds", n)]) for n in (2, 5)
    ]
    assert widths[1] < 0.8 * widths[0]


def test_without_a_difference_one_of_twenty_is_significant() -> None:
    found = studies("no difference", 5)
    share = np.mean([c.change.p < 0.05 for c in found])
    assert share <= 0.12
    for c in found:
        assert (c.change.p < 0.05) == (not c.change.low <= 0 <= c.change.high)


def runs(*errors: list[int]) -> Runs:
    """Word errors of each seed's utterances of `WORDS` words."""
    counts = {
        seed: np.array([[float(e), float(WORDS)] for e in column])
        for seed, column in enumerate(errors, 1)
    }
    return Runs("wer", counts)


def test_figures_are_those_of_summed_counts() -> None:
    a, b = runs([1, 2, 3, 4], [2, 2, 3, 5]), runs([2, 2, 4, 4], [2, 3, 4, 6])
    found = compare(a, b, pooled=(None, None))
    assert a.values() == pytest.approx([25.0, 30.0])
    assert (found.base, found.system) == pytest.approx((27.5, 33.75))
    assert found.absolute.value == pytest.approx(6.25)
    ratio = np.sqrt(30 / 25 * 37.5 / 30)
    assert found.relative is not None
    assert found.relative.value == pytest.approx(100 * (ratio - 1))
    assert found.per_seed == pytest.approx([20.0, 25.0])
    assert found.seeds == (1, 2)
    assert found.seeds_known


def test_equal_systems_differ_by_nothing() -> None:
    a = runs([1, 2, 3, 4], [2, 2, 3, 5])
    found = compare(a, a, pooled=variances({"s0": a, "s1": a}))
    for change in (found.absolute, found.relative):
        assert change is not None
        assert (change.value, change.p) == (0.0, 1.0)
        assert (change.low, change.high) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert found.bootstrap == (0.0, 0.0)


def test_a_figure_of_zero_has_no_ratio() -> None:
    found = compare(runs([0, 0, 0], [0, 0, 0]), runs([1, 2, 0], [1, 1, 1]), pooled=(None, None))
    assert found.relative is None
    assert found.change is found.absolute
    assert found.per_seed == pytest.approx((10.0, 10.0))


def test_one_seed_speaks_of_utterances_alone() -> None:
    rng = np.random.default_rng(2)
    drawn = World(ratio=0.5).draw(rng, 2, (1,), UTTERANCES)
    found = comparison(drawn)
    assert not found.seeds_known
    assert found.own is None
    assert np.isnan(found.change.seed_share)
    pooled = compare(drawn["s0"], drawn["s1"], pooled=(SeedVariance(9.0, 10), SeedVariance(1, 10)))
    assert pooled.seeds_known
    assert pooled.change.high - pooled.change.low > found.change.high - found.change.low


def test_only_common_seeds_are_compared() -> None:
    a = runs([1, 2, 3, 4], [2, 2, 3, 5])
    one = Runs("wer", {2: a.counts[2]})
    assert compare(a, one, pooled=(None, None)).seeds == (2,)
    with pytest.raises(NoSeeds, match=r"no common seed: \[1, 2\] and \[7\]"):
        compare(a, Runs("wer", {7: a.counts[2]}), pooled=(None, None))


def test_the_residual_leaves_out_what_systems_and_seeds_explain() -> None:
    values = {(s, k): 3.0 * len(s) + 5.0 * k for s in ("a", "bb", "ccc") for k in (1, 2, 3)}
    found = residual_variance(values)
    assert found is not None
    assert found.variance == pytest.approx(0.0, abs=1e-20)
    assert found.df == 4
    assert residual_variance({("a", 1): 1.0, ("b", 1): 2.0}) is None
    unbalanced = residual_variance({**values, ("d", 1): 100.0})
    assert unbalanced is not None
    assert unbalanced.df == 4


def test_of_two_systems_the_residual_is_half_the_variance_of_the_difference() -> None:
    rng = np.random.default_rng(3)
    figures = rng.normal(20, 2, (2, 4))
    pooled = residual_variance({(s, k): figures["ab".index(s), k] for s in "ab" for k in range(4)})
    own = within_variance([figures[1] - figures[0]])
    assert pooled is not None and own is not None
    assert (2 * pooled.variance, pooled.df) == pytest.approx((own.variance, own.df))


def test_the_shared_part_is_what_the_utterances_do_to_all_seeds() -> None:
    rng = np.random.default_rng(4)
    common = rng.normal(0, 2, (4000, 1))
    assert shared_variance(common + rng.normal(0, 3, (4000, 3))) == pytest.approx(4, rel=0.15)
    assert shared_variance(rng.normal(0, 3, (4000, 3))) == pytest.approx(0, abs=0.4)
    assert shared_variance(common) == pytest.approx(4, rel=0.15)


def test_an_estimate_is_students_where_seeds_are_all() -> None:
    from scipy import stats

    still = np.full((10, 3), 7.0)
    found = estimate(7.0, still, SeedVariance(3.0, 2))
    half = stats.t.ppf(0.975, 2)
    assert (found.low, found.high, found.df) == pytest.approx((7 - half, 7 + half, 2))
    assert found.seed_share == 1.0
    assert found.p == pytest.approx(2 * stats.t.sf(7, 2))


def test_a_mean_has_the_interval_of_its_own_seeds() -> None:
    a = runs([1, 2, 3, 4], [2, 2, 3, 5])
    found = mean_over_seeds(a, within_variance([a.values()]))
    assert found.value == pytest.approx(27.5)
    assert found.low < 25 < 30 < found.high


def test_twins_are_drawn_together() -> None:
    """The narrowband copies of the same sentences, in the same order, get the same samples."""
    a = runs([1, 0, 3, 4, 2, 5])
    twice = Runs("wer", {1: a.counts[1] * 2})
    assert np.array_equal(a.resampled(), twice.resampled())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, c in zip(p_values, corrected, strict=True):
        assert p <= c <= min(1.0, len(p_values) * p) or c == pytest.approx(p)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_holms_published_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
