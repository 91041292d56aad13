"""Where transcripts go: to stdout, or into a directory where a later run finds what is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from tqdm import tqdm

from espnet_smoe.datadir import write_text
from espnet_smoe.inputs import Recording
from espnet_smoe.journal import Journal
from espnet_smoe.locator import ARK_ENTRY, AudioError, parse_locator
from espnet_smoe.results import Result
from espnet_smoe.transcripts import FORMATS, json_line, one_line, trn_id, trn_line

JOURNAL = ".espnet-smoe.jsonl"  # settings, then what is done
SUBTITLES = ("srt", "vtt")
SHOWN = 3  # files listed in an error
Entry = dict[str, Any]  # of the journal


class OutputError(ValueError):
    """Transcripts cannot go where they should."""


class Output(Protocol):
    """Takes results as they come."""

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        """Those that are not done yet."""

    def add(self, recording: Recording, results: Mapping[str, Result]) -> None:
        """Take the results of a recording, by task."""

    def finish(self, recordings: Sequence[Recording]) -> None:
        """Write what needs all of them; some may have failed."""

    def close(self) -> None:
        """Let go of open files."""


class Printer:
    """Prints each result on stdout.

    ``txt``: name, task and text between tabs; ``json``: an object a line; ``trn``: of one task;
    ``srt`` and ``vtt``: of one recording and task.

    Args:
        kind: One of `FORMATS`.
        tasks: The tasks.
        recordings: The recordings.

    Raises:
        OutputError: The format is for files only, with so many.
    """

    def __init__(self, kind: str, tasks: Sequence[str], recordings: Sequence[Recording]) -> None:
        check_format(kind)
        for what, kinds, several in (
            ("task", ("trn", *SUBTITLES), len(tasks) > 1),
            ("recording", SUBTITLES, len(recordings) > 1),
        ):
            if kind in kinds and several:
                raise OutputError(
                    f"format {kind} on stdout is for one {what}; with --out DIR, files are written"
                )
        self.kind = kind

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        return list(recordings)

    def add(self, recording: Recording, results: Mapping[str, Result]) -> None:
        for task, result in results.items():
            if self.kind == "txt":
                shown = "\t".join([one_line(recording.name), task, one_line(result.text)])
            elif self.kind == "json":
                shown = json_line(result)
            else:
                shown = FORMATS[self.kind](result).removesuffix("\n")
            if sys.stdout.isatty():
                tqdm.write(shown, file=sys.stdout)  # moves the progress bar out of the way
            else:
                print(shown)
        sys.stdout.flush()

    def finish(self, recordings: Sequence[Recording]) -> None:
        pass

    def close(self) -> None:
        pass


class Folder:
    """Writes a file per recording and task; ``trn``: one per task, when all are done.

    Files are ``<stem>.<format>``, with several tasks ``<stem>.<task>.<format>``; ``<task>.trn``. A
    journal beside them says what was done with which settings, so that the same command goes on
    where it stopped, and which file holds what, so that none is overwritten that holds something
    else. Every file appears whole or not at all.

    Args:
        directory: Where to; made when the first result comes.
        kind: One of `FORMATS`.
        tasks: The tasks.
        recordings: The recordings.
        settings: What the results depend on: the model, and each option. In JSON's types.
        overwrite: Do everything anew if other settings were used, and overwrite any file.

    Raises:
        OutputError: Two recordings would write one file, or one outside the directory; or what is
            there was made with other settings, of other recordings or tasks, or not by this.
    """

    def __init__(
        self,
        directory: str | Path,
        kind: str,
        tasks: Sequence[str],
        recordings: Sequence[Recording],
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        check_format(kind)
        self.directory, self.kind, self.tasks = Path(directory), kind, list(tasks)
        if self.directory.exists() and not self.directory.is_dir():
            raise OutputError(f"--out {str(directory)!r} is a file; accepted is a directory")
        self._require_names(recordings)
        self.settings = dict(settings)
        self.journal = Journal(self.directory / JOURNAL)
        self.anew = not self._has_settings(overwrite)
        self.texts: dict[tuple[str, str], Entry] = {}  # what was done, by stem and task
        self.files: dict[str, Entry] = {}  # what each file holds, by its name in the directory
        if not self.anew:
            for entry in self.journal.entries[1:]:
                self._note(entry)
        # files that a run with other settings has left, and which this one makes anew
        self.stale: list[Path] = []
        if not overwrite:
            self._require_free(recordings)
        elif self.anew:
            self.stale = [self.path(r, task) for r in recordings for task in self.tasks]

    def _require_names(self, recordings: Sequence[Recording]) -> None:
        owners: dict[str, Recording] = {}
        collisions = []
        for recording in recordings:
            stem = PurePosixPath(recording.stem)
            if stem.is_absolute() or ".." in stem.parts or stem.name in ("", "."):
                raise OutputError(
                    f"{recording.name!r}: a file of this name would not be in "
                    f"{str(self.directory)!r}; rename it, or give ids in a wav.scp"
                )
            target = trn_id(recording.stem) if self.kind == "trn" else recording.stem
            known = owners.setdefault(target, recording)
            if known is not recording:
                collisions.append(f"{known.source} and {recording.source}: {target}")
        if collisions:
            raise OutputError(
                f"{len(collisions)} recording(s) would have the same output as another; give a "
                f"directory above them, or ids in a wav.scp:{_listed(collisions)}"
            )

    def _has_settings(self, overwrite: bool) -> bool:
        """Was what is there made with these settings? Raises OutputError if with others."""
        before = self.journal.entries[0] if self.journal.entries else None
        if before is None or before == self.settings or overwrite:
            return before == self.settings
        names = [n for n in {**before, **self.settings} if differs(before, self.settings, n)]
        listed = ", ".join(
            f"{n} {before.get(n)} (there) and {self.settings.get(n)} (now)" for n in names
        )
        raise OutputError(
            f"{str(self.directory)!r}: its transcripts were made with other settings: "
            f"{listed}; choose another --out, or --overwrite"
        )

    def _require_free(self, recordings: Sequence[Recording]) -> None:
        """Raises OutputError: A file is there that does not hold what would be written into it."""
        taken = {}
        for recording in recordings:
            for task in self.tasks:
                path = self.path(recording, task)
                entry = self.files.get(self.name(recording, task))
                if entry is None:
                    if path.exists():
                        taken[str(path)] = "not made by this command"
                elif self.kind != "trn" and (entry["task"], entry["source"]) != (
                    task,
                    place(recording.source),
                ):
                    taken[str(path)] = f"{entry['task']} of {entry['source']}"
        if taken:
            raise OutputError(
                f"{len(taken)} file(s) would be overwritten that hold something else; choose "
                "another --out, or --overwrite:"
                + _listed([f"{path}: {what}" for path, what in taken.items()])
            )

    def name(self, recording: Recording, task: str) -> str:
        """The file of a recording and task, in the directory."""
        if self.kind == "trn":
            return f"{task}.trn"
        middle = f".{task}" if len(self.tasks) > 1 else ""
        return f"{recording.stem}{middle}.{self.kind}"

    def path(self, recording: Recording, task: str) -> Path:
        """The file of a recording and task."""
        return self.directory / self.name(recording, task)

    def missing(self, recordings: Sequence[Recording]) -> list[Recording]:
        return [r for r in recordings if not all(self._is_done(r, task) for task in self.tasks)]

    def _is_done(self, recording: Recording, task: str) -> bool:
        if self.kind == "trn":
            entry = self.texts.get((recording.stem, task))
        else:
            entry = self.files.get(self.name(recording, task))
        if entry is None or entry["task"] != task or entry["audio"] != identity(recording.source):
            return False
        return self.kind == "trn" or self.path(recording, task).exists()

    def add(self, recording: Recording, results: Mapping[str, Result]) -> None:
        self._begin()
        for task, result in results.items():
            path = self.path(recording, task)
            entry = {
                "stem": recording.stem,
                "task": task,
                "file": self.name(recording, task),
                "source": place(recording.source),
                "audio": identity(recording.source),
                "text": result.text,
            }
            if self.kind != "trn":
                path.unlink(missing_ok=True)
            self.journal.add(entry)  # before its file: what is there without an entry is not ours
            self._note(entry)
            if self.kind != "trn":
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, FORMATS[self.kind](result))

    def _begin(self) -> None:
        """Make the journal, where there is none of these settings."""
        if self.anew:
            for path in self.stale:
                path.unlink(missing_ok=True)
            self.journal.start(self.settings)
            self.anew = False

    def _note(self, entry: Entry) -> None:
        if "stem" in entry:
            self.texts[entry["stem"], entry["task"]] = entry
        if "file" in entry:
            self.files[entry["file"]] = entry

    def finish(self, recordings: Sequence[Recording]) -> None:
        if self.kind == "trn":
            self._begin()
            for task in self.tasks:
                name = f"{task}.trn"
                if name not in self.files:
                    entry = {"file": name}
                    self.journal.add(entry)
                    self._note(entry)
                there = [r for r in recordings if self._is_done(r, task)]
                lines = [trn_line(r.stem, self.texts[r.stem, task]["text"]) for r in there]
                write_text(self.directory / name, "".join(lines))

    def close(self) -> None:
        self.journal.close()


def _listed(lines: Sequence[str]) -> str:
    """Some lines of an error, below its head."""
    more = ["..."] if len(lines) > SHOWN else []
    return "\n  ".join(["", *lines[:SHOWN], *more])


def check_format(kind: str) -> None:
    """Raises OutputError: There is no such format."""
    if kind not in FORMATS:
        raise OutputError(f"format {kind!r}; accepted: {', '.join(FORMATS)}")


def differs(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Is a setting another one, or given on one side only?"""
    return (name in before) != (name in now) or before.get(name) != now.get(name)


def place(source: str) -> str:
    """A recording's locator, whatever directory it is given in."""
    try:
        where = parse_locator(source)
    except AudioError:  # decoding it will say so
        return source
    if where.is_command:
        return source
    return str(replace(where, source=os.path.abspath(where.source)))


def identity(source: str) -> str:
    """What a recording's audio is known by: its locator, and its file's bytes and time of change.

    A command's output is not known without running it.
    """
    try:
        where = parse_locator(source)
        if where.is_command:
            return source
        found = os.stat(ARK_ENTRY.sub(".ark", where.source))
    except (AudioError, OSError):  # decoding it will say so
        return place(source)
    return f"{place(source)} {found.st_size} {found.st_mtime_ns}"
