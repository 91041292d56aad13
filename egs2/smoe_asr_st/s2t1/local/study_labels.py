#!/usr/bin/env python3
"""Experiment: what wrong and missing labels cost. Run on a trained model, in the recipe directory.

At inference: every test utterance is decoded with the right and with the wrong bandwidth. Routing
is per utterance, so those texts say what any share of wrong labels costs (`espnet_smoe.mixing`).
A *wrong* task label is the prompt of another task: the model then does that, and is scored against
the references of what was wanted. A *missing* bandwidth takes the wb expert, a *missing* task the
prompt that `espnet_smoe.Speech2Text` uses where it is told no task, `<asr>`; with
``--missing_task no_token``, for a model with a ``default_expert`` (or a dense decoder), no task
token at all, and no CTC. Beside it: how often the bandwidth meter errs on these sets, and the score
with its routes.

In training: `corrupt_examples` (`label_noise.py`) makes the training sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from label_noise import FALLBACK, MISSING, WRONG, corrupt_examples
from study_labels_section import DEFAULT_TASK, NO_TOKEN, plot, section, sentences
from study_program import get_parser, load_speech2text, run
from study_sections import proportion
from study_testsets import (
    NORMALISATION,
    OTHER_BANDWIDTH,
    Decoded,
    Utterance,
    cells,
    counts_of,
    decode,
    read_sets,
    takes_bandwidth,
)

from espnet_smoe.bandwidth import AMBIGUOUS
from espnet_smoe.datadir import DataError
from espnet_smoe.mixing import first_significant, mixed_scores
from espnet_smoe.scoring import metrics_for, paired_difference

__all__ = ["corrupt_examples", "plot", "section", "sentences"]

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)


@contextmanager
def without_task_token(speech2text: Any) -> Iterator[None]:
    """Leave the task's token out of every prompt within the block."""
    vocabulary = speech2text.vocabulary
    whole = vocabulary.prompt

    def prompt(language: str, task: str, **options: Any) -> list[int]:
        return [i for i in whole(language, task, **options) if i != vocabulary.ids[task]]

    vocabulary.prompt = prompt
    try:
        yield
    finally:
        del vocabulary.prompt  # the method shows again


def measured_route(decoded: Decoded, key: str) -> str:
    """The meter's choice; without any speech, what the package takes."""
    found = decoded.measured[key]
    return found.likelier if found is not None else FALLBACK


