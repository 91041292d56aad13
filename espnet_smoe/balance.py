"""How much of training each route (task and bandwidth) gets: shares, temperature, starvation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from espnet_smoe.datadir import DataError

Route = tuple[str, str]  # (task, bandwidth)
WIDE, NARROW = "wb", "nb"
ROUTE_FLOOR = 0.02  # share of training below which a route is said to starve


def shares(counts: Mapping[Route, float]) -> dict[Route, float]:
    """Counts as shares, which sum to 1."""
    total = sum(counts.values())
    return {route: count / total for route, count in sorted(counts.items())}


def narrowed(counts: Mapping[Route, float], narrowband_prob: float) -> dict[Route, float]:
    """Counts expected when training narrows wideband examples on the fly.

    With ``preprocessor_conf.narrowband_prob`` P, each wideband training example is heard as
    narrowband with probability P: of each task, ``nb + P wb`` examples go the narrowband route
    and ``(1 - P) wb`` the wideband one. Other bandwidths stay as they are.

    Raises:
        DataError: P is not in [0, 1].
    """
    if not 0.0 <= narrowband_prob <= 1.0:
        raise DataError(f"preprocessor_conf.narrowband_prob is {narrowband_prob}; accepted: 0 to 1")
    expected = {route: float(count) for route, count in counts.items()}
    if narrowband_prob > 0.0:
        for task in {task for task, _ in counts}:
            wide = expected.get((task, WIDE), 0.0)
            if wide:
                moved = narrowband_prob * wide
                expected[task, WIDE] = wide - moved
                expected[task, NARROW] = expected.get((task, NARROW), 0.0) + moved
    return {route: count for route, count in sorted(expected.items()) if count > 0.0}


def repeats(
    counts: Mapping[Route, int], *, temperature: float = 1.0, narrowband_prob: float = 0.0
) -> dict[Route, float]:
    """How often an epoch repeats the examples of each route.

    With temperature T the share of a route becomes proportional to ``n ** (1 / T)``, n its
    examples: T = 1 keeps the natural shares, T = infinity makes them equal. Shares are raised by
    repeating examples only; none is ever left out, so the smallest factor is 1.

    With on-the-fly narrowing, n counts the examples as they will be heard. A wideband example
    gives its task ``1 - P`` wideband and ``P`` narrowband ones whatever the plan, so where that
    alone fills the narrowband route beyond its share, the task as a whole gets its share and
    its two bandwidths come as near to theirs as can be.

    Args:
        counts: Examples in the data per route.
        temperature: T, at least 1; ``math.inf`` is accepted.
        narrowband_prob: P, as in `narrowed`.

    Returns:
        A factor of at least 1 per route of `counts`.

    Raises:
        DataError: T is below 1, or P not in [0, 1].
    """
    if not temperature >= 1.0:
        raise DataError(
            f"route temperature is {temperature}; accepted: 1 (natural shares) to inf (equal ones)"
        )
    heard = narrowed(counts, narrowband_prob)
    wanted = {route: count ** (1.0 / temperature) for route, count in heard.items()}
    tasks = sorted({task for task, _ in counts})
    splits = 0.0 < narrowband_prob < 1.0
    scale = 0.0  # examples heard per unit of `wanted`; the least that leaves no factor below 1
    for task in tasks:
        wide, narrow = counts.get((task, WIDE), 0), counts.get((task, NARROW), 0)
        both = wanted.get((task, WIDE), 0.0) + wanted.get((task, NARROW), 0.0)
        for (name, band), count in counts.items():
            if name != task or not count:
                continue
            if narrowband_prob == 0.0 or band not in (WIDE, NARROW):
                scale = max(scale, count / wanted[task, band])
            else:
                scale = max(scale, (wide + narrow) / both)
                if band == WIDE and splits:
                    scale = max(scale, (1.0 - narrowband_prob) * wide / wanted[task, WIDE])
    factors: dict[Route, float] = {}
    for (task, band), count in sorted(counts.items()):
        if not count:
            continue
        wide, narrow = counts.get((task, WIDE), 0), counts.get((task, NARROW), 0)
        both = scale * (wanted.get((task, WIDE), 0.0) + wanted.get((task, NARROW), 0.0))
        if narrowband_prob == 0.0 or band not in (WIDE, NARROW):
            factor = scale * wanted[task, band] / count
        elif not splits or not wide or not narrow:
            factor = both / (wide + narrow)
        else:
            of_wide = scale * wanted[task, WIDE] / ((1.0 - narrowband_prob) * wide)
            rest = scale * wanted[task, NARROW] - narrowband_prob * wide * of_wide
            of_narrow = max(1.0, rest / narrow)
            factor = of_narrow if band == NARROW else (both - narrow * of_narrow) / wide
        factors[task, band] = max(1.0, factor)
    return factors


def starving(
    found: Mapping[Route, float], floor: float, *, expected: Iterable[Route] = ()
) -> dict[Route, float]:
    """Routes whose share is below a floor.

    Args:
        found: Share per route.
        floor: The least share that is not remarked on.
        expected: Further routes that there should be, such as those that have an expert; a route
            without an example has the share 0, which any floor above 0 exceeds.
    """
    every = {**dict.fromkeys(expected, 0.0), **found}
    return {route: share for route, share in sorted(every.items()) if share < floor}


def parse_temperature(text: str) -> float:
    """Read a temperature option; ``inf`` is one.

    Raises:
        ValueError: No number of at least 1.
    """
    value = float(text)
    if math.isnan(value) or value < 1.0:
        raise ValueError(f"{text} is below 1")
    return value
