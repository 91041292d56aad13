#!/usr/bin/env python3
"""Stage 1 for Fisher and CallHome Spanish with English translations (Post et al., 2013).

Real telephone speech: 8 kHz, one speaker a channel. ``--corpus_dir`` holds five folders (or
links) under these names:

- ``LDC2010S01``: Fisher's audio, ``.../data/speech/<call>.sph``;
- ``LDC2010T04``: its transcripts, ``.../data/transcripts/<call>.tdf`` (UTF-8);
- ``LDC96S35``: CallHome's audio, ``CALLHOME/SPANISH/SPEECH/{TRAIN,DEVTEST,EVLTEST}/SP_*.SPH``;
- ``LDC96T17``: its transcripts, ``.../transcrp/{train,devtest,evltest}/sp_*.txt`` (Latin-1);
- ``fisher-callhome-corpus``: the public translations, ``mapping/<split>`` (a line: a call and
  the numbers of its transcript lines, ``20051009_182032_217_fsp 10_11``) and, line by line with
  them, ``corpus/ldc/<split>.en`` or four references ``<split>.en.{0,1,2,3}``.

Transcripts lose their markup as in that project's own build. Writes ``<out>/train`` (Fisher's;
``--callhome_train true`` adds CallHome's), ``valid`` (fisher_dev) and a test set per other split.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from corpus import (
    Utterance,
    get_parser,
    parallel_lines,
    read_lines,
    require_dir,
    run,
    str2bool,
    usable,
    write_set,
)
from recordings import MissingProgram, part, part_id

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

LANGUAGE, TASK = "spa", "st_eng"
AUDIO = {"fisher": "LDC2010S01", "callhome": "LDC96S35"}
TEXT = {"fisher": "LDC2010T04", "callhome": "LDC96T17"}
TRANSLATIONS = "fisher-callhome-corpus"
TESTS = ("fisher_dev", "fisher_dev2", "fisher_test", "callhome_devtest", "callhome_evltest")
MAPPED = re.compile(r"(\S+) (\d+(?:_\d+)*)\s*")
MARKUP = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|[()+*/#<>\[\]{}]")
CALLHOME_TURN = re.compile(r"\s*(\d+\.?\d*)\s+(\d+\.?\d*)\s+([AB])\d*\s*:(.*)")
SOURCE = (
    "folders or links named LDC2010S01, LDC2010T04 (Fisher Spanish), LDC96S35, LDC96T17 (CallHome "
    "Spanish), all from the LDC under licence, and fisher-callhome-corpus (the public repository "
    "joshua-decoder/fisher-callhome-corpus)"
)


class Turn(NamedTuple):
    """A line of a transcript; ``channel`` is counted from 1."""

    start: float
    end: float
    channel: int
    text: str


def index(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """``{call: file}`` of everything below a folder; earlier suffixes win."""
    found: dict[str, Path] = {}
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(place, name)
            suffix = path.suffix.lower()
            known = found.get(path.stem.lower())
            if suffix in suffixes and (
                known is None or suffixes.index(suffix) < suffixes.index(known.suffix.lower())
            ):
                found[path.stem.lower()] = path
    return found


@cache  # one entry per call
def audio_of(path: Path) -> str:
    """The locator of a recording; a SPHERE file compressed with shorten goes through sph2pipe.

    Raises:
        MissingProgram: It is needed and is not there.
    """
    with path.open("rb") as file:
        header = file.read(1024)
    if not header.startswith(b"NIST_1A") or b"shorten" not in header:
        return str(path)
    if shutil.which("sph2pipe") is None:
        raise MissingProgram(
            f"{path} is compressed with shorten, which needs sph2pipe (from the LDC's site) on "
            "the PATH; or convert the recordings, keeping both channels, to .wav or .flac of the "
            "same name"
        )
    return f"sph2pipe -f wav -p {shlex.quote(str(path))} |"


def fisher_turns(path: Path) -> list[Turn | None]:
    """The lines of a ``.tdf`` that the mapping counts; None: a line that is no turn."""
    turns: list[Turn | None] = []
    for line in read_lines(path):
        if ";;MM" in line or "file;unicode" in line:
            continue
        fields = line.rstrip("\r").split("\t")
        try:
            channel, start, end, text = (
                int(fields[1]),
                float(fields[2]),
                float(fields[3]),
                fields[7],
            )
            turns.append(Turn(start, end, channel + 1, text) if channel in (0, 1) else None)
        except (IndexError, ValueError):
            turns.append(None)
    return turns


def callhome_turns(path: Path) -> list[Turn | None]:
    """The lines of a CallHome transcript, ``136.37 138.10 B: Ah, bueno, mamita.``"""
    turns: list[Turn | None] = []
    for line in path.read_bytes().decode("latin-1").split("\n"):
        found = CALLHOME_TURN.match(line)
        if found:
            start, end, side, text = found.groups()
            turns.append(Turn(float(start), float(end), " AB".index(side), text))
        else:
            turns.append(None)
    return turns


class Corpus:
    """Fisher and CallHome, and what is indexed of them."""

    def __init__(self, root: Path) -> None:
        names = (*AUDIO.values(), *TEXT.values(), TRANSLATIONS)
        lacking = [name for name in names if not (root / name).is_dir()]
        if lacking:
            raise DataError(f"--corpus_dir {root}: no {', '.join(lacking)}; expected {SOURCE}")
        self.root = root
        self.audio = {p: index(root / n, (".flac", ".wav", ".sph")) for p, n in AUDIO.items()}
        suffix = {"fisher": ".tdf", "callhome": ".txt"}
        self.text = {p: index(root / n, (suffix[p],)) for p, n in TEXT.items()}

    @lru_cache(maxsize=4)  # noqa: B019 - one corpus a program
    def turns(self, project: str, call: str) -> list[Turn | None]:
        """The transcript of a call."""
        read = {"fisher": fisher_turns, "callhome": callhome_turns}[project]
        path = self.text[project].get(call.lower())
        if path is None:
            raise DataError(f"no transcript of call {call} below {self.root / TEXT[project]}")
        return read(path)

    def references(self, split: str) -> list[Path]:
        """The translations of a split: one file, or four."""
        stem = self.root / TRANSLATIONS / "corpus" / "ldc" / f"{split}.en"
        several = [stem.with_name(f"{stem.name}.{n}") for n in range(4)]
        return several if several[0].is_file() else [stem]

    def utterance(self, split: str, line: str, translations: Sequence[str]) -> Utterance:
        """The utterance of one line of the mapping.

        Raises:
            DataError: The call, its audio or a line of it is not there, or the lines lie on
                several channels.
        """
        project = split.partition("_")[0]
        found = MAPPED.fullmatch(line)
        if not found:
            raise DataError(f"{line!r}; expected '<call> <line>_<line>...'")
        call, numbers = found[1], [int(number) for number in found[2].split("_")]
        transcript = self.turns(project, call)
        if not 1 <= min(numbers) <= max(numbers) <= len(transcript):
            raise DataError(f"{line!r}: the transcript has {len(transcript)} lines")
        turns = [transcript[number - 1] for number in numbers]
        path = self.audio[project].get(call.lower())
        if path is None:
            raise DataError(f"no audio of call {call} below {self.root / AUDIO[project]}")
        if None in turns:
            raise DataError(f"{line!r}: a line of the transcript is no turn with times and channel")
        heard = [turn for turn in turns if turn is not None]
        channels = {turn.channel for turn in heard}
        if len(channels) > 1:
            raise DataError(f"{line!r}: its lines lie on both channels")
        channel = channels.pop()
        start, end = min(t.start for t in heard), max(t.end for t in heard)
        speaker = f"{call}-{' AB'[channel]}"
        return Utterance(
            part_id(speaker, start, end),
            part(audio_of(path), start, end, channel),
            LANGUAGE,
            " ".join(MARKUP.sub("", turn.text) for turn in heard).strip(),
            tuple((TASK, text) for text in translations),
            speaker=speaker,
            bandwidth="nb",
        )

    def read(self, split: str, faults: list[Fault]) -> Iterator[Utterance]:
        """The utterances of a split; those of nothing but noises are left out."""
        mapping = self.root / TRANSLATIONS / "mapping" / split
        wordless = 0
        lines = parallel_lines(mapping, *self.references(split))
        for number, (line, *translations) in enumerate(lines, 1):
            try:
                u = self.utterance(split, line, translations)
            except MissingProgram:
                raise
            except ValueError as error:
                faults.append(Fault("", f"{mapping}:{number}", str(error)))
                continue
            if any(char.isalnum() for char in u.transcript):
                yield replace(u, file=f"{mapping}:{number}")
            else:
                wordless += 1
        if wordless:
            print(f"{split}: {wordless} of {len(lines)} utterances are noises only: left out")


def main(argv: Sequence[str] | None = None) -> None:
    parser = get_parser(__doc__, text_case="lower_nopunct")
    parser.add_argument("--callhome_train", type=str2bool, default=False, help="train on it too")
    args = parser.parse_args(argv)
    corpus = Corpus(
        require_dir(
            args.corpus_dir, corpus="fisher_callhome", variable="FISHER_CALLHOME", source=SOURCE
        )
    )
    training = ["fisher_train"] + ["callhome_train"] * args.callhome_train
    sets = {"train": training, "valid": ["fisher_dev"], **{name: [name] for name in TESTS}}
    for name, splits in sets.items():
        faults: list[Fault] = []
        found = (u for split in splits for u in corpus.read(split, faults))
        write_set(args.out / name, usable(found, text_case=args.text_case, faults=faults), faults)


if __name__ == "__main__":
    run(main)
