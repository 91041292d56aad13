"""Shares of the routes: temperature, narrowing on the fly, starvation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe.balance import narrowed, parse_temperature, repeats, shares, starving
from espnet_smoe.datadir import DataError

ROUTES = st.tuples(st.sampled_from(["asr", "st_eng", "st_fra"]), st.sampled_from(["wb", "nb", "x"]))
COUNTS = st.dictionaries(ROUTES, st.integers(1, 100_000), min_size=1)
TEMPERATURES = st.one_of(st.floats(1, 50), st.just(math.inf))


@settings(max_examples=300, deadline=None)
@given(COUNTS, TEMPERATURES)
def test_shares_follow_the_temperature_and_no_example_is_left_out(
    counts: dict[tuple[str, str], int], temperature: float
) -> None:
    factors = repeats(counts, temperature=temperature)
    assert factors.keys() == counts.keys()
    assert min(factors.values()) == pytest.approx(1.0)
    assert factors[max(counts, key=counts.__getitem__)] == pytest.approx(1.0)
    found = shares({route: counts[route] * factors[route] for route in counts})
    wanted = shares({route: n ** (1 / temperature) for route, n in counts.items()})
    assert found == pytest.approx(wanted)
    assert sum(found.values()) == pytest.approx(1.0)


@settings(max_examples=300, deadline=None)
@given(COUNTS, st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])))
def test_at_temperature_1_nothing_is_repeated(
    counts: dict[tuple[str, str], int], prob: float
) -> None:
    factors = repeats(counts, temperature=1.0, narrowband_prob=prob)
    assert factors == pytest.approx(dict.fromkeys(counts, 1.0), abs=1e-6)


@settings(max_examples=300, deadline=None)
@given(COUNTS, TEMPERATURES, st.floats(0.01, 1))
def test_with_narrowing_each_task_gets_its_share(
    counts: dict[tuple[str, str], int], temperature: float, prob: float
) -> None:
    counts = {route: n for route, n in counts.items() if route[1] != "x"} or {("asr", "wb"): 5}
    factors = repeats(counts, temperature=temperature, narrowband_prob=prob)
    assert min(factors.values()) >= 1.0
    heard = narrowed({route: n * factors[route] for route, n in counts.items()}, prob)
    wanted = {r: n ** (1 / temperature) for r, n in narrowed(counts, prob).items()}
    tasks = sorted({task for task, _ in counts})
    for table in (heard, wanted):
        for task in tasks:
            table[task, "all"] = sum(n for (t, _), n in table.items() if t == task)
    found = shares({r: n for r, n in heard.items() if r[1] == "all"})
    assert found == pytest.approx(shares({r: n for r, n in wanted.items() if r[1] == "all"}))


def test_with_narrowing_bandwidths_get_their_shares_where_that_can_be() -> None:
    counts = {("asr", "wb"): 100, ("asr", "nb"): 80}
    factors = repeats(counts, temperature=math.inf, narrowband_prob=0.1)
    assert factors == pytest.approx({("asr", "wb"): 1.0, ("asr", "nb"): 1.0})  # 90 and 90
    counts = {("asr", "wb"): 100, ("asr", "nb"): 10}
    factors = repeats(counts, temperature=math.inf, narrowband_prob=0.1)
    assert narrowed({r: n * factors[r] for r, n in counts.items()}, 0.1) == pytest.approx(
        {("asr", "nb"): 90.0, ("asr", "wb"): 90.0}
    )
    # half of the wideband examples fills the narrowband route already
    counts = {("asr", "wb"): 100, ("asr", "nb"): 10}
    factors = repeats(counts, temperature=math.inf, narrowband_prob=0.5)
    assert factors[("asr", "nb")] == 1.0


def test_narrowing_moves_its_share_of_each_task() -> None:
    counts = {("asr", "wb"): 60, ("asr", "nb"): 40, ("st", "wb"): 10, ("st", "x"): 3}
    assert narrowed(counts, 0.25) == {
        ("asr", "nb"): 55.0,
        ("asr", "wb"): 45.0,
        ("st", "nb"): 2.5,
        ("st", "wb"): 7.5,
        ("st", "x"): 3.0,
    }
    assert narrowed(counts, 0.0) == counts
    assert ("asr", "wb") not in narrowed(counts, 1.0)


@pytest.mark.parametrize("prob", [-0.1, 1.5, math.nan])
def test_a_narrowing_that_is_no_probability_raises(prob: float) -> None:
    with pytest.raises(DataError, match=r"narrowband_prob is .*; accepted: 0 to 1"):
        narrowed({("asr", "wb"): 1}, prob)


@pytest.mark.parametrize("temperature", [0.5, -1.0, math.nan])
def test_a_temperature_below_1_raises(temperature: float) -> None:
    with pytest.raises(DataError, match=r"temperature is .*accepted: 1 \(natural shares\) to inf"):
        repeats({("asr", "wb"): 1}, temperature=temperature)


def test_temperatures_are_read() -> None:
    assert parse_temperature("3") == 3.0
    assert parse_temperature("inf") == math.inf
    for text in ("0.9", "nan", "warm"):
        with pytest.raises(ValueError):
            parse_temperature(text)


def test_routes_below_the_floor_starve_also_those_without_an_example() -> None:
    found = {("asr", "wb"): 0.97, ("asr", "nb"): 0.019, ("st", "wb"): 0.011}
    assert starving(found, 0.0) == {}
    assert starving(found, 0.015, expected=[("st", "nb"), ("asr", "wb")]) == {
        ("st", "nb"): 0.0,
        ("st", "wb"): 0.011,
    }
