"""What the recipe cannot use, and why: carried from stage to stage, listed whole by stage 7.

A stage that meets an utterance it cannot use leaves it out, goes on with the others and notes a
fault. A set's faults lie in its data directory (``faults.jsonl``, a JSON object a line), so that
every later stage hands them on and stage 7 shows all of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_smoe.datadir import DataError, write_text

FAULTS_NAME = "faults.jsonl"
SHOWN = 10  # faults that a stage shows before "and N more"


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with one utterance.

    Attributes:
        utt: Utterance id; ``""`` when it is the whole file's.
        file: The file (audio, table) that holds it.
        reason: What is wrong there, with the value and what is accepted.
    """

    utt: str
    file: str
    reason: str

    def __str__(self) -> str:
        who = f"utterance {self.utt}: " if self.utt else ""
        return f"{who}{self.file}: {self.reason}"


def fault_of(utt: str, file: str, error: Exception) -> Fault:
    """The fault that an error tells of, whose message may begin with the utterance and the file."""
    reason = str(error)
    for known in (f"utterance {utt!r}: ", f"audio file {file!r}"):
        reason = reason.removeprefix(known)
    return Fault(utt, file, reason.lstrip(": "))


def read_faults(directory: str | Path) -> list[Fault]:
    """The faults noted so far for a data directory; none when it has no such file.

    Raises:
        DataError: A line that is no fault.
    """
    path = Path(directory) / FAULTS_NAME
    if not path.exists():
        return []
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            faults.append(Fault(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a fault: {error!r}") from error
    return faults


def write_faults(directory: str | Path, faults: Iterable[Fault]) -> None:
    """Write a data directory's faults, each once, in their order; no file when there are none."""
    lines = [json.dumps(asdict(f), ensure_ascii=False) + "\n" for f in dict.fromkeys(faults)]
    path = Path(directory) / FAULTS_NAME
    if lines:
        write_text(path, "".join(lines))
    else:
        path.unlink(missing_ok=True)


def summary(faults: Iterable[Fault], what: str) -> str:
    """A few lines for the terminal: how many faults, and the first of them.

    Args:
        faults: The faults.
        what: What they are of, e.g. ``"data/train: 12 of 1000 utterances left out"``.
    """
    listed = list(dict.fromkeys(faults))
    lines = [f"{what}:", *(f"  {fault}" for fault in listed[:SHOWN])]
    if len(listed) > SHOWN:
        lines.append(f"  ... and {len(listed) - SHOWN} more; {FAULTS_NAME} has all of them")
    return "\n".join(lines)
