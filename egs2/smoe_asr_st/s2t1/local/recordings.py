"""Corpora whose utterances are parts of longer recordings, listed once per target language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from corpus import Utterance, usable, write_set

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault
from espnet_smoe.locator import Locator

Segments = Iterator[tuple[str, Utterance]]  # recording and utterance


class MissingProgram(DataError):
    """The audio needs a program that is not installed: nothing of the corpus can be read."""


def part(source: str | Path, start: float, end: float, channel: int | None = None) -> str:
    """The locator of a part of a recording.

    Raises:
        DataError: The part does not lie in a recording, or is shorter than a millisecond.
    """
    if not (start >= 0 and start + 0.001 <= end < float("inf")):
        raise DataError(f"starts at {start:g} s and ends at {end:g} s; expected 0 <= start < end")
    return str(Locator(str(source), start, end, channel))


def part_id(recording: str, start: float, end: float) -> str:
    """An id by which the parts of a recording sort in their order: milliseconds."""
    return f"{recording}-{round(1000 * start):07}-{round(1000 * end):07}"


def merge(segments: Segments, faults: list[Fault]) -> dict[str, tuple[str, Utterance]]:
    """One utterance per part and transcript, with the translations of every target.

    Targets may transcribe the same part differently; the later one's id then ends in its
    language.

    Returns:
        ``{id: (recording, utterance)}``.
    """
    found: dict[str, tuple[str, Utterance]] = {}
    for recording, u in segments:
        ((task, _),) = u.translations
        known = found.get(u.utt, (recording, u))[1]
        if known is not u and task in dict(known.translations):
            faults.append(Fault(u.utt, u.file, "the same part of the recording occurs twice"))
        elif known.transcript != u.transcript:
            utt = f"{u.utt}-{task.removeprefix('st_')}"
            found[utt] = (recording, replace(u, utt=utt))
        elif known is not u:
            both = known.translations + u.translations
            found[u.utt] = (recording, replace(known, translations=both))
        else:
            found[u.utt] = (recording, u)
    return found


def write_segments(
    out: Path,
    sets: Mapping[str, str],
    read: Callable[[str, list[Fault]], Segments],
    *,
    text_case: str,
) -> None:
    """Write the sets of such a corpus.

    Args:
        out: Where they go.
        sets: The corpus's name of each split, and ours; training comes last, so that a recording
            that any target holds out is in no target's training.
        read: Yields the segments of a split, target by target.
        text_case: As for ``usable``.
    """
    held_out: set[str] = set()
    for split, name in sets.items():
        faults: list[Fault] = []
        found = merge(read(split, faults), faults)
        fresh = list(found.values())
        if name == "train":
            fresh = [(recording, u) for recording, u in fresh if recording not in held_out]
            if len(fresh) < len(found):
                left_out = len(found) - len(fresh)
                print(f"{name}: {left_out} segments left out: their recordings are held out")
        held_out.update(recording for recording, _ in fresh)
        utterances = (u for _, u in fresh)
        write_set(out / name, usable(utterances, text_case=text_case, faults=faults), faults)
