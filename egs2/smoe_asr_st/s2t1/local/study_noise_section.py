"""Wrong and missing labels in training: systems ``x.<label>_<kind><percent>`` of STUDY.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from study_analysis import NEITHER, Row
from study_plots import Lines, plot_lines
from study_results import ALL
from study_tables import TITLES, bracket, table

NAME = re.compile(r"(.+)\.(bandwidth|task)_(wrong|missing)(\d+)")
Key = tuple[str, str, str, str]  # system, label, kind, task


def shares_of(rows: Sequence[Row]) -> dict[Key, dict[int, Row]]:
    """The comparisons with the same system trained on right labels, by percent of the examples.

    Both bandwidths together.
    """
    found: dict[Key, dict[int, Row]] = {}
    for row in rows:
        name = NAME.fullmatch(row.system)
        if not name or row.other != name[1] or row.cell.bandwidth != ALL:
            continue
        if row.change is not None and row.change.relative:
            key = (name[1], name[2], name[3], row.cell.task)
            found.setdefault(key, {})[int(name[4])] = row
    return {key: dict(sorted(some.items())) for key, some in sorted(found.items())}


def section(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: a table and a sentence for each label; nothing without such variants."""
    found = shares_of(rows)
    if not found:
        return []
    lines = []
    for (system, label, kind, task), some in found.items():
        for share, row in some.items():
            change = row.change
            assert change is not None and change.relative is not None
            cells = [system, f"{label} {kind}", f"{share} %", task, TITLES[row.cell.metric]]
            cells += [f"{change.base:.2f}", f"{change.system:.2f}"]
            lines.append(
                [*cells, f"{bracket(change.relative, 1, '+')} %", row.verdict + row.dagger]
            )
    header = ["system", "label", "share in training", "task", "metric", "all right", "with these"]
    text = ["#### With wrong and missing labels in training", ""]
    text += table([*header, "relative change [95 %]", "verdict"], lines)
    return [*text, " ".join(sentences(rows)), ""]


def sentences(rows: Sequence[Row]) -> list[str]:
    """What it means: a sentence for each label and kind of noise."""
    found = shares_of(rows)
    kinds = dict.fromkeys((label, kind) for _, label, kind, _ in found)
    return [sentence(found, *named) for named in kinds]


def sentence(found: dict[Key, dict[int, Row]], label: str, kind: str) -> str:
    """How many scores one kind of noise moves, and from which share on."""
    rows = [
        (share, system, row)
        for (system, its_label, its_kind, _), some in found.items()
        if (its_label, its_kind) == (label, kind)
        for share, row in some.items()
    ]
    moved = [(share, system, row) for share, system, row in rows if row.verdict != NEITHER]
    start = f"{kind.capitalize()} {label} labels in training"
    if not moved:
        largest = max(share for share, _, _ in rows)
        return f"{start}, up to {largest} %: no significant difference in {len(rows)} scores."
    share, system, row = min(moved, key=lambda item: item[0])
    change = row.change
    assert change is not None and change.relative is not None
    return (
        f"{start} make a significant difference in {len(moved)} of {len(rows)} scores, first at "
        f"{share} % ({system}, {row.cell.task}: {TITLES[row.cell.metric]} "
        f"{bracket(change.relative, 1, '+')} %{row.dagger})."
    )


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Draw the changes against the share; False: there is nothing to draw."""
    lines: Lines = {}
    for (system, label, kind, task), some in shares_of(rows).items():
        lines.setdefault(task, {})[f"{system}, {label} {kind}"] = some
    return plot_lines(lines, "examples with such a label in training, %", "right labels", path)
