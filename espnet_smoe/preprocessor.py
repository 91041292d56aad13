"""Text, prompt and audio to arrays: ESPnet's S2T preprocessor without its fixed length."""

from __future__ import annotations

from typing import Any

import numpy as np
from espnet2.train.preprocessor import S2TPreprocessor

from espnet_smoe.signatures import adds_options_to

INSERTED_AT = 2  # where ESPnet puts its <notimestamps>, however long the prompt is


@adds_options_to(S2TPreprocessor)
class SMoEPreprocessor(S2TPreprocessor):
    """``preprocessor: smoe``: `espnet2.train.preprocessor.S2TPreprocessor`, variable length.

    ESPnet's pads or trims every utterance to ``speech_length``. This one keeps an utterance's
    own length; in training, a share of them gets trailing zeros, so that a route exported to
    stock ESPnet, which pads, works there too. Prompts, timestamps and ``text_prev`` are handled
    as in ESPnet's, but a text that holds ``<notimestamps>`` never gets a second one.

    Args:
        pad_prob: Share of the training utterances that gets zeros of a random length behind it,
            at most up to ``speech_length``.
        **options: Every option of the ESPnet class. ``speech_length`` (seconds) is the longest
            training utterance accepted; ``speech_init_silence`` (seconds) is the most silence put
            before one.

    Raises:
        ValueError: ``pad_prob`` is not in [0, 1].
    """

    def __init__(self, *args: Any, pad_prob: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        if not 0.0 <= pad_prob <= 1.0:
            raise ValueError(f"preprocessor_conf.pad_prob is {pad_prob}; accepted: 0 to 1")
        self.pad_prob = pad_prob

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
            data: ``speech`` float (N,), ``text``, ``text_prev``, ``text_ctc`` as strings.

        Raises:
            ValueError: A training utterance longer than ``speech_length``; names it.
        """
        try:
            return super().__call__(uid, data)
        except ValueError as error:
            raise ValueError(f"utterance {uid}: {error}") from error
