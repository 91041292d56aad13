"""Whether a model still says on its old routes what it said: nothing forgotten, bit by bit.

Compares a model with what became of it (an expert added and trained, weights converted) on real
audio. Every route of the old model (an expert of the encoder and a task) is taken in both: the
encoder's output, CTC's and the decoder's scores, and the texts that the search finds.

Shape letters: B rows of a search, N samples, S encoder frames, D model dimension, T tokens, V
tokens of the old vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.pretrained import Pretrained
from espnet_smoe.routing import RoutingError
from espnet_smoe.vocabulary import TRANSCRIBING, Vocabulary, served_tasks

BATCH = 8  # utterances whose routes are searched together
SHOWN = 20  # differences named
# A softmax over more tokens, of probability 0, may sum in another order: so much in a
# log-probability, float32.
ROUNDING = 1e-5


@dataclass
class Tally:
    """How often something was the same.

    Attributes:
        same: Times that it was, bit by bit (log-probabilities: up to `ROUNDING`).
        total: Times that it was looked at.
        largest: The largest absolute difference; of texts, 1.0 if one differed.
    """

    same: int = 0
    total: int = 0
    largest: float = 0.0

    def __str__(self) -> str:
        return f"{self.same} of {self.total} identical, largest difference {self.largest:.3g}"


@dataclass
class Sameness:
    """The outcome of `compare`.

    Attributes:
        tallies: By what was compared.
        routes: The routes, such as ``nb/asr``.
        different: What differs, ``utterance route: text`` and so on; the first of them.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def all_same(self) -> bool:
        """Whether nothing differed."""
        return all(tally.same == tally.total for tally in self.tallies.values())

    def add(
        self, kind: str, where: str, old: torch.Tensor, new: torch.Tensor, within: float = 0.0
    ) -> None:
        """Compare two tensors of one shape under a name."""
        self.note(kind, where, float((old.double() - new.double()).abs().max()), within)

    def note(self, kind: str, where: str, difference: float, within: float = 0.0) -> None:
        """Count something that differs by so much; it is the same up to `within`."""
        tally = self.tallies.setdefault(kind, Tally())
        difference = math.inf if math.isnan(difference) else difference
        is_same = difference <= within
        tally.total += 1
        tally.same += is_same
        tally.largest = max(tally.largest, difference)
        if not is_same and len(self.different) < SHOWN:
            self.different.append(f"{where}: {kind}")


