#!/usr/bin/env python3
"""Stage 1 for Kaldi data directories: DIR/<set>/{wav.scp,text,...}, with segments or without.

``wav.scp`` names files, commands (``sph2pipe ... |``) or entries of archives (``a.ark:12``); a
relative path is taken from the working directory, as Kaldi does, or else from its own folder.
Read besides it, where they are: ``segments`` (``utt recording start end``; end -1: to the end),
``reco2file_and_channel`` (a recording that ``wav.scp`` lacks is a channel of its file; two
recordings of one file are its channels), ``text.<task>`` and ``text.<task>.ref2``, ``utt2lang``
(or ``--lang``), ``utt2spk``, ``utt2bw``. No ``segments`` is written: the parts are locators.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from corpus import BANDWIDTHS, Utterance, get_parser, require_dir, run, usable, write_set
from languages import language
from recordings import part

from espnet_smoe.audio import read_header
from espnet_smoe.datadir import DataError, read_table
from espnet_smoe.faults import Fault
from espnet_smoe.locator import ARK_ENTRY, Locator, parse_locator

TEXT = re.compile(r"text\.(\w+)(?:\.ref(\d+))?", re.ASCII)
INPUTS = ("prev", "ctc")  # text.prev and text.ctc are no tasks
CHANNELS = {"A": 1, "B": 2, "1": 1, "2": 2}
SOURCE = "a folder with a Kaldi data directory (wav.scp, text, ...) per set"


def optional_table(path: Path) -> dict[str, str]:
    """A table, or none."""
    return read_table(path, allow_empty=True) if path.exists() else {}


def placed(source: str, folder: Path) -> str:
    """A source as the recipe can read it from its own directory."""
    where = parse_locator(source)
    path = Path(where.source)
    if where.is_command or path.is_absolute():
        return source
    file = Path(ARK_ENTRY.sub(".ark", where.source))
    base = Path.cwd() if file.exists() or not (folder / file).exists() else folder
    return str(base / source)


class Recordings:
    """Where the audio of a data directory's recordings lies."""

    def __init__(self, folder: Path) -> None:
        self.wavs = {reco: placed(v, folder) for reco, v in read_table(folder / "wav.scp").items()}
        self.sides: dict[str, tuple[str, int]] = {}
        path = folder / "reco2file_and_channel"
        for reco, value in optional_table(path).items():
            fields = value.split()
            if len(fields) != 2 or fields[1].upper() not in CHANNELS:
                raise DataError(f"{path}: recording {reco!r}: {value!r}; expected '<file> A|B|1|2'")
            self.sides[reco] = (fields[0], CHANNELS[fields[1].upper()])
        self.users = Counter(self.wavs.values())

    def locate(self, reco: str) -> Locator:
        """The locator of a recording.

        Raises:
            DataError: It is in neither table.
        """
        file, channel = self.sides.get(reco, (reco, None))
        source = self.wavs.get(reco, self.wavs.get(file))
        if source is None:
            raise DataError(f"recording {reco!r} is not in wav.scp")
        where = parse_locator(source)
        own_file = reco in self.wavs and self.users[source] == 1
        if channel is None or own_file or where.channel is not None:
            return where
        return Locator(where.source, where.start, where.end, channel)

    def segment(self, value: str) -> str:
        """The locator of a line of ``segments``.

        Raises:
            DataError: It is malformed.
        """
        fields = value.split()
        if len(fields) not in (3, 4):
            raise DataError(f"{value!r}; expected '<recording> <start> <end>'")
        where = self.locate(fields[0])
        if where.start is not None:
            raise DataError(f"recording {fields[0]!r} is itself a part: {where}")
        try:
            start, end = float(fields[1]), float(fields[2])
            channel = int(fields[3]) + 1 if len(fields) == 4 else where.channel
        except ValueError as error:
            raise DataError(f"{value!r}; expected '<recording> <start> <end>'") from error
        end = seconds_of(str(where)) if end < 0 else end
        return part(where.source, start, end, channel)


@lru_cache(maxsize=16)
def seconds_of(audio: str) -> float:
    """How long a recording is."""
    header = read_header(audio)
    return header.frames / header.rate


def task_tables(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """The tasks of a data directory and their tables, a task again for a further reference."""
    found = []
    for path in folder.glob("text.*"):
        match = TEXT.fullmatch(path.name)
        if match and match[1] not in INPUTS:
            found.append((match[1], int(match[2] or 1), read_table(path, allow_empty=True)))
        else:
            print(f"{path}: not read: no text.<task> or text.<task>.ref2")
    return [(task, table) for task, _, table in sorted(found, key=lambda row: row[:2])]


def read_set(folder: Path, lang: str, faults: list[Fault]) -> Iterator[Utterance]:
    """The utterances of a data directory.

    Raises:
        DataError: A table that cannot be read, or no language at all.
    """
    recordings = Recordings(folder)
    listing = folder / ("segments" if (folder / "segments").exists() else "wav.scp")
    rows = read_table(listing)
    texts = read_table(folder / "text", allow_empty=True)
    tasks = task_tables(folder)
    languages, speakers, bandwidths = (
        optional_table(folder / name) for name in ("utt2lang", "utt2spk", "utt2bw")
    )
    if not languages and not lang:
        raise DataError(f"{folder}: no utt2lang; expected one, or --corpus_args '--lang spa'")
    for name, table in [("text", texts), *((f"text.{task}", table) for task, table in tasks)]:
        for utt in table.keys() - rows.keys():
            faults.append(Fault(utt, str(folder / name), f"not in {listing.name}"))
    for utt, value in rows.items():
        try:
            audio = recordings.segment(value) if listing.name == "segments" else ""
            audio = audio or str(recordings.locate(utt))
            spoken = language(languages.get(utt, lang))
            bandwidth = bandwidths.get(utt, "")
            if bandwidth not in ("", *BANDWIDTHS):
                raise DataError(f"bandwidth {bandwidth!r}; expected {', '.join(BANDWIDTHS)}")
        except ValueError as error:
            faults.append(Fault(utt, str(listing), str(error)))
            continue
        yield Utterance(
            utt,
            audio,
            spoken,
            texts.get(utt, ""),
            tuple((task, table[utt]) for task, table in tasks if utt in table),
            speaker=speakers.get(utt, ""),
            bandwidth=bandwidth,
            file=str(folder / "text"),
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = get_parser(__doc__, text_case="raw")
    parser.add_argument("--sets", default="train valid test", help="names between spaces")
    parser.add_argument("--lang", default="", help="of every utterance that utt2lang lacks")
    args = parser.parse_args(argv)
    root = require_dir(args.corpus_dir, corpus="kaldi", variable="", source=SOURCE)
    names = args.sets.split()
    if args.out.resolve() == root:
        raise DataError(f"--out {args.out} is --corpus_dir itself; choose another --datadir")
    lacking = [name for name in names if not (root / name / "wav.scp").is_file()]
    if lacking:
        missing = ", ".join(f"{name}/wav.scp" for name in lacking)
        raise DataError(f"--corpus_dir {root}: no {missing}; expected {SOURCE}")
    for name in names:
        faults: list[Fault] = []
        found = read_set(root / name, args.lang, faults)
        write_set(args.out / name, usable(found, text_case=args.text_case, faults=faults), faults)


if __name__ == "__main__":
    run(main)
