"""Sort any number of records by a key within bounded memory."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHUNK_CHARACTERS = 1 << 26  # held before a sorted run goes to disk: 64 M characters


class Sorter:
    """An external merge sort of ``(key, record)`` pairs of text.

    Records with equal keys keep the order in which they were added. Keys hold no tab, neither
    holds a newline (JSON text does not).
    """

    def __init__(self, directory: Path, *, chunk: int = CHUNK_CHARACTERS) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=".sort", dir=directory)
        self._chunk = chunk
        self._held: list[tuple[str, str]] = []
        self._characters = 0
        self._runs: list[Path] = []

    def add(self, key: str, record: str) -> None:
        """Take one record."""
        self._held.append((key, record))
        self._characters += len(key) + len(record) + 200  # what two Python strings cost besides
        if self._characters > self._chunk:
            self._spill()

    def _spill(self) -> None:
        self._held.sort(key=lambda pair: pair[0])
        path = Path(self._folder.name) / f"{len(self._runs):05}"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{key}\t{record}\n" for key, record in self._held)
        self._runs.append(path)
        self._held, self._characters = [], 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """All records, sorted by key; the files are gone when it ends."""
        self._held.sort(key=lambda pair: pair[0])
        runs = [*map(_read, self._runs), iter(self._held)]
        yield from heapq.merge(*runs, key=lambda pair: pair[0])
        self._held = []
        self._folder.cleanup()


def _read(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            key, _, record = line[:-1].partition("\t")
            yield key, record
