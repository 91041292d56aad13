"""What only several texts or several sets together tell: languages mixed up, tests in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_smoe.faults import Fault
from espnet_smoe.routing import SPECIAL
from espnet_smoe.slots import UNKNOWN, Slots, are_alike, choose
from espnet_smoe.tables import join
from espnet_smoe.validation import Report, base_of, sound_lines

TRANSCRIPT = "<asr>"


def slots_of(directory: Path) -> list[str]:
    """The slots of a training set: language and task of its prompts."""
    found = set()
    for _, text in sound_lines(directory / "text"):
        tokens = SPECIAL.findall(text.partition(" ")[0])
        if len(tokens) >= 2:
            found.add(tokens[0] + tokens[1])
    return sorted(found)


def slot_lines(directory: Path, slot: str, *, training: bool) -> Iterator[tuple[str, str]]:
    """(id, text) of a slot ``<language><task>``, of a training or a test set."""
    language, task = SPECIAL.findall(slot)
    if training:
        for utt, line in sound_lines(directory / "text"):
            prompt, _, text = line.partition(" ")
            if prompt.startswith(slot):
                yield utt, text
        return
    path = directory / ("text" if task == TRANSCRIPT else f"text.{task[1:-1]}")
    if path.exists():
        for utt, (words, spoken) in join(sound_lines(path), sound_lines(directory / "utt2lang")):
            if words is not None and f"<{spoken}>" == language:
                yield utt, words


def learn_slots(directory: Path) -> Slots:
    """Learn the slots of a training set."""
    names = slots_of(directory)
    return Slots.learn({n: choose(slot_lines(directory, n, training=True)) for n in names})


def check_slots(report: Report, slots: Slots) -> None:
    """List the texts that do not belong in their slot, a swapped pair once."""
    training = report.training
    found: dict[str, dict[str, tuple[str, str, str]]] = {}  # utterance: task: id, text, looks
    for slot in slots.names:
        _, task = SPECIAL.findall(slot)
        lines = slot_lines(report.directory, slot, training=training)
        for utt, text, looks in slots.strangers(slot, lines):
            base = base_of(utt, task[1:-1]) if training else utt
            found.setdefault(base, {})[task] = (utt, text, looks)
    if not found:
        return
    transcripts = _transcripts(report.directory, found, training=training)
    faulty = set(report.drop)  # what is listed for other reasons is not listed again
    for base, tasks in sorted(found.items()):
        if any(utt in faulty for utt, _, _ in tasks.values()):
            continue
        crossed = [t for t in tasks if t != TRANSCRIPT and tasks[t][2].endswith(TRANSCRIPT)]
        if TRANSCRIPT in tasks and crossed:
            task = crossed[0]
            utt, text, _ = tasks[task]
            reason = f"transcript and translation look swapped: the translation is {text!r}"
            report.add(utt, _table(task, training), reason)
            report.drop.update(u for u, _, _ in tasks.values())
            continue
        for task, (utt, text, looks) in tasks.items():
            transcript = transcripts.get(base)
            if task != TRANSCRIPT and transcript and are_alike(text, transcript):
                continue  # names, which stand in both
            like = looks if looks == UNKNOWN or looks.startswith("the script") else f"{looks} texts"
            report.add(utt, _table(task, training), f"{text!r} looks like {like}")


def _table(task: str, training: bool) -> str:
    return "text" if training or task == TRANSCRIPT else f"text.{task[1:-1]}"


def _transcripts(
    directory: Path, wanted: dict[str, dict[str, tuple[str, str, str]]], *, training: bool
) -> dict[str, str]:
    bases = {utt: base for base, tasks in wanted.items() for utt, _, _ in tasks.values()}
    lines = sound_lines(directory / ("text.ctc" if training else "text"))
    return {bases[utt]: text for utt, text in lines if utt in bases}


class HeldOut:
    """What the test sets hold and training must not: utterances, audio, speakers."""

    def __init__(self) -> None:
        self.utts: dict[str, str] = {}  # utterance: its set
        self.sources: dict[str, str] = {}  # audio before stage 2: utterance and set
        self.digests: dict[bytes, str] = {}
        self.speakers: dict[str, str] = {}

    def add(self, name: str, directory: Path, source: Path | None) -> None:
        """Remember a test set.

        Args:
            name: Its name, for the messages.
            directory: Its data directory.
            source: The ``wav.scp`` of stage 1, if there is one.
        """
        self.utts.update((utt, name) for utt, _ in sound_lines(directory / "wav.scp"))
        if (directory / "utt2spk").exists():
            speakers = sound_lines(directory / "utt2spk")
            self.speakers.update((speaker, name) for _, speaker in speakers)
        if source and source.exists():
            lines = sound_lines(source)
            self.sources.update((path, f"{utt} of {name}") for utt, path in lines)

    def check(
        self, report: Report, digests: Iterator[tuple[str, bytes]], source: Path | None
    ) -> None:
        """List what a training set shares with the tests; once per utterance.

        Args:
            report: The training set's.
            digests: Of its audio, from `espnet_smoe.validation.check_audio`.
            source: Its ``wav.scp`` of stage 1, if there is one.
        """
        directory = report.directory
        shared: dict[str, tuple[Path, str]] = {}
        same = {utt: self.digests[digest] for utt, digest in digests if digest in self.digests}
        copied: dict[str, str] = {}
        if self.sources and source and source.exists():
            lines = sound_lines(source)
            copied = {u: self.sources[path] for u, path in lines if path in self.sources}
        for example, task in sound_lines(directory / "utt2task"):
            base = base_of(example, task)
            if base in self.utts:
                reason = f"utterance {base} is also one of test set {self.utts[base]}"
                shared.setdefault(base, (directory / "wav.scp", reason))
            elif base in copied and source:
                shared.setdefault(base, (source, f"its audio is that of utterance {copied[base]}"))
            elif example in same:
                reason = f"its audio is the same as that of utterance {same[example]}"
                shared.setdefault(base, (directory / "wav.scp", reason))
            if base in shared:
                report.drop.add(example)
        for base, (path, reason) in sorted(shared.items()):
            report.add(base, path, reason)

    def check_speakers(self, report: Report) -> Iterator[Fault]:
        """A fault per speaker whom a training set shares with the tests."""
        path = report.directory / "utt2spk"
        if self.speakers and path.exists():
            shared: dict[str, int] = {}
            for _, speaker in sound_lines(path):
                if speaker in self.speakers:
                    shared[speaker] = shared.get(speaker, 0) + 1
            for speaker, number in sorted(shared.items()):
                reason = (
                    f"speaker {speaker!r} of {number} examples also speaks in test set "
                    f"{self.speakers[speaker]}"
                )
                yield Fault("", str(path), reason)
