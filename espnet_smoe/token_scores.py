"""The best next tokens of every row, and which tokens the timestamp rule allows.

The vocabulary is large (40k at the paper's size) and a beam wants a handful of tokens. So the
output layer runs on a slice of the vocabulary at a time, and of each slice only the best tokens
and the log of the summed exponentials stay: the matrix of all scores is never in memory.

A layer in half precision or int8 only finds the candidates: their scores are then computed again
from its weights in float32, and corrected in the softmax.

Shape letters: R rows (hypotheses), N rows of any kind, L tokens so far, V vocabulary, W a slice of
it, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from espnet_smoe.private_tokens import HIDDEN, PrivateOutput
from espnet_smoe.routing import TIMESTAMP

SLICE = 4096  # tokens: 320 rows of a slice fit the cache of a CPU
ROWS = 1024  # at most this many at a time
SPARE = 2  # times as many candidates are found by a coarse layer as are wanted


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Sums of scores need more than half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class QuantizedOutput(torch.nn.Module):
    """An output layer whose products are int8, by slices of the vocabulary.

    It keeps the float weights: `top_tokens` takes the candidates from here and scores them with
    those.

    Args:
        layer: The float layer.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.starts = range(0, layer.out_features, SLICE)
        parts = []
        for start in self.starts:
            width = min(SLICE, layer.out_features - start)
            part = torch.nn.Linear(layer.in_features, width, bias=layer.bias is not None)
            part.weight.data = layer.weight.data[start : start + width]
            if layer.bias is not None:
                part.bias.data = layer.bias.data[start : start + width]
            parts.append(part)
        self.parts = quantize_dynamic(
            torch.nn.ModuleList(parts), {torch.nn.Linear: per_channel_dynamic_qconfig}
        )

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Scores of the whole vocabulary, float (N, V) or with more leading dimensions."""
        return torch.cat([part(x_ND) for part in self.parts], dim=-1)


def slices(layer: torch.nn.Module, x_ND: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """A linear layer's output by slices of the vocabulary: ``(first token, float (N, W))``.

    One slice on a GPU, and for a layer that is no plain `torch.nn.Linear` (a quantized one, say).
    """
    if isinstance(layer, QuantizedOutput):
        for start, part in zip(layer.starts, layer.parts, strict=True):
            yield start, part(x_ND)
        return
    if type(layer) not in (torch.nn.Linear, PrivateOutput):
        yield 0, at_least_float32(layer(x_ND))
        return
    size = SLICE if x_ND.device.type == "cpu" else layer.out_features
    for start in range(0, layer.out_features, size):
        weight = layer.weight[start : start + size]
        bias = None if layer.bias is None else layer.bias[start : start + size]
        score_NW = at_least_float32(linear(x_ND, weight, bias))
        if isinstance(layer, PrivateOutput):
            score_NW = layer.hide(score_NW, start)
        yield start, score_NW


def log_normalizer(layer: torch.nn.Module, x_ND: torch.Tensor) -> torch.Tensor:
    """The logsumexp over the vocabulary of a layer's output, float (N,)."""
    rows = []
    for part_ND in x_ND.split(ROWS):
        rows.append(torch.stack([_logsumexp(s) for _, s in slices(layer, part_ND)]).logsumexp(0))
    return torch.cat(rows)


def _logsumexp(score_NW: torch.Tensor) -> torch.Tensor:
    """`torch.logsumexp`, three times as fast on a CPU; the scores are finite."""
    highest_N1 = score_NW.amax(dim=1, keepdim=True)
    return (score_NW - highest_N1).exp_().sum(dim=1).log_() + highest_N1[:, 0]


