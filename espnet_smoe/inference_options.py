"""What `Speech2Text` is told: ESPnet's keywords and ours, checked, in one frozen value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.hypotheses import SearchOptions, is_number, is_whole
from espnet_smoe.pauses import LEAST_PAUSE_LEFT_OUT

AUTO = "auto"
AMBIGUOUS_RULES = ("measured", "wb", "blend")
# ESPnet's keywords for what this search does not do, with the values that ask for nothing.
NOTHING_ASKED: dict[str, tuple[Any, ...]] = {
    "lm_train_config": (None,),
    "lm_file": (None,),
    "word_lm_train_config": (None,),
    "word_lm_file": (None,),
    "ngram_file": (None,),
    "lm_weight": (0.0,),
    "ngram_weight": (0.0,),
    "quantize_lm": (False,),
    "partial_ar": (False,),
}
# ... and those that mean something only beside these.
WITHOUT_EFFECT = ("ngram_scorer", "threshold_probability", "max_seq_len", "max_mask_parallel")
OF_THE_MODEL = ("device", "dtype", "compile", "use_flash_attn")  # and quantize_*: set once
FLAGS = (
    *("normalize_length", "predict_time"),
    *("quantize_s2t_model", "compile", "use_flash_attn"),
)


class OptionError(ValueError):
    """A keyword or its value is not accepted."""


@dataclass(frozen=True)
class Options(SearchOptions):
    """Options of `Speech2Text`, beside those of the search.

    Attributes:
        lang_sym: The language spoken, ``<spa>`` or ``spa``; None: the model's only one, or
            ESPnet's default ``<eng>``.
        task_sym: The task when ``tasks`` names none.
        predict_time: Have the model write timestamps.
        bandwidth: The encoder's route: ``auto`` (measured), ``wb`` or ``nb``.
        ambiguous: The route of audio whose bandwidth cannot be told: ``measured`` (the likelier
            one), ``wb``, or ``blend`` (both experts, mixed by the probability).
        channels: Of recordings with several: a number from 1, ``each`` or ``mix``; None: an error.
        max_length: Longest stretch decoded at once, seconds; longer audio is cut at pauses. None:
            the training config's ``speech_length``.
        pause: Seconds without speech at which longer audio is cut in any case, and which are left
            out; None: 0.4 for a model trained on utterances of their own length, each a stretch of
            speech; 2.0 for one trained on padded ones, which often hold several.
        pad: Pad each stretch with zeros to ``speech_length``; None: as the model was trained.
        batch_size: Hypothesis lists searched together (utterances x tasks).
        encoder_batch: Utterances encoded together. More than 1 pads the shorter ones, which in
            ESPnet's convolutions changes their last frames a little; None: 1, or as many as
            `batch_size` where all have one length anyway (padded models), on a GPU.
        device: ``cpu``, ``cuda``, ...
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        quantize_s2t_model: Quantise `quantize_modules` dynamically (CPU).
        quantize_modules: Names of ``torch.nn`` classes.
        quantize_dtype: ``qint8`` or ``float16``.
        compile: Compile the model with ``torch.compile``.
        use_flash_attn: ESPnet's keyword, for its encoders' attention.
    """

    lang_sym: str | None = None
    task_sym: str = "<asr>"
    predict_time: bool = False
    bandwidth: str = AUTO
    ambiguous: str = "measured"
    channels: int | str | None = None
    max_length: float | None = None
    pause: float | None = None
    pad: bool | None = None
    batch_size: int = 32
    encoder_batch: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    quantize_s2t_model: bool = False
    quantize_modules: tuple[str, ...] = ("Linear",)
    quantize_dtype: str = "qint8"
    compile: bool = False
    use_flash_attn: bool = False

    def __post_init__(self) -> None:
        """Raises OptionError for a value that is not accepted."""
        try:
            super().__post_init__()
        except (TypeError, ValueError) as error:
            raise OptionError(str(error)) from error
        if self.ctc_weight > 0.0 and self.predict_time:
            raise OptionError(
                f"ctc_weight is {self.ctc_weight} and predict_time is set: CTC cannot predict "
                "timestamps; set one of them to 0"
            )
        check_bandwidth(self.bandwidth)
        for name, accepted, what in (
            ("ambiguous", self.ambiguous in AMBIGUOUS_RULES, ", ".join(AMBIGUOUS_RULES)),
            (
                "channels",
                self.channels in (None, "each", "mix") or _is_count(self.channels),
                "a number from 1, each, mix, or None",
            ),
            (
                "max_length",
                self.max_length is None
                or (is_number(self.max_length) and 1.0 <= self.max_length < float("inf")),
                "1 second or more, or None",
            ),
            (
                "pause",
                self.pause is None
                or (is_number(self.pause) and self.pause >= LEAST_PAUSE_LEFT_OUT),
                f"{LEAST_PAUSE_LEFT_OUT} seconds or more, or None",
            ),
            ("lang_sym", self.lang_sym is None or isinstance(self.lang_sym, str), "one language"),
            ("task_sym", isinstance(self.task_sym, str), "one task"),
            ("batch_size", _is_count(self.batch_size), "1 or more"),
            *((name, getattr(self, name) in (True, False), "true or false") for name in FLAGS),
            ("pad", self.pad in (True, False, None), "true, false, or None"),
            (
                "encoder_batch",
                self.encoder_batch is None or _is_count(self.encoder_batch),
                "1 or more, or None",
            ),
        ):
            if not accepted:
                raise OptionError(f"{name} is {getattr(self, name)!r}; accepted: {what}")

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Options:
        """Options from the constructor's keywords, ESPnet's among them.

        Raises:
            OptionError: A keyword is unknown, or asks for what only ESPnet's own search does.
        """
        return cls(**_own(keywords))

    def with_call(self, keywords: Mapping[str, Any]) -> Options:
        """These options with a call's keywords over them; None leaves an option as it is.

        Raises:
            OptionError: As `of`; or a keyword that the constructor takes.
        """
        own = {name: value for name, value in _own(keywords).items() if value is not None}
        for name in own:
            if name in OF_THE_MODEL or name.startswith("quantize"):
                raise OptionError(f"{name} is set once, where the model is loaded, not in a call")
        return dataclasses.replace(self, **own) if own else self


def check_bandwidth(value: object, channels: Sequence[str] = ()) -> str:
    """A bandwidth that a user gives.

    Args:
        value: What was given.
        channels: The model's further experts of the encoder (``model_conf.channels``).

    Raises:
        OptionError: It is none.
    """
    accepted = (AUTO, *BANDWIDTHS, *channels)
    if value not in accepted:
        raise OptionError(f"bandwidth is {value!r}; accepted: {', '.join(accepted)}")
    return str(value)


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 1


def _own(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that are options here."""
    known = {field.name for field in fields(Options)}
    own = {}
    for name, value in keywords.items():
        if name in known:
            own[name] = (
                tuple(value) if name == "quantize_modules" and isinstance(value, list) else value
            )
        elif name in NOTHING_ASKED:
            if value not in NOTHING_ASKED[name]:
                raise OptionError(
                    f"{name} is {value!r}; this search has no language model and no partially "
                    "autoregressive mode: leave it out, or use espnet2.bin.s2t_inference"
                )
        elif name not in WITHOUT_EFFECT:
            raise OptionError(f"unknown option {name!r}; accepted: {', '.join(sorted(known))}")
    return own
