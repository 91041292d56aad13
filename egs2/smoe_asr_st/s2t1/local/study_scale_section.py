"""What happens as the number of tasks grows: systems ``x.tasks<N>`` of STUDY.md, told and drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from study_analysis import Row
from study_plots import Lines, plot_lines
from study_results import ALL, Result
from study_tables import TITLES, bracket, table

from espnet_smoe.scoring import LOWER_IS_BETTER

NAME = re.compile(r"(.+)\.tasks(\d+)")
Found = dict[tuple[str, str], dict[int, Row]]  # by system and task, by number of tasks


def numbers_of(rows: Sequence[Row], base: str) -> Found:
    """The comparisons with Base of as many tasks, both bandwidths together.

    Tasks that are there with one number only say nothing about growth and are left out.
    """
    found: Found = {}
    for row in rows:
        name = NAME.fullmatch(row.system)
        if not name or name[1] == base or row.other.partition(".")[0] != base:
            continue
        if row.cell.bandwidth == ALL and row.change is not None and row.change.relative:
            found.setdefault((name[1], row.cell.task), {})[int(name[2])] = row
    return {key: dict(sorted(some.items())) for key, some in found.items() if len(some) > 1}


def section(rows: Sequence[Row], results: Sequence[Result], base: str) -> list[str]:
    """Lines of Markdown: a table and two sentences; nothing where no number of tasks was varied."""
    found = numbers_of(rows, base)
    if not found:
        return []
    parameters = {result.system: result.content["parameters"] for result in results}
    lines = []
    for (system, task), some in found.items():
        for number, row in some.items():
            change = row.change
            assert change is not None and change.relative is not None
            cells = [system, str(number), task, TITLES[row.cell.metric]]
            cells += [f"{change.base:.2f}", f"{change.system:.2f}"]
            cells += [f"{bracket(change.relative, 1, '+')} %", row.verdict + row.dagger]
            lines.append(cells + [size(parameters[name]) for name in (row.other, row.system)])
    header = ["system", "tasks", "task", "metric", base, "system's", "relative change [95 %]"]
    header += ["verdict", f"parameters of {base}", "parameters of the system, active"]
    text = ["#### As the number of tasks grows", "", *table(header, lines)]
    return [*text, " ".join(sentences(rows, base)), ""]


def sentences(rows: Sequence[Row], base: str) -> list[str]:
    """What it means: a sentence for each system and task."""
    return [verdict(key, some) for key, some in numbers_of(rows, base).items()]


def size(parameters: Mapping[str, object]) -> str:
    """Total and, where routes differ from it, active parameters, millions."""
    total, active = parameters["total"], parameters["active"]
    assert isinstance(total, int) and isinstance(active, dict)
    most = max(active.values())
    whole = f"{total / 1e6:.2f} M"
    return whole if most == total else f"{whole}, {most / 1e6:.2f} M"


def verdict(key: tuple[str, str], some: Mapping[int, Row]) -> str:
    """A sentence on the change with the fewest and with the most tasks."""
    system, task = key
    (fewest, first), (most, last) = list(some.items())[0], list(some.items())[-1]
    gaps = []
    for row in (first, last):
        assert row.change is not None and row.change.relative is not None
        low, value, high = (
            math.log1p(x / 100)
            for x in (row.change.relative.low, row.change.relative.value, row.change.relative.high)
        )
        gaps.append((value, (high - low) / 2))
    moved, half = gaps[1][0] - gaps[0][0], math.hypot(gaps[0][1], gaps[1][1])
    low, value, high = (100 * math.expm1(x) for x in (moved - half, moved, moved + half))
    good = (moved < 0) == (first.cell.metric in LOWER_IS_BETTER)
    told = "no significant difference"
    if abs(moved) > half:
        told = f"it {'gains on' if good else 'falls back against'} Base"
    return (
        f"{system}, {task}: from {fewest} to {most} tasks the {TITLES[first.cell.metric]} relative "
        f"to Base's moves by {value:+.1f} % [{low:+.1f}, {high:+.1f}]: {told} (both intervals "
        "added as if independent, which the same utterances make too wide)"
        f"{first.dagger or last.dagger}."
    )


def plot(rows: Sequence[Row], base: str, path: Path) -> bool:
    """Draw the changes against the number of tasks; False: there is nothing to draw."""
    lines: Lines = {}
    for (system, task), some in numbers_of(rows, base).items():
        lines.setdefault(task, {})[system] = some
    return plot_lines(lines, "tasks", base, path)
