#!/usr/bin/env python3
"""Experiment: what a wrong route does. Run on a trained S-MoE model, in the recipe directory.

Every test utterance is decoded through the right experts, with the encoder's expert exchanged (NB
and WB), with the decoder's exchanged while the prompt stays (ASR and ST), and with both. Scores
are compared pairwise by utterance, and each text is looked at: which language, which task, empty,
far too long (`espnet_smoe.failures`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from study_program import get_parser, load_speech2text, run
from study_routes_section import BOTH, DECODER, ENCODER, RIGHT, plot, section, sentences
from study_sections import proportion
from study_testsets import (
    NORMALISATION,
    OTHER_BANDWIDTH,
    Utterance,
    cells,
    decode,
    read_sets,
    takes_bandwidth,
    training_texts,
)

from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.failures import FAILURES, Vocabularies, failures, vocabularies_of
from espnet_smoe.routing import RoutingError
from espnet_smoe.scoring import metrics_for, paired_difference, score
from espnet_smoe.swaps import exchanged, guided_as

__all__ = ["plot", "section", "sentences"]

SHOWN = 3  # texts of each failure in the JSON


def conditions_of(model: Any) -> list[str]:
    """What can be exchanged in a model: a side that follows no label cannot."""
    encoder = takes_bandwidth(model)
    decoder = isinstance(model.decoder, SMoETransformerDecoder)
    if not (encoder or decoder):
        raise RoutingError(
            "neither side of the model follows a label, so no route can be wrong; accepted: an "
            "smoe_* encoder or decoder"
        )
    sides = [ENCODER] * encoder + [DECODER] * decoder
    return [RIGHT, *sides, *([BOTH] if len(sides) == 2 else [])]


def decode_condition(
    speech2text: Any,
    utterances: Sequence[Utterance],
    tasks: Sequence[str],
    condition: str,
    ctc_weight: float,
) -> dict[str, dict[str, str]]:
    """Texts by task and key."""
    decoder = speech2text.s2t_model.decoder
    swap: AbstractContextManager[None] = nullcontext()
    if condition in (DECODER, BOTH):
        swap = guided_as(decoder, exchanged(decoder.expert_names))
    wrong_band = condition in (ENCODER, BOTH)
    with swap:
        return decode(
            speech2text,
            utterances,
            tasks,
            bandwidth=lambda u: OTHER_BANDWIDTH[u.bandwidth] if wrong_band else u.bandwidth,
            title=condition,
            ctc_weight=ctc_weight,
        ).texts


def judged(
    utterances: Sequence[Utterance],
    texts: Mapping[str, str],
    task: str,
    vocabularies: Vocabularies,
) -> dict[str, frozenset[str]]:
    """The failures of each utterance's text."""
    found = failures(
        [texts[u.key] for u in utterances],
        [u.references[task] for u in utterances],
        [[t for name, refs in u.references.items() if name != task for t in refs]
         for u in utterances],
        vocabularies,
    )  # fmt: skip
    return {u.key: names for u, names in zip(utterances, found, strict=True)}


def rates(found: Mapping[str, frozenset[str]]) -> dict[str, dict[str, Any]]:
    """How often each failure occurs, and any of them, with Wilson intervals."""
    n = len(found)
    counts = {name: sum(name in names for names in found.values()) for name in FAILURES}
    counts["any"] = sum(bool(names) for names in found.values())
    return {name: proportion(count, n) for name, count in counts.items()}


def compare(
    utterances: Sequence[Utterance],
    right: Mapping[str, str],
    other: Mapping[str, str],
    task: str,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each metric of the task, and its change from the right route, paired by utterance."""
    references = {u.key: u.references[task] for u in utterances}
    a, b = ({key: texts[key] for key in references} for texts in (right, other))
    found = {}
    for metric in metrics_for(task):
        own = score(references, b, metric, normalisation=NORMALISATION, seed=seed)
        change = paired_difference(references, a, b, metric, normalisation=NORMALISATION, seed=seed)
        found[metric] = {
            "value": own.value,
            "ci95": list(own.ci95),
            "difference": change[0],
            "difference_ci95": list(change[1:]),
        }
    return found


def shown(
    utterances: Sequence[Utterance],
    texts: Mapping[str, str],
    found: Mapping[str, frozenset[str]],
    task: str,
) -> dict[str, list[dict[str, str]]]:
    """A few texts of each failure."""
    examples: dict[str, list[dict[str, str]]] = {}
    for u in utterances:
        for name in sorted(found[u.key]):
            some = examples.setdefault(name, [])
            if len(some) < SHOWN:
                some.append(
                    {"utt": u.key, "reference": u.references[task][0], "text": texts[u.key]}
                )
    return examples


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Decode every condition and compare it with the right routes."""
    utterances, tasks = read_sets(args.examples, args.sets.split(), args.tasks.split(), args.limit)
    speech2text = load_speech2text(args)
    conditions = conditions_of(speech2text.s2t_model)
    texts = {task: [t for u in utterances for t in u.references.get(task, ())] for task in tasks}
    train = args.examples / args.train_set
    if train.is_dir():
        for task, more in training_texts(train).items():
            if task in texts:
                texts[task] += more
    vocabularies = {task: vocabularies_of(texts, task) for task in tasks}
    configured = float(speech2text.options.ctc_weight)
    rows = []
    for weight in [configured, 0.0] if args.also_without_ctc and configured else [configured]:
        # a weight of CTC concerns what transcribes
        some = tasks if weight == configured else [t for t in tasks if t == "asr"]
        decoded = {
            c: decode_condition(speech2text, utterances, some, c, weight) for c in conditions
        }
        for task in some:
            ctc = weight if task == "asr" else 0.0
            for test_set, bandwidth, members in cells(utterances, task):
                for condition in conditions:
                    hypotheses = decoded[condition][task]
                    found = judged(members, hypotheses, task, vocabularies[task])
                    rows.append(
                        {
                            "set": test_set,
                            "bandwidth": bandwidth,
                            "task": task,
                            "ctc_weight": ctc,
                            "condition": condition,
                            "n": len(members),
                            "metrics": compare(
                                members, decoded[RIGHT][task], hypotheses, task, args.seed
                            ),
                            "failures": rates(found),
                            "texts_changed": sum(
                                decoded[RIGHT][task][u.key] != hypotheses[u.key] for u in members
                            ),
                            "examples": shown(members, hypotheses, found, task),
                        }
                    )
    sizes = {t: [len(v.wanted), len(v.other)] for t, v in vocabularies.items()}
    return {"conditions": conditions, "rows": rows, "vocabularies": sizes}


def get_options() -> argparse.ArgumentParser:
    parser = get_parser(__doc__)
    parser.add_argument(
        "--also_without_ctc",
        action="store_true",
        help="decode transcripts without CTC too: CTC has no experts and holds a text in place",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run("routes", experiment, get_options(), argv)


if __name__ == "__main__":
    sys.exit(main())
