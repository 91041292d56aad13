#!/usr/bin/env python3
"""Stage 7: validate the data. All that is wrong is found in one pass and listed, a line each.

The faults that earlier stages noted come first, then what is found here: audio that is missing,
broken or silent, tables that do not fit together, prompts outside the token list, texts in the
wrong place, too long or too short for their audio, or equal to their translation, and test
utterances or speakers in training. With ``--accept_faults true`` what is listed is left out of
the example directories and of the batch plan, and the recipe goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from make_examples import EXAMPLE_TABLES, find_tasks
from options import behind_dashes, conf_value, iterator_type

from espnet_smoe.batching import PLAN_NAME, Batch, iter_plan, write_plan
from espnet_smoe.crosschecks import HeldOut, check_slots, learn_slots
from espnet_smoe.datadir import DataError, publish_dir, write_lines
from espnet_smoe.faults import Fault, read_faults, write_faults
from espnet_smoe.tables import TableWriter
from espnet_smoe.validation import (
    Report,
    check_audio,
    check_ctc,
    check_tables,
    planned_problem,
    sound_lines,
)

SHOWN = 50
LIST_NAME = "validation.jsonl"
# Encoder frames per second of the input layers that do not subsample by 4.
SUBSAMPLING = {"conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8, "conv1d2": 2, "conv1d3": 3}


def frames_of(options: list[str]) -> Callable[[int], int] | None:
    """The most encoder frames that so many samples give; None: no CTC, or not known."""
    layer = conf_value(options, "encoder_conf", "input_layer", "conv2d")
    known = layer in SUBSAMPLING or layer in ("conv2d", "linear", "embed")
    if not options or not known or not conf_value(options, "model_conf", "ctc_weight", 0.5):
        return None
    factor = SUBSAMPLING.get(layer, 4 if layer == "conv2d" else 1)
    hop = int(conf_value(options, "frontend_conf", "hop_length", 128))
    return lambda samples: (samples // hop + 1) // factor + 1


def tokenizer_of(token_list: Path) -> Callable[[str], list[int]] | None:
    """The BPE model beside the token list, if there is one."""
    path = token_list.with_name("bpe.model")
    if not path.exists():
        return None
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return model.encode


def check_everything(args: argparse.Namespace) -> tuple[list[Report], list[Fault], list[Fault]]:
    """Check all sets: a report each, the faults of earlier stages, the speakers that overlap."""
    options = behind_dashes(args.options)
    tokens = set(args.token_list.read_text(encoding="utf-8").split("\n"))
    reports = {name: Report(args.examples / name) for name in args.sets.split()}
    early = [fault for report in reports.values() for fault in read_faults(report.directory)]
    whole = {name: report for name, report in reports.items() if report.is_whole()}
    tests = HeldOut()
    train = whole.get(args.train_set)
    # The test sets first: training is compared with them.
    for name, report in sorted(whole.items(), key=lambda item: item[1].training):
        source = source_of(args, name)
        if not report.training:
            tests.add(name, report.directory, source)
        digests = check_audio(
            report,
            fs=args.fs,
            nj=args.nj,
            decode=args.check_samples == "true",
        )
        if report is train:
            tests.check(report, digests, source)
        for utt, digest in digests:
            if not report.training:
                tests.digests.setdefault(digest, f"{utt} of {name}")
        check_tables(report, tokens, fs=args.fs)
        if not report.training:
            for task, path in find_tasks(report.directory).items():
                if f"<{task}>" not in tokens:
                    reason = f"<{task}> is not in the token list: nothing was trained for this task"
                    report.note(Fault("", str(path), reason))
            continue
        frames, encode = frames_of(options), tokenizer_of(args.token_list)
        if frames and encode:
            check_ctc(report, frames, encode)
        if iterator_type(options, training=report is train) == "task" or not options:
            check_plan(report)
    if train:
        slots = learn_slots(train.directory)
        for report in whole.values():
            check_slots(report, slots)
    speakers = list(tests.check_speakers(train)) if train else []
    return list(reports.values()), early, speakers


def check_plan(report: Report) -> None:
    """Compare the batch plan with the examples."""
    path = report.directory / PLAN_NAME
    try:
        reason = planned_problem(path, report.directory / "utt2num_samples")
    except DataError as error:
        reason = f"{str(error).removeprefix(f'{path}: ')}; rerun stage 6"
    if reason:
        report.note(Fault("", str(path), reason))


def source_of(args: argparse.Namespace, name: str) -> Path | None:
    """The ``wav.scp`` of stage 1 for a set; telephone twins have one."""
    if not args.data:
        return None
    names = (name, name.removesuffix("_wb").removesuffix("_nb"))
    paths = [args.data / name / "wav.scp" for name in names]
    return next((path for path in paths if path.exists()), None)


def once(faults: Iterable[Fault], sets: list[str]) -> list[Fault]:
    """Each fault once; those that the telephone twins ``T_wb`` and ``T_nb`` share too."""
    twins = [n[:-3] for n in sets if n.endswith("_wb") and f"{n[:-3]}_nb" in sets]

    def key(fault: Fault) -> tuple[str, str, str]:
        parts = (fault.file, fault.reason)
        for twin in twins:
            for band in ("wb", "nb"):
                parts = tuple(part.replace(f"/{twin}_{band}/", f"/{twin}/") for part in parts)
        return (fault.utt, *parts)

    found: dict[tuple[str, str, str], Fault] = {}
    for fault in faults:
        found.setdefault(key(fault), fault)
    return list(found.values())


def leave_out(report: Report) -> None:
    """Take what cannot be used out of a set's tables and plan, and note why it went."""
    drop, directory = set(report.drop), report.directory
    if report.training:  # an utterance's transcript is the CTC target of its other examples
        tasks = {task for _, task in sound_lines(directory / "utt2task")}
        bases = [utt.removesuffix("_asr") for utt in drop if utt.endswith("_asr")]
        drop |= {f"{base}_{task}" for base in bases for task in tasks}
    tables = {*EXAMPLE_TABLES.split(), *(p.name for p in directory.glob("text*"))}
    tables |= {path.name for path in directory.glob("utt2*")}
    faults = [*read_faults(directory), *report.faults]
    with publish_dir(directory) as partial:
        for path in sorted(directory.iterdir()):
            if path.name in tables:
                with TableWriter(partial / path.name) as table:
                    for utt, value in sound_lines(path):
                        if utt not in drop:
                            table.write(utt, value)
            elif path.name == PLAN_NAME:
                write_plan(partial / path.name, without(iter_plan(path), drop))
            elif path.is_file():
                shutil.copyfile(path, partial / path.name)
        write_faults(partial, faults)
    print(f"check_data.py: {directory}: {len(drop)} left out")


