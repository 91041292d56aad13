"""Before training: the smallest relative difference that each test set can show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from score import reference_files
from study_analysis import improvement
from study_data import decoded_sets
from study_places import Places
from study_results import write_result

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import read_table
from espnet_smoe.power import CORRELATION, DESIGN_EFFECT, SEED_CV, assumed, smallest_difference
from espnet_smoe.scoring import metrics_for

NAME = "power.json"
RATES = {"wer": 20.0, "bleu": 30.0, "accuracy": 80.0}  # percent, where the study assumes nothing


def plan(places: Places) -> None:
    """Write a corpus's ``power.json`` once, and print it."""
    path = places.results / NAME
    examples = places.dumpdir / "s2t"
    if path.exists() or not examples.exists():
        return
    planned = places.study.planned_seeds(places.corpus.key)
    systems = max(2, sum(count > 1 for count in planned.values()))
    rows = [
        row
        for name in decoded_sets(examples)
        for row in set_rows(examples / name, places, sorted(set(planned.values())), systems)
    ]
    assumptions = {
        "design_effect": DESIGN_EFFECT,
        "correlation": CORRELATION,
        "seed_cv": SEED_CV,
        "systems": systems,
    }
    write_result(path, {"name": places.corpus.key, "assumptions": assumptions, "rows": rows})
    print(f"{path}: the smallest relative improvement that 80 % of such studies find")
    for row in rows:
        found = ", ".join(f"{k} seed(s): {value:+.1f} %" for k, value in row["smallest"].items())
        print(
            f"  {row['set']} {row['task']} {row['bandwidth']}, {row['metric']} {row['rate']:g} of "
            f"{row['words']} words: {found}"
        )


def set_rows(
    directory: Path, places: Places, seeds: list[int], systems: int
) -> list[dict[str, Any]]:
    """A row per task and bandwidth of a test set."""
    utt2bw = read_table(directory / "utt2bw")
    rows = []
    for task, files in reference_files(directory).items():
        metric = metrics_for(task)[0]
        rate = float(places.corpus.assume.get(task, RATES[metric]))
        words: Counter[str] = Counter()
        utterances: Counter[str] = Counter()
        for utt, text in read_table(files[0]).items():
            utterances[utt2bw[utt]] += 1
            words[utt2bw[utt]] += 1 if metric == "accuracy" else len(text.split())
        for bandwidth in BANDWIDTHS:
            if not utterances[bandwidth]:
                continue
            variance = assumed(rate / 100, words[bandwidth])
            smallest = {
                str(k): round(
                    improvement(smallest_difference(variance, seeds=k, systems=systems), metric), 2
                )
                for k in seeds
            }
            rows.append(
                {
                    "set": directory.name,
                    "task": task,
                    "bandwidth": bandwidth,
                    "metric": metric,
                    "rate": rate,
                    "utterances": utterances[bandwidth],
                    "words": words[bandwidth],
                    "smallest": smallest,
                }
            )
    return rows