class Side:
    """One of the two models, with old token ids.

    Args:
        loaded: The model.
        token_list: The old model's; None: the model's own.

    Raises:
        ModelError: An old token is missing.
    """

    def __init__(self, loaded: Pretrained, token_list: list[str] | None = None) -> None:
        self.model = loaded.model
        own = {token: i for i, token in enumerate(self.model.token_list)}
        missing = [token for token in token_list or () if token not in own]
        if missing:
            raise ModelError(f"the new model lacks {len(missing)} old tokens: {missing[:5]}")
        self.ids_V = torch.tensor([own[token] for token in token_list or self.model.token_list])
        self.old_id = {int(new): old for old, new in enumerate(self.ids_V)}

    def encode(self, x: np.ndarray, route: str | None) -> torch.Tensor:
        """Encoder output (1, S, D)."""
        keywords = {} if route is None else {"route": [route]}
        memory, _ = self.model.encode(
            speech=torch.from_numpy(x)[None], speech_lengths=torch.tensor([len(x)]), **keywords
        )
        return memory[0] if isinstance(memory, tuple) else memory

    def ctc(self, memory_SD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """CTC's scores and log-probabilities of the old tokens, float (S, V)."""
        scores = self.model.ctc.ctc_lo(memory_SD)
        return scores[..., self.ids_V], scores.log_softmax(-1)[..., self.ids_V]

    def decoder(
        self, memory_SD: torch.Tensor, old_ids: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Likewise the decoder's behind each token of a text, float (1, T, V)."""
        ys_BT = self.ids_V[torch.tensor([old_ids])]
        lengths = torch.tensor([len(memory_SD)]), torch.tensor([len(old_ids)])
        scores, _ = self.model.decoder(memory_SD[None], lengths[0], ys_BT, lengths[1])
        return scores[..., self.ids_V], scores.log_softmax(-1)[..., self.ids_V]

    def best(
        self,
        memories: Sequence[torch.Tensor],
        prompts: Sequence[Sequence[int]],
        options: SearchOptions,
        scored_B: Sequence[bool],
    ) -> list[list[int]]:
        """The best hypothesis of each row (S, D) in old ids, prompt included; new tokens: -1."""
        found = BatchedBeamSearch(self.model, options).search(
            pad_sequence(list(memories), batch_first=True),
            [len(memory_SD) for memory_SD in memories],
            [self.ids_V[list(prompt)].tolist() for prompt in prompts],
            scored_B,
        )
        return [
            [self.old_id.get(token, -1) for token in hypotheses[0].tokens] if hypotheses else []
            for hypotheses in found
        ]


@torch.inference_mode()
def compare(
    old: Pretrained,
    new: Pretrained,
    audio: Iterable[tuple[str, np.ndarray]],
    *,
    language: str | None = None,
    beam_size: int = 5,
    ctc_weight: float = 0.3,
    on_utterance: Callable[[], object] = lambda: None,
) -> Sameness:
    """Take every route of the old model in both models.

    Args:
        old: The model as it was.
        new: What became of it; may have more tokens and more experts.
        audio: Names and samples, float32 (N,) at the models' sampling rate.
        language: The language spoken; None: the old model's only one.
        beam_size: Of the search.
        ctc_weight: Where a task transcribes, the search is done with it and without CTC.
        on_utterance: Is called after each.

    Raises:
        ModelError: The new model lacks an old token.
        VocabularyError: The language must be named.
        RoutingError: The new model lacks an old route.
    """
    sides = Side(old), Side(new, list(old.model.token_list))
    tasks = served_tasks(old.model.decoder)
    vocabulary = Vocabulary(old.model.token_list, old.tokenizer, old.preprocessor_conf, tasks=tasks)
    spoken = vocabulary.language(language)
    bandwidths: tuple[str | None, ...] = (None,)
    if isinstance(old.model.encoder, RoutedEncoder):
        bandwidths = old.model.encoder.expert_names
    has_ctc = old.model.ctc is not None and ctc_weight > 0.0
    rows = []  # of a search: bandwidth, task, prompt, whether CTC scores it
    for bandwidth in bandwidths:
        for task in vocabulary.tasks:
            prompt = vocabulary.prompt(spoken, task)
            if _is_served(old.model, prompt):
                scored = (False, True) if has_ctc and task in TRANSCRIBING else (False,)
                rows += [(bandwidth, task.strip("<>"), prompt, with_ctc) for with_ctc in scored]
    options = SearchOptions(beam_size=beam_size, ctc_weight=ctc_weight if has_ctc else 0.0)
    result = Sameness(routes=list(dict.fromkeys(_route(*row[:2]) for row in rows)))
    stream = iter(audio)
    while batch := list(islice(stream, BATCH)):
        heard = [
            [{b: side.encode(x, b)[0] for b in bandwidths} for _, x in batch] for side in sides
        ]
        todo = [(n, row) for n in range(len(batch)) for row in rows]
        found = [
            side.best(
                [memories[n][row[0]] for n, row in todo],
                [row[2] for _, row in todo],
                options,
                [row[3] for _, row in todo],
            )
            for side, memories in zip(sides, heard, strict=True)
        ]
        for n, (name, _) in enumerate(batch):
            both = [(side, memories[n]) for side, memories in zip(sides, heard, strict=True)]
            for bandwidth in bandwidths:
                where = f"{name} {bandwidth or ''}".strip()
                result.add("encoder output", where, *(memory[bandwidth] for _, memory in both))
                if old.model.ctc is not None:
                    _add_scores(result, "CTC", where, *(s.ctc(m[bandwidth]) for s, m in both))
            on_utterance()
        for (n, (bandwidth, task, prompt, with_ctc)), *texts in zip(todo, *found, strict=True):
            where = f"{batch[n][0]} {_route(bandwidth, task)}"
            kind = f"text, CTC weight {ctc_weight if with_ctc else 0.0:g}"
            result.note(kind, where, float(texts[0] != texts[1]))
            if not with_ctc:
                text = texts[0][:-1] or prompt
                pairs = [
                    s.decoder(m[n][bandwidth], text) for s, m in zip(sides, heard, strict=True)
                ]
                _add_scores(result, "decoder", where, *pairs)
    return result


def _add_scores(result: Sameness, part: str, where: str, old: Any, new: Any) -> None:
    """Compare scores and log-probabilities."""
    result.add(f"{part} scores", where, old[0], new[0])
    result.add(f"{part} log-probabilities", where, old[1], new[1], within=ROUNDING)


def _route(bandwidth: str | None, task: str) -> str:
    return f"{bandwidth}/{task}" if bandwidth else task


def _is_served(model: Any, prompt: list[int]) -> bool:
    if not hasattr(model.decoder, "route_of"):
        return True
    try:
        model.decoder.route_of(torch.tensor([prompt]))
    except RoutingError:
        return False
    return True
