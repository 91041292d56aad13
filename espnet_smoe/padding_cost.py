"""What ESPnet's padding does to a model, measured on recordings.

ESPnet's own ``Speech2Text`` pads every recording with zeros to ``speech_length``; a model that was
trained on unpadded audio may hear words in them. Each recording is decoded as it is and padded, and
the two texts are compared.

Shape letters: N samples, S encoder frames, D model dimension, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_smoe.audio import read_audio, resample
from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.compat import TooShortUttError
from espnet_smoe.locator import AudioError
from espnet_smoe.scoring import corpus_value, utterance_counts
from espnet_smoe.vocabulary import Vocabulary

BEAM = 5


@dataclass(frozen=True)
class PaddingCost:
    """How padded recordings differ from the same unpadded.

    Attributes:
        seconds: Length that they were padded to.
        recordings: How many were compared.
        longer: How many were not, as they are longer than that.
        changed: How many texts padding changes.
        edits: Words that differ, percent of those heard without padding; NaN if none was heard.
        nats: By how much the log-probability of the text heard without padding falls, per token.
    """

    seconds: float
    recordings: int
    longer: int
    changed: int
    edits: float
    nats: float

    def __str__(self) -> str:
        longer = f" ({self.longer} longer ones left out)" if self.longer else ""
        return (
            f"padding to {self.seconds:g} s changes {self.changed} of {self.recordings} "
            f"texts{longer}, {self.edits:.1f} % of the words; the log-probability of a token falls "
            f"by {self.nats:.2f}"
        )


@torch.no_grad()
def padding_cost(
    model: Any,
    vocabulary: Vocabulary,
    prompt: Sequence[int],
    recordings: Iterable[str],
    *,
    fs: int,
    seconds: float,
) -> PaddingCost:
    """Decode recordings unpadded and padded.

    Args:
        model: A dense S2T model in eval mode, on the CPU.
        vocabulary: Its tokens.
        prompt: What hypotheses start with.
        recordings: Files or other locators of audio, one channel each.
        fs: The model's rate, Hz.
        seconds: Length to pad to.

    Raises:
        AudioError: A recording cannot be read.
        ValueError: None is shorter than `seconds`, or the search does not know the decoder.
    """
    search = BatchedBeamSearch(model, SearchOptions(BEAM, notime_symbol=vocabulary.notime))
    length = int(seconds * fs)
    texts: list[tuple[str, str]] = []
    falls: list[float] = []
    longer = tokens = 0
    for recording in recordings:
        x, rate = read_audio(recording)
        x_N = torch.from_numpy(resample(x, rate, fs))
        if len(x_N) >= length:
            longer += 1
            continue
        padded_N = torch.nn.functional.pad(x_N, (0, length - len(x_N)))
        try:
            memories = [_memory(model, x) for x in (x_N, padded_N)]
        except TooShortUttError as error:
            raise AudioError(f"{recording} is too short for the encoder: {error}") from error
        found = [search.search(m, [m.shape[1]], [prompt])[0] for m in memories]
        best = [hypotheses[0].tokens if hypotheses else list(prompt) for hypotheses in found]
        plain, padded = (
            vocabulary.clean_text([vocabulary.token_list[i] for i in ids[len(prompt) :]])
            for ids in best
        )
        texts.append((plain, padded))
        before, after = (_log_probability(model, m, best[0], len(prompt)) for m in memories)
        falls.append(before - after)
        tokens += len(best[0]) - len(prompt)
    if not texts:
        raise ValueError(
            f"none of the {longer} recordings is shorter than {seconds:g} s, the length that stock "
            "ESPnet pads to; accepted: shorter ones"
        )
    spoken = [(plain, padded) for plain, padded in texts if plain]
    edits = float("nan")
    if spoken:
        counts_US = utterance_counts("wer", [(p,) for p, _ in spoken], [q for _, q in spoken])
        edits = float(corpus_value("wer", counts_US.sum(axis=0, keepdims=True))[0])
    changed = sum(plain != padded for plain, padded in texts)
    return PaddingCost(seconds, len(texts), longer, changed, edits, sum(falls) / max(tokens, 1))


def _memory(model: Any, x_N: torch.Tensor) -> torch.Tensor:
    """Encoder output, float (1, S, D)."""
    memory = model.encode(speech=x_N[None], speech_lengths=torch.tensor([len(x_N)]))[0]
    return memory[0] if isinstance(memory, tuple) else memory


def _log_probability(
    model: Any, memory_1SD: torch.Tensor, ids: Sequence[int], prompt: int
) -> float:
    """Of the tokens behind a prompt of so many tokens, in nats."""
    tokens_1T = torch.tensor([list(ids)])
    frames = torch.tensor([memory_1SD.shape[1]])
    lengths = torch.tensor([tokens_1T.shape[1] - 1])
    scores_1TV, _ = model.decoder(memory_1SD, frames, tokens_1T[:, :-1], lengths)
    chosen_1T = scores_1TV.log_softmax(-1).gather(-1, tokens_1T[:, 1:, None])[..., 0]
    return float(chosen_1T[0, prompt - 1 :].sum())
