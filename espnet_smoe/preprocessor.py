"""Text, prompt and audio to arrays: ESPnet's S2T preprocessor without its fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from espnet2.train.preprocessor import S2TPreprocessor

from espnet_smoe.audio import resample
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.signatures import adds_options_to
from espnet_smoe.telephone import NB_RATE, Line, parse_codecs, telephone

BANDWIDTH_NAME = "bandwidth"  # the data's name of the tag
INSERTED_AT = 2  # where ESPnet puts its <notimestamps>, however long the prompt is


@adds_options_to(S2TPreprocessor)
class SMoEPreprocessor(S2TPreprocessor):
    """``preprocessor: smoe``: `espnet2.train.preprocessor.S2TPreprocessor`, variable length.

    ESPnet's pads or trims every utterance to ``speech_length``. This one keeps an utterance's
    own length; in training, a share of them gets trailing zeros, so that a route exported to
    stock ESPnet, which pads, works there too. Prompts, timestamps and ``text_prev`` are handled
    as in ESPnet's, but a text that holds ``<notimestamps>`` never gets a second one.

    In training it can also send wideband speech through a simulated telephone line, another one
    each time. The utterance's ``bandwidth`` becomes narrowband with it, so that route and audio
    always agree. Speech that is narrowband already is never narrowed again.

    Args:
        pad_prob: Share of the training utterances that gets zeros of a random length behind it,
            at most up to ``speech_length``.
        narrowband_prob: Share of the wideband training utterances that is narrowed.
        narrowband_codecs: Codecs to draw from (keys of `espnet_smoe.telephone.CODECS`), or
            ``all``: those that this machine has.
        narrowband_level: Draw the speech level of each line too.
        narrowband_noise_prob: Share of the narrowed utterances that gets line noise.
        **options: Every option of the ESPnet class. ``speech_length`` (seconds) is the longest
            training utterance accepted; ``speech_init_silence`` (seconds) is the most silence put
            before one.

    Raises:
        ValueError: A share outside [0, 1], or a codec that is unknown or not available.
    """

    def __init__(
        self,
        *args: Any,
        pad_prob: float = 0.0,
        narrowband_prob: float = 0.0,
        narrowband_codecs: str | Sequence[str] = "all",
        narrowband_level: bool = True,
        narrowband_noise_prob: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        for name, share in (
            ("pad_prob", pad_prob),
            ("narrowband_prob", narrowband_prob),
            ("narrowband_noise_prob", narrowband_noise_prob),
        ):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"preprocessor_conf.{name} is {share}; accepted: 0 to 1")
        self.pad_prob = pad_prob
        self.narrowband_prob = narrowband_prob
        narrows = self.train and narrowband_prob > 0.0  # a model may be used without its codecs
        self.narrowband_codecs = parse_codecs(narrowband_codecs) if narrows else ()
        self.narrowband_level = narrowband_level
        self.narrowband_noise_prob = narrowband_noise_prob

    def _speech_process(self, data: dict[str, Any]) -> dict[str, Any]:
        """As ESPnet's (noise, reverberation), and then the telephone line."""
        data = super()._speech_process(data)
        if not self.train or self.narrowband_prob == 0.0 or self.speech_name not in data:
            return data
        if BANDWIDTH_NAME not in data:
            raise ValueError(
                "preprocessor_conf.narrowband_prob is set, but the data has no 'bandwidth', so "
                "that nobody could know what is narrowband; add --train_data_path_and_name_and_"
                "type DIR/bandwidth,bandwidth,text_int (stage 4 writes it)"
            )
        bandwidth = np.asarray(data[BANDWIDTH_NAME])
        is_wide = bool((bandwidth == BANDWIDTHS.index("wb")).all())
        if not is_wide or np.random.uniform() >= self.narrowband_prob:
            return data
        rng = np.random.default_rng(np.random.randint(2**31))
        line = Line.random(
            rng,
            self.narrowband_codecs,
            random_level=self.narrowband_level,
            noise_prob=self.narrowband_noise_prob,
        )
        speech = data[self.speech_name]
        narrow = resample(telephone(speech, self.fs, line=line), NB_RATE, self.fs)
        narrow = np.pad(narrow, (0, max(0, len(speech) - len(narrow))))[: len(speech)]
        data[self.speech_name] = narrow.astype(speech.dtype)
        data[BANDWIDTH_NAME] = np.full_like(bandwidth, BANDWIDTHS.index("nb"))
        return data

    def _pad_or_trim_speech(self, data: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Add the training silence and padding.

        Returns:
            The data and the number of samples put before the speech, by which timestamps shift.
        """
        if not self.train or self.speech_name not in data:
            return data, 0
        speech = data[self.speech_name]
        room = self.speech_length - len(speech)
        if room < 0:
            raise ValueError(
                f"{len(speech)} samples of speech; accepted: up to preprocessor_conf.speech_length"
                f" ({self.speech_length} samples)"
            )
        before = int(np.random.randint(min(room, self.speech_init_silence) + 1))
        after = 0
        if self.pad_prob > 0.0 and np.random.uniform() < self.pad_prob:
            after = int(np.random.randint(room - before + 1))
        width = [(before, after)] + [(0, 0)] * (speech.ndim - 1)
        data[self.speech_name] = np.pad(speech, width)
        return data, before

    def _text_process(self, data: dict[str, Any], time_shift: int) -> dict[str, np.ndarray]:
        """As ESPnet's, with one ``<notimestamps>`` at the most."""
        data = super()._text_process(data, time_shift)
        tokens = data.get(self.text_name)
        if isinstance(tokens, np.ndarray):
            marks = np.flatnonzero(tokens == self.notime)
            own = marks[marks != INSERTED_AT]
            if len(marks) > 1:
                data[self.text_name] = np.delete(tokens, marks[marks != own[0]])
        return data

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Process one utterance.

        Args:
            uid: Utterance id.
            data: ``speech`` float (N,), ``text``, ``text_prev``, ``text_ctc`` as strings,
                ``bandwidth`` int (1,).

        Raises:
            ValueError: A training utterance longer than ``speech_length``; names it.
        """
        try:
            return super().__call__(uid, data)
        except ValueError as error:
            raise ValueError(f"utterance {uid}: {error}") from error
