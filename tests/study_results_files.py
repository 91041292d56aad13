"""Results of runs that were never run: texts with a known share of wrong words."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scored_texts import WORDS, sentences

from espnet_smoe import scoring

import study_report  # isort: skip  (the importing test put local/ on the path)
from study_results import write_result  # isort: skip

UTTERANCES = 40
TASKS = ("asr", "st_eng")
BANDS = ("wb", "nb")


def counts(task: str, metric: str, texts: Sequence[str], hyps: Sequence[str]) -> list[list[int]]:
    rows = scoring.utterance_counts(metric, [[text] for text in texts], hyps)
    return [[int(x) for x in column] for column in rows.T]


def wrong_words(texts: Sequence[str], share: float, name: str) -> list[str]:
    rng = random.Random(zlib.crc32(name.encode()))
    return [
        " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())
        for text in texts
    ]


def content(
    corpus: str, system: str, seed: int, share: float, tasks: Sequence[str] = TASKS
) -> dict[str, Any]:
    """A run's result in which a share of the words is wrong."""
    references = sentences(UTTERANCES, 0, low=5, high=12)
    utts, texts = list(references), list(references.values())
    cells = []
    for task in tasks:
        for band in BANDS:
            hyps = wrong_words(texts, share, f"{corpus} {system} {seed} {task} {band}")
            found = {m: counts(task, m, texts, hyps) for m in scoring.metrics_for(task)}
            cells.append({"task": task, "bandwidth": band, "index": None, "counts": found})
    test = {"utterances": UTTERANCES, "sha256": "b" * 16}
    return {
        "format": 1,
        "name": corpus,
        "corpus": corpus,
        "args": ["--mini_size", "60"],
        "system": system,
        "seed": seed,
        "config": {"encoder": system, "max_epoch": 7, "seed": seed},
        "s2t_args": "",
        "data": {} if len(tasks) > 1 else {"tasks": list(tasks)},
        "inference": {"beam_size": 5},
        "commit": "abc1234",
        "train": {"examples": 120, "hours": 0.1, "sha256": ("a" if len(tasks) > 1 else "c") * 16},
        "tests": {f"test_{band}": test for band in BANDS},
        "updates": 1300,
        "seconds": {"training": 600.0 + 10 * seed, "decoding": 100.0},
        "processes": 2,
        "machine": "x86_64, 2 cores",
        "versions": {},
        "parameters": {
            "total": 3000000,
            "active": {"wb/asr": 2000000, "nb/asr": 2000000} if "smoe" in system else {"dense": 3},
        },
        "sets": {"test": {"utts": utts, "cells": cells}},
    }


def write_study(
    directory: Path, corpus: str, shares: Mapping[str, float], seeds: Sequence[int] = (1, 2, 3)
) -> None:
    """The results of a corpus: each system's runs with its share of wrong words."""
    for system, share in shares.items():
        for seed in seeds:
            run = content(corpus, system, seed, share)
            write_result(directory / corpus / f"{system}_seed{seed}.json", run)


def report_of(results: Path) -> str:
    """The STUDY.md of a directory of results, written beside it."""
    out = results.parent / "STUDY.md"
    study_report.main([str(results), "--out", str(out)])
    return out.read_text(encoding="utf-8")
