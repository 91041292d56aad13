"""What `study_gradients.py` found, told: a section of text and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study_sections import Figure, by_model, closing, markdown_table

from espnet_smoe.plots import new_figure, save_figure

COMPARISONS = {"task": "ASR and ST", "bandwidth": "WB and NB"}
CORNER = "model"  # the side of the row that stands for everything


class Case(NamedTuple):
    """What a row of the table is about."""

    model: str
    checkpoint: str
    comparison: str
    loss: str
    side: str
    module: str
    layer: int | None

    @property
    def place(self) -> str:
        if self.side == CORNER and self.module == "all":
            return "whole model"
        module = "" if self.module == "all" else f" {self.module}"
        return f"{self.side}{module}" if self.layer is None else f"{self.side}{module} {self.layer}"


Groups = dict[Case, list[dict[str, Any]]]


def grouped(results: Sequence[Mapping[str, Any]]) -> Groups:
    """The rows of each case, one per seed."""
    groups: Groups = {}
    for model, some in by_model(results).items():
        for found in (found for result in some for found in result["checkpoints"]):
            for row in found["rows"]:
                names = ("comparison", "loss", "side", "module", "layer")
                case = Case(model, found["checkpoint"], *(row[name] for name in names))
                groups.setdefault(case, []).append(row)
    return groups


def figure_of(rows: Sequence[Mapping[str, Any]], name: str) -> Figure:
    return Figure.of([(row[name]["value"], row[name]["ci95"]) for row in rows])


def latest(groups: Groups) -> dict[str, str]:
    """The last checkpoint of each model."""
    return {case.model: case.checkpoint for case in groups}


def section(results: list[dict[str, Any]]) -> str:
    """Markdown: a table, what it says, the command."""
    header = ["model", "checkpoint", "part", "loss", *(
        f"{words}: {column}" for words in COMPARISONS.values()
        for column in ("across", "within", "difference"))]  # fmt: skip
    groups = grouped(results)
    last = latest(groups)
    lines: dict[tuple[str, ...], list[str]] = {}
    for case, rows in groups.items():
        # single layers are in the picture; what is earlier, or of one loss, is told as a whole
        told_as_a_whole = case.checkpoint != last[case.model] or case.loss != "total"
        if case.layer is not None or (told_as_a_whole and case.module != "all"):
            continue
        key = (case.model, case.checkpoint, case.place, case.loss)
        cells = lines.setdefault(key, ["-"] * 3 * len(COMPARISONS))
        start = 3 * list(COMPARISONS).index(case.comparison)
        cells[start : start + 3] = [
            figure_of(rows, "across").plain(),
            figure_of(rows, "within").plain(),
            figure_of(rows, "difference").signed() + mark(rows),
        ]
    body = [[*key, *cells] for key, cells in lines.items()]
    text = ["### Where tasks and bandwidths interfere", "", *markdown_table(header, body), ""]
    text += [
        "Cosines between the gradients of two batches: of different kinds (across), of the same "
        "kind (within), with 95 % intervals over rounds. * marks a difference below 0, o a cosine "
        "across that is itself below 0 (opposed), both by their intervals.",
        "",
        " ".join(sentences(results)),
        "",
        *closing(results),
    ]
    return "\n".join(text) + "\n"


def mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """``*`` for less agreement than within a kind, ``o`` for opposed gradients."""
    below = figure_of(rows, "difference").high < 0
    return ("*" if below else "") + ("o" if figure_of(rows, "across").high < 0 else "")


def sentences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What it means: a sentence per comparison."""
    groups = grouped(results)
    return [verdict(groups, comparison) for comparison in COMPARISONS]


def verdict(groups: Groups, comparison: str) -> str:
    """A sentence on one comparison, at the last checkpoints, by the loss of training."""
    last = latest(groups)
    words = COMPARISONS[comparison]
    some = {c: rows for c, rows in groups.items()
            if (c.comparison, c.loss) == (comparison, "total") and c.layer is None
            and c.checkpoint == last[c.model] and c.module != "all"}  # fmt: skip
    if not some:
        return f"{words} were not compared."
    apart = {case: rows for case, rows in some.items() if "*" in mark(rows)}
    opposed = sum("o" in mark(rows) for rows in apart.values())
    if not apart:
        return (
            f"Between {words} there is no significant interference: in none of {len(some)} kinds "
            "of module do their gradients agree less than two batches of one kind do."
        )
    most = min(apart, key=lambda case: figure_of(apart[case], "difference").value)
    rows = apart[most]
    return (
        f"Between {words} the gradients agree less than within in {len(apart)} of {len(some)} "
        f"kinds of module, most of all in {most.place} of {most.model} (cosine "
        f"{figure_of(rows, 'across').plain()}, within {figure_of(rows, 'within').plain()}); "
        f"{opposed or 'none'} of them {'is' if opposed == 1 else 'are'} opposed."
    )


