"""A journal: what a run has done so far, so that a run that is killed goes on where it stopped.

A file of JSON objects, one a line, to which lines are added as work is done. The line that was
being written when the run was killed is dropped.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from espnet_smoe.datadir import write_text


class Journal(AbstractContextManager["Journal"]):
    """A journal file; it need not exist.

    Args:
        path: The file.

    Attributes:
        entries: What it holds, in order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries: list[dict[str, Any]] = []
        self._sound = 0  # bytes of whole lines
        self._file: BinaryIO | None = None
        if self.path.exists():
            with self.path.open("rb") as file:
                for line in file:
                    entry = _entry(line)
                    if entry is None:
                        break
                    self.entries.append(entry)
                    self._sound += len(line)

    def start(self, *entries: dict[str, Any]) -> None:
        """Begin anew with some entries."""
        self.close()
        lines = [_line(entry) for entry in entries]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(lines))
        self.entries = list(entries)
        self._sound = sum(len(line) for line in lines)

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry; it is in the file when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            self._file.truncate(self._sound)
            self._file.seek(self._sound)
        self._file.write(_line(entry).encode("ascii"))
        self._file.flush()
        self.entries.append(entry)
        self._sound = self._file.tell()

    def close(self) -> None:
        """Close the file; `add` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(self, *error: object) -> None:
        self.close()


def _line(entry: dict[str, Any]) -> str:
    """In ASCII: file names may be no valid Unicode."""
    return json.dumps(entry) + "\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None: it was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
