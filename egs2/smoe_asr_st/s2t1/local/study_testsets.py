"""Test sets, and decoding them with a trained model, for the study's experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from score import reference_files

from espnet_smoe.audio_reader import read_value
from espnet_smoe.bandwidth import BANDWIDTHS, BandwidthEstimate
from espnet_smoe.datadir import DataError, read_table, require_same_keys
from espnet_smoe.scoring import prepared, utterance_counts

RATE = 16000  # Hz, of what is decoded
NORMALISATION = "nfc_ws"  # stage 13's
OTHER_BANDWIDTH = {"wb": "nb", "nb": "wb"}


@dataclass(frozen=True)
class Utterance:
    """An utterance of a test set.

    Attributes:
        key: ``<set>/<utterance>``.
        bandwidth: The true one, by its ``utt2bw``.
        language: Spoken.
        audio: Its locator in ``wav.scp``.
        speaker: None where the set names none.
        references: Per task one or more; a task may have none for it.
    """

    key: str
    bandwidth: str
    language: str
    audio: str
    speaker: str | None = None
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def test_set(self) -> str:
        return self.key.partition("/")[0]

    @property
    def sentence(self) -> str:
        """What the wideband and the narrowband copy of a sentence share: set and utterance."""
        return (
            f"{self.test_set.removesuffix('_wb').removesuffix('_nb')}/{self.key.partition('/')[2]}"
        )


def read_sets(
    examples: Path, names: Sequence[str], tasks: Sequence[str] = (), limit: int | None = None
) -> tuple[list[Utterance], list[str]]:
    """Read test sets of stage 4.

    Args:
        examples: Its directory.
        names: The sets.
        tasks: Those of interest; none: all that every set has references of, asr first.
        limit: Take the first so many utterances of each set; None: all.

    Raises:
        DataError: A table or a reference file is missing, or a bandwidth is none.
    """
    files = {name: reference_files(examples / name) for name in names}
    known = [task for task in files[names[0]] if all(task in files[name] for name in names)]
    for task in tasks or known:
        if task not in known:
            raise DataError(f"task {task!r} has no references in {', '.join(names)} of {examples}")
    chosen = list(tasks) or sorted(known, key=lambda task: (task != "asr", task))
    utterances = []
    for name in names:
        directory = examples / name
        tables = {t: [read_table(path) for path in files[name][t]] for t in chosen}
        audio, languages, bands = (
            read_table(directory / table) for table in ("wav.scp", "utt2lang", "utt2bw")
        )
        for other, table in (("utt2lang", languages), ("utt2bw", bands)):
            require_same_keys(audio, table, names=(f"{directory}/wav.scp", f"{directory}/{other}"))
        speakers = read_table(directory / "utt2spk") if (directory / "utt2spk").exists() else {}
        for utt in list(audio)[:limit]:
            if bands[utt] not in BANDWIDTHS:
                raise DataError(
                    f"{directory}/utt2bw: utterance {utt!r} has bandwidth {bands[utt]!r}; "
                    f"accepted: {', '.join(BANDWIDTHS)}"
                )
            references = {
                task: texts
                for task, columns in tables.items()
                if (texts := tuple(column[utt] for column in columns if utt in column))
            }
            utterances.append(
                Utterance(
                    f"{name}/{utt}",
                    bands[utt],
                    languages[utt],
                    audio[utt],
                    speakers.get(utt),
                    references,
                )
            )
    return utterances, chosen


@dataclass(frozen=True)
class Decoded:
    """One decoding of the test sets.

    Attributes:
        texts: By task, then by key.
        measured: By key, what the meter says of the audio.
    """

    texts: dict[str, dict[str, str]]
    measured: dict[str, BandwidthEstimate]


def decode(
    speech2text: Any,
    utterances: Sequence[Utterance],
    tasks: Sequence[str],
    *,
    bandwidth: Callable[[Utterance], str],
    title: str = "decode",
    **options: Any,
) -> Decoded:
    """Decode utterances for tasks; one encoder pass serves all tasks of an utterance.

    Args:
        speech2text: `espnet_smoe.Speech2Text`.
        utterances: What to decode.
        tasks: For each of them.
        bandwidth: The encoder's route of each, or ``auto``.
        title: Of the progress bar.
        **options: Further ones of `Speech2Text.stream`.

    Raises:
        ValueError: An utterance cannot be decoded.
    """
    from espnet_smoe.inference import Speech
    from espnet_smoe.transcribe import Progress

    def items() -> Iterator[Any]:
        for u in utterances:
            yield Speech(
                (read_value(u.audio, u.key), RATE),
                name=u.key,
                tasks=list(tasks),
                bandwidth=bandwidth(u),
                language=u.language,
            )

    decoded = Decoded({task: {} for task in tasks}, {})
    with Progress(len(utterances), title=title, unit="utt") as progress:
        for results in speech2text.stream(items(), **options):
            first = results[tasks[0]]
            decoded.measured[first.name] = first.bandwidth
            for task in tasks:
                decoded.texts[task][first.name] = results[task].text
            progress.add(first.duration)
    return decoded


def counts_of(
    utterances: Sequence[Utterance], texts: Mapping[str, str], task: str, metric: str
) -> Any:
    """Counts (U, S) of the utterances' texts against a task's references."""
    references = {u.key: u.references[task] for u in utterances}
    hypotheses = {u.key: texts[u.key] for u in utterances}
    keys, refs, hyps = prepared(references, hypotheses, NORMALISATION)
    assert keys == sorted(references)
    return utterance_counts(metric, refs, hyps)


def cells(utterances: Sequence[Utterance], task: str) -> Iterator[tuple[str, str, list[Utterance]]]:
    """(test set, bandwidth, its utterances with a reference for the task)."""
    groups: dict[tuple[str, str], list[Utterance]] = {}
    for u in utterances:
        if task in u.references:
            groups.setdefault((u.test_set, u.bandwidth), []).append(u)
    for (test_set, bandwidth), some in groups.items():
        yield test_set, bandwidth, some


def training_texts(directory: Path) -> dict[str, list[str]]:
    """Texts by task of a training set of stage 4, without their prompts."""
    from espnet_smoe.failures import without_prompt

    tasks = read_table(directory / "utt2task")
    texts: dict[str, list[str]] = {task: [] for task in tasks.values()}
    for utt, text in read_table(directory / "text").items():
        texts[tasks[utt]].append(without_prompt(text))
    return texts


def takes_bandwidth(model: Any) -> bool:
    """Whether the encoder does something else for each of both bandwidths that it is told."""
    from espnet_smoe.encoder import RoutedEncoder
    from espnet_smoe.model import SMoES2TModel

    encoder = getattr(model, "encoder", None)
    return (
        isinstance(encoder, RoutedEncoder)
        and getattr(type(model), "encoder_route", None) is SMoES2TModel.encoder_route
        and set(BANDWIDTHS) <= set(encoder.expert_names)
    )
