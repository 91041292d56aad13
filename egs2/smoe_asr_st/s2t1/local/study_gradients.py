#!/usr/bin/env python3
"""Experiment: where tasks and bandwidths interfere. Run on a trained model (the dense base), in the
recipe directory.

Cosines between the gradients of ASR and ST batches, and of NB and WB batches, for each kind of
module and layer, at one or several checkpoints of a training. Batches are drawn from the training
set. The gradients of two different batches of the *same* kind are compared as well: their cosine is
far below 1 already, by noise alone, and only what lies below it is a conflict.

A round draws two batches of each task and bandwidth, all of different utterances. An ASR gradient
is the mean of its NB and its WB batch, an NB gradient that of its ASR and its ST batch: so tasks
are compared over the same bandwidths, and bandwidths over the same tasks. Intervals are Student's
t over rounds.

The model is in eval mode: no dropout, no SpecAugment, and BatchNorm by its running statistics. Then
a batch's loss is a mean over its utterances and nothing is random but the draw, and a batch of one
bandwidth is normalised as the mixed batches of training are (its own statistics would be those of
that bandwidth alone). The loss is what training minimises (attention and CTC), and the attention
loss alone: CTC's target is the transcript in both tasks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from study_gradients_section import plot, section, sentences
from study_program import get_parser, load_model, run
from study_testsets import RATE

from espnet_smoe.audio_reader import read_value
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.checkpoints import load_weights
from espnet_smoe.datadir import DataError, read_table
from espnet_smoe.gradient_cosines import (
    LOSSES,
    Part,
    Pull,
    gram,
    loss_gradients,
    mean_interval,
    together,
)
from espnet_smoe.teacher_forcing import Example, TeacherForcing

__all__ = ["plot", "section", "sentences"]

COPIES = 2  # batches of each kind in a round


@dataclass(frozen=True)
class Cell:
    """A kind of batch, and which of a round's it is."""

    task: str
    bandwidth: str
    copy: int


@dataclass(frozen=True)
class Training:
    """The examples of a training set of stage 4, by id."""

    tables: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, directory: Path) -> Training:
        names = ("wav.scp", "text", "text.ctc", "utt2bw", "utt2task", "utt2num_samples")
        return cls({name: read_table(directory / name) for name in names})

    def utterance(self, example: str) -> str:
        """The recording that an example is of."""
        return example.removesuffix(f"_{self.tables['utt2task'][example]}")

    def of(self, task: str, bandwidth: str) -> list[str]:
        """The examples of a task and bandwidth."""
        bands = self.tables["utt2bw"]
        return [e for e, t in self.tables["utt2task"].items() if (t, bands[e]) == (task, bandwidth)]

    def example(self, name: str) -> Example:
        t = self.tables
        samples = read_value(t["wav.scp"][name], name)
        return Example(name, samples, t["text"][name], t["text.ctc"][name], t["utt2bw"][name])

    def draw(
        self, cells: Sequence[Cell], seconds: float, rng: np.random.Generator
    ) -> Iterator[tuple[Cell, list[Example]]]:
        """A batch for each cell, of so many seconds at least; no recording comes twice.

        Raises:
            DataError: There are too few utterances.
        """
        used: set[str] = set()
        for cell in cells:
            total, chosen = 0.0, []
            known = self.of(cell.task, cell.bandwidth)
            for place in rng.permutation(len(known)):
                name = known[place]
                if self.utterance(name) in used:
                    continue
                used.add(self.utterance(name))
                chosen.append(self.example(name))
                total += int(self.tables["utt2num_samples"][name]) / RATE
                if total >= seconds:
                    break
            else:
                raise DataError(
                    f"{total:.1f} s of {cell.task} {cell.bandwidth} are left in a round that "
                    f"draws {len(cells)} batches of {seconds:g} s; accepted: a smaller --seconds"
                )
            yield cell, chosen


Combinations = dict[str, list[list[float]]]


def combinations(cells: Sequence[Cell]) -> Combinations:
    """Per comparison the weights of A1, A2, B1 and B2 over a round's batches, each (N,).

    ``task`` compares the first task (A) with the second, ``bandwidth`` wb (A) with nb.
    """

    def weights(field: str, value: str, copy: int) -> list[float]:
        members = [getattr(c, field) == value and c.copy == copy for c in cells]
        return [float(m) / sum(members) for m in members]

    found: Combinations = {}
    for field in ("task", "bandwidth"):
        values = list(dict.fromkeys(getattr(cell, field) for cell in cells))
        if len(values) == 2:
            found[field] = [weights(field, v, copy) for v in values for copy in range(COPIES)]
    return found


