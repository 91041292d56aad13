"""How far the outputs of each route of an S-MoE model are from those of a dense model.

Shape letters: B utterances, N samples, T tokens, V vocabulary, D model dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from espnet_smoe import bbpe
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.new_tokens import TokenPlan
from espnet_smoe.routing import RESERVED, SPECIAL, RoutingError

NOISE_SECONDS = 2.0
WORDS = 3  # ordinary tokens behind the prompt


@dataclass(frozen=True)
class Difference:
    """Two models' outputs compared.

    Attributes:
        absolute: Largest absolute difference.
        scale: Largest absolute value of the dense model's output.
    """

    absolute: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        """The difference, as a part of the scale where that is above 1; NaN counts."""
        return self.absolute / max(1.0, self.scale)

    def with_pair(self, actual: torch.Tensor, expected: torch.Tensor) -> Difference:
        """The larger of this one and a further pair's."""
        absolute = float((actual - expected).abs().max())
        scale = max(float(expected.abs().max()), self.scale)
        worse = absolute > self.absolute or math.isnan(absolute)
        return Difference(absolute if worse else self.absolute, scale)


@torch.no_grad()
def route_differences(
    dense: Any,
    smoe: Any,
    tokens: TokenPlan,
    *,
    fs: int = 16000,
    speech_BN: torch.Tensor | None = None,
) -> dict[str, Difference]:
    """Compare encoder output, decoder logits and CTC logits, route by route.

    Args:
        dense: ESPnet's S2T model, in eval mode.
        smoe: The S-MoE model, in eval mode.
        tokens: The S-MoE model's token list. Logits are compared token by token, those of a new
            one with its source's.
        fs: Sampling rate in Hz.
        speech_BN: float (B, N), all rows of this length; None: noise.

    Returns:
        By route, named by its experts, the encoder's first, such as ``nb/asr``.
    """
    if speech_BN is None:
        generator = torch.Generator().manual_seed(0)
        speech_BN = 0.1 * torch.randn(2, int(NOISE_SECONDS * fs), generator=generator)
    lengths_B = torch.full((len(speech_BN),), speech_BN.shape[1])
    rows_V = torch.tensor(tokens.source_row_of_each)
    hidden_BTD, hidden_lengths_B = _first(dense.encode(speech_BN, lengths_B))
    found = {}
    for encoder_expert in _encoder_experts(smoe):
        route = None if encoder_expert is None else [encoder_expert] * len(speech_BN)
        own_BTD, own_lengths_B = _first(smoe.encode(speech_BN, lengths_B, route=route))
        shared = Difference().with_pair(own_BTD, hidden_BTD)
        if dense.ctc is not None and smoe.ctc is not None:
            expected_BTV = dense.ctc.ctc_lo(hidden_BTD).index_select(-1, rows_V)
            shared = shared.with_pair(smoe.ctc.ctc_lo(own_BTD), expected_BTV)
        for decoder_expert, prompt in _prompts(smoe.decoder, tokens):
            ys_BT = torch.tensor([prompt] * len(speech_BN))
            ys_lengths_B = torch.full((len(ys_BT),), len(prompt))
            actual_BTV = smoe.decoder(own_BTD, own_lengths_B, ys_BT, ys_lengths_B)[0]
            expected_BTV = dense.decoder(hidden_BTD, hidden_lengths_B, rows_V[ys_BT], ys_lengths_B)[
                0
            ].index_select(-1, rows_V)
            name = "/".join(filter(None, (encoder_expert, decoder_expert)))
            found[name] = shared.with_pair(actual_BTV, expected_BTV)
    return found


def _first(encoded: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and lengths, without ESPnet's intermediate outputs."""
    output, lengths = encoded
    return (output[0] if isinstance(output, tuple) else output), lengths


def _encoder_experts(smoe: Any) -> tuple[str | None, ...]:
    return smoe.encoder.expert_names if isinstance(smoe.encoder, RoutedEncoder) else (None,)


def _prompts(decoder: Any, tokens: TokenPlan) -> Iterator[tuple[str | None, list[int]]]:
    """For each expert of the decoder its name and tokens that it serves."""
    ids = {token: i for i, token in enumerate(tokens.token_list)}
    ordinary = [i for token, i in ids.items() if not SPECIAL.fullmatch(token)]
    words = ordinary[:: max(1, len(ordinary) // WORDS)][:WORDS]
    guides = [i for t, i in ids.items() if SPECIAL.fullmatch(t) and t not in RESERVED]
    if not isinstance(decoder, SMoETransformerDecoder):
        yield None, [ids[bbpe.SOS], *guides[:1], *words]
        return
    missing = set(decoder.expert_names)
    for guide in guides:
        prompt = [ids[bbpe.SOS], guide, *words]
        try:
            (name,) = decoder.route_of(torch.tensor([prompt]))
        except RoutingError:  # a language or a timestamp
            continue
        if name in missing:
            missing.remove(name)
            yield name, prompt
