#!/usr/bin/env python3
"""Stage 4: one training example per utterance and task; test sets keep plain references.

Reads the data directories of stage 3 and writes ESPnet's S2T (OWSM) format: the text of an
example is ``<language><task><notimestamps> text``, ``text.ctc`` the source transcript,
``text.prev`` is ``<na>``. What cannot be used is left out and noted (``faults.jsonl``): the
utterance, or with a faulty translation that task's example alone. ``--extra_tasks`` makes tasks
of labels that stand in tables ``utt2<task>``. Tables are read and written
line by line, whatever their size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.bbpe import normalize_text, reject_special_symbols, special_symbols
from espnet_smoe.datadir import DataError, publish_dir, read_table
from espnet_smoe.faults import Fault, read_faults, summary, write_faults
from espnet_smoe.tables import Broken, TableWriter, Value, join, reordered, rows

NOT_A_TASK = ("prev", "ctc")  # text.prev and text.ctc are inputs of training
REQUIRED = ("wav.scp", "utt2num_samples", "utt2bw", "utt2lang", "text")
EXAMPLE_TABLES = "wav.scp text text.prev text.ctc bandwidth utt2bw utt2task utt2num_samples"
SPEAKERS = "utt2spk"  # copied where there is one
SHOWN = 5


def find_tasks(directory: Path) -> dict[str, Path]:
    """The tasks of a data directory: ``text`` is asr, ``text.<task>`` another one."""
    tasks = {"asr": directory / "text"}
    for path in sorted(directory.glob("text.*")):
        suffix = path.name[len("text.") :]
        # text.<task>.ref2 is a further reference for scoring
        if "." not in suffix and suffix not in NOT_A_TASK:
            tasks[suffix] = path
    return tasks


def label_tables(directory: Path, tasks: str) -> dict[str, str]:
    """The tables that the labels of further tasks stand in.

    Args:
        directory: A data directory.
        tasks: Between spaces; ``bandwidth`` means ``utt2bw``, any other ``utt2<task>``.

    Returns:
        ``{"text.<task>": table}``.

    Raises:
        DataError: There is no such table, or the task has texts already.
    """
    tables = {}
    for task in tasks.split():
        table = directory / ("utt2bw" if task == "bandwidth" else f"utt2{task}")
        if not table.is_file():
            known = sorted(path.name for path in directory.glob("utt2*"))
            raise DataError(
                f"--extra_tasks {task}: {table}: no such file (known: {', '.join(known)})"
            )
        if task in find_tasks(directory):
            raise DataError(f"--extra_tasks {task}: {directory / f'text.{task}'} is there already")
        tables[f"text.{task}"] = table.name
    return tables


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


@dataclass
class Source:
    """A data directory of stage 3, read utterance by utterance.

    Attributes:
        directory: The directory.
        names: Its tables; those of `REQUIRED` cover every utterance.
        labels: ``{"text.<task>": table}`` of texts that are copied from another table.
        faults: What is wrong with it: noted by earlier stages, then by this one.
    """

    directory: Path
    names: list[str]
    labels: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(init=False)

    def __post_init__(self) -> None:
        self.faults = read_faults(self.directory)
        self.left_out = {fault.utt for fault in self.faults}
        languages = {value for _, value in rows(self.directory / "utt2lang", lambda fault: None)}
        tasks = [*find_tasks(self.directory), *(name[len("text.") :] for name in self.labels)]
        self.symbols = special_symbols(sorted(v for v in languages if isinstance(v, str)), tasks)

    def note(self, utt: str, name: str, reason: str) -> None:
        """Note a fault of a line of one of the tables."""
        self.faults.append(Fault(utt, str(self.directory / name), reason))

    def utterances(self) -> Iterator[tuple[str, dict[str, str]]]:
        """(utterance id, its sound values by table) of each utterance that can be used."""
        names = list(dict.fromkeys([*self.names, *self.labels.values()]))
        tables = [rows(self.directory / name, self.faults.append) for name in names]
        for utt, values in join(*tables):
            row = {n: v for n, v in zip(names, values, strict=True) if v is not None}
            missing = [name for name in REQUIRED if name not in row]
            if missing:
                # An utterance that an earlier stage left out may linger in tables it copied.
                if utt not in self.left_out:
                    self.note(utt, *self._missing(row, missing))
                continue
            sound = {n: v for n, v in row.items() if self._is_sound(utt, n, v)}
            row = {
                n: self._text(utt, n, v) if n.startswith("text") else v for n, v in sound.items()
            }
            row |= {n: self._text(utt, t, row[t]) for n, t in self.labels.items() if t in row}
            row = {name: value for name, value in row.items() if value}
            if all(name in row for name in REQUIRED):
                yield utt, row

    def _missing(self, row: dict[str, Value], missing: list[str]) -> tuple[str, str]:
        """Table and reason of an utterance that not every required table has."""
        if "wav.scp" in missing:
            return next(iter(row)), f"it is not in {self.directory / 'wav.scp'}: no audio"
        having = next(name for name in REQUIRED if name in row)
        return missing[0], f"it has no line here, but one in {having}"

    def _is_sound(self, utt: str, name: str, value: Value) -> bool:
        reason = None
        if isinstance(value, Broken):
            reason = value.reason
        elif name == "utt2bw" and value not in BANDWIDTHS:
            reason = f"bandwidth {value!r}; accepted: {', '.join(BANDWIDTHS)}"
        elif name == "utt2num_samples" and not (value.isascii() and value.isdecimal()):
            reason = f"{value!r} is no number of samples"
        if reason:
            self.note(utt, name, reason)
        return reason is None

    def _text(self, utt: str, name: str, text: str) -> str:
        """The text as later stages want it; ``""`` when it cannot be used."""
        try:
            text = normalize_text(text)
            reject_special_symbols(text, self.symbols)
        except ValueError as error:
            self.note(utt, name, str(error))
            return ""
        if not text:
            self.note(utt, name, "a text without a visible character")
        return text


class Lengths:
    """Tells the utterances whose length is outside what was asked for, and remembers some."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.count = 0
        self.shown: list[tuple[str, str]] = []

    def outside(self, utt: str, samples: str) -> str | None:
        """Why an utterance is too short or too long; None: it is neither."""
        seconds = int(samples) / self.args.fs
        if self.args.min_seconds <= seconds <= self.args.max_seconds:
            return None
        accepted = f"{self.args.min_seconds} to {self.args.max_seconds} s"
        reason = f"{seconds:.2f} s, accepted {accepted}"
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((utt, reason))
        return reason


