"""Finds everything that is wrong with the example directories, a line per fault.

A set's tables are read line by line. What one fault brings about (a broken file fails every
check that needs its samples) is not listed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.bbpe import normalize_text
from espnet_smoe.datadir import iter_table
from espnet_smoe.faults import Fault
from espnet_smoe.locator import AudioError
from espnet_smoe.routing import SPECIAL
from espnet_smoe.soundness import AudioJob, Recent, SpeakingRates, each_item, examine
from espnet_smoe.tables import Broken, Value, join, rows

TRAINING_TABLES = [
    "wav.scp",
    "text",
    "text.prev",
    "text.ctc",
    "bandwidth",
    "utt2bw",
    "utt2task",
    "utt2num_samples",
]
TEST_TABLES = ["wav.scp", "text", "utt2lang", "utt2bw", "utt2num_samples"]
IDENTICAL_WORDS = 2  # one word may be a name
IDENTICAL_SHARE = 0.2  # of a task's texts from which on its copies are meant


@dataclass
class Report:
    """The faults of one set.

    Attributes:
        directory: Its data directory.
        faults: What is listed, in order.
        drop: Ids (of examples or utterances) that cannot be used.
        training: A training or validation set: one line per example.
        tables: The names of the tables that cover every line of it.
    """

    directory: Path
    faults: dict[Fault, None] = field(default_factory=dict)
    drop: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        names = ("utt2task", "text.ctc")
        self.training = any((self.directory / name).exists() for name in names)
        self.tables = TRAINING_TABLES if self.training else TEST_TABLES

    def is_whole(self) -> bool:
        """Are all its tables there? Notes those that are not."""
        missing = [name for name in self.tables if not (self.directory / name).exists()]
        for name in missing:
            self.note(Fault("", str(self.directory / name), "no such file; rerun stage 4"))
        return not missing

    def note(self, fault: Fault) -> None:
        """List a fault of the whole file."""
        self.faults[fault] = None

    def add(self, utt: str, name: str | Path, reason: str) -> None:
        """List a fault of an utterance, which cannot be used then."""
        file = name if isinstance(name, Path) else self.directory / name
        self.faults[Fault(utt, str(file), reason)] = None
        if utt:
            self.drop.add(utt)


def base_of(example: str, task: str) -> str:
    """The utterance of an example."""
    return example.removesuffix(f"_{task}")


def check_audio(
    report: Report,
    *,
    fs: int,
    nj: int,
    decode: bool,
) -> Iterator[tuple[str, bytes]]:
    """Examine each file of a set once.

    Yields:
        (utterance or example id, digest of the samples) of sound files; no digest without
        decoding.
    """
    recent = Recent()
    paths: dict[str, str] = {}  # of the jobs under way

    def jobs() -> Iterator[tuple[str, AudioJob]]:
        names = ("wav.scp", "utt2num_samples")
        for utt, (path, samples) in join(*(sound_lines(report.directory / n) for n in names)):
            if path and samples and samples.isdecimal() and recent.is_new(path):
                paths[utt] = path
                yield utt, AudioJob(path, int(samples), fs, decode)

    bad: set[str] = set()
    for utt, found in each_item(examine, jobs(), nj=nj, label=str(report.directory)):
        path = paths.pop(utt)
        if isinstance(found, AudioError):  # `examine` reports, it raises nothing
            raise found
        if found.reason:
            bad.add(path)
            report.add(utt, Path(path), found.reason)
        elif found.digest:
            yield utt, found.digest
    if bad:
        wavs = sound_lines(report.directory / "wav.scp")
        report.drop.update(utt for utt, path in wavs if path in bad)


def sound_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a table that are not broken."""
    for utt, value in rows(path, lambda _: None):
        if isinstance(value, str):
            yield utt, value


def check_tables(report: Report, tokens: set[str], *, fs: int) -> None:
    """Check a set's tables against each other, its prompts and its texts."""
    names = list(report.tables)
    if not report.training:
        further = {path.name for path in report.directory.glob("text.*")}
        names = [*TEST_TABLES, *sorted(further)]
    known = set(report.drop)
    tables = [rows(report.directory / name, report.note) for name in names]
    check = _Rows(report, names, tokens, fs)
    for utt, values in join(*tables):
        check.row(utt, values, audio_is_bad=utt in known)
    check.finish()


