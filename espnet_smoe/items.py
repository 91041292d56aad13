"""What is asked of a recording, turned into stretches of audio and prompts for the decoder."""

from __future__ import annotations

import io
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_smoe.bandwidth import AMBIGUOUS, BANDWIDTHS, BandwidthEstimate
from espnet_smoe.decoder_cache import experts_of
from espnet_smoe.decoding import Job, Prompt, TooShort
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.inference_options import AUTO, OptionError, Options, check_bandwidth
from espnet_smoe.model import ROUTE_VARIABLE, SMoES2TModel
from espnet_smoe.recordings import pieces
from espnet_smoe.routing import RoutingError
from espnet_smoe.vocabulary import TRANSCRIBING, Vocabulary, VocabularyError, names_of

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
        bandwidth: ``auto``, ``wb``, ``nb``, or one of the model's channels.
        language: The language spoken.
        text_prev: What was said before the recording, before each of its channels, as text or
            token ids.
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
    decoder_experts: list[str] = field(default_factory=list)  # the decoder's expert of each task
    jobs: list[Job] = field(default_factory=list)
    read: bool = False  # all of its stretches are known
    error: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """Why there is no result: its own error, or a stretch's.

        A stretch that is too short is empty beside others.
        """
        errors = [job.error for job in self.jobs if job.error is not None]
        if len(errors) < len(self.jobs):
            errors = [error for error in errors if not isinstance(error, TooShort)]
        return self.error or next(iter(errors), None)


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
        self._warned: set[str] = set()

    def requested(self, tasks: Tasks | None, options: Options) -> tuple[bool, tuple[str, ...]]:
        """Whether the result is a single one, and the tokens of the tasks."""
        if tasks is None:
            tasks = options.task_sym
        single = isinstance(tasks, str)
        if not isinstance(tasks, Iterable):
            raise OptionError(f"tasks is {tasks!r}; accepted: a task, or several in a list")
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
        try:
            item.single, item.tasks = self.requested(
                tasks if speech.tasks is None else speech.tasks, options
            )
            language = options.lang_sym if speech.language is None else speech.language
            item.language = self.vocabulary.language(language)
            if item.language in item.tasks:
                raise OptionError(
                    f"{names_of([item.language])!r} is the language spoken and a task; accepted: "
                    f"{names_of(self.vocabulary.tasks)}"
                )
            bandwidth = options.bandwidth if speech.bandwidth is None else speech.bandwidth
            tags = getattr(self.model, "encoder_tags", BANDWIDTHS)
            check_bandwidth(bandwidth, tags[len(BANDWIDTHS) :])
            item.prompts = self._prompts(item, options, None)
            item.decoder_experts = self._decoder_experts(item)
            first = self._prompts(item, options, _listed(speech.text_prev))
        except (OptionError, VocabularyError) as error:
            raise type(error)(f"audio {item.name!r}: {error}") from error
        if bandwidth != AUTO and self._encoder_experts() is None:
            self._warn(
                "bandwidth %s has no effect: the model's encoder has no experts for bandwidths",
                bandwidth,
            )
        if options.ctc_weight > 0.0 and not any(p.transcribes for p in item.prompts):
            # beside a task that transcribes, the weight is meant for that; alone, for nothing
            self._warn(
                "ctc_weight %s has no effect on %s: CTC is trained on transcripts and ruins other "
                "tasks, so only transcribing uses it",
                options.ctc_weight,
                names_of(item.tasks),
            )
        begun: set[int | None] = set()  # channels of which a stretch has come
        for piece in pieces(
            speech.audio,
            fs=self.fs,
            max_seconds=options.max_length or self.speech_length,
            pause=options.pause or self.pause,
            channels=options.channels,
            name=item.name,
        ):
            route = self._route(bandwidth, piece.bandwidth, options)
            self._require_expert(item.name, route)
            prompts = item.prompts if piece.channel in begun else first
            begun.add(piece.channel)
            job = Job(item.name, piece, prompts, route)
            item.jobs.append(job)
            yield job

    def _prompts(self, item: Item, options: Options, text_prev: Any) -> list[Prompt]:
        """The prompt of each task."""
        return [
            Prompt(
                tuple(
                    self.vocabulary.prompt(
                        item.language,
                        task,
                        predict_time=options.predict_time,
                        text_prev=text_prev,
                    )
                ),
                task in TRANSCRIBING,
            )
            for task in item.tasks
        ]

    def _decoder_experts(self, item: Item) -> list[str]:
        """The decoder's expert of each task; empty for a decoder without.

        Raises:
            RoutingError: A task has none.
        """
        found = []
        for task, prompt in zip(item.tasks, item.prompts, strict=True):
            try:
                experts = experts_of(self.model.decoder, [prompt.ids])
            except RoutingError as error:
                served = [t for t in self.vocabulary.tasks if self._is_served(item.language, t)]
                raise RoutingError(
                    f"audio {item.name!r}: no expert of the model's decoder serves task "
                    f"{task.strip('<>')!r} of language {item.language.strip('<>')!r}; accepted: "
                    f"{names_of(served) or 'no task of this language'}"
                ) from error
            found.append(experts[0] if experts else "")
        return found

    def _is_served(self, language: str, task: str) -> bool:
        try:
            experts_of(self.model.decoder, [self.vocabulary.prompt(language, task)])
        except RoutingError:
            return False
        return True

    def _warn(self, message: str, *values: Any) -> None:
        """Say it once."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *values)

    def _encoder_experts(self) -> Sequence[str] | None:
        """The encoder's experts; None: it has none, or does not pick them by bandwidth."""
        model = self.model
        if (
            not isinstance(getattr(model, "encoder", None), RoutedEncoder)
            or type(model).encoder_route is not SMoES2TModel.encoder_route
        ):
            return None
        return tuple(model.encoder.expert_names)

    def _require_expert(self, name: str, route: str | Mapping[str, float] | None) -> None:
        known = self._encoder_experts()
        if route is None or known is None:
            return
        for bandwidth in [route] if isinstance(route, str) else route:
            if bandwidth not in known:
                raise RoutingError(
                    f"audio {name!r}: no expert of the model's encoder serves bandwidth "
                    f"{bandwidth!r}; accepted: {', '.join(known)}"
                )

    def _route(self, asked: str, found: BandwidthEstimate, options: Options) -> Any:
        """What the encoder is told; None: nothing."""
        if self._encoder_experts() is None:
            return None
        if asked != AUTO:
            return asked
        if self.model.route_override or os.environ.get(ROUTE_VARIABLE):
            return None
        if found.label == AMBIGUOUS:
            if options.ambiguous == "wb":
                return "wb"
            if options.ambiguous == "blend":
                return {"wb": found.wb_probability, "nb": 1.0 - found.wb_probability}
        return found.likelier


