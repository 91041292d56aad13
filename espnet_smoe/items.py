"""What is asked of a recording, turned into stretches of audio and prompts for the decoder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_smoe.bandwidth import AMBIGUOUS, BANDWIDTHS, BandwidthEstimate
from espnet_smoe.decoder_cache import experts_of
from espnet_smoe.decoding import Job, Prompt
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
        text_prev: What was said before the recording, as text or token ids.
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
        self._warned: set[str] = set()

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
        try:
            item.single, item.tasks = self.requested(
                tasks if speech.tasks is None else speech.tasks, options
            )
            language = options.lang_sym if speech.language is None else speech.language
            item.language = self.vocabulary.language(language)
            bandwidth = options.bandwidth if speech.bandwidth is None else speech.bandwidth
            tags = getattr(self.model, "encoder_tags", BANDWIDTHS)
            check_bandwidth(bandwidth, tags[len(BANDWIDTHS) :])
            item.prompts = self._prompts(item, options, None)
            item.written_by = self._written_by(item)
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
            prompts = first if piece.start == 0.0 else item.prompts
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

    def _written_by(self, item: Item) -> list[str]:
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


def name_of(audio: Any, count: int) -> str:
    return str(audio) if isinstance(audio, str | Path) else f"array {count}"


def _listed(text_prev: Any) -> Any:
    """ESPnet takes arrays and tensors of token ids too."""
    return text_prev.tolist() if hasattr(text_prev, "tolist") else text_prev