def plot(results: list[dict[str, Any]], directory: Path) -> list[Path]:
    """Difference per module and layer at the last checkpoint; curves over checkpoints."""
    directory.mkdir(parents=True, exist_ok=True)
    groups, paths = grouped(results), []
    for number, (model, checkpoint) in enumerate(latest(groups).items()):
        own = {c: rows for c, rows in groups.items()
               if c.model == model and c.loss == "total"}  # fmt: skip
        names = list(dict.fromkeys(c.comparison for c in own))
        figure = new_figure(width=6.0 * len(names), height=4.2)
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            draw_layers(axis, {c: rows for c, rows in own.items()
                               if (c.comparison, c.checkpoint) == (name, checkpoint)})  # fmt: skip
            axis.set_title(f"{COMPARISONS[name]}, {checkpoint}", fontsize=9)
        figure.suptitle(f"Cosine across minus within: {model}", fontsize=10)
        paths.append(directory / f"gradients_{number}.png")
        save_figure(figure, paths[-1])
        checkpoints = list(dict.fromkeys(c.checkpoint for c in own))
        if len(checkpoints) > 1:
            figure = new_figure(width=5.0 * len(names), height=3.6)
            axes = figure.subplots(1, len(names), squeeze=False)[0]
            for axis, name in zip(axes, names, strict=True):
                draw_curves(axis, {c: rows for c, rows in own.items() if c.comparison == name},
                            checkpoints)  # fmt: skip
                axis.set_title(COMPARISONS[name], fontsize=9)
            axes[0].set_ylabel("cosine across minus within")
            axes[-1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1.02, 0.5))
            figure.suptitle(model, fontsize=10)
            paths.append(directory / f"gradients_over_training_{number}.png")
            save_figure(figure, paths[-1])
    return paths


def draw_layers(axis: Any, groups: Groups) -> None:
    """A map of kinds of module by layer; what has no layer stands in a column of its own."""
    kinds = list(dict.fromkeys((c.side, c.module) for c in groups if c.module != "all"))
    layers = sorted({c.layer for c in groups if c.layer is not None})
    values = np.full((len(kinds), len(layers) + 1), np.nan)
    texts = []
    for case, rows in groups.items():
        if (case.side, case.module) in kinds:
            column = len(layers) if case.layer is None else layers.index(case.layer)
            y = kinds.index((case.side, case.module))
            values[y, column] = figure_of(rows, "difference").value
            text = f"{values[y, column]:.2f}{mark(rows)}"
            texts.append((column, y, text))
    bound = max(0.05, float(np.nanmax(np.abs(values))) if values.size else 0.05)
    for x, y, text in texts:
        colour = "white" if abs(values[y, x]) > 0.6 * bound else "black"
        axis.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
    axis.imshow(values, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto")
    axis.set_yticks(range(len(kinds)), [" ".join(kind) for kind in kinds], fontsize=7)
    axis.set_xticks(range(len(layers) + 1), [*map(str, layers), "all"], fontsize=7)
    axis.set_xlabel("layer")


def draw_curves(axis: Any, groups: Groups, checkpoints: Sequence[str]) -> None:
    """The difference of each kind of module over checkpoints."""
    kinds = list(dict.fromkeys((c.side, c.module) for c in groups if c.layer is None))
    for number, kind in enumerate(kinds):
        points = [(checkpoints.index(c.checkpoint), figure_of(rows, "difference").value)
                  for c, rows in groups.items()
                  if (c.side, c.module) == kind and c.layer is None]  # fmt: skip
        x, y = zip(*points, strict=True)
        label = "whole model" if kind == (CORNER, "all") else " ".join(kind)
        axis.plot(x, y, marker=".", label=label, linestyle="-" if number < 10 else "--")
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xticks(range(len(checkpoints)), checkpoints, fontsize=7, rotation=30)
