"""`Speech2Text`: recordings in, texts of any tasks out, in batches.

Serves the models of this package and ESPnet's own S2T models (OWSM) with a transformer decoder,
and takes the place of `espnet2.bin.s2t_inference.Speech2Text`: the same keywords, and for one
array a result that unpacks like its list.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from espnet_smoe.audio import AudioError
from espnet_smoe.bandwidth import BandwidthError
from espnet_smoe.decoding import BatchDecoder, Job, OutOfMemory
from espnet_smoe.inference_options import OptionError, Options
from espnet_smoe.items import (
    Item,
    ItemReader,
    Speech,
    Tasks,
    each_its_own,
    is_one,
    let_go,
    name_of,
    require_several,
)
from espnet_smoe.precision import prepare
from espnet_smoe.pretrained import ModelError, ModelFiles, Pretrained, find_model, load
from espnet_smoe.results import Failure, Result
from espnet_smoe.routing import RoutingError
from espnet_smoe.stitching import stitch
from espnet_smoe.stock_attributes import StockAttributes
from espnet_smoe.vocabulary import Vocabulary, VocabularyError, served_tasks

logger = logging.getLogger(__name__)

# Seconds without speech at which long audio is cut: models trained on padded audio mostly know
# stretches of several utterances, others utterances.
PADDED_PAUSE, UTTERANCE_PAUSE = 2.0, 0.4
READ_AHEAD = 2  # times batch_size: stretches read before decoding starts, to sort them by length
ON_ERROR = ("raise", "return")
ITEM_ERRORS = (
    *(AudioError, BandwidthError, OptionError, VocabularyError, RoutingError),
    *(OutOfMemory, OSError),
)


class Speech2Text(StockAttributes):
    """Transcribes and translates recordings. One call at a time: threads need one object each.

    Args:
        s2t_train_config: The training config that ESPnet saved.
        s2t_model_file: The checkpoint.
        token_type: ESPnet's; None: the config's.
        bpemodel: The sentencepiece model; None: the config's.
        **keywords: `espnet_smoe.inference_options.Options`, those of ESPnet's class among them.

    Raises:
        ModelError: The model cannot be loaded.
        OptionError: A keyword is unknown or its value is not accepted.
        ValueError: The model's decoder is none that the search knows, or CTC is wanted of a model
            without.
    """

    def __init__(
        self,
        s2t_train_config: str | Path | None = None,
        s2t_model_file: str | Path | None = None,
        *,
        token_type: str | None = None,
        bpemodel: str | None = None,
        **keywords: Any,
    ) -> None:
        options = Options.of(keywords)
        if s2t_train_config is None:
            if s2t_model_file is None:
                raise ModelError("neither s2t_train_config nor s2t_model_file is given")
            s2t_train_config = Path(s2t_model_file).parent / "config.yaml"
        weights = None if s2t_model_file is None else Path(s2t_model_file)
        files = ModelFiles(Path(s2t_train_config), weights)
        loaded = load(files, device=options.device, token_type=token_type, bpemodel=bpemodel)
        self._use(loaded, options)

    @classmethod
    def from_pretrained(
        cls,
        model_tag: str | Path | None = None,
        *,
        model_file: str | None = None,
        **keywords: Any,
    ) -> Speech2Text:
        """Load a model from where it lies.

        Args:
            model_tag: A directory (``exp/.../s2t_*``), a packed model (``.zip``), or the tag of a
                published one. None: as the constructor.
            model_file: The checkpoint's name in the directory; default ``valid.acc.ave.pth``.
            **keywords: As the constructor's.

        Raises:
            ModelError: Says what is missing.
        """
        if model_tag is None:
            if model_file is not None:
                raise ModelError(
                    f"model_file is {model_file!r}, but no model directory is given; accepted "
                    "beside s2t_train_config is s2t_model_file"
                )
            return cls(**keywords)
        files = find_model(model_tag, model_file=model_file)
        return cls(files.config, files.weights, **keywords)

    def _use(self, loaded: Pretrained, options: Options) -> None:
        self.s2t_train_args, self.tokenizer = loaded.args, loaded.tokenizer
        self.preprocessor_conf = conf = loaded.preprocessor_conf
        for module in loaded.model.modules():
            if hasattr(module, "use_flash_attn"):
                module.use_flash_attn = options.use_flash_attn
        self.s2t_model = prepare(
            loaded.model,
            dtype=options.dtype,
            quantize=options.quantize_s2t_model,
            quantize_modules=options.quantize_modules,
            quantize_dtype=options.quantize_dtype,
            compile=options.compile,
        )
        tasks = served_tasks(self.s2t_model.decoder)
        self.vocabulary = Vocabulary(self.s2t_model.token_list, self.tokenizer, conf, tasks)
        times = {
            name: conf.get(name)
            for name in ("first_time_symbol", "last_time_symbol")
            if getattr(options, name) is None
        }
        known = {name: t for name, t in times.items() if t in self.vocabulary.ids}
        self.options = options.with_call({**known, "notime_symbol": conf.get("notime_symbol")})
        self.fs = int(conf.get("fs", 16000))
        self.speech_length = float(conf.get("speech_length", 30.0))  # seconds
        # ESPnet's preprocessor pads in training; ours, and what trims padding, does not
        self.trained_padded = getattr(loaded.args, "preprocessor", "s2t") != "smoe" and not getattr(
            self.s2t_model, "trim_padding", False
        )
        pause = PADDED_PAUSE if self.trained_padded else UTTERANCE_PAUSE
        self.reader = ItemReader(
            self.s2t_model, self.vocabulary, self.fs, self.speech_length, pause
        )
        self._decoder(self.options)  # says what it cannot do now, not at the first call

    def _decoder(self, options: Options) -> BatchDecoder:
        pads = self.trained_padded if options.pad is None else options.pad
        pad_to = int(self.speech_length * self.fs) if pads else None
        return BatchDecoder(self.s2t_model, options, pad_to)

    def __call__(
        self,
        speech: Any,
        text_prev: Any = None,
        lang_sym: Any = None,
        task_sym: str | None = None,
        predict_time: bool | None = None,
        *,
        tasks: Any = None,
        bandwidth: Any = None,
        **keywords: Any,
    ) -> Any:
        """Decode one recording, a list of them, or whatever an iterable gives.

        Args:
            speech: What `Speech.audio` takes, or a `Speech`; or a list or another iterable of
                those.
            text_prev: What was said before, as text or token ids (one recording).
            lang_sym: The language spoken; a list: of each.
            task_sym: The task; ESPnet's keyword.
            predict_time: Have the model write timestamps.
            tasks: A task (``"asr"``), or several (``["asr", "st_eng"]``), which share the
                encoder's work; a list of lists: of each recording.
            bandwidth: ``auto``, ``wb`` or ``nb``; a list: of each.
            **keywords: Further `Options` of this call; ``on_error`` as in `stream`.

        Returns:
            For one recording a `Result`, which is a sequence of ESPnet's
            ``(text, token, token_int, text_nospecial, hyp)``; if several tasks were given as a
            list, a dict of them, by the tasks' names. For a list, a list of those; for another
            iterable, an iterator over them.

        Raises:
            AudioError, BandwidthError: A recording cannot be used.
            OptionError, VocabularyError, RoutingError: An option, language or task is not known.
            OutOfMemory: One stretch of a recording does not fit in memory.
        """
        keywords.update(task_sym=task_sym, predict_time=predict_time)
        if is_one(speech):
            item = speech if isinstance(speech, Speech) else Speech(speech)
            if text_prev is not None and item.text_prev is None:
                item = Speech(**{**vars(item), "text_prev": text_prev})
            given = {"lang_sym": lang_sym, "tasks": tasks, "bandwidth": bandwidth}
            return next(self.stream([item], **given, **keywords))
        require_several(speech)
        if text_prev is not None:
            raise OptionError("text_prev is for one recording; use Speech(..., text_prev=...)")
        if not isinstance(speech, list | tuple):
            given = {"lang_sym": lang_sym, "tasks": tasks, "bandwidth": bandwidth}
            return self.stream(speech, **given, **keywords)
        items = [x if isinstance(x, Speech) else Speech(x) for x in speech]
        per_item: dict[str, list[Any]] = {}
        if isinstance(lang_sym, list | tuple):
            per_item["language"], lang_sym = list(lang_sym), None
        if isinstance(bandwidth, list | tuple):
            per_item["bandwidth"], bandwidth = list(bandwidth), None
        if isinstance(tasks, list | tuple) and any(isinstance(t, list | tuple) for t in tasks):
            per_item["tasks"], tasks = list(tasks), None
        items = each_its_own(items, per_item)
        return list(
            self.stream(items, lang_sym=lang_sym, tasks=tasks, bandwidth=bandwidth, **keywords)
        )

    def stream(
        self,
        items: Iterable[Any],
        *,
        tasks: Tasks | None = None,
        on_error: str = "raise",
        **keywords: Any,
    ) -> Iterator[Any]:
        """Decode whatever an iterable gives, in its order, with bounded memory.

        Args:
            items: Of what `Speech.audio` takes, or `Speech`. As many are read ahead as hold twice
                `batch_size` stretches, to sort those by length; then their results come.
            tasks: A task, or several.
            on_error: ``raise``; or ``return`` a `Failure` in the place of a recording that cannot
                be decoded.
            **keywords: Further `Options`.

        Yields:
            `Result`, or a dict of them, or `Failure`.

        Raises:
            As `__call__`; what is wrong with the options at once, not at the first result. An error
            of the iterable itself: behind the results of what it gave before.
        """
        if on_error not in ON_ERROR:
            raise OptionError(f"on_error is {on_error!r}; accepted: {', '.join(ON_ERROR)}")
        options = self.options.with_call(keywords)
        if isinstance(tasks, Iterator):  # every recording needs them
            tasks = list(tasks)
        self.reader.requested(tasks, options)
        if options.lang_sym is not None:
            self.vocabulary.language(options.lang_sym)
        if is_one(items):  # a path's letters are no recordings
            items = [items]
        require_several(items)
        return self._stream(items, tasks, options, self._decoder(options), on_error)

    def _stream(
        self,
        items: Iterable[Any],
        tasks: Tasks | None,
        options: Options,
        decoder: BatchDecoder,
        on_error: str,
    ) -> Iterator[Any]:
        waiting: deque[Item] = deque()
        jobs: list[Job] = []
        most = READ_AHEAD * options.batch_size
        broken: Exception | None = None
        source = iter(items)
        for count in itertools.count(1):
            try:
                speech = next(source)
            except StopIteration:
                break
            except Exception as error:  # of the caller's; what came before is given first
                broken = error
                break
            if not isinstance(speech, Speech):
                speech = Speech(speech)
            item = Item(speech.name or name_of(speech.audio, count), True)
            waiting.append(item)
            for job in self._read(item, speech, tasks, options):
                jobs.append(job)
                if len(jobs) >= most:
                    decoder.decode(jobs)
                    jobs.clear()
                    yield from self._finished(waiting, on_error)
            if item.error is not None:
                let_go(item.error)
                # the stretches that came before are of no use
                useless = {id(job) for job in item.jobs}
                jobs = [job for job in jobs if id(job) not in useless]
                item.jobs.clear()
            if len(waiting) > most:  # what has no stretches must not pile up either
                decoder.decode(jobs)
                jobs.clear()
            yield from self._finished(waiting, on_error)
        decoder.decode(jobs)
        yield from self._finished(waiting, on_error)
        if broken is not None:
            raise broken

    def _read(
        self, item: Item, speech: Speech, tasks: Tasks | None, options: Options
    ) -> Iterator[Job]:
        """The stretches of a recording; an error on the way becomes the item's."""
        try:
            yield from self.reader.jobs(item, speech, tasks, options)
        except ITEM_ERRORS as error:
            item.error = error
        item.read = True

    def _finished(
        self, waiting: deque[Item], on_error: str
    ) -> Iterator[Result | dict[str, Result] | Failure]:
        """The results of the items at the front that are done."""
        while waiting:
            item = waiting[0]
            if not (item.read and all(job.found or job.error for job in item.jobs)):
                return
            waiting.popleft()
            error = item.failure
            if error is not None:
                if on_error == "raise":
                    raise error
                yield Failure(item.name, error)
                continue
            results = {
                task.strip("<>"): stitch(
                    item.name,
                    task,
                    item.language,
                    [(job.piece, job.encoder_expert, job.found[row]) for job in item.jobs],
                    decoder_expert,
                    self.vocabulary,
                    self.s2t_model.sos,
                )
                for row, (task, decoder_expert) in enumerate(
                    zip(item.tasks, item.decoder_experts, strict=True)
                )
            }
            yield next(iter(results.values())) if item.single else results

    def decode_long(
        self,
        speech: Any,
        condition_on_prev_text: bool = False,
        init_text: str | None = None,
        end_time_threshold: str | None = None,
        lang_sym: str | None = None,
        task_sym: str | None = None,
        skip_last_chunk_threshold: float | None = None,
    ) -> list[tuple[float, float, str]]:
        """Times in seconds and texts of a long recording, in the form of ESPnet's method.

        The recording is cut at pauses; the model need not know timestamps.

        Args:
            speech: A recording, as for a call.
            condition_on_prev_text: False; the stretches are decoded together.
            init_text: As in ESPnet, of no effect without `condition_on_prev_text`.
            end_time_threshold: Of no effect: no utterance is cut by the end of a stretch.
            lang_sym: The language spoken.
            task_sym: The task.
            skip_last_chunk_threshold: Of no effect: stretches without speech are left out.

        Raises:
            OptionError: `condition_on_prev_text` is set.
            ValueError: As a call.
        """
        if condition_on_prev_text:
            raise OptionError(
                f"condition_on_prev_text is {condition_on_prev_text!r}; accepted: False (the "
                "stretches of a recording are decoded together)"
            )
        if not isinstance(speech, Speech):
            speech = Speech(speech)  # one, whatever it is
        result = self(speech, lang_sym=lang_sym, task_sym=task_sym)
        return [(round(s.start, 2), round(s.end, 2), s.text) for s in result.segments]
