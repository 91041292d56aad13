"""A model's inspection and two checkpoints' difference as tables, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.plots import new_figure, save_figure

if TYPE_CHECKING:
    from espnet_smoe.inspect_model import ExpertDrift, Inspection, PairDrift, Place
    from espnet_smoe.model_diff import WeightsDiff

NO_EXPERTS = "no expert banks: a dense model"
SHADES = "viridis"


def print_inspection(found: Inspection, title: str, console: Console) -> None:
    """Print layers, parameters, and the experts' distances, a line per bank and pair."""
    table = _table(f"{title}: sides", "side", "class", ">blocks", "experts", "blocks with experts")
    for side in found.sides:
        blocks = _ranges(side.expert_blocks) or "none"
        table.add_row(
            side.name, side.kind, str(side.blocks), ", ".join(side.experts) or "none", blocks
        )
    console.print(table)
    total = found.parameters.total
    table = _table("parameters", "what", ">parameters", ">share")
    rows = [("total", total)]
    rows += [(f"active on {route}", n) for route, n in found.parameters.active.items()]
    rows += [
        (
            part.name if part.expert is None else f"{part.name}, expert {part.expert}",
            part.parameters,
        )
        for part in found.parts
    ]
    for name, count in rows:
        table.add_row(name, f"{count:,}", f"{100 * count / total:.1f} %" if total else "")
    console.print(table)
    if not found.pairs and not found.origins:
        console.print(NO_EXPERTS if not any(side.experts for side in found.sides) else "one expert")
        return
    has_origin = any(pair.change_cosine is not None for pair in found.pairs)
    columns = ["bank", ">block", "experts", ">distance", ">cosine"]
    table = _table("experts of a bank", *columns, *([">cosine of changes"] if has_origin else []))
    for pair in found.pairs:
        cells = [pair.place.part, str(pair.place.block), _names(pair)]
        cells += [_number(pair.distance), _number(pair.cosine)]
        table.add_row(*cells, *([_number(pair.change_cosine)] if has_origin else []))
    console.print(table)
    if found.origins:
        table = _table("experts against their origin", "bank", ">block", "expert", ">distance")
        for drift in found.origins:
            place = drift.place
            table.add_row(place.part, str(place.block), drift.expert, _number(drift.distance))
        console.print(table)


def print_diff(diff: WeightsDiff, first: str, second: str, console: Console) -> None:
    """Print what differs between two checkpoints; everything that either has is accounted for."""
    table = _table(f"{first} against {second}", "module", ">equal", ">distance", ">largest")
    for change in diff.modules:
        equal = f"{change.equal} of {change.tensors}"
        table.add_row(change.module, equal, _number(change.distance), f"{change.largest:.3g}")
    console.print(table)
    same, differing = diff.equal_counters, len(diff.counters)
    console.print(f"tensors of integers: {same} equal, {differing} that differ")
    for name, old, new in diff.counters:
        console.print(f"  {name}: {old} and {new}")
    console.print(f"tensors of unequal shapes: {len(diff.shapes) or 'none'}")
    for shape in diff.shapes:
        console.print(f"  {shape.name}: {shape.first} and {shape.second}")
    for title, names in ((first, diff.only_first), (second, diff.only_second)):
        console.print(f"only in {title}: {len(names) or 'none'}")
        for name in names:
            console.print(f"  {name}")


