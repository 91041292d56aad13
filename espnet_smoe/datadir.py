"""Kaldi-style tables and data directories: read strictly, write atomically.

A *table* is a text file of lines ``<utterance id> <value>``, sorted by utterance id.
Every stage of the recipe reads and writes its tables here, so that a broken line is
reported with its file and utterance, and a stage killed half-way leaves nothing that a
rerun takes for finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SHOWN = 5  # utterances listed in an error message before "..."


class DataError(ValueError):
    """A data directory holds something that the recipe cannot use."""


def split_line(line: str) -> tuple[str, str]:
    """Take a line apart: utterance id and value; both may be ``""``."""
    line = line.strip(" \t\r\n")
    utt, _, value = line.partition(" ")
    if "\t" in utt:
        utt, _, value = line.partition("\t")
    return utt, value.strip(" \t")


def iter_table(path: str | Path, *, allow_empty: bool = False) -> Iterator[tuple[str, str]]:
    """Read a table line by line, whatever its size.

    Args:
        path: The file to read (UTF-8).
        allow_empty: Accept a line that holds an utterance id only; its value is ``""``.

    Yields:
        (utterance id, value) in the file's order.

    Raises:
        DataError: The file is missing, not UTF-8, or has an empty value, a repeated
            utterance id, or ids that are not sorted. Names file, line and utterance.
    """
    path = Path(path)
    previous = ""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                utt, value = split_line(line)
                where = f"{path}:{number}"
                if not utt:
                    raise DataError(f"{where}: empty line; every line is '<utterance> <value>'")
                if not value and not allow_empty:
                    raise DataError(
                        f"{where}: utterance {utt!r} has an empty value; every line is "
                        "'<utterance> <value>'"
                    )
                if utt <= previous:
                    raise DataError(
                        f"{where}: utterance {utt!r} occurs twice"
                        if utt == previous
                        else f"{where}: utterance {utt!r} is not sorted: it follows "
                        f"{previous!r}; sort the file by id"
                    )
                yield utt, value
                previous = utt
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage that writes it first") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {_first_wrong_byte(path)}") from error


def _first_wrong_byte(path: Path) -> int:
    """Where a file stops being UTF-8; reading in blocks, Python only knows the place in one."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return offset + error.start
            offset += len(line)
    return offset


def read_table(path: str | Path, *, allow_empty: bool = False) -> dict[str, str]:
    """Read a table whole: ``{utterance id: value}`` in the file's order.

    Args and errors are those of `iter_table`.
    """
    return dict(iter_table(path, allow_empty=allow_empty))


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a table, sorted by utterance id; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{utt} {table[utt]}".rstrip() + "\n" for utt in sorted(table)))


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file; it appears whole or not at all."""
    write_lines(path, [text])


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write the lines, which bring their line ends, of a UTF-8 file; whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def publish_dir(path: str | Path) -> Iterator[Path]:
    """Build a directory beside its final place and move it there when the block ends well.

    Args:
        path: The final directory. What stood there before is replaced only at the end.

    Yields:
        An empty directory ``<path>.partial`` to write into.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def require_same_keys(
    reference: Mapping[str, object], other: Mapping[str, object], *, names: tuple[str, str]
) -> None:
    """Check that two tables cover the same utterances.

    Raises:
        DataError: Names the tables and the first utterances that one of them lacks.
    """
    for lacking, having, lacks, has in (
        (other, reference, names[1], names[0]),
        (reference, other, names[0], names[1]),
    ):
        missing = sorted(set(having) - set(lacking))
        if missing:
            more = ", ..." if len(missing) > SHOWN else ""
            raise DataError(
                f"{lacks} has no line for {len(missing)} utterance(s) of {has}: "
                f"{', '.join(missing[:SHOWN])}{more}"
            )
