"""What `study_gate.py` found, told: a section of text and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study_sections import COLOURS, by_model, closing, markdown_table

from espnet_smoe.plots import new_figure, save_figure

LABELS = ("bandwidth", "task", "speaker")
OWN_LABEL = {"encoder": "bandwidth", "decoder": "task"}  # what S-MoE's experts follow there
LEVEL = 0.05  # over all banks of a model and label together (Bonferroni)


class Told(NamedTuple):
    """What the choices of one bank of a model tell of a label; means over seeds."""

    nmi: float
    null_95: float
    p_value: float  # the largest


Banks = dict[str, dict[str, list[Mapping[str, Any]]]]  # by model, by bank; one per seed


def grouped(results: Sequence[Mapping[str, Any]]) -> Banks:
    """The banks of each model."""
    models: Banks = {}
    for model, some in by_model(results).items():
        for bank in (bank for result in some for bank in result["banks"]):
            models.setdefault(model, {}).setdefault(bank["bank"], []).append(bank)
    return models


def told(seeds: Sequence[Mapping[str, Any]], label: str) -> Told | None:
    """What a bank's choices tell of a label; None: it was not looked at."""
    found = [bank["labels"][label] for bank in seeds if label in bank["labels"]]
    if not found:
        return None
    return Told(
        float(np.mean([f["nmi"] for f in found])),
        float(np.mean([f["null_95"] for f in found])),
        max(f["p_value"] for f in found),
    )


def short(bank: str) -> str:
    """``encoder.encoders.0.feed_forward`` as ``encoder 0 feed_forward``."""
    return bank.replace(".encoders.", " ").replace(".decoders.", " ").replace(".", " ")


def significant(banks: Mapping[str, list[Mapping[str, Any]]], side: str, label: str) -> list[str]:
    """The banks of a side whose choices tell of a label beyond chance."""
    found = {n: t for n, seeds in banks.items()
             if seeds[0]["side"] == side and (t := told(seeds, label))}  # fmt: skip
    return [name for name, t in found.items() if t.p_value < LEVEL / len(found)]


def section(results: list[dict[str, Any]]) -> str:
    """Markdown: a table, what it says, the command."""
    header = ["model", "bank", "shares of the experts", *(f"NMI with {x}" for x in LABELS)]
    models = grouped(results)
    lines = []
    for model, banks in models.items():
        for name, seeds in banks.items():
            cells = []
            for label in LABELS:
                t = told(seeds, label)
                star = "*" if name in significant(banks, seeds[0]["side"], label) else ""
                cells.append(f"{t.nmi:.4f}{star} ({t.null_95:.4f})" if t else "-")
            shares = " / ".join(
                ", ".join(f"{100 * share:.0f} %" for share in bank["shares"]) for bank in seeds
            )
            lines.append([model, short(name), shares, *cells])
    text = ["### What a learned gate learned", "", *markdown_table(header, lines), ""]
    text += [
        "NMI: normalised mutual information of the choice with the label, 0 to 1; in brackets "
        "what 95 % of the permutations of the labels over utterances stay below; * marks more than "
        f"chance at the {100 * LEVEL:.0f} % level, all banks of a side together. Shares of several "
        "seeds are separated by '/'.",
        "",
        *(" ".join(verdict(model, banks)) for model, banks in models.items()),
        "",
        *closing(results),
    ]
    return "\n".join(text) + "\n"


def sentences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What it means: a sentence per model and side."""
    models = grouped(results)
    return [sentence for model, banks in models.items() for sentence in verdict(model, banks)]


def verdict(model: str, banks: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """A sentence per side on whether its gates found what S-MoE is told."""
    sentences = []
    for side, label in OWN_LABEL.items():
        found = {name: t for name, seeds in banks.items()
                 if seeds[0]["side"] == side and (t := told(seeds, label))}  # fmt: skip
        if not found:
            continue
        clear = significant(banks, side, label)
        best = max(found, key=lambda name: found[name].nmi)
        nmi = found[best].nmi
        start = f"{model}: in the {side}" if not sentences else f"In the {side}"
        if not clear:
            sentences.append(
                f"{start} no gate's choice tells of the {label} beyond chance (at most NMI "
                f"{nmi:.4f}): no significant dependence."
            )
            continue
        sentences.append(
            f"{start} {len(clear)} of {len(found)} gates tell of the {label} beyond chance, most "
            f"{short(best)} with NMI {nmi:.4f}, where S-MoE's route has 1."
        )
    return sentences


def plot(results: list[dict[str, Any]], directory: Path) -> list[Path]:
    """NMI per bank beside chance, a picture per model."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (model, banks) in enumerate(grouped(results).items()):
        figure = new_figure(width=2.5 + 0.5 * len(banks), height=4.0)
        axis = figure.subplots()
        x = np.arange(len(banks))
        for place, label in enumerate(LABELS):
            found = [told(seeds, label) for seeds in banks.values()]
            if not any(found):
                continue
            at = x + 0.27 * (place - 1)
            axis.bar(at, [t.nmi if t else 0.0 for t in found], 0.25, color=COLOURS[place],
                     label=label)  # fmt: skip
            axis.plot(at, [t.null_95 if t else np.nan for t in found], "_", color="black",
                      markersize=9, label="chance (95 %)" if place == 0 else None)  # fmt: skip
        axis.set_xticks(x, [short(name) for name in banks], rotation=90, fontsize=7)
        axis.set_ylabel("normalised mutual information")
        axis.legend(fontsize=7)
        axis.set_title(model, fontsize=10)
        paths.append(directory / f"gate_{number}.png")
        save_figure(figure, paths[-1])
    return paths
