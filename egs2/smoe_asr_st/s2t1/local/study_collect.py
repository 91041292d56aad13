"""What a finished run leaves: everything a later analysis needs, and nothing of this machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import score
import yaml

from espnet_smoe import plots, scoring
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import DataError

FORMAT = 1
PACKAGES = ("espnet_smoe", "espnet", "torch")
RESULT = re.compile(r"(\d+)epoch results: \[train\] .*?\btime=(.*?), total_count=")
PART = re.compile(r"([\d.]+) (week|day|hour|minute|second)s?")
SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
TOLERANCE = 1e-6  # of a corpus figure, recomputed from its counts


def collect(job: dict[str, Any], times: dict[str, Any]) -> dict[str, Any]:
    """The result of a run.

    Args:
        job: What ``study.py`` wrote for it.
        times: Attempts and seconds of each step.

    Raises:
        DataError: Something of the run is missing, or figures do not follow from the counts.
    """
    s2t_dir = Path(job["s2t_dir"])
    seconds, updates = training_time(s2t_dir)
    decoding = times["decode"]
    return {
        "format": FORMAT,
        "name": job["name"],
        **job["identity"],
        **job["data"],
        "updates": updates,
        "seconds": {
            "training": round(seconds, 1),
            # after an interruption, the part that was lost is not known
            "decoding": round(decoding["seconds"], 1) if decoding["attempts"] == 1 else None,
        },
        "processes": job["processes"],
        "machine": machine(s2t_dir),
        "versions": versions(),
        "parameters": parameters(s2t_dir),
        "sets": sets_of(Path(job["examples"]), Path(job["decode_dir"]), job["normalisation"]),
    }


def training_time(s2t_dir: Path) -> tuple[float, int]:
    """Seconds and number of updates of a training, by ESPnet's log.

    The seconds are those of the epochs that count: neither start-up, nor validation, nor what an
    interruption lost.
    """
    curves = plots.read_training_logs(s2t_dir)
    seconds: dict[int, float] = {}
    for line in plots.log_lines(s2t_dir):
        found = RESULT.search(line)
        if found:
            parts = PART.findall(found[2])
            seconds[int(found[1])] = sum(float(n) * SECONDS[unit] for n, unit in parts)
    counts = curves["train"]["total_count"]
    config = yaml.safe_load((s2t_dir / "config.yaml").read_text(encoding="utf-8"))
    last = max(counts)
    total = sum(value for epoch, value in seconds.items() if epoch <= last)
    return total, int(counts[last]) // int(config.get("accum_grad") or 1)


def machine(s2t_dir: Path) -> str:
    """What the model was trained on: processor and cores, or the GPU."""
    config = yaml.safe_load((s2t_dir / "config.yaml").read_text(encoding="utf-8"))
    here = f"{platform.machine()}, {os.cpu_count()} cores"
    if not config.get("ngpu"):
        return here
    import torch

    return f"{torch.cuda.get_device_name(0)}; {here}"


def versions() -> dict[str, str]:
    """Of Python and what decides the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def parameters(s2t_dir: Path) -> dict[str, Any]:
    """Total and active parameters per route, CTC layer included."""
    from espnet2.tasks.s2t import S2TTask

    import espnet_smoe  # noqa: F401
    from espnet_smoe.experts import param_counts

    config = yaml.safe_load((s2t_dir / "config.yaml").read_text(encoding="utf-8"))
    config.update(normalize=None, normalize_conf={})  # its statistics hold no parameters
    counts = param_counts(S2TTask.build_model(argparse.Namespace(**config)))
    return {"total": counts.total, "active": dict(counts.active)}


def sets_of(examples: Path, decode_dir: Path, normalisation: str) -> dict[str, Any]:
    """Per test set the sentence ids and, per task and bandwidth, counts of every utterance.

    ``counts`` has a list per column of `scoring.utterance_counts`; their places are those of
    ``utts``, or of the ``utts`` that ``index`` names.
    """
    scores = json.loads((decode_dir / "results.json").read_text(encoding="utf-8"))
    figures = {
        (row["test_set"], row["task"], row["bandwidth"], row["metric"]): row["value"]
        for row in scores
    }
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["test_set"] for row in scores):
        sets = score.find_sets(examples, decode_dir, name)
        tasks = list(dict.fromkeys(row["task"] for row in scores if row["test_set"] == name))
        cells: list[tuple[dict[str, Any], list[str]]] = []
        for task in tasks:
            data = score.read_decoded(examples, decode_dir, sets, task, [])
            for bandwidth in BANDWIDTHS:
                if bandwidth in data.utt2bw.values():
                    utts, counts = counts_of(data.select(bandwidth), task, normalisation)
                    for metric, columns in counts.items():
                        require_figure(
                            columns, metric, figures[name, task, bandwidth, metric], decode_dir
                        )
                    cell = {"task": task, "bandwidth": bandwidth, "index": None, "counts": counts}
                    cells.append((cell, utts))
        everything = sorted({utt for _, utts in cells for utt in utts})
        place = {utt: number for number, utt in enumerate(everything)}
        for cell, utts in cells:
            if utts != everything:
                cell["index"] = [place[utt] for utt in utts]
        found[name] = {"utts": everything, "cells": [cell for cell, _ in cells]}
    return found


def counts_of(
    data: score.Decoded, task: str, normalisation: str
) -> tuple[list[str], dict[str, list[list[int]]]]:
    """Sentence ids, and columns of counts per metric."""
    keys, refs, hyps = scoring.prepared(data.references, data.hypotheses, normalisation)
    utts = [key.partition("/")[2] for key in keys]
    if len(set(utts)) != len(utts):
        raise DataError(f"task {task}: two utterances of one bandwidth have the same id")
    order = sorted(range(len(utts)), key=utts.__getitem__)
    counts = {}
    for metric in scoring.metrics_for(task):
        rows = scoring.utterance_counts(metric, refs, hyps)[order]
        counts[metric] = [[int(x) for x in column] for column in rows.T]
    return [utts[i] for i in order], counts


def require_figure(columns: list[list[int]], metric: str, value: float, where: Path) -> None:
    """Check that the counts give stage 13's figure."""
    import numpy as np

    again = float(scoring.corpus_value(metric, np.array([[sum(c) for c in columns]], float))[0])
    if abs(again - value) > TOLERANCE:
        raise DataError(f"{where}: {metric} is {value}, and {again} by the utterances' counts")
