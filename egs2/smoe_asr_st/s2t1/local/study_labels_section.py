"""What `study_labels.py` found, told: a section of text and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from label_noise import WRONG
from study_sections import (
    COLOURS,
    TITLES,
    Figure,
    by_model,
    closing,
    markdown_table,
    proportion,
    set_label,
)

from espnet_smoe.plots import new_figure, save_figure
from espnet_smoe.scoring import metrics_for

DEFAULT_TASK, NO_TOKEN = "asr", "no_token"
LABELS = ("bandwidth", "task")


class Case(NamedTuple):
    """What a row of the table is about."""

    model: str
    place: str
    task: str
    label: str
    noise: str


def grouped(results: Sequence[Mapping[str, Any]]) -> dict[Case, list[dict[str, Any]]]:
    """The rows of each case, of the task's first metric, one per seed."""
    groups: dict[Case, list[dict[str, Any]]] = {}
    for name, some in by_model(results).items():
        for row in (row for result in some for row in result["rows"]):
            if row["metric"] != metrics_for(row["task"])[0]:
                continue
            place = set_label(row["set"], row["bandwidth"])
            case = Case(name, place, row["task"], row["label"], row["noise"])
            groups.setdefault(case, []).append(row)
    return groups


def changes_of(rows: Sequence[Mapping[str, Any]]) -> dict[float, Figure]:
    """By share the change of the score."""
    shares = [entry["share"] for entry in rows[0]["shares"]]
    found: dict[float, Figure] = {}
    for share in shares:
        entries = [e for row in rows for e in row["shares"] if e["share"] == share]
        found[share] = Figure.of([(e["difference"], e["difference_ci95"]) for e in entries])
    return found