def without(batches: Iterable[Batch], drop: set[str]) -> Iterator[Batch]:
    """A plan without some examples."""
    for batch in batches:
        utts = tuple(utt for utt in batch.utts if utt not in drop)
        if utts:
            yield Batch(batch.task, batch.samples // len(batch.utts) * len(utts), utts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    true_or_false = {"choices": ["true", "false"]}
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True)
    parser.add_argument("--train_set", default="train", help="which of them is trained on")
    parser.add_argument("--data", type=Path, help="directory of stage 1")
    parser.add_argument("--token_list", type=Path, required=True)
    parser.add_argument("--check_samples", default="true", **true_or_false)
    parser.add_argument("--allow_speaker_overlap", default="false", **true_or_false)
    parser.add_argument("--accept_faults", default="false", **true_or_false)
    parser.add_argument("--fs", type=int, default=16000)
    parser.add_argument("--nj", type=int, default=2)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    try:
        reports, early, speakers = check_everything(args)
    except ValueError as error:
        print(f"check_data.py: {error}", file=sys.stderr)
        return 1
    sets = args.sets.split()
    listed = once([*early, *(f for report in reports for f in report.faults)], sets)
    if args.allow_speaker_overlap == "true":
        for fault in speakers:
            print(f"check_data.py: accepted: {fault}")
    else:
        listed += speakers
    write_lines(
        args.examples / LIST_NAME,
        (json.dumps(asdict(fault), ensure_ascii=False) + "\n" for fault in listed),
    )
    if not listed:
        print(f"check_data.py: {args.sets}: no problem found")
        return 0
    for fault in listed[:SHOWN]:
        print(f"check_data.py: {fault}", file=sys.stderr)
    if len(listed) > SHOWN:
        print(f"check_data.py: ... and {len(listed) - SHOWN} more", file=sys.stderr)
    print(
        f"check_data.py: {len(listed)} problem(s); all of them: {args.examples / LIST_NAME}",
        file=sys.stderr,
    )
    fatal = [f for report in reports for f in report.faults if not f.utt]
    if args.accept_faults != "true" or fatal:
        way_out = "goes on without what is listed"
        if fatal:
            way_out = f"cannot go on with a faulty file ({fatal[0].file})"
        print(f"check_data.py: --accept_faults true {way_out}", file=sys.stderr)
        return 1
    for report in reports:
        if report.drop:
            leave_out(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