def parts_told(grams: Mapping[Part, np.ndarray]) -> dict[tuple[str, str, int | None], np.ndarray]:
    """Each part's Gram matrix, those of a kind of module over all layers, of a side, and of all.

    Keys are (side, module, layer); module ``all`` is a whole side; side ``model`` is everything.
    """
    told = {(p.side, p.module, p.layer): g for p, g in grams.items() if p.layer is not None}
    for side, module in dict.fromkeys((p.side, p.module) for p in grams):
        some = [g for p, g in grams.items() if (p.side, p.module) == (side, module)]
        told[side, module, None] = together(some)
    for side in ("encoder", "decoder"):
        some = [g for p, g in grams.items() if p.side == side]
        if some:
            told[side, "all", None] = together(some)
    told["model", "all", None] = together(grams.values())
    return told


def summary(pulls: Sequence[Pull]) -> dict[str, Any] | None:
    """Means over rounds, with intervals.

    None where batches do not touch a part, or each kind its own half of it (experts).
    """
    if any(not np.isfinite([p.across, p.within]).all() for p in pulls):
        return None
    if all(p.across == 0.0 for p in pulls):
        return None
    found: dict[str, Any] = {"rounds": len(pulls)}
    for name, values in (
        ("across", [p.across for p in pulls]),
        ("within", [p.within for p in pulls]),
        ("difference", [p.across - p.within for p in pulls]),
    ):
        mean, low, high = mean_interval(values)
        found[name] = {"value": mean, "ci95": [low, high]}
    a, b = (float(np.mean([getattr(p, n) for p in pulls])) for n in ("within_a", "within_b"))
    # what the cosine would be without the noise of batches (Spearman's correction)
    found["without_noise"] = found["across"]["value"] / (a * b) ** 0.5 if min(a, b) > 0 else None
    return found


def at_checkpoint(
    loaded: Any, training: Training, cells: Sequence[Cell], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """All comparisons at the model's present weights."""
    model = loaded.model.eval().requires_grad_(True)
    forcing = TeacherForcing(loaded)
    rng = np.random.default_rng(args.seed)  # the same batches at every checkpoint
    compared = combinations(cells)
    pulls: dict[tuple[Any, ...], list[Pull]] = {}
    for number in range(args.rounds):
        gradients: dict[str, list[dict[str, Any]]] = {loss: [] for loss in LOSSES}
        for _, examples in training.draw(cells, args.seconds, rng):
            for loss, found in loss_gradients(model, forcing.batch(examples)).items():
                gradients[loss].append(found)
        for loss, of_batches in gradients.items():
            for part, gram_NN in parts_told(gram(of_batches)).items():
                for name, weights in compared.items():
                    pull = Pull.of(gram_NN, *weights)
                    pulls.setdefault((name, loss, *part), []).append(pull)
        print(f"round {number + 1} of {args.rounds}", flush=True)
    rows = []
    for (name, loss, side, module, layer), some in pulls.items():
        told = summary(some)
        if told is not None:
            where = {"side": side, "module": module, "layer": layer}
            rows.append({"comparison": name, "loss": loss, **where, **told})
    return rows


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Compare at each checkpoint."""
    if args.rounds < 2:
        raise DataError(f"--rounds {args.rounds}; accepted: 2 or more")
    directory = args.examples / args.train_set
    training = Training.read(directory)
    there = sorted(set(training.tables["utt2task"].values()), key=lambda t: (t != "asr", t))
    tasks = args.tasks.split() or there[:2]
    bands = [b for b in BANDWIDTHS if all(training.of(task, b) for task in tasks)]
    cells = [Cell(*key) for key in product(tasks, bands, range(COPIES))]
    if not combinations(cells):
        raise DataError(f"{directory} has one task and one bandwidth: nothing to compare")
    files = " ".join(args.model_files).split() or [args.model_file]
    loaded = load_model(args, files[0])
    checkpoints = []
    for name in files:
        load_weights(loaded.model, args.s2t_dir / name)
        print(f"{name}:", flush=True)
        rows = at_checkpoint(loaded, training, cells, args)
        checkpoints.append({"checkpoint": name, "rows": rows})
    return {
        "checkpoints": checkpoints,
        "tasks": tasks,
        "bandwidths": bands,
        "rounds": args.rounds,
        "seconds": args.seconds,
    }


def get_options() -> argparse.ArgumentParser:
    parser = get_parser(__doc__)
    parser.add_argument(
        "--model_files", nargs="+", default=[], help="checkpoints; default: --model_file alone"
    )
    parser.add_argument("--rounds", type=int, default=12, help="draws of batches")
    parser.add_argument("--seconds", type=float, default=20.0, help="of audio in a batch")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run("gradients", experiment, get_options(), argv)


if __name__ == "__main__":
    sys.exit(main())
