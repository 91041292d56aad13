"""What is asked of a recording, turned into stretches of audio and prompts for the decoder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_smoe.bandwidth import AMBIGUOUS, BandwidthEstimate
from espnet_smoe.decoder_cache import experts_of
from espnet_smoe.decoding import Job, Prompt
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.inference_options import AUTO, OptionError, Options, check_bandwidth
from espnet_smoe.model import ROUTE_VARIABLE, SMoES2TModel
from espnet_smoe.recordings import pieces
from espnet_smoe.vocabulary import TRANSCRIBING, Vocabulary

logger = logging.getLogger(__name__)

Tasks = str | Sequence[str]


@dataclass(frozen=True)
class Speech:
    """A recording with settings of its own; None: the call's.

    Attributes:
        audio: A path or another locator of ``wav.scp``, an array or tensor of samples (at the
            model's rate), or ``(array, rate)``.
        name: What results and errors call it.
        tasks: A task, or several.
        bandwidth: ``auto``, ``wb`` or ``nb``.
        language: The language spoken.
        text_prev: What was said before, as text or token ids.
    """

    audio: Any
    name: str | None = None
    tasks: Tasks | None = None
    bandwidth: str | None = None
    language: str | None = None
    text_prev: Any = None


@dataclass
class Item:
    """A recording on its way through."""

    name: str
    single: bool  # one task, given as a string
    language: str = ""
    tasks: tuple[str, ...] = ()
    prompts: list[Prompt] = field(default_factory=list)
    written_by: list[str] = field(default_factory=list)  # the decoder's expert of each task
    jobs: list[Job] = field(default_factory=list)
    read: bool = False  # all of its stretches are known
    error: Exception | None = None


class ItemReader:
    """Knows what a model can be asked for.

    Args:
        model: The S2T model.
        vocabulary: Its tokens.
        fs: The rate at which it hears, Hz.
        speech_length: Longest stretch that it was trained on, seconds.
        pause: Seconds without speech at which longer audio is cut.
    """

    def __init__(
        self, model: Any, vocabulary: Vocabulary, fs: int, speech_length: float, pause: float
    ) -> None:
        self.model, self.vocabulary = model, vocabulary
        self.fs, self.speech_length, self.pause = fs, speech_length, pause
        self._warned_of_ctc = False

    def requested(self, tasks: Tasks | None, options: Options) -> tuple[bool, tuple[str, ...]]:
        """Whether the result is a single one, and the tokens of the tasks."""
        if tasks is None:
            tasks = options.task_sym
        single = isinstance(tasks, str)
        names: Sequence[str] = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise OptionError("tasks is empty; accepted: at least one task")
        symbols = tuple(self.vocabulary.task(name) for name in names)
        if len(set(symbols)) < len(symbols):
            raise OptionError(f"tasks names one twice: {', '.join(map(str, names))}")
        return single, symbols

    def jobs(
        self, item: Item, speech: Speech, tasks: Tasks | None, options: Options
    ) -> Iterator[Job]:
        """The stretches of a recording, as they are read."""
        item.single, item.tasks = self.requested(
            tasks if speech.tasks is None else speech.tasks, options
        )
        item.language = self.vocabulary.language(speech.language or options.lang_sym)
        bandwidth = check_bandwidth(speech.bandwidth or options.bandwidth)
        for task in item.tasks:
            ids = self.vocabulary.prompt(
                item.language,
                task,
                predict_time=options.predict_time,
                text_prev=_listed(speech.text_prev),
            )
            item.prompts.append(Prompt(tuple(ids), task in TRANSCRIBING))
        experts = experts_of(self.model.decoder, [p.ids for p in item.prompts])
        item.written_by = list(experts or [""] * len(item.tasks))
        if options.ctc_weight > 0.0 and not any(p.transcribes for p in item.prompts):
            self._warn_of_ctc(options, item.tasks)
        for piece in pieces(
            speech.audio,
            fs=self.fs,
            max_seconds=options.max_length or self.speech_length,
            pause=options.pause or self.pause,
            channels=options.channels,
            name=item.name,
        ):
            job = Job(
                item.name, piece, item.prompts, self._route(bandwidth, piece.bandwidth, options)
            )
            item.jobs.append(job)
            yield job

    def _warn_of_ctc(self, options: Options, tasks: Sequence[str]) -> None:
        """Beside a task that transcribes, the weight is meant for that; alone, for nothing."""
        if not self._warned_of_ctc:
            self._warned_of_ctc = True
            logger.warning(
                "ctc_weight %s has no effect on %s: CTC is trained on transcripts and ruins other "
                "tasks, so only transcribing uses it",
                options.ctc_weight,
                ", ".join(task.strip("<>") for task in tasks),
            )

    def _route(self, asked: str, found: BandwidthEstimate, options: Options) -> Any:
        """What the encoder is told; None: nothing."""
        model = self.model
        if (
            not isinstance(getattr(model, "encoder", None), RoutedEncoder)
            or type(model).encoder_route is not SMoES2TModel.encoder_route
        ):
            return None
        if asked != AUTO:
            return asked
        if model.route_override or os.environ.get(ROUTE_VARIABLE):
            return None
        if found.label == AMBIGUOUS:
            if options.ambiguous == "wb":
                return "wb"
            if options.ambiguous == "blend":
                return {"wb": found.wb_probability, "nb": 1.0 - found.wb_probability}
        return found.likelier


def name_of(audio: Any, count: int) -> str:
    return str(audio) if isinstance(audio, str | Path) else f"array {count}"


def _listed(text_prev: Any) -> Any:
    """ESPnet takes arrays and tensors of token ids too."""
    return text_prev.tolist() if hasattr(text_prev, "tolist") else text_prev
