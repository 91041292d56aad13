"""Carry a data directory's tables over to the next stage's: without some utterances, or perturbed.

Line by line, whatever their size. A line that is broken is carried over as it is: a later stage
notes it.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

BY_UTTERANCE = ("wav.scp", "text", "text.*", "utt2*")  # tables keyed by utterance id
BY_SPEAKER = ("spk2*",)
SPEAKER_OF = "utt2spk"
UTTERANCES_OF = "spk2utt"


def prefix_of(factor: str) -> str:
    """What Kaldi and ESPnet put before the ids of a copy at another speed; nothing at 1."""
    return "" if float(factor) == 1.0 else f"sp{factor}-"


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Has the file a name of one of these patterns?"""
    return any(path.match(pattern) for pattern in patterns)


def keyed_lines(path: Path, change: Callable[[str, str], str | None]) -> Iterator[tuple[str, str]]:
    """(key, line) of each line of a table that is left after ``change(key, rest)``."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            key = (line.split(None, 1) or [""])[0]
            place = line.find(key) + len(key)
            changed = change(key, line[place:])
            if changed is not None:
                yield changed.split(None, 1)[0] if changed.strip() else "", changed


def for_factor(
    path: Path, prefix: str, left_out: Collection[str]
) -> Callable[[str, str], str | None]:
    """How a line of a table changes in a copy whose ids have a prefix."""
    if matches(path, (UTTERANCES_OF,)):

        def of_speaker(speaker: str, rest: str) -> str | None:
            utts = [prefix + utt for utt in rest.split() if prefix + utt not in left_out]
            return f"{prefix}{speaker} {' '.join(utts)}\n" if utts else None

        return of_speaker

    speakers = matches(path, BY_SPEAKER)

    def of_utterance(utt: str, rest: str) -> str | None:
        if not speakers and prefix + utt in left_out:
            return None
        if prefix and path.name == SPEAKER_OF:
            rest = f" {prefix}{rest.lstrip()}"
        return f"{prefix if utt else ''}{utt}{rest if rest.endswith(chr(10)) else rest + chr(10)}"

    return of_utterance


def carry(
    source: Path, target: Path, *, prefixes: Sequence[str] = ("",), left_out: Collection[str] = ()
) -> None:
    """Write a table for a directory that holds the set once per prefix.

    Args:
        source: A table of a data directory; a file that is none is copied.
        target: The file to write.
        prefixes: ``""`` for the set itself, ``"sp0.9-"`` for a copy.
        left_out: Ids, with their prefix, of the utterances to leave out.
    """
    known = matches(source, BY_UTTERANCE + BY_SPEAKER)
    if not known or (not left_out and tuple(prefixes) == ("",)):
        shutil.copyfile(source, target)
        return
    tables = [keyed_lines(source, for_factor(source, prefix, left_out)) for prefix in prefixes]
    with target.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(line for _, line in heapq.merge(*tables, key=lambda entry: entry[0]))