def write_json(path: Path, found: Inspection, diff: WeightsDiff | None) -> None:
    """Write everything that is printed; NaN is null.

    Raises:
        ModelError: The file exists.
    """
    check_free(path)
    content: dict[str, Any] = dataclasses.asdict(found)
    if diff is not None:
        content["diff"] = dataclasses.asdict(diff)
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def draw(found: Inspection, path: Path, *, title: str) -> None:
    """Draw each bank's distances as a heat map: kinds of bank and pairs down, blocks across.

    Args:
        found: The model's.
        path: Ends in ``.png``.
        title: Above it.

    Raises:
        ModelError: The model has no two experts to compare, another ending, or the file exists.
    """
    check_picture(path)
    if not found.pairs:
        raise ModelError(f"{title} has no bank of several experts, so there is nothing to draw")
    panels: list[tuple[str, dict[str, dict[int, float]], tuple[float, float]]] = [
        (
            "relative distance of two experts, ||a-b|| / mean(||a||, ||b||)",
            _rows(found.pairs, lambda pair: pair.distance),
            (0.0, _highest(pair.distance for pair in found.pairs)),
        ),
        ("cosine of two experts", _rows(found.pairs, lambda pair: pair.cosine), (0.0, 1.0)),
    ]
    if any(pair.change_cosine is not None for pair in found.pairs):
        changes = _rows(found.pairs, lambda pair: pair.change_cosine)
        panels.append(("cosine of two experts' changes since their origin", changes, (0.0, 1.0)))
    if found.origins:
        highest = _highest(drift.distance for drift in found.origins)
        rows = _rows(found.origins, lambda drift: drift.distance)
        panels.append(("relative distance of an expert from its origin", rows, (0.0, highest)))
    blocks = 1 + max(pair.place.block for pair in found.pairs)
    lines = sum(len(rows) for _, rows, _ in panels)
    figure = new_figure(width=4.5 + 0.62 * blocks, height=0.9 * len(panels) + 0.42 * lines + 0.5)
    heights = [len(rows) + 1 for _, rows, _ in panels]
    all_axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (label, rows, span) in zip(all_axes, panels, strict=True):
        _heat_map(axis, label, rows, span, blocks)
    all_axes[-1].set_xlabel("block")
    figure.suptitle(title)
    save_figure(figure, path)


def _heat_map(
    axis: Any, label: str, rows: dict[str, dict[int, float]], span: tuple[float, float], blocks: int
) -> None:
    values = [[row.get(block, math.nan) for block in range(blocks)] for row in rows.values()]
    axis.imshow(values, cmap=SHADES, vmin=span[0], vmax=span[1], aspect="auto")
    middle = sum(span) / 2
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                color = "white" if value < middle else "black"
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    axis.set_title(label, fontsize=9)
    axis.set_xticks(range(blocks))
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)


def _rows(
    drifts: Sequence[PairDrift] | Sequence[ExpertDrift], value: Callable[[Any], float | None]
) -> dict[str, dict[int, float]]:
    """Per kind of bank and pair (or expert) the value of each block."""
    rows: dict[str, dict[int, float]] = {}
    for drift in drifts:
        number = value(drift)
        row = rows.setdefault(f"{_short(drift.place)}: {_names(drift)}", {})
        row[drift.place.block] = math.nan if number is None else number
    return rows


def _names(drift: Any) -> str:
    return drift.expert if hasattr(drift, "expert") else f"{drift.first} - {drift.second}"


def _short(place: Place) -> str:
    return place.part.replace("feed_forward", "FFN").replace("FFN_macaron", "macaron FFN")


def _highest(values: Any) -> float:
    return max((v for v in values if math.isfinite(v)), default=0.0) or 1.0


def check_free(path: Path) -> None:
    """Raises ModelError for a file that exists, or whose directory does not."""
    if path.exists():
        raise ModelError(f"{str(path)!r} exists; nothing is overwritten")
    if not path.absolute().parent.is_dir():
        raise ModelError(f"{str(path)!r}: its directory does not exist")


def check_picture(path: Path) -> None:
    """Raises ModelError for a file that exists or that has another ending."""
    if path.suffix != ".png":
        raise ModelError(f"picture {str(path)!r}: accepted are names that end in .png")
    check_free(path)


def _finite(value: Any) -> Any:
    """The same with None for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 5`` for 0, 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _table(title: str, *columns: str) -> Table:
    """A table; ``>`` in front of a column's name puts its numbers to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left")
    return table
