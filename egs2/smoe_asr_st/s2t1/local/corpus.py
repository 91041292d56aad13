"""What the preparation of every corpus shares: utterances in, one data directory per set out.

A corpus program reads its published layout and yields ``Utterance``s; what it cannot use it
notes as a ``Fault`` and goes on. ``usable`` cleans the texts and drops what no later stage can
use, ``write_set`` writes the tables, sorted and within bounded memory. The audio stays where it
is: ``wav.scp`` holds locators (``espnet_smoe.locator``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from spill import Sorter

from espnet_smoe.bbpe import BbpeError, normalize_text
from espnet_smoe.datadir import DataError, publish_dir
from espnet_smoe.faults import Fault, summary, write_faults
from espnet_smoe.locator import ARK_ENTRY, AudioError, parse_locator
from espnet_smoe.scoring import normalise

TEXT_CASES = {"raw": "nfc_ws", "lower_nopunct": "lower_nopunct"}
SAFE_ID = re.compile(r"[^\W_][\w.:+=@,~-]*")  # stage 3 names files after it
ID_BYTES = 200
BANDWIDTHS = ("wb", "nb")


@dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus.

    Attributes:
        utt: Its id.
        audio: A locator.
        language: ISO 639-3 of what is spoken.
        transcript: ``""`` where the corpus has none, which is a fault.
        translations: ``(task, text)`` in order; a task again is a further reference.
        speaker: ``""``: unknown, each utterance is a speaker of its own.
        bandwidth: ``nb`` or ``wb`` where the corpus states it.
        file: The file that holds the texts, named in faults.
    """

    utt: str
    audio: str
    language: str
    transcript: str
    translations: tuple[tuple[str, str], ...] = ()
    speaker: str = ""
    bandwidth: str = ""
    file: str = ""


# ---------------------------------------------------------------------------- texts


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; only a newline ends one (texts hold U+2028 and bare CRs).

    Raises:
        DataError: It is missing or not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    return lines[:-1] if lines[-1] == "" else lines


def parallel_lines(listing: Path, *others: Path) -> list[tuple[str, ...]]:
    """The lines of files that correspond line by line.

    Raises:
        DataError: Their numbers of lines differ.
    """
    columns = [read_lines(path) for path in (listing, *others)]
    for path, lines in zip(others, columns[1:], strict=True):
        if len(lines) != len(columns[0]):
            raise DataError(f"{path}: {len(lines)} lines; {listing} has {len(columns[0])}")
    return list(zip(*columns, strict=True))


class Wordless(DataError):
    """A text of punctuation only, under a text case that drops punctuation."""


def usable(
    utterances: Iterable[Utterance], *, text_case: str, faults: list[Fault]
) -> Iterator[Utterance]:
    """Clean the texts of utterances; leave out what cannot be used and note why.

    Texts of punctuation only, which published corpora hold, are left out too, but are no faults:
    their number is printed.

    Args:
        utterances: In any order.
        text_case: A key of ``TEXT_CASES``.
        faults: Grows by what is left out: a whole utterance (unsafe id, no audio, no
            transcript), or one of its translations.
    """
    case, wordless = TEXT_CASES[text_case], 0
    for u in utterances:
        try:
            if not SAFE_ID.fullmatch(u.utt) or len(u.utt.encode()) > ID_BYTES:
                raise DataError(
                    f"id {u.utt!r}: expected letters, digits and . _ : + = @ , ~ -, at most "
                    f"{ID_BYTES} bytes"
                )
            where = parse_locator(u.audio)
            if not where.is_command and (problem := _audio_problem(where.source)):
                faults.append(Fault(u.utt, where.source, problem))
                continue
            transcript = _clean(u.transcript, case, "transcript")
        except Wordless:
            wordless += 1
            continue
        except (AudioError, DataError) as error:
            faults.append(Fault(u.utt, u.file or u.audio, str(error)))
            continue
        translations = []
        for task, text in u.translations:
            try:
                translations.append((task, _clean(text, case, f"translation ({task})")))
            except Wordless:
                wordless += 1
            except DataError as error:
                faults.append(Fault(u.utt, u.file or u.audio, f"{error}; kept for asr only"))
        yield replace(u, transcript=transcript, translations=tuple(translations))
    if wordless:
        print(f"{wordless} texts are punctuation only: left out (--text_case raw keeps them)")


def _clean(text: str, case: str, what: str) -> str:
    try:
        normalized = normalize_text(text)
    except BbpeError as error:
        raise DataError(f"{what}: {error}") from error
    if not normalized:
        raise DataError(f"empty {what}")
    cleaned = normalise(normalized, case)
    if not cleaned:
        raise Wordless(f"{what} {text[:40]!r} holds no word")
    return cleaned


@lru_cache(maxsize=1024)  # the parts of a recording mostly come one after the other
def _audio_problem(source: str) -> str:
    path = Path(ARK_ENTRY.sub(".ark", source))
    if not path.is_file():
        return "no such audio file"
    return "" if path.stat().st_size else "empty audio file"


