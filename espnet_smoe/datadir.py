"""Kaldi-style tables and data directories: read strictly, write atomically.

A *table* is a text file of lines ``<utterance id> <value>``, sorted by utterance id.
Every stage of the recipe reads and writes its tables here, so that a broken line is
reported with its file and utterance, and a stage killed half-way leaves nothing that a
rerun takes for finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SHOWN = 5  # utterances listed in an error message before "..."


class DataError(ValueError):
    """A data directory holds something that the recipe cannot use."""


def read_table(path: str | Path, *, allow_empty: bool = False) -> dict[str, str]:
    """Read a table.

    Args:
        path: The file to read (UTF-8).
        allow_empty: Accept a line that holds an utterance id only; its value is ``""``.

    Returns:
        ``{utterance id: value}`` in the file's order.

    Raises:
        DataError: The file is missing, not UTF-8, or has an empty value, a repeated
            utterance id, or ids that are not sorted. Names file, line and utterance.
    """
    path = Path(path)
    table: dict[str, str] = {}
    previous = ""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage that writes it first") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    if lines and lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, 1):
        utt, _, value = line.strip(" \t\r").partition(" ")
        if "\t" in utt:
            utt, _, value = line.strip(" \t\r").partition("\t")
        value = value.strip(" \t")
        where = f"{path}:{number}: utterance {utt!r}"
        if not utt:
            raise DataError(f"{path}:{number}: empty line; every line is '<utterance> <value>'")
        if not value and not allow_empty:
            raise DataError(f"{where} has an empty value; every line is '<utterance> <value>'")
        if utt in table:
            raise DataError(f"{where} occurs twice")
        if utt < previous:
            raise DataError(f"{where} is not sorted: it follows {previous!r}; sort the file by id")
        table[utt] = value
        previous = utt
    return table


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a table, sorted by utterance id; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{utt} {table[utt]}".rstrip() + "\n" for utt in sorted(table)))


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file; it appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
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
