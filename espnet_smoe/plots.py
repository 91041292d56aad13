"""Two pictures: training curves per route, and the score matrix.

Matplotlib is imported when a picture is drawn, and draws without a display (Agg).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espnet_smoe.datadir import DataError
from espnet_smoe.scoring import LOWER_IS_BETTER, METRICS, Score

BANDWIDTH_ORDER = ("wb", "nb", "all")
CURVE_KINDS = {"acc": "token accuracy (teacher-forced)", "loss_att": "attention loss"}

# {split: {key: {epoch: value}}}, e.g. curves["valid"]["acc_asr_nb"][3]
Curves = dict[str, dict[str, dict[int, float]]]

_RESULT = re.compile(r"(\d+)epoch results: (.*)")
_SECTION = re.compile(r"\[(\w+)\]([^\[]*)")
# A number that fills the value: "time=1 minute and 2 seconds" is not one.
_PAIR = re.compile(r"([^\s,=]+)=([-+]?(?:nan|inf|[\d.]+(?:e[-+]?\d+)?))\s*(?=,|$)")


def parse_training_log(lines: Iterable[str]) -> Curves:
    """Read the per-epoch results that ESPnet's trainer logs.

    Args:
        lines: Lines of one ``train.log``. An epoch that is logged again (training was
            resumed, or started afresh into the same file) replaces itself and what follows.

    Returns:
        ``{"train" | "valid" | ...: {key: {epoch: value}}}``. NaN values (a route that had no
        utterance) and values that are not numbers are left out.
    """
    epochs: dict[int, list[tuple[str, str, float]]] = {}
    for line in lines:
        result = _RESULT.search(line)
        if result is None:
            continue
        epoch = int(result[1])
        epochs = {known: rows for known, rows in epochs.items() if known < epoch}
        epochs[epoch] = [
            (split, key, float(value))
            for split, body in _SECTION.findall(result[2])
            for key, value in _PAIR.findall(body)
            if math.isfinite(float(value))
        ]
    curves: Curves = {}
    for epoch, rows in epochs.items():
        for split, key, number in rows:
            curves.setdefault(split, {}).setdefault(key, {})[epoch] = number
    return curves


def training_logs(expdir: str | Path) -> list[Path]:
    """``train.log`` behind the older logs (``train.1.log``, ...) that ESPnet rotates away.

    Raises:
        DataError: There is none.
    """
    expdir = Path(expdir)
    rotated = [p for p in expdir.glob("train.*.log") if p.name.split(".")[1].isdigit()]
    rotated.sort(key=lambda path: -int(path.name.split(".")[1]))  # oldest first
    logs = [path for path in (*rotated, expdir / "train.log") if path.is_file()]
    if not logs:
        raise DataError(f"{expdir / 'train.log'}: no such file; stage 11 (train) writes it")
    return logs


def log_lines(expdir: str | Path) -> list[str]:
    """The lines of all of a training's logs, oldest first; errors are those of `training_logs`."""
    texts = (p.read_text(encoding="utf-8", errors="replace") for p in training_logs(expdir))
    return [line for text in texts for line in text.splitlines()]


def read_training_logs(expdir: str | Path) -> Curves:
    """Read what the epochs of a training reported.

    Raises:
        DataError: There is no log, or no epoch ended in it. Names the file.
    """
    curves = parse_training_log(log_lines(expdir))
    if not curves:
        last = training_logs(expdir)[-1]
        raise DataError(f"{last}: holds no line '<n>epoch results: [train] ...'")
    return curves


def routes_of(curves: Curves, kind: str) -> dict[str, str]:
    """``{route: key}`` of a kind of curve, e.g. ``{"asr_nb": "acc_asr_nb"}`` for ``acc``.

    A model without routes logs the kind alone; its only curve is called ``all``.
    """
    keys = sorted({key for split in ("train", "valid") for key in curves.get(split, {})})
    pattern = re.compile(rf"{kind}_(.+)")
    routes = {match[1]: key for key in keys if (match := pattern.fullmatch(key))}
    return routes or ({"all": kind} if kind in keys else {})


def plot_training_curves(curves: Curves, path: str | Path, *, title: str = "") -> None:
    """Draw accuracy and attention loss per route over epochs (valid solid, train dashed)."""
    figure = new_figure(width=11.0, height=4.2)
    axes = figure.subplots(1, len(CURVE_KINDS))
    for axis, (kind, label) in zip(axes, CURVE_KINDS.items(), strict=True):
        for number, (route, key) in enumerate(routes_of(curves, kind).items()):
            for split, style in (("train", "--"), ("valid", "-")):
                points = sorted(curves.get(split, {}).get(key, {}).items())
                if points:
                    x, y = zip(*points, strict=True)
                    name = route if split == "valid" else None
                    axis.plot(x, y, style, color=f"C{number % 10}", label=name, marker=".")
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(title="valid: solid, train: dashed", fontsize=8, title_fontsize=8)
    figure.suptitle(title or "Training curves per route")
    save_figure(figure, path)


def plot_score_matrix(scores: Sequence[Score], path: str | Path, *, title: str = "") -> None:
    """Draw test set x task x metric against bandwidth; greener is better, 0 to 100.

    Raises:
        DataError: There is no score.
    """
    if not scores:
        raise DataError("there is no score to draw")
    rows = list(dict.fromkeys((s.test_set, s.task, s.metric) for s in scores))
    rows.sort(key=lambda row: (row[0], row[1], METRICS.index(row[2])))
    seen = {s.bandwidth for s in scores}
    columns = [bw for bw in BANDWIDTH_ORDER if bw in seen] + sorted(seen - set(BANDWIDTH_ORDER))
    figure = new_figure(width=3.2 + 1.9 * len(columns), height=1.2 + 0.62 * len(rows))
    axis = figure.subplots()
    quality = [[math.nan] * len(columns) for _ in rows]
    for s in scores:
        y, x = rows.index((s.test_set, s.task, s.metric)), columns.index(s.bandwidth)
        quality[y][x] = max(0.0, 100.0 - s.value) if s.metric in LOWER_IS_BETTER else s.value
        text = f"{s.value:.1f}\n[{s.ci95[0]:.1f}, {s.ci95[1]:.1f}]"
        axis.text(x, y, text, ha="center", va="center", fontsize=9)
    axis.imshow(quality, cmap="RdYlGn", vmin=0, vmax=100, alpha=0.6, aspect="auto")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), [_row_name(*row) for row in rows])
    axis.set_title(title or "Score with 95 % bootstrap interval", fontsize=10)
    save_figure(figure, path)


def _row_name(test_set: str, task: str, metric: str) -> str:
    name = {"wer": "WER %", "cer": "CER %", "bleu": "BLEU", "chrf": "chrF"}.get(metric, metric)
    return f"{test_set}  {task}  {name}"


def new_figure(*, width: float, height: float) -> Any:
    """An empty figure, inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a PNG, whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    os.replace(partial, path)