def make_training_set(directory: Path, target: Path, args: argparse.Namespace) -> None:
    """Write the examples of a training or validation set."""
    labels = label_tables(directory, args.extra_tasks)
    tasks = {task: path.name for task, path in find_tasks(directory).items()}
    texts = [name for name in tasks.values() if name != "text"]
    tasks |= {name[len("text.") :]: name for name in labels}
    spoken = [SPEAKERS] if (directory / SPEAKERS).exists() else []
    source = Source(directory, [*REQUIRED, *texts, *spoken], labels)
    lengths = Lengths(args)
    utterances = 0

    def examples(dropped: TableWriter) -> Iterator[tuple[str, list[tuple[str, tuple]]]]:
        """Per utterance: (example id, (its task, its row))."""
        nonlocal utterances
        for utt, row in source.utterances():
            reason = lengths.outside(utt, row["utt2num_samples"])
            if reason:
                dropped.write(utt, reason)
                continue
            utterances += 1
            present = [(task, name) for task, name in tasks.items() if name in row]
            yield utt, [(f"{utt}_{task}", (utt, task, name, row)) for task, name in present]

    names = [*EXAMPLE_TABLES.split(), *spoken]
    with publish_dir(target) as partial:
        with ExitStack() as stack:
            out = [stack.enter_context(TableWriter(partial / name)) for name in names]
            dropped = stack.enter_context(TableWriter(partial / "dropped"))
            previous = ""
            for example, (utt, task, name, row) in reordered(examples(dropped)):
                if example == previous:
                    reason = (
                        f"utterance {utt!r} and task {task!r} give the example id {example!r}, "
                        "as another pair does; rename the utterance"
                    )
                    source.note(utt, name, reason)
                    continue
                previous = example
                values = {
                    **row,
                    "text": f"<{row['utt2lang']}><{task}><notimestamps> {row[name]}",
                    "text.prev": "<na>",
                    "text.ctc": row["text"],
                    "bandwidth": BANDWIDTHS.index(row["utt2bw"]),
                    "utt2task": task,
                }
                for table in out:
                    if table.path.name in values:  # not every utterance names its speaker
                        table.write(example, values[table.path.name])
        if not out[0].count:
            whole = summary(source.faults, "faults") if source.faults else ""
            raise DataError(
                f"{directory}: no utterance is left (dropped: {lengths.count}){whole and chr(10)}"
                f"{whole}"
            )
        write_faults(partial, source.faults)
    print(f"{target}: {out[0].count} examples of {utterances} utterances ({', '.join(tasks)})")
    for utt, reason in lengths.shown:
        print(f"{target}: dropped {utt}: {reason}")
    if lengths.count > SHOWN:
        print(f"{target}: dropped {lengths.count} in all; see {target}/dropped")
    report_faults(target, source.faults)


