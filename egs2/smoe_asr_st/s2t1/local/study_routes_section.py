"""What `study_routes.py` found, told: a section of text and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from study_sections import COLOURS, TITLES, Figure, by_model, closing, markdown_table, set_label

from espnet_smoe.plots import new_figure, save_figure
from espnet_smoe.scoring import metrics_for

RIGHT, ENCODER, DECODER, BOTH = "right", "encoder", "decoder", "both"  # whose experts are swapped
TOLD = ("other_task", "wrong_language", "language_mix", "empty", "runaway")  # of FAILURES


class Case(NamedTuple):
    """What a row of the table is about."""

    model: str
    place: str  # test set and bandwidth
    task: str
    ctc_weight: float
    condition: str

    @property
    def task_label(self) -> str:
        return f"{self.task} (no CTC)" if self.task == "asr" and not self.ctc_weight else self.task


Groups = list[tuple[Case, list[dict[str, Any]]]]


def grouped(results: Sequence[Mapping[str, Any]]) -> Groups:
    """The rows of each case, one per seed."""
    groups: dict[Case, list[dict[str, Any]]] = {}
    for name, some in by_model(results).items():
        for row in (row for result in some for row in result["rows"]):
            place = set_label(row["set"], row["bandwidth"])
            case = Case(name, place, row["task"], row["ctc_weight"], row["condition"])
            groups.setdefault(case, []).append(row)
    return list(groups.items())


def change_of(rows: Sequence[Mapping[str, Any]], task: str) -> Figure:
    """The change of the task's first metric."""
    found = [row["metrics"][metrics_for(task)[0]] for row in rows]
    return Figure.of([(m["difference"], m["difference_ci95"]) for m in found])


def rate_of(rows: Sequence[Mapping[str, Any]], failure: str) -> Figure:
    """How often a failure occurs, percent."""
    found = [row["failures"][failure] for row in rows]
    return Figure.of([(100 * f["share"], [100 * x for x in f["ci95"]]) for f in found])


def section(results: list[dict[str, Any]]) -> str:
    """Markdown: a table, what it says, the command."""
    groups = grouped(results)
    seen = [name for name in TOLD if any(rate_of(rows, name).value for _, rows in groups)]
    titles = [name.replace("_", " ") for name in seen]
    header = ["model", "test set", "task", "swapped", "right", "change", *titles]
    lines = []
    for case, rows in groups:
        metric = metrics_for(case.task)[0]
        own = [row["metrics"][metric] for row in rows]
        right = sum(m["value"] - m["difference"] for m in own) / len(own)
        change = "" if case.condition == RIGHT else change_of(rows, case.task).signed()
        lines.append(
            [
                *(case.model, case.place, case.task_label),
                *("nothing" if case.condition == RIGHT else case.condition,),
                *(f"{TITLES[metric]} {right:.2f}", change),
                *(rate_of(rows, failure).plain(1) for failure in seen),
            ]
        )
    text = ["### Routing correctness", "", *markdown_table(header, lines), ""]
    text += [
        "Change: paired by utterance, with its 95 % bootstrap interval; failures: percent of the "
        "utterances, with 95 % Wilson intervals. Not once: "
        f"{', '.join(n.replace('_', ' ') for n in TOLD if n not in seen) or 'none of them'}.",
        "",
        " ".join(sentences(results)),
        "",
        *closing(results),
    ]
    return "\n".join(text) + "\n"


def sentences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What it means: a sentence per side."""
    groups = grouped(results)
    return [verdict(groups, side) for side in (ENCODER, DECODER)]


def verdict(groups: Groups, condition: str) -> str:
    """A sentence on what exchanging one side's experts does."""
    some = [(case, rows) for case, rows in groups if case.condition == condition]
    if not some:
        return f"No model here has experts in its {condition}."
    changes = {case: change_of(rows, case.task) for case, rows in some}
    clear = [case for case, change in changes.items() if change.significant]
    what = f"With the wrong expert of the {condition}"
    if clear:
        most = max(clear, key=lambda case: abs(changes[case].value))
        metric = TITLES[metrics_for(most.task)[0]]
        what += (
            f" {len(clear)} of {len(some)} scores differ significantly from the right one's, most "
            f"of all {metric} of {most.task_label} on {most.place} ({changes[most].signed()}, "
            f"{most.model})"
        )
    else:
        what += (
            f" there is no significant difference from the right one in any of {len(some)} scores"
        )
    share, failure, case = max(
        ((rate_of(rows, name).value, name, case) for case, rows in some for name in TOLD),
        key=lambda entry: entry[0],
    )
    if not share:
        return f"{what}; no text fails in one of these ways."
    return (
        f"{what}; the most frequent failure is '{failure.replace('_', ' ')}' ({share:.1f} % of the "
        f"{case.task_label} texts of {case.place}, {case.model})."
    )


def plot(results: list[dict[str, Any]], directory: Path) -> list[Path]:
    """Failure rates by exchanged side and task, a picture per model."""

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    groups = grouped(results)
    for number, model in enumerate(dict.fromkeys(case.model for case, _ in groups)):
        own = [(case, rows) for case, rows in groups if case.model == model]
        panels = list(dict.fromkeys(case.task_label for case, _ in own))
        figure = new_figure(width=5.5 * len(panels), height=3.8)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, label in zip(axes, panels, strict=True):
            bars = [(case, rows) for case, rows in own if case.task_label == label]
            width = 0.8 / len(TOLD)
            for place, failure in enumerate(TOLD):
                figures = [rate_of(rows, failure) for _, rows in bars]
                error = [
                    [max(0.0, f.value - f.low) for f in figures],
                    [max(0.0, f.high - f.value) for f in figures],
                ]
                x = [i + place * width for i in range(len(bars))]
                heights = [f.value for f in figures]
                axis.bar(x, heights, width, yerr=error, capsize=1.5, color=COLOURS[place],
                         label=failure.replace("_", " "))  # fmt: skip
            names = [f"{case.place}\n{case.condition}" for case, _ in bars]
            axis.set_xticks([i + 0.4 - width / 2 for i in range(len(bars))], names, fontsize=6)
            axis.set_title(label, fontsize=9)
            axis.set_ylim(0, 100)
        axes[0].set_ylabel("% of utterances")
        axes[0].legend(fontsize=7)
        figure.suptitle(f"Failures with exchanged experts: {model}", fontsize=10)
        paths.append(directory / f"routes_{number}.png")
        save_figure(figure, paths[-1])
    return paths