def first_of(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share from which on the change is significant with every seed."""
    firsts = [row["significant_from"] for row in rows]
    return None if None in firsts else max(firsts)


def percent(share: float | None) -> str:
    return "never" if share is None else f"{100 * share:g} %"


def section(results: list[dict[str, Any]]) -> str:
    """Markdown: tables, what they say, the command."""
    groups = grouped(results)
    shares = [share for share in results[0]["shares"] if share]
    header = ["model", "test set", "task", "label", "right", *map(percent, shares), "from"]
    sizes = sorted({str(rows[0]["n"]) for rows in groups.values()}, key=int)
    least = round(1.0 - 0.025 ** (1.0 / max(map(int, sizes))), 4)
    lines, idle = [], []
    for case, rows in groups.items():
        changes = changes_of(rows)
        if not any((f.value, f.low, f.high) != (0.0, 0.0, 0.0) for f in changes.values()):
            idle.append(f"{case.label} {case.noise} for {case.task} on {case.place} ({case.model})")
            continue
        right = sum(r["shares"][0]["value"] - r["shares"][0]["difference"] for r in rows)
        marked = [f"{changes[s].value:+.2f}{'*' if changes[s].significant else ''}" for s in shares]
        title = TITLES[metrics_for(case.task)[0]]
        lines.append(
            [
                *(case.model, case.place, case.task, f"{case.label} {case.noise}"),
                *(f"{title} {right / len(rows):.2f}", *marked, percent(first_of(rows))),
            ]
        )
    text = ["### Wrong and missing labels at inference", "", *markdown_table(header, lines), ""]
    text += [
        "Change of the score where that share of the utterances carries such a label; * marks a "
        "95 % interval without 0; 'from' is the smallest share from which on it is without 0 (of "
        f"{' or '.join(sizes)} utterances, of which no share below {percent(least)} can be told "
        "from none: too often none of those drawn would be wrong). "
        f"Missing task: {missing_words(results)}. "
        f"No text changes by: {', '.join(idle) or 'none of the kinds that were tried'}.",
        "",
        *meter_table(results),
        "",
        " ".join(sentences(results)),
        "",
        *closing(results),
    ]
    return "\n".join(text) + "\n"


def missing_words(results: Sequence[Mapping[str, Any]]) -> str:
    """What a prompt without a task was."""
    kinds = dict.fromkeys(r["missing_task"] for r in results)
    words = {DEFAULT_TASK: f"the prompt of {DEFAULT_TASK}", NO_TOKEN: "no task token, no CTC"}
    return "; ".join(words[kind] for kind in kinds)


def meter_table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the bandwidth meter does on the same sets."""
    header = ["model", "test set", "task", "meter wrong", "ambiguous", "change with its routes"]
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for name, some in by_model(results).items():
        for row in (row for result in some for row in result["meter"]):
            if row["metric"] == metrics_for(row["task"])[0] and row["change"]:
                place = set_label(row["set"], row["bandwidth"])
                groups.setdefault((name, place, row["task"]), []).append(row)
    lines = []
    for case, rows in groups.items():
        change = Figure.of([(r["change"]["difference"], r["change"]["difference_ci95"])
                            for r in rows])  # fmt: skip
        errors = [rows[0][kind] for kind in ("wrong", "ambiguous")]
        lines.append([*case, *(f"{e['count']} of {e['n']}" for e in errors), change.signed()])
    return markdown_table(header, lines) if lines else []


def sentences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What it means: on the labels, and on the meter beside them."""
    return [verdict(grouped(results)), meter_verdict(results)]


def verdict(groups: Mapping[Case, list[dict[str, Any]]]) -> str:
    """A sentence on the shares at which labels begin to matter."""
    parts = []
    for label in LABELS:
        firsts = {c: first_of(rows) for c, rows in groups.items()
                  if (c.label, c.noise) == (label, WRONG)}  # fmt: skip
        if not firsts:
            continue
        clear = {case: share for case, share in firsts.items() if share is not None}
        if not clear:
            parts.append(f"wrong {label} labels make no significant difference at any share")
            continue
        case = min(clear, key=lambda c: clear[c])
        parts.append(
            f"wrong {label} labels make a significant difference in {len(clear)} of {len(firsts)} "
            f"scores, first from a share of {percent(clear[case])} ({case.task} on {case.place}, "
            f"{case.model})"
        )
    sentence = "; ".join(parts) or "no label is used by these models"
    return f"{sentence[0].upper()}{sentence[1:]}."


def meter_verdict(results: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the meter beside that."""
    sets = {(r["set"], r["bandwidth"]): r["wrong"] for result in results for r in result["meter"]}
    total = proportion(sum(w["count"] for w in sets.values()), sum(w["n"] for w in sets.values()))
    low, high = total["ci95"]
    return (
        f"The bandwidth meter takes the wrong route for {total['count']} of {total['n']} "
        f"utterances ({100 * total['share']:.2f} % [{100 * low:.2f}, {100 * high:.2f}])."
    )


def plot(results: list[dict[str, Any]], directory: Path) -> list[Path]:
    """The score against the share of wrong labels, a picture per model."""

    directory.mkdir(parents=True, exist_ok=True)
    groups, paths = grouped(results), []
    for number, model in enumerate(dict.fromkeys(case.model for case in groups)):
        own = {case: rows for case, rows in groups.items() if case.model == model}
        panels = list(dict.fromkeys((case.task, case.place) for case in own))
        figure = new_figure(width=4.2 * len(panels), height=3.6)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            curves = [(c, rows) for c, rows in own.items() if (c.task, c.place) == panel]
            for colour, (case, rows) in zip(COLOURS, curves, strict=False):
                found = changes_of(rows)
                x = [100 * share for share in found]
                label = f"{case.label} {case.noise}"
                axis.plot(x, [f.value for f in found.values()], ".-", color=colour, label=label)
                low, high = ([getattr(f, end) for f in found.values()] for end in ("low", "high"))
                axis.fill_between(x, low, high, alpha=0.15, color=colour)
            axis.axhline(0, color="black", linewidth=0.6)
            axis.set_xlabel("% of the utterances")
            axis.set_title(" on ".join(panel), fontsize=9)
            axis.set_ylabel(f"change of {TITLES[metrics_for(panel[0])[0]]}")
        axes[0].legend(fontsize=7)
        figure.suptitle(f"Wrong and missing labels: {model}", fontsize=10)
        paths.append(directory / f"labels_{number}.png")
        save_figure(figure, paths[-1])
    return paths