def meter_errors(decoded: Decoded, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """How often the meter takes the wrong route, and how often it is in doubt."""
    n = len(utterances)
    wrong = sum(measured_route(decoded, u.key) != u.bandwidth for u in utterances)
    found = [decoded.measured[u.key] for u in utterances]
    doubtful = sum(f is None or f.label == AMBIGUOUS for f in found)
    return {"wrong": proportion(wrong, n), "ambiguous": proportion(doubtful, n)}


class Texts(NamedTuple):
    """All that was decoded."""

    right: Decoded
    wrong_bandwidth: Decoded | None  # None: the encoder follows no bandwidth
    no_token: Mapping[str, str] | None  # None: a missing task is `DEFAULT_TASK`

    def corrupted(self, u: Utterance, task: str, tasks: Sequence[str]) -> dict[str, str]:
        """The text of an utterance for a task under each kind of wrong label."""
        texts = {}
        if self.wrong_bandwidth is not None:
            wrong = self.wrong_bandwidth.texts[task][u.key]
            right = self.right.texts[task][u.key]
            texts[f"bandwidth {WRONG}"] = wrong
            texts[f"bandwidth {MISSING}"] = right if u.bandwidth == FALLBACK else wrong
        if len(tasks) > 1:
            other = tasks[(list(tasks).index(task) + 1) % len(tasks)]
            texts[f"task {WRONG}"] = self.right.texts[other][u.key]
        if self.no_token is not None:
            texts[f"task {MISSING}"] = self.no_token[u.key]
        elif DEFAULT_TASK in tasks:
            texts[f"task {MISSING}"] = self.right.texts[DEFAULT_TASK][u.key]
        return texts


def decode_all(
    speech2text: Any, utterances: Sequence[Utterance], tasks: Sequence[str], missing_task: str
) -> Texts:
    """Decode each utterance with its right and with wrong labels."""
    right = decode(
        speech2text, utterances, tasks, bandwidth=lambda u: u.bandwidth, title="right labels"
    )
    wrong = None
    if takes_bandwidth(speech2text.s2t_model):
        wrong = decode(
            speech2text,
            utterances,
            tasks,
            bandwidth=lambda u: OTHER_BANDWIDTH[u.bandwidth],
            title="wrong bandwidth",
        )
    no_token = None
    if missing_task == NO_TOKEN:
        with without_task_token(speech2text):
            no_token = decode(
                speech2text,
                utterances,
                tasks[:1],  # the prompt is the same for all
                bandwidth=lambda u: u.bandwidth,
                title="no task token",
                ctc_weight=0.0,
            ).texts[tasks[0]]
    return Texts(right, wrong, no_token)


def measured_score(
    texts: Texts, members: Sequence[Utterance], task: str, metric: str, seed: int
) -> dict[str, Any] | None:
    """The change that the meter's routes make, in place of the right ones."""
    if texts.wrong_bandwidth is None:
        return None
    right = texts.right.texts[task]
    other = texts.wrong_bandwidth.texts[task]
    chosen = {
        u.key: (right if measured_route(texts.right, u.key) == u.bandwidth else other)[u.key]
        for u in members
    }
    references = {u.key: u.references[task] for u in members}
    difference, low, high = paired_difference(
        references,
        {key: right[key] for key in references},
        chosen,
        metric,
        normalisation=NORMALISATION,
        seed=seed,
    )
    return {"difference": difference, "difference_ci95": [low, high]}


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Decode, and mix."""
    utterances, tasks = read_sets(args.examples, args.sets.split(), args.tasks.split(), args.limit)
    shares = [float(share) for share in " ".join(args.shares).split()]
    if any(not 0.0 <= share <= 1.0 for share in shares):
        raise DataError(f"--shares {' '.join(args.shares)}; accepted: 0 to 1")
    texts = decode_all(load_speech2text(args), utterances, tasks, args.missing_task)
    rows, meter = [], []
    for task in tasks:
        for test_set, bandwidth, members in cells(utterances, task):
            place = {"set": test_set, "bandwidth": bandwidth, "task": task, "n": len(members)}
            kinds = {u.key: texts.corrupted(u, task, tasks) for u in members}
            for metric in metrics_for(task):
                right = counts_of(members, texts.right.texts[task], task, metric)
                for kind in kinds[members[0].key]:
                    other = {key: found[kind] for key, found in kinds.items()}
                    wrong = counts_of(members, other, task, metric)
                    mixed = mixed_scores(metric, right, wrong, shares, seed=args.seed)
                    label, noise = kind.split()
                    rows.append(
                        {
                            **place,
                            "metric": metric,
                            "label": label,
                            "noise": noise,
                            "shares": [m.as_dict() for m in mixed],
                            "significant_from": first_significant(
                                metric, right, wrong, seed=args.seed
                            ),
                        }
                    )
                change = measured_score(texts, members, task, metric, args.seed)
                errors = meter_errors(texts.right, members)
                meter.append({**place, "metric": metric, **errors, "change": change})
    return {"rows": rows, "meter": meter, "missing_task": args.missing_task, "shares": shares}


def get_options() -> argparse.ArgumentParser:
    parser = get_parser(__doc__)
    parser.add_argument("--shares", nargs="+", default=[*map(str, SHARES)], help="0 to 1")
    parser.add_argument(
        "--missing_task",
        choices=[DEFAULT_TASK, NO_TOKEN],
        default=DEFAULT_TASK,
        help="what a prompt is like that lacks its task",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run("labels", experiment, get_options(), argv)


if __name__ == "__main__":
    sys.exit(main())
