#!/usr/bin/env python3
"""Experiment: what a learned gate learned. Run on a trained model with gates, in the recipe
directory.

Every test utterance goes through the model once per task, teacher-forced on its reference. Per
bank is told how the frames (encoder) or tokens (decoder) are shared out to the experts, and how
much the choice tells of the bandwidth, of the task and of the speaker: normalised mutual
information, against what chance gives when whole utterances get other labels
(`espnet_smoe.mutual_information`).

Labels are exchanged within what is otherwise equal, where the sets have it: bandwidths among the
copies of a sentence, tasks among the examples of an utterance. The encoder hears no task, so its
choices tell nothing of it: that row is a control. In a decoder the tasks differ in language too, so
a gate that follows words tells of the task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from study_gate_section import plot, section
from study_testsets import RATE, Utterance, get_parser, load_model, read_sets, run

from espnet_smoe.audio_reader import read_value
from espnet_smoe.datadir import DataError
from espnet_smoe.mutual_information import PERMUTATIONS, dependence, summed
from espnet_smoe.teacher_forcing import Example, TeacherForcing, prompted

__all__ = ["plot", "section"]

BATCH_SECONDS = 60.0  # of audio, at most


class Row(NamedTuple):
    """An utterance and a task that went through the model."""

    utterance: Utterance
    task: str


@contextmanager
def recorded(model: Any) -> Iterator[Any]:
    """Record the choices of a model's gates: ``choices`` and ``experts`` of the record, by bank.

    Raises:
        ValueError: It has no learned gates.
    """
    from espnet_smoe.learned_gate import record_gates

    with record_gates(model) as record:
        yield record


def batches(rows: Sequence[Row], seconds: dict[str, float]) -> Iterator[list[Row]]:
    """Rows in order, as many at once as `BATCH_SECONDS` of padded audio hold."""
    batch: list[Row] = []
    longest = 0.0
    for row in rows:
        longest = max(longest, seconds[row.utterance.key])
        if batch and (len(batch) + 1) * longest > BATCH_SECONDS:
            yield batch
            batch, longest = [], seconds[row.utterance.key]
        batch.append(row)
    if batch:
        yield batch


def run_through(loaded: Any, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """How often each row's frames or tokens took each expert: by bank, float (U, E)."""
    import torch

    forcing = TeacherForcing(loaded)
    audio = {u.key: read_value(u.audio, u.key) for u in {row.utterance.key: row.utterance
             for row in rows}.values()}  # fmt: skip
    seconds = {key: len(x) / RATE for key, x in audio.items()}
    model = loaded.model
    with recorded(model) as record, torch.no_grad():
        for batch in batches(rows, seconds):
            examples = []
            for u, task in batch:
                text = prompted(u.language, task, u.references[task][0])
                transcript = u.references.get("asr", u.references[task])[0]
                examples.append(Example(u.key, audio[u.key], text, transcript, u.bandwidth))
            model(**forcing.batch(examples))
        counts = {}
        for name, choices in record.choices.items():
            if len(choices) != len(rows):
                raise DataError(f"{name} recorded {len(choices)} of {len(rows)} utterances")
            size = record.experts[name]
            counts[name] = np.stack(
                [np.bincount(np.asarray(c), minlength=size).astype(float) for c in choices]
            )
    return counts


def strata_of(rows: Sequence[Row], label: str) -> list[Hashable] | None:
    """Within what labels are exchanged; None where it holds one label each."""
    if label == "bandwidth":
        strata: list[Hashable] = [(r.utterance.sentence, r.task) for r in rows]
        values = [r.utterance.bandwidth for r in rows]
    else:
        strata, values = [r.utterance.key for r in rows], [r.task for r in rows]
    kinds: dict[Hashable, set[str]] = {}
    for stratum, value in zip(strata, values, strict=True):
        kinds.setdefault(stratum, set()).add(value)
    several = sum(len(found) > 1 for found in kinds.values())
    return strata if several > len(kinds) / 2 else None


def examine(
    counts_UE: np.ndarray, rows: Sequence[Row], permutations: int, seed: int
) -> dict[str, Any]:
    """What one bank's choices tell."""
    options = {"permutations": permutations, "seed": seed}
    found: dict[str, Any] = {}
    for label, values in (
        ("bandwidth", [r.utterance.bandwidth for r in rows]),
        ("task", [r.task for r in rows]),
    ):
        if len(set(values)) < 2:
            continue
        strata = strata_of(rows, label)
        told = dependence(counts_UE, values, strata=strata, **options).as_dict()
        shares = {}
        for value in dict.fromkeys(values):
            members = counts_UE[[v == value for v in values]].sum(axis=0)
            shares[value] = (members / members.sum()).tolist()
        found[label] = {**told, "within": strata is not None, "shares": shares}
    speakers = {r.utterance.sentence: r.utterance.speaker for r in rows}
    if all(speakers.values()) and len(set(speakers.values())) > 1:
        # the copies and tasks of a sentence are one voice: they stay together
        whole, sentences = summed(counts_UE, [r.utterance.sentence for r in rows])
        voices = [speakers[str(sentence)] for sentence in sentences]
        found["speaker"] = dependence(whole, voices, **options).as_dict()
    return found


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Run everything through the model, and look at each bank."""
    utterances, tasks = read_sets(args.examples, args.sets.split(), args.tasks.split(), args.limit)
    rows = [Row(u, task) for u in utterances for task in tasks if task in u.references]
    banks = []
    for name, counts_UE in run_through(load_model(args), rows).items():
        total_E = counts_UE.sum(axis=0)
        banks.append(
            {
                "bank": name,
                "side": name.partition(".")[0],
                "experts": len(total_E),
                "choices": int(total_E.sum()),
                "shares": (total_E / total_E.sum()).tolist(),
                "labels": examine(counts_UE, rows, args.permutations, args.seed),
            }
        )
    return {"banks": banks, "n": len(rows), "tasks": tasks}


def get_options() -> argparse.ArgumentParser:
    parser = get_parser(__doc__)
    parser.add_argument("--permutations", type=int, default=PERMUTATIONS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run("gate", experiment, get_options(), argv)


if __name__ == "__main__":
    sys.exit(main())
