"""Batches for a trained model's ``forward``, made from texts and samples, nothing random in them.

Training's preprocessor adds silence, noise and timestamps by chance; here an example is what the
tables say.

Shape letters: B examples, N samples, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_smoe import bbpe
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import DataError
from espnet_smoe.pretrained import Pretrained
from espnet_smoe.routing import SPECIAL

SPECIALS = re.compile(rf"(?:{SPECIAL.pattern})*")
IGNORED = -1  # ESPnet's padding of tokens


@dataclass(frozen=True)
class Example:
    """One example, as stage 4 has it.

    Attributes:
        utt: Its id.
        samples: float32 (N,), at the model's rate.
        text: ``<spa><asr><notimestamps> hola``.
        transcript: The source transcript, for CTC.
        bandwidth: ``wb`` or ``nb``.
    """

    utt: str
    samples: np.ndarray
    text: str
    transcript: str
    bandwidth: str


def prompted(language: str, task: str, text: str) -> str:
    """A text with the prompt that training has before it."""
    return f"<{language}><{task}>{bbpe.NO_TIME} {text}"


class TeacherForcing:
    """Makes a model's batches.

    Args:
        loaded: The model, with its tokenizer.
    """

    def __init__(self, loaded: Pretrained) -> None:
        self.tokenizer = loaded.tokenizer
        self.ids = {token: i for i, token in enumerate(loaded.model.token_list)}

    def tokens(self, text: str, *, utt: str) -> torch.Tensor:
        """A text's token ids, int64 (T,); special tokens at its start are tokens of their own.

        Raises:
            DataError: The model knows no such special token; names the utterance.
        """
        match = SPECIALS.match(text)
        prompt = match.group() if match else ""
        specials = SPECIAL.findall(prompt)
        unknown = [token for token in specials if token not in self.ids]
        if unknown:
            raise DataError(
                f"utterance {utt}: {unknown[0]} in {text!r} is not in the model's token list"
            )
        pieces = self.tokenizer.text2tokens(text[len(prompt) :].strip())
        other = self.ids[bbpe.UNK]
        known = [self.ids[t] for t in specials] + [self.ids.get(t, other) for t in pieces]
        return torch.tensor(known, dtype=torch.int64)

    def batch(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """What ``forward`` takes, as ESPnet's collate function gives it.

        Returns:
            ``speech`` float (B, N) padded with 0; ``text``, ``text_prev`` (``<na>``) and
            ``text_ctc`` int64 (B, T) padded with -1; ``bandwidth`` int64 (B, 1); lengths (B,).
        """
        columns = {
            "speech": [torch.from_numpy(np.asarray(e.samples, np.float32)) for e in examples],
            "text": [self.tokens(e.text, utt=e.utt) for e in examples],
            "text_prev": [torch.tensor([self.ids[bbpe.NA]]) for _ in examples],
            "text_ctc": [self.tokens(e.transcript, utt=e.utt) for e in examples],
            "bandwidth": [torch.tensor([BANDWIDTHS.index(e.bandwidth)]) for e in examples],
        }
        batch = {}
        for name, rows in columns.items():
            padding = 0.0 if name == "speech" else IGNORED
            batch[name] = pad_sequence(rows, batch_first=True, padding_value=padding)
            batch[f"{name}_lengths"] = torch.tensor([len(row) for row in rows])
        return batch