def split_valid(
    utterances: list[Utterance], *, n_valid: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Take about ``n_valid`` utterances out of training, for a corpus without a validation set.

    Whole sentences are taken (every recording of a transcript), in the order of a seeded hash
    of the transcript, so the choice is the same on every machine and Python version.

    Returns:
        Training and validation utterances.

    Raises:
        DataError: Nothing would be left to train on.
    """

    def rank(u: Utterance) -> str:
        sentence = normalise(u.transcript, "lower_nopunct")
        return hashlib.sha256(f"{seed} {sentence}".encode()).hexdigest()

    ordered = sorted(utterances, key=lambda u: (rank(u), u.utt))
    if n_valid < 1 or n_valid >= len(ordered):
        raise DataError(f"--n_valid {n_valid}: expected 1 to {len(ordered) - 1}")
    last = rank(ordered[n_valid - 1])
    valid = [u for u in ordered if rank(u) <= last]
    train = [u for u in ordered if rank(u) > last]
    if not train:
        raise DataError(f"--n_valid {n_valid}: no training sentence is left")
    return train, valid


# ---------------------------------------------------------------------------- tables


def write_set(directory: Path, utterances: Iterable[Utterance], faults: list[Fault]) -> int:
    """Write one data directory; it appears whole or not at all.

    Args:
        directory: The set's directory.
        utterances: What ``usable`` yields, in any order; read once.
        faults: May grow while ``utterances`` is read; a repeated id is added here.

    Returns:
        The number of utterances.

    Raises:
        DataError: No utterance is left.
    """
    sorter = Sorter(directory.parent)
    for u in utterances:
        sorter.add(u.utt, json.dumps(astuple(u)))
    previous, kept, bandwidths, words = "", 0, 0, 0
    translated: Counter[str] = Counter()
    with publish_dir(directory) as out, ExitStack() as stack:
        files: dict[str, TextIO] = {}

        def write(name: str, utt: str, value: str) -> None:
            if name not in files:
                path = out / name
                files[name] = stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            files[name].write(f"{utt} {value}\n")

        for utt, record in sorter:
            u = Utterance(*json.loads(record))
            if utt == previous:
                faults.append(Fault(utt, u.file or u.audio, "its id occurs twice"))
                continue
            previous = utt
            write("wav.scp", utt, u.audio)
            write("text", utt, u.transcript)
            references: dict[str, int] = {}
            for task, text in u.translations:
                number = references[task] = references.get(task, 0) + 1
                write(f"text.{task}" + (f".ref{number}" if number > 1 else ""), utt, text)
            write("utt2lang", utt, u.language)
            write("utt2spk", utt, u.speaker or utt)
            if u.bandwidth:
                write("utt2bw", utt, u.bandwidth)
                bandwidths += 1
            kept += 1
            words += len(u.transcript.split())
            translated.update(references.keys())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        if not kept:
            raise DataError(summary(faults, f"{directory}: no utterance is left"))
        write_faults(out, faults)
    tasks = "".join(f", {n} {task}" for task, n in sorted(translated.items()))
    print(f"{directory}: {kept} utterances, {words} words{tasks}", flush=True)
    if 0 < bandwidths < kept:
        what = f"a bandwidth is stated for {bandwidths} only: stage 2 measures the others"
        print(f"{directory}: {what}")
    if faults:
        print(summary(faults, f"{directory}: {len(set(faults))} fault(s)"), file=sys.stderr)
    return kept


# ---------------------------------------------------------------------------- programs


def get_parser(description: str | None, *, text_case: str) -> argparse.ArgumentParser:
    """The options of every corpus program."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--corpus", default="", help="the corpus's name, as given to run.sh")
    parser.add_argument("--corpus_dir", required=True, help="where it lies")
    parser.add_argument("--out", type=Path, required=True, help="the sets go to OUT/<set>")
    parser.add_argument(
        "--text_case",
        default=text_case,
        choices=sorted(TEXT_CASES),
        help=f"lower_nopunct: lower case without punctuation; raw: as written; "
        f"default: {text_case}",
    )
    return parser


def str2bool(value: str) -> bool:
    """The type of an option that is true or false."""
    if value not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
    return value == "true"


def require_dir(corpus_dir: str, *, corpus: str, variable: str, source: str) -> Path:
    """The corpus's directory, absolute.

    Args:
        corpus_dir: What the user gave; may be ``""``.
        corpus: The corpus's name.
        variable: Its variable in db.sh; ``""``: none.
        source: What is expected there and where to get it.

    Raises:
        DataError: Nothing was given, or no such directory.
    """
    if not corpus_dir:
        place = f"--corpus_dir (or {variable} in db.sh)" if variable else "--corpus_dir"
        raise DataError(f"--corpus {corpus} needs {place}: {source}")
    if not Path(corpus_dir).is_dir():
        raise DataError(f"--corpus_dir {corpus_dir}: no such directory; expected {source}")
    return Path(corpus_dir).resolve()


def run(main: Callable[[], object]) -> None:
    """Run a program's ``main``; a mistake of the user is one message, not a traceback."""
    try:
        main()
    except ValueError as error:  # DataError, BbpeError, AudioError
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