def is_one(speech: Any) -> bool:
    """Whether it is a single recording rather than several."""
    if isinstance(speech, str | Path | Speech | np.ndarray | torch.Tensor):
        return True
    if not isinstance(speech, tuple) or len(speech) != 2:
        return False
    # an array and its rate, or the wrong way round, which will be said
    numbers = [isinstance(part, int | float | np.number) for part in speech]
    return any(numbers) and not any(isinstance(part, str | Path) for part in speech)


def require_several(speech: Any) -> None:
    """Raises OptionError for what is not several recordings, though Python may iterate over it."""
    if not isinstance(speech, Iterable) or isinstance(
        speech, bytes | bytearray | Mapping | io.IOBase
    ):
        raise OptionError(
            f"speech is a {type(speech).__name__}; accepted: a path, an array or tensor of "
            "samples, (array, rate), a Speech, or an iterable of those"
        )


def each_its_own(items: list[Speech], settings: Mapping[str, list[Any]]) -> list[Speech]:
    """Give each recording its own value of some settings, where it has none yet.

    Raises:
        OptionError: There are not as many values as recordings.
    """
    for name, values in settings.items():
        if len(values) != len(items):
            raise OptionError(
                f"{name}: {len(values)} values for {len(items)} recordings; accepted is one "
                "for all, or a list with one for each"
            )
        items = [
            item if getattr(item, name) is not None else replace(item, **{name: value})
            for item, value in zip(items, values, strict=True)
        ]
    return items


def let_go(error: BaseException | None) -> None:
    """Drop the samples that an error's frames hold: a failure may wait, and be kept, for long."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def name_of(audio: Any, count: int) -> str:
    return str(audio) if isinstance(audio, str | Path) else f"array {count}"


def _listed(text_prev: Any) -> Any:
    """ESPnet takes arrays and tensors of token ids too."""
    return text_prev.tolist() if hasattr(text_prev, "tolist") else text_prev
