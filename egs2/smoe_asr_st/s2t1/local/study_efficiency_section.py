"""The section of STUDY.md on parameters and time.

Times are compared within a machine and a number of runs at a time only: a row each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from study_analysis import base_of
from study_results import Result
from study_tables import table

STEPS = ("training", "decoding")


def efficiency_section(corpora: Mapping[str, Sequence[Result]], base: str) -> list[str]:
    """Markdown lines: what is measured, and a row per corpus, system and place.

    Args:
        corpora: The results of each.
        base: The system whose training time is 1.
    """
    rows = []
    for corpus, results in corpora.items():
        systems = dict.fromkeys(r.system for r in results)
        for system in systems:
            others = by_place(results, base_of(system, base, systems))
            rows += [
                [corpus, *_row(system, found, others.get(where, [])), where]
                for where, found in sorted(by_place(results, system).items())
            ]
    header = ["corpus", "system", "runs", "parameters", "active on a route"]
    header += ["training", "decoding", f"training, of {base}'s", "runs at a time, machine"]
    return [
        "## Parameters and time",
        "",
        "Training: the updates alone (no start-up, no validation), by ESPnet's log. Decoding: "
        "stage 12, start-up included. Mean [lowest, highest] over runs, one thread each. Several "
        "runs at a time slow each other down, those on one GPU too, so that times are compared "
        "within a machine and a number of runs at a time only.",
        "",
        *table(header, rows),
    ]


def place(result: Result) -> str:
    """Where it was trained: runs at a time, and the machine."""
    return f"{result.content['processes']}; {result.content['machine']}"


def by_place(results: Sequence[Result], system: str) -> dict[str, list[dict[str, Any]]]:
    """A system's results by `place`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result.system == system:
            found.setdefault(place(result), []).append(result.content)
    return found


def commonest_place(results: Sequence[Result]) -> str:
    """That at which most systems were trained."""
    pairs = {(place(result), result.system) for result in results}
    return max(sorted(Counter(where for where, _ in pairs).items()), key=lambda item: item[1])[0]


def _row(
    system: str, own: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]
) -> list[str]:
    parameters = own[0]["parameters"]
    active = sorted({min(parameters["active"].values()), max(parameters["active"].values())})
    times = {step: [c["seconds"][step] for c in own] for step in STEPS}
    ratio = ""
    if plain:
        of_base = [c["seconds"]["training"] for c in plain]
        ratio = f"{mean(times['training']) / mean(of_base):.2f}"
    return [
        system,
        str(len(own)),
        f"{parameters['total'] / 1e6:.2f} M",
        " to ".join(f"{n / 1e6:.2f}" for n in active) + " M",
        *(spread([t for t in times[step] if t is not None]) for step in STEPS),
        ratio,
    ]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> str:
    """Mean and range of some seconds, in minutes."""
    if not values:
        return "interrupted"
    middle = f"{mean(values) / 60:.1f} min"
    if len(values) == 1:
        return middle
    return f"{middle} [{min(values) / 60:.1f}, {max(values) / 60:.1f}]"
