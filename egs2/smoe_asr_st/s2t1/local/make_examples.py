#!/usr/bin/env python3
"""Stage 4: one training example per utterance and task; test sets keep plain references.

Reads the data directories of stage 3 and writes ESPnet's S2T (OWSM) format: the text of an
example is ``<language><task><notimestamps> text``, ``text.ctc`` the source transcript,
``text.prev`` is ``<na>``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.bbpe import normalize_text, reject_special_symbols, special_symbols
from espnet_smoe.datadir import DataError, publish_dir, read_table, require_same_keys, write_table

NOT_A_TASK = ("prev", "ctc")  # text.prev and text.ctc are inputs of training
EXAMPLE_TABLES = "wav.scp text text.prev text.ctc bandwidth utt2bw utt2task utt2num_samples"


def find_tasks(directory: Path) -> dict[str, Path]:
    """The tasks of a data directory: ``text`` is asr, ``text.<task>`` another one."""
    tasks = {"asr": directory / "text"}
    for path in sorted(directory.glob("text.*")):
        suffix = path.name[len("text.") :]
        # text.<task>.ref2 is a further reference for scoring
        if "." not in suffix and suffix not in NOT_A_TASK:
            tasks[suffix] = path
    return tasks


def read_texts(path: Path) -> dict[str, str]:
    """Read and normalise a text table.

    Raises:
        ValueError: A character that Unicode does not know, or a text of nothing but white space
            and control characters; names utterance and file.
    """
    texts = {u: normalize_text(t, utt=u, path=path) for u, t in read_table(path).items()}
    empty = next((utt for utt, text in texts.items() if not text), None)
    if empty is not None:
        raise DataError(f"{path}: utterance {empty!r} has a text without a visible character")
    return texts


def require_known(texts: dict[str, str], utts: dict[str, str], path: Path) -> None:
    """Refuse a text whose utterance has no audio."""
    unheard = next((utt for utt in texts if utt not in utts), None)
    if unheard is not None:
        raise DataError(f"{path}: utterance {unheard!r} is not in {path.parent}/wav.scp")


def copy_tables(source: Path, target: Path, keep: set[str]) -> None:
    """Copy the tables of utterances, for those kept."""
    for path in sorted(p for name in ("wav.scp", "text*", "utt2*") for p in source.glob(name)):
        table = read_table(path)
        write_table(target / path.name, {u: v for u, v in table.items() if u in keep})


def usable(source: Path, args: argparse.Namespace) -> tuple[set[str], dict[str, str]]:
    """Split the utterances into those to keep and those to drop, with the reason."""
    keep, dropped = set(), {}
    for utt, value in read_table(source / "utt2num_samples").items():
        seconds = int(value) / args.fs
        if args.min_seconds <= seconds <= args.max_seconds:
            keep.add(utt)
        else:
            dropped[utt] = f"{seconds:.2f} s, accepted {args.min_seconds} to {args.max_seconds} s"
    return keep, dropped


def make_training_set(source: Path, target: Path, args: argparse.Namespace) -> None:
    """Write the examples of a training or validation set."""
    keep, dropped = usable(source, args)
    tasks = find_tasks(source)
    texts = {task: read_texts(path) for task, path in tasks.items()}
    tables = {name: read_table(source / name) for name in ("wav.scp", "utt2lang", "utt2bw")}
    samples = read_table(source / "utt2num_samples")
    for name, table in [*tables.items(), ("text", texts["asr"])]:
        require_same_keys(samples, table, names=("utt2num_samples", f"{source / name}"))
    symbols = special_symbols(sorted(set(tables["utt2lang"].values())), sorted(tasks))
    out: dict[str, dict[str, object]] = {name: {} for name in EXAMPLE_TABLES.split()}
    for task, table in texts.items():
        require_known(table, samples, tasks[task])
        for utt, text in table.items():
            reject_special_symbols(text, symbols, utt=utt, path=tasks[task])
            if utt not in keep:
                continue
            bandwidth = tables["utt2bw"][utt]
            if bandwidth not in BANDWIDTHS:
                raise DataError(
                    f"{source}/utt2bw: utterance {utt!r} is {bandwidth!r}; accepted: "
                    f"{', '.join(BANDWIDTHS)}"
                )
            example = f"{utt}_{task}"
            if example in out["text"]:
                raise DataError(
                    f"{tasks[task]}: utterance {utt!r} and task {task!r} give the example id "
                    f"{example!r}, as another pair does; rename the utterance"
                )
            out["wav.scp"][example] = tables["wav.scp"][utt]
            out["text"][example] = f"<{tables['utt2lang'][utt]}><{task}><notimestamps> {text}"
            out["text.prev"][example] = "<na>"
            out["text.ctc"][example] = texts["asr"][utt]
            out["bandwidth"][example] = BANDWIDTHS.index(bandwidth)
            out["utt2bw"][example] = bandwidth
            out["utt2task"][example] = task
            out["utt2num_samples"][example] = samples[utt]
    if not out["text"]:
        raise DataError(f"{source}: no utterance is left (dropped: {len(dropped)})")
    with publish_dir(target) as directory:
        for name, rows in out.items():
            write_table(directory / name, rows)
        write_table(directory / "dropped", dropped)
    print(f"{target}: {len(out['text'])} examples of {len(keep)} utterances ({', '.join(tasks)})")
    report_dropped(target, dropped)


def make_test_set(source: Path, target: Path, args: argparse.Namespace) -> None:
    """Write a test set: plain references, no utterance dropped."""
    tasks = find_tasks(source)
    texts = {path.name: read_texts(path) for path in sorted(source.glob("text*"))}
    utts = read_table(source / "wav.scp")
    for name in ("utt2lang", "utt2bw", "utt2num_samples"):
        require_same_keys(utts, read_table(source / name), names=("wav.scp", f"{source / name}"))
    require_same_keys(utts, texts["text"], names=("wav.scp", f"{source / 'text'}"))
    for name, table in texts.items():
        require_known(table, utts, source / name)
    with publish_dir(target) as directory:
        copy_tables(source, directory, set(utts))
        for name, table in texts.items():
            write_table(directory / name, table)
    outside = usable(source, args)[1]
    print(f"{target}: {len(utts)} utterances ({', '.join(tasks)})")
    if outside:
        shown = ", ".join(f"{u} ({reason})" for u, reason in list(outside.items())[:5])
        print(
            f"{target}: {len(outside)} outside the training lengths, decoded all the same (ESPnet "
            f"hears no more than preprocessor_conf.speech_length of one): {shown}"
        )


def report_dropped(target: Path, dropped: dict[str, str]) -> None:
    """Say which utterances were dropped and why."""
    for utt, reason in list(dropped.items())[:5]:
        print(f"{target}: dropped {utt}: {reason}")
    if len(dropped) > 5:
        print(f"{target}: dropped {len(dropped)} in all; see {target}/dropped")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="data directories of stage 3")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train_sets", required=True, help="training and validation sets")
    parser.add_argument("--test_sets", required=True)
    parser.add_argument("--min_seconds", type=float, default=0.2)
    parser.add_argument("--max_seconds", type=float, default=30.0)
    parser.add_argument("--fs", type=int, default=16000)
    args = parser.parse_args()
    try:
        for name in args.train_sets.split():
            make_training_set(args.raw / name, args.out / name, args)
        for name in args.test_sets.split():
            make_test_set(args.raw / name, args.out / name, args)
    except ValueError as error:
        print(f"make_examples.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