class _Rows:
    def __init__(self, report: Report, names: list[str], tokens: set[str], fs: int) -> None:
        self.report, self.names, self.tokens, self.fs = report, names, tokens, fs
        self.specials = {token for token in tokens if SPECIAL.fullmatch(token)}
        self.rates = SpeakingRates()
        self.unknown: dict[tuple[str, str], list[str]] = {}  # (table, token): ids
        self.copies: dict[str, list[str]] = {}  # task: examples whose text is the transcript
        self.pairs: dict[str, int] = {}

    def row(self, utt: str, values: tuple[Value | None, ...], *, audio_is_bad: bool) -> None:
        """Check one line of all tables."""
        row: dict[str, str] = {}
        whole = True
        for name, value in zip(self.names, values, strict=True):
            if value is None:
                if name not in self.report.tables:
                    continue  # not every utterance is translated
                having = next(n for n, v in zip(self.names, values, strict=True) if v is not None)
                if whole:
                    self.report.add(utt, name, f"has no line for it, but {having} has")
                whole = False
            elif isinstance(value, Broken):
                self.report.add(utt, name, value.reason)
                whole = False
            else:
                row[name] = value
        if whole and self._figures(utt, row) and self._text(utt, row) and not audio_is_bad:
            is_transcript = not self.report.training or row["utt2task"] == "asr"
            if is_transcript:
                text = row["text.ctc"] if self.report.training else row["text"]
                seconds = int(row["utt2num_samples"]) / self.fs
                reason = self.rates.add(utt, text, seconds)
                if reason:
                    self.report.add(utt, "text", reason)

    def _figures(self, utt: str, row: dict[str, str]) -> bool:
        band, number = row["utt2bw"], row.get("bandwidth")
        if band not in BANDWIDTHS:
            self.report.add(utt, "utt2bw", f"{band!r}; accepted: {', '.join(BANDWIDTHS)}")
        elif number not in (None, str(BANDWIDTHS.index(band))):
            reason = f"{number!r}, but utt2bw has {band} ({BANDWIDTHS.index(band)})"
            self.report.add(utt, "bandwidth", reason)
        elif not row["utt2num_samples"].isdecimal():
            self.report.add(utt, "utt2num_samples", f"{row['utt2num_samples']!r} is no number")
        else:
            return True
        return False

    def _text(self, utt: str, row: dict[str, str]) -> bool:
        """Check an example's prompt and words; of a test set, language and transcript."""
        if not self.report.training:
            self._known(utt, "utt2lang", f"<{row['utt2lang']}>")
            texts = {name: text for name, text in row.items() if name.startswith("text")}
            for name, text in texts.items():
                if name.count(".") == 1:
                    self._pair(utt, name, text, row["text"])
            sound = [self._words(utt, name, text) for name, text in texts.items()]
            return all(sound)
        prompt, _, words = row["text"].partition(" ")
        found = SPECIAL.findall(prompt)
        if "".join(found) != prompt or not words.strip():
            self.report.add(utt, "text", f"{row['text']!r} is not '<language><task>... text'")
            return False
        known = [self._known(utt, "text", token) for token in found]
        if not all(known):
            return False
        if not self._words(utt, "text", words):
            return False
        task = row["utt2task"]
        if task != "asr":
            self._pair(utt, task, words, row["text.ctc"])
        return True

    def _pair(self, utt: str, task: str, words: str, transcript: str) -> None:
        self.pairs[task] = self.pairs.get(task, 0) + 1
        if words == transcript and len(words.split()) >= IDENTICAL_WORDS:
            self.copies.setdefault(task, []).append(utt)

    def _known(self, utt: str, name: str, token: str) -> bool:
        if token in self.tokens:
            return True
        self.unknown.setdefault((name, token), []).append(utt)
        return False

    def _words(self, utt: str, name: str, words: str) -> bool:
        reason = words_problem(words, self.specials)
        if reason:
            self.report.add(utt, name, reason)
        return not reason

    def finish(self) -> None:
        """List what shows in many lines once, and what only the whole set tells."""
        for (name, token), utts in self.unknown.items():
            more = f" (nor for {len(utts) - 1} further utterances)" if len(utts) > 1 else ""
            self.report.add(utts[0], name, f"{token} is not in the token list{more}")
            self.report.drop.update(utts)
        for utt, reason in self.rates.outliers():
            self.report.add(utt, "text", reason)
        for task, utts in self.copies.items():
            if len(utts) <= max(1, IDENTICAL_SHARE * self.pairs[task]):
                name = task if task.startswith("text") else "text"
                for utt in utts:
                    self.report.add(utt, name, "the translation is the transcript itself")


def words_problem(words: str, specials: set[str]) -> str | None:
    """What is wrong with a text's characters."""
    if "<" in words:
        found = [token for token in SPECIAL.findall(words) if token in specials]
        if found:
            return f"the text {words!r} holds the special symbol {found[0]!r}"
    try:
        normalize_text(words)
    except ValueError as error:
        return str(error)
    return None


def planned_problem(path: Path, examples: Path) -> str | None:
    """Compare a batch plan with the examples that it should hold."""
    from espnet_smoe.batching import iter_plan

    planned: set[int] = set()  # of 64-bit hashes
    for batch in iter_plan(path):
        if len(set(batch.utts)) < len(batch.utts):
            return f"a batch holds an example twice ({batch.utts[0]}, ...); rerun stage 6"
        planned.update(map(hash, batch.utts))
    missing, first = 0, ""
    for utt, _ in iter_table(examples):
        if hash(utt) in planned:
            planned.discard(hash(utt))
        else:
            missing, first = missing + 1, first or utt
    if missing:
        return f"it lacks {missing} example(s), the first {first}; rerun stage 6"
    if planned:
        return f"it holds {len(planned)} example(s) that are not in {examples}; rerun stage 6"
    return None


def check_ctc(
    report: Report, frames: Callable[[int], int], encode: Callable[[str], list[int]]
) -> None:
    """List transcripts of more CTC tokens than the encoder gives frames.

    Args:
        report: Of a training or validation set.
        frames: The most encoder frames that so many samples give.
        encode: A text's token ids.
    """
    faulty = set(report.drop)
    names = ("utt2task", "text.ctc", "utt2num_samples")
    for utt, values in join(*(sound_lines(report.directory / name) for name in names)):
        task, text, samples = values
        if task != "asr" or text is None or samples is None or utt in faulty:
            continue
        room = frames(int(samples))
        if 2 * len(text.encode()) < room:  # no more than a token a byte, and a blank between
            continue
        tokens = encode(text)
        needed = len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
        if needed > room:
            report.add(
                utt,
                "text.ctc",
                f"{needed} CTC tokens for {room} encoder frames ({samples} samples): another "
                "utterance's text, or audio cut short",
            )
