#!/usr/bin/env python3
"""Experiment: what a learned gate learned. Run on a trained model with gates, in the recipe
directory.

Every test utterance goes through the model once per task, teacher-forced on its reference. Per
bank is told how the frames (encoder) or tokens (decoder) are shared out to the experts, and how
much the choice tells of the bandwidth, of the task and of the speaker: normalised mutual
information, against what chance gives when whole utterances get other labels
(`espnet_smoe.mutual_information`).

Labels belong to what is independent, and the rest of it is added up: a bandwidth to an utterance, a
task and a speaker to a sentence. Where most sentences are there with several values of a label,
values are exchanged within a sentence. The encoder hears no task, so its choices tell nothing of
it: that row is a control. In a decoder the tasks differ in language too, so a gate that follows
words tells of the task.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from study_gate_section import LABELS, plot, section, sentences
from study_program import get_parser, load_model, run
from study_testsets import RATE, Utterance, read_sets

from espnet_smoe.audio_reader import read_value
from espnet_smoe.datadir import DataError
from espnet_smoe.mutual_information import PERMUTATIONS, dependence, summed
from espnet_smoe.teacher_forcing import Example, TeacherForcing, prompted

__all__ = ["plot", "section", "sentences"]

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


class Units(NamedTuple):
    """What a label belongs to: everything else of it is added up, since it is not independent."""

    counts_UE: np.ndarray
    labels: list[str]
    sentences: list[Hashable]

    @property
    def within_sentences(self) -> bool:
        """Whether most sentences are there with several labels."""
        kinds = Counter(sentence for sentence, _ in {*zip(self.sentences, self.labels,
                                                          strict=True)})  # fmt: skip
        return sum(n > 1 for n in kinds.values()) > len(kinds) / 2


def units_of(counts_UE: np.ndarray, rows: Sequence[Row], label: str) -> Units | None:
    """The units of a label; None where it has one value, or is not known for all.

    The tasks of an utterance share its audio, and the copies of a sentence its words: so a
    bandwidth belongs to an utterance, a task to a sentence, a speaker to a sentence.
    """
    sentences = [r.utterance.sentence for r in rows]
    values = {
        "bandwidth": [r.utterance.bandwidth for r in rows],
        "task": [r.task for r in rows],
        "speaker": [r.utterance.speaker for r in rows],
    }[label]
    if None in values or len(set(values)) < 2:
        return None
    total, keys = summed(counts_UE, list(zip(sentences, values, strict=True)))
    return Units(total, [key[1] for key in keys], [key[0] for key in keys])


def examine(
    counts_UE: np.ndarray, rows: Sequence[Row], permutations: int, seed: int
) -> dict[str, Any]:
    """What one bank's choices tell of each label."""
    found: dict[str, Any] = {}
    for label in LABELS:
        units = units_of(counts_UE, rows, label)
        if units is None:
            continue
        strata = units.sentences if units.within_sentences else None
        told = dependence(
            units.counts_UE, units.labels, strata=strata, permutations=permutations, seed=seed
        )
        shares = {}
        for value in dict.fromkeys(units.labels):
            members = units.counts_UE[[v == value for v in units.labels]].sum(axis=0)
            shares[value] = (members / members.sum()).tolist()
        found[label] = {**told.as_dict(), "within_sentences": strata is not None}
        if label != "speaker":
            found[label]["shares"] = shares
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
