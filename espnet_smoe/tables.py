"""Tables of any size: read line by line, joined and written in order, a row in memory at a time.

`espnet_smoe.datadir.iter_table` stops at the first broken line. A stage that leaves bad utterances
out and goes on reads with `rows` instead: a broken line becomes a `Broken` value of its
utterance, and the stage that joins the tables decides what is left of it.
"""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from espnet_smoe.datadir import DataError, split_line
from espnet_smoe.faults import Fault

RUN_ROWS = 500_000  # rows that a sort holds in memory at once
Row = TypeVar("Row")


@dataclass(frozen=True)
class Broken:
    """Stands for the value of a line that cannot be used."""

    reason: str


Value = str | Broken


def rows(path: str | Path, note: Callable[[Fault], None]) -> Iterator[tuple[str, Value]]:
    """Read a table that may have faults: every utterance once, sorted by id.

    Args:
        path: The table.
        note: Is told what belongs to no utterance: an empty line, or that the ids are not sorted
            (they are then sorted here).

    Yields:
        (utterance id, value); the value is `Broken` where it is empty, not UTF-8, or given twice.

    Raises:
        DataError: No such file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the stage that writes it first")
    lines: Iterator[tuple[str, int, Value]] = _lines(path, note)
    unsorted = _first_unsorted(path)
    if unsorted:
        note(Fault("", str(path), unsorted))
        lines = spill_sort(lines, directory=path.parent, key=lambda line: line[:2])
    held: tuple[str, int, Value] | None = None
    for utt, number, value in lines:
        if held and held[0] == utt:
            value = Broken(f"occurs twice, in lines {held[1]} and {number}")
        elif held:
            yield held[0], held[2]
        held = (utt, number, value)
    if held:
        yield held[0], held[2]


def _lines(path: Path, note: Callable[[Fault], None]) -> Iterator[tuple[str, int, Value]]:
    """(utterance id, line number, value) in the file's order."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                utt, text = split_line(line.decode("utf-8"))
                value: Value = text or Broken(f"line {number} has an empty value")
            except UnicodeDecodeError as error:
                utt, _ = split_line(line.decode("utf-8", errors="replace"))
                value = Broken(f"line {number} is not UTF-8 at its byte {error.start}")
            if utt:
                yield utt, number, value
            else:
                note(Fault("", str(path), f"line {number} is empty"))


def _first_unsorted(path: Path) -> str | None:
    """Say where the ids stop being sorted (as bytes, which is the order of code points)."""
    previous = b""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            utt = (line.split(None, 1) or [b""])[0]
            if utt and utt < previous:
                first, second = (u.decode(errors="replace") for u in (previous, utt))
                return (
                    f"line {number}: utterance {second!r} follows {first!r}; the ids are not "
                    "sorted (sort the file by id)"
                )
            previous = utt or previous
    return None


def join(
    *tables: Iterable[tuple[str, Row]],
) -> Iterator[tuple[str, tuple[Row | None, ...]]]:
    """Join tables that are sorted by utterance id.

    Yields:
        (utterance id, a value per table) for each utterance of any table, in order; None where a
        table lacks it.
    """
    sources = [iter(table) for table in tables]
    heads: list[tuple[str, Row] | None] = [next(source, None) for source in sources]
    while True:
        utts = [head[0] for head in heads if head is not None]
        if not utts:
            return
        utt = min(utts)
        values: list[Row | None] = []
        for place, head in enumerate(heads):
            if head is None or head[0] != utt:
                values.append(None)
            else:
                values.append(head[1])
                heads[place] = next(sources[place], None)
        yield utt, tuple(values)


def reordered(
    groups: Iterable[tuple[str, Iterable[tuple[str, Row]]]],
) -> Iterator[tuple[str, Row]]:
    """Put the rows that utterances give, named ``<utterance><something>``, into their own order.

    ``a-b_asr`` comes before ``a_asr`` although ``a`` comes before ``a-b``. A row waits only while
    utterances follow that begin with its own utterance's id, so that no more rows wait than an
    id has beginnings.

    Args:
        groups: (utterance id, its rows), sorted by utterance id.
    """
    waiting: list[tuple[str, int, Row]] = []
    count = 0  # decides between equal names, so that rows need no order of their own
    for utt, named in groups:
        while waiting and waiting[0][0] < utt:
            name, _, row = heapq.heappop(waiting)
            yield name, row
        for name, row in named:
            count += 1
            heapq.heappush(waiting, (name, count, row))
    while waiting:
        name, _, row = heapq.heappop(waiting)
        yield name, row


def spill_sort(
    items: Iterable[Row],
    *,
    directory: Path,
    key: Callable[[Row], Any],
    run_rows: int = RUN_ROWS,
) -> Iterator[Row]:
    """Sort more rows than memory holds: sorted runs in temporary files, merged."""
    with ExitStack() as stack:
        runs: list[Iterator[Row]] = []
        part: list[Row] = []

        def spill() -> None:
            file = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            for row in sorted(part, key=key):
                pickle.dump(row, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.seek(0)
            runs.append(_unpickled(file))
            part.clear()

        for item in items:
            part.append(item)
            if len(part) >= run_rows:
                spill()
        yield from heapq.merge(*runs, sorted(part, key=key), key=key)


def _unpickled(file: IO[bytes]) -> Iterator[Any]:
    while True:
        try:
            yield pickle.load(file)  # written above, by this process
        except EOFError:
            return


class TableWriter:
    """Writes a table row by row; it appears whole at the end of the ``with`` block, or not at all.

    Raises:
        DataError: A row whose id does not follow the previous one's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        self._previous = ""

    def __enter__(self) -> TableWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._file = self._partial.open("w", encoding="utf-8")
        return self

    def write(self, utt: str, value: object) -> None:
        """Write the next row."""
        if utt <= self._previous:
            raise DataError(f"{self.path}: utterance {utt!r} is written after {self._previous!r}")
        self._previous = utt
        self.count += 1
        self._file.write(f"{utt} {value}".rstrip() + "\n")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()