def top_tokens(
    layer: torch.nn.Module,
    x_ND: torch.Tensor,
    count: int,
    *,
    eos: int,
    forbid: Callable[[torch.Tensor, int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best tokens of each row by log-probability.

    Args:
        layer: The output layer.
        x_ND: Hidden states.
        count: How many tokens.
        eos: The token whose log-probability is wanted in any case.
        forbid: Sets the scores (N, W) of forbidden tokens to -inf, in place; also gets the
            slice's first token. They count in the softmax, as in ESPnet.

    Returns:
        Log-probabilities float (N, C), tokens int64 (N, C), and that of ``eos`` float (N,).
    """
    coarse = is_coarse(layer)
    wanted = min(SPARE * count, int(layer.weight.shape[0])) if coarse else count
    sums, scores, tokens = [], [], []
    eos_N = at_least_float32(x_ND[:, 0])
    for start, score_NW in slices(layer, x_ND):
        sums.append(_logsumexp(score_NW))
        if forbid is not None:
            forbid(score_NW, start)
        if start <= eos < start + score_NW.shape[1]:
            eos_N = score_NW[:, eos - start].clone()
        best_NC, token_NC = score_NW.topk(min(wanted, score_NW.shape[1]), dim=1)
        scores.append(best_NC)
        tokens.append(token_NC + start)
    norm_N = torch.stack(sums).logsumexp(0)
    best_NC, index_NC = torch.cat(scores, dim=1).topk(wanted, dim=1)
    token_NC = torch.cat(tokens, dim=1).gather(1, index_NC)
    if coarse:
        found_NC = best_NC
        best_NC = _scored_again(layer, x_ND, token_NC, found_NC)
        share_N = (found_NC - norm_N[:, None]).exp().sum(dim=1)
        new_share_N = (best_NC - norm_N[:, None]).exp().sum(dim=1)
        norm_N = norm_N + ((1.0 - share_N).clamp(min=0.0) + new_share_N).log()
        eos_N1 = torch.full_like(token_NC[:, :1], eos)
        eos_N = _scored_again(layer, x_ND, eos_N1, eos_N[:, None])[:, 0]
        best_NC, index_NC = best_NC.topk(count, dim=1)
        token_NC = token_NC.gather(1, index_NC)
    return best_NC - norm_N[:, None], token_NC, eos_N - norm_N


def is_coarse(layer: torch.nn.Module) -> bool:
    """Whether a layer's output is rounded more than float32 is."""
    if isinstance(layer, QuantizedOutput):
        return True
    is_linear = type(layer) in (torch.nn.Linear, PrivateOutput)
    return is_linear and layer.weight.dtype.itemsize < 4


def _scored_again(
    layer: torch.nn.Module, x_ND: torch.Tensor, token_NC: torch.Tensor, found_NC: torch.Tensor
) -> torch.Tensor:
    """The scores of some tokens in float32, float (N, C); those forbidden or hidden stay so."""
    weight_NCD = at_least_float32(layer.weight[token_NC])
    score_NC = (weight_NCD @ at_least_float32(x_ND)[:, :, None])[:, :, 0]
    if layer.bias is not None:
        score_NC = score_NC + layer.bias[token_NC]
    return torch.where(found_NC <= HIDDEN, found_NC, score_NC.to(found_NC))


@dataclass(frozen=True)
class TimestampRule:
    """ESPnet's rule for timestamps (`espnet2.bin.s2t_inference.ScoreFilter`), for many rows.

    A hypothesis with ``<notimestamps>`` has none. Else it starts with one, they increase, and text
    stands between the first and the second of each pair.

    Attributes:
        notime: The id of ``<notimestamps>``.
        first: The id of the first timestamp.
        last: The id of the last timestamp.
        sos: The id of ``<sos>``.
        eos: The id of ``<eos>``.
    """

    notime: int
    first: int
    last: int
    sos: int
    eos: int

    @classmethod
    def of(
        cls, token_list: Sequence[str], options: Any, sos: int, eos: int
    ) -> TimestampRule | None:
        """The rule for a vocabulary; None if it has neither timestamps nor ``<notimestamps>``.

        Args:
            token_list: The vocabulary.
            options: With ESPnet's ``notime_symbol``, ``first_time_symbol`` and
                ``last_time_symbol``; the latter two may be None: found by their look.
            sos: The id of ``<sos>``.
            eos: The id of ``<eos>``.

        Raises:
            ValueError: The vocabulary lacks one of the three.
        """
        times = [token for token in token_list if TIMESTAMP.fullmatch(token)]
        names = {
            "notime_symbol": options.notime_symbol,
            "first_time_symbol": options.first_time_symbol or (times[0] if times else None),
            "last_time_symbol": options.last_time_symbol or (times[-1] if times else None),
        }
        index = {token: i for i, token in enumerate(token_list)}
        if not times and options.notime_symbol not in index:
            return None
        for option, token in names.items():
            if token not in index:
                raise ValueError(
                    f"{option} {token!r} is not in the token list (its timestamps: "
                    f"{f'{times[0]} to {times[-1]}' if times else 'none'})"
                )
        notime, first, last = (index[str(token)] for token in names.values())
        return cls(notime, first, last, sos, eos)

    def check_prompt(self, prompt: Sequence[int], where: str) -> bool:
        """Whether what follows a prompt has timestamps.

        Raises:
            ValueError: It has, but the prompt is none that ESPnet's rule understands.
        """
        if self.notime in prompt:
            return False
        has_times = any(self.first <= token <= self.last for token in prompt)
        if not has_times and (len(prompt) < 3 or prompt[-3] != self.sos):
            raise ValueError(
                f"{where} has no <notimestamps>, so it predicts timestamps and must end with <sos> "
                f"and two tokens (language and task); it is {list(prompt)}"
            )
        return True

    def forbidden(self, history_RL: torch.Tensor, vocabulary: int) -> torch.Tensor:
        """The tokens that may not come next, bool (R, V).

        Args:
            history_RL: int64 (R, L), padded on the left with -1.
            vocabulary: V.
        """
        token_V = torch.arange(vocabulary, device=history_RL.device)
        is_time_V = (token_V >= self.first) & (token_V <= self.last)
        is_time_RL = (history_RL >= self.first) & (history_RL <= self.last)
        untimed_R = (history_RL == self.notime).any(dim=1)
        at_start_R = history_RL[:, -3] == self.sos
        position_L = torch.arange(1, history_RL.shape[1] + 1, device=history_RL.device)
        last_R1 = (is_time_RL * position_L).amax(dim=1, keepdim=True).sub(1).clamp(min=0)
        last_time_R1 = history_RL.gather(1, last_R1)
        previous_R1 = history_RL[:, -1:]
        # an open pair: no end yet, and later times only
        within_RV = (token_V == self.eos) | (is_time_V & (token_V <= last_time_R1))
        # a closed pair: the next pair's start, or the end
        between_RV = ((token_V < previous_R1) | (token_V > self.last)) & (token_V != self.eos)
        between_RV = between_RV | ~is_time_RL[:, -1:]  # text outside a pair: no way on
        odd_R1 = is_time_RL.sum(dim=1, keepdim=True) % 2 == 1
        timed_RV = torch.where(odd_R1, within_RV, between_RV)
        timed_RV = torch.where(at_start_R[:, None], ~is_time_V, timed_RV)
        return torch.where(untimed_R[:, None], is_time_V, timed_RV)

    def forbid(self, forbidden_RV: torch.Tensor | None) -> Callable[[torch.Tensor, int], None]:
        """What `top_tokens` calls. Without ``forbidden_RV``: no row has timestamps."""

        def set_scores(score_RW: torch.Tensor, start: int) -> None:
            stop = start + score_RW.shape[1]
            if forbidden_RV is not None:
                score_RW.masked_fill_(forbidden_RV[:, start:stop], -torch.inf)
            elif self.first < stop and self.last >= start:
                first = max(0, self.first - start)
                score_RW[:, first : self.last + 1 - start] = -torch.inf

        return set_scores