def make_test_set(directory: Path, target: Path, args: argparse.Namespace) -> None:
    """Write a test set: plain references; only utterances with faults are left out."""
    present = [path.name for pattern in ("text*", "utt2*") for path in directory.glob(pattern)]
    names = [*REQUIRED, *sorted(set(present) - set(REQUIRED))]
    labels = label_tables(directory, args.extra_tasks)
    source = Source(directory, names, labels)
    references = {
        path.name: [n for n in names if n == path.name or n.startswith(f"{path.name}.ref")]
        for path in find_tasks(directory).values()
        if path.name != "text"
    }
    lengths = Lengths(args)
    count = 0
    with publish_dir(target) as partial:
        with ExitStack() as stack:
            tables = [*names, *labels]
            out = [stack.enter_context(TableWriter(partial / name)) for name in tables]
            for utt, row in source.utterances():
                count += 1
                lengths.outside(utt, row["utt2num_samples"])
                incomplete = {
                    name
                    for group in references.values()
                    if not all(name in row for name in group)
                    for name in group
                }  # scored against all references or none
                for table in out:
                    if table.path.name in row and table.path.name not in incomplete:
                        table.write(utt, row[table.path.name])
        if not count:
            raise DataError(f"{directory}: no utterance is left")
        write_faults(partial, source.faults)
    tasks = [*find_tasks(directory), *(name[len("text.") :] for name in labels)]
    print(f"{target}: {count} utterances ({', '.join(tasks)})")
    if lengths.count:
        shown = ", ".join(f"{utt} ({reason})" for utt, reason in lengths.shown)
        print(
            f"{target}: {lengths.count} outside the training lengths, decoded all the same (ESPnet "
            f"hears no more than preprocessor_conf.speech_length of one): {shown}"
        )
    report_faults(target, source.faults)


def report_faults(target: Path, faults: list[Fault]) -> None:
    """Say what was left out; stage 7 lists all of it."""
    if faults:
        print(summary(faults, f"{target}: {len(faults)} fault(s), left out"), file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="data directories of stage 3")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train_sets", required=True, help="training and validation sets")
    parser.add_argument("--test_sets", required=True)
    parser.add_argument("--min_seconds", type=float, default=0.2)
    parser.add_argument("--max_seconds", type=float, default=30.0)
    parser.add_argument("--extra_tasks", default="", help="of labels: utt2<task>; or bandwidth")
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
