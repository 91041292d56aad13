"""Where experts help: systems of STUDY.md that have them on other sides or in other blocks."""

from __future__ import annotations

from collections.abc import Sequence

from study_analysis import NEITHER, Row
from study_results import ALL
from study_tables import TITLES, bracket, table

from espnet_smoe.scoring import LOWER_IS_BETTER

PLACES = {  # system: side, blocks
    "encdec_smoe": ("encoder and decoder", "all"),
    "encdec_first_half": ("encoder and decoder", "first half"),
    "encdec_last_half": ("encoder and decoder", "last half"),
    "encdec_every_other": ("encoder and decoder", "every other"),
    "enc_smoe": ("encoder", "all"),
    "dec_smoe": ("decoder", "all"),
}


def placed(rows: Sequence[Row]) -> list[Row]:
    """The rows of systems that differ in where their experts stand; none with fewer than two."""
    found = [r for r in rows if r.system in PLACES and r.change and r.change.relative]
    return found if len({row.system for row in found}) > 1 else []


def section(rows: Sequence[Row], base: str) -> list[str]:
    """Lines of Markdown: a table and a sentence for each task; nothing with fewer than two."""
    lines = []
    for row in together(rows):
        change = row.change
        assert change is not None and change.relative is not None
        cells = [row.cell.task, TITLES[row.cell.metric], *PLACES[row.system]]
        cells += [str(len(change.seeds)), f"{change.base:.2f}", f"{change.system:.2f}"]
        lines.append([*cells, f"{bracket(change.relative, 1, '+')} %", row.verdict + row.dagger])
    if not lines:
        return []
    header = ["task", "metric", "experts in", "blocks", "seeds", base, "system's"]
    text = ["#### Where the experts stand", ""]
    text += table([*header, "relative change [95 %]", "verdict"], lines)
    return [*text, " ".join(sentences(rows, base)), ""]


def together(rows: Sequence[Row]) -> list[Row]:
    """Both bandwidths, by task, in the order of `PLACES`."""
    systems = list(PLACES)
    whole = [row for row in placed(rows) if row.cell.bandwidth == ALL]
    tasks = list(dict.fromkeys(row.cell.task for row in whole))
    return sorted(whole, key=lambda r: (tasks.index(r.cell.task), systems.index(r.system)))


def sentences(rows: Sequence[Row], base: str) -> list[str]:
    """What it means: for each task the place that gains most, and how many differ from Base."""
    by_task: dict[str, list[Row]] = {}
    for row in together(rows):
        by_task.setdefault(row.cell.task, []).append(row)
    return [sentence(task, found, base) for task, found in by_task.items()]


def sentence(task: str, rows: Sequence[Row], base: str) -> str:
    """Of one task."""
    best = min(rows, key=cost)
    change = best.change
    assert change is not None and change.relative is not None
    side, blocks = PLACES[best.system]
    clear = sum(row.verdict != NEITHER for row in rows)
    return (
        f"{task}: of {len(rows)} places the {TITLES[best.cell.metric]} is best with experts in the "
        f"{side}, {blocks} blocks ({bracket(change.relative, 1, '+')} % against {base}: "
        f"{best.verdict}{best.dagger}); {clear} of {len(rows)} differ significantly from {base}."
    )


def cost(row: Row) -> float:
    """The lower, the better."""
    assert row.change is not None and row.change.relative is not None
    value = row.change.relative.value
    return value if row.cell.metric in LOWER_IS_BETTER else -value
