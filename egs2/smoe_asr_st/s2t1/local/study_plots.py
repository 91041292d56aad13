"""The pictures of STUDY.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from study_analysis import Row
from study_efficiency_section import by_place, commonest_place, mean
from study_results import Result
from study_tables import TITLES

from espnet_smoe.plots import BANDWIDTH_ORDER, new_figure, save_figure
from espnet_smoe.scoring import LOWER_IS_BETTER

COLOURS = {"wb": "#0072b2", "nb": "#d55e00", "all": "#555555"}  # told apart by the colour-blind too

LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
Lines = dict[str, dict[str, Mapping[int, Row]]]  # by task, by label: changes by what they grow with


def panels(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by task and test set."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.cell.task, row.cell.test_set), []).append(row)
    return found


def plot_changes(rows: Sequence[Row], path: Path, *, base: str) -> bool:
    """Draw relative changes with their intervals, a panel per task; False: there is none."""
    groups = panels([row for row in rows if row.change and row.change.relative])
    if not groups:
        return False
    systems = list(dict.fromkeys(row.system for group in groups.values() for row in group))
    figure = new_figure(width=1.5 + 4.2 * len(groups), height=1.4 + 0.45 * len(systems))
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, ((task, test_set), group) in zip(axes, groups.items(), strict=True):
        for row in group:
            assert row.change and row.change.relative
            band = row.cell.bandwidth
            shift = 0.22 * (BANDWIDTH_ORDER.index(band) - 1)
            value = row.change.relative
            axis.errorbar(
                value.value,
                systems.index(row.system) + shift,
                xerr=[[value.value - value.low], [value.high - value.value]],
                fmt="o",
                markersize=4,
                capsize=2,
                color=COLOURS[band],
            )
        metric = group[0].cell.metric
        better = "left" if metric in LOWER_IS_BETTER else "right"
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{test_set} {task}", fontsize=10)
        axis.set_xlabel(f"{TITLES[metric]} against {base}, % ({better}: better)")
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].invert_yaxis()
    legend(axes[-1], [row.cell.bandwidth for group in groups.values() for row in group])
    save_figure(figure, path)
    return True


def plot_seeds(rows: Sequence[Row], path: Path) -> None:
    """Draw every run's figure, and each system's mean with its interval."""
    groups = panels(rows)
    systems = list(dict.fromkeys(row.system for row in rows))
    figure = new_figure(width=1.5 + 4.2 * len(groups), height=1.4 + 0.45 * len(systems))
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, ((task, test_set), group) in zip(axes, groups.items(), strict=True):
        for row in group:
            band = row.cell.bandwidth
            y = systems.index(row.system) + 0.22 * (BANDWIDTH_ORDER.index(band) - 1)
            ends = (row.mean.low, row.mean.high)
            axis.plot(ends, (y, y), color=COLOURS[band], linewidth=1, alpha=0.6)
            axis.plot(row.mean.value, y, "|", color=COLOURS[band], markersize=10)
            axis.plot(row.values, [y] * len(row.values), ".", color=COLOURS[band], markersize=6)
        metric = group[0].cell.metric
        axis.set_title(f"{test_set} {task}", fontsize=10)
        axis.set_xlabel(f"{TITLES[metric]} (dots: seeds; line: 95 % interval of the mean)")
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].invert_yaxis()
    legend(axes[-1], [row.cell.bandwidth for row in rows])
    save_figure(figure, path)


def legend(axis: object, bands: Sequence[str]) -> None:
    """Name the bandwidths' colours."""
    from matplotlib.lines import Line2D

    present = [band for band in BANDWIDTH_ORDER if band in bands]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[band], label=band)
        for band in present
    ]
    axis.legend(handles=handles, fontsize=8)  # type: ignore[attr-defined]


def plot_efficiency(corpora: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Draw total and active parameters, and training time, of every system.

    The times of a corpus are those of the machine on which most of its systems were trained;
    a system that was not has no bar.
    """
    names: list[str] = []
    total, active, minutes = [], [], []
    for corpus, results in corpora.items():
        where = commonest_place(results)
        for system in dict.fromkeys(r.system for r in results):
            own = [r.content for r in results if r.system == system]
            there = by_place(results, system).get(where, [])
            names.append(f"{corpus} {system}")
            total.append(own[0]["parameters"]["total"] / 1e6)
            active.append(max(own[0]["parameters"]["active"].values()) / 1e6)
            minutes.append(mean([c["seconds"]["training"] for c in there] or [math.nan]) / 60)
    figure = new_figure(width=10.0, height=1.4 + 0.32 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    left.barh(places, total, color="#bbbbbb", label="total")
    left.barh(places, active, height=0.4, color="#0072b2", label="active on a route")
    left.set_xlabel("parameters, M")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    right.barh(places, minutes, color="#0072b2")
    right.set_xlabel("training, min (mean over seeds, one machine)")
    left.set_yticks(places, names)
    left.invert_yaxis()
    save_figure(figure, path)


def plot_lines(lines: Lines, along: str, other: str, path: Path) -> bool:
    """Draw relative changes against a number, a panel for each task.

    Args:
        lines: The rows to draw; those without a change are left out.
        along: What the number is.
        other: What the changes are against.
        path: The picture.

    Returns:
        False: there is nothing to draw.
    """
    if not lines:
        return False
    figure = new_figure(width=1.0 + 3.8 * len(lines), height=3.6)
    axes = figure.subplots(1, len(lines), squeeze=False)[0]
    labels = list(dict.fromkeys(label for named in lines.values() for label in named))
    for axis, (task, named) in zip(axes, lines.items(), strict=True):
        for label, rows in named.items():
            place = labels.index(label)
            changes = {x: r.change.relative for x, r in rows.items() if r.change}
            ends = {x: c for x, c in changes.items() if c is not None}
            width = max(ends, default=1) / 80
            axis.errorbar(
                [x + width * place for x in ends],
                [c.value for c in ends.values()],
                yerr=[
                    [c.value - c.low for c in ends.values()],
                    [c.high - c.value for c in ends.values()],
                ],
                fmt="o-",
                capsize=2,
                color=LINE_COLOURS[place % len(LINE_COLOURS)],
                label=label,
            )
        metric = next(row.cell.metric for rows in named.values() for row in rows.values())
        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel(along)
        axis.set_ylabel(f"{TITLES[metric]} against {other}, % ({better}: better)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_figure(figure, path)
    return True
