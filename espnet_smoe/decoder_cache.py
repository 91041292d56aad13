"""A transformer decoder that computes each key and value once.

ESPnet's decoder keeps each layer's *outputs* and projects them to keys and values again at every
step, those of the encoder's output once per hypothesis too. `CachedDecoder` calls the same
submodules and keeps the projections: a token's own when it is decoded, the encoder's once per
utterance.

Shape letters: B utterances, K beams, R = B x K rows (an utterance's rows stand together), N rows
of either kind, P prompt tokens, T tokens of this call, L cached tokens, S encoder frames, D model
dimension, H heads, C dimension of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from torch.nn.functional import scaled_dot_product_attention

from espnet_smoe.compat import (
    DecoderLayer,
    MultiHeadedAttention,
    PositionalEncoding,
    ScaledPositionalEncoding,
)
from espnet_smoe.decoder import RoutedDecoder, SMoETransformerDecoder, routed_parts
from espnet_smoe.routing import Route, RoutingError

GROW = 32  # tokens by which the caches grow


def check_decoder(decoder: Any) -> None:
    """Say what stands in the way of decoding with `CachedDecoder`.

    Raises:
        ValueError: The decoder, one of its layers or its input is of another kind.
    """
    if not isinstance(decoder, TransformerDecoder):
        raise ValueError(
            f"the decoder is a {type(decoder).__name__}; accepted: ESPnet's 'transformer' and "
            "'smoe_transformer'"
        )
    for index, layer in enumerate(decoder.decoders):
        attentions = [getattr(layer, name, None) for name in ("self_attn", "src_attn")]
        if (
            type(layer) is not DecoderLayer
            or layer.sequential_attn is not None
            or any(type(a) is not MultiHeadedAttention for a in attentions)
        ):
            raise ValueError(
                f"decoder layer {index} is a {type(layer).__name__} of "
                f"{' and '.join(type(a).__name__ for a in attentions)}; accepted: ESPnet's "
                "DecoderLayer of two MultiHeadedAttention, without sequential_attn"
            )
    embed, position = decoder.embed[0], decoder.embed[-1]
    accepted = (PositionalEncoding, ScaledPositionalEncoding)
    if not isinstance(embed, torch.nn.Embedding) or type(position) not in accepted:
        raise ValueError(
            f"the decoder's input is {type(embed).__name__} and {type(position).__name__}; "
            "accepted: input_layer 'embed' with PositionalEncoding or ScaledPositionalEncoding"
        )
    if decoder.output_layer is None:
        raise ValueError("the decoder has use_output_layer: false, so it scores no tokens")
    if decoder.training:
        raise ValueError("the decoder is in training mode; call model.eval() first")


def run_layer(
    layer: Any,
    x_NTD: torch.Tensor,
    attend_self: Callable[[torch.Tensor], torch.Tensor],
    attend_memory: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """One `DecoderLayer` of ESPnet's, in the order of its ``forward``.

    Args:
        layer: What `check_decoder` accepts.
        x_NTD: The next T tokens of each row.
        attend_self: The self-attention of normalised tokens (N, T, D).
        attend_memory: Likewise the attention to the encoder's output.
    """
    for norm, linear, attend in (
        (layer.norm1, "concat_linear1", attend_self),
        (layer.norm2, "concat_linear2", attend_memory),
    ):
        y_NTD = norm(x_NTD) if layer.normalize_before else x_NTD
        attended = attend(y_NTD)
        if layer.concat_after:
            attended = getattr(layer, linear)(torch.cat([y_NTD, attended], dim=-1))
        x_NTD = x_NTD + attended
        if not layer.normalize_before:
            x_NTD = norm(x_NTD)
    y_NTD = layer.norm3(x_NTD) if layer.normalize_before else x_NTD
    x_NTD = x_NTD + layer.feed_forward(y_NTD)
    return x_NTD if layer.normalize_before else layer.norm3(x_NTD)


def experts_of(
    decoder: Any, prompts: Sequence[Sequence[int]], memory_BSD: torch.Tensor | None = None
) -> tuple[str, ...] | None:
    """The decoder's expert of each prompt; None for a decoder without experts that prompts pick.

    Args:
        decoder: What `check_decoder` accepts.
        prompts: Token ids.
        memory_BSD: Encoder output of each, for a decoder that tells experts by it.

    Raises:
        RoutingError: A prompt has no, or no single, expert; `row` is its position.
    """
    if isinstance(decoder, RoutedDecoder) and memory_BSD is not None:
        names = decoder.experts_of_memory(memory_BSD)
        if names is not None:
            return names
    if not isinstance(decoder, SMoETransformerDecoder):
        return None
    known: dict[tuple[int, ...], str] = {}
    for row, prompt in enumerate(prompts):
        key = tuple(prompt)
        if key in known:
            continue
        try:
            known[key] = decoder.route_of(torch.tensor([key]))[0]
        except RoutingError as error:
            raise RoutingError(f"utterance {row} of the batch: {error}", row=row) from error
    return tuple(known[tuple(prompt)] for prompt in prompts)


class CachedDecoder:
    """The decoder's side of one search over a batch.

    Args:
        decoder: What `check_decoder` accepts.
        memory_BSD: Encoder output, float (B, S, D), padded with anything finite.
        lengths: The frames of each utterance.
        prompts: Token ids from ``<sos>`` or ``<sop>`` on, per utterance, of any lengths.

    Raises:
        RoutingError: A prompt has no, or no single, expert.
    """

    @torch.no_grad()
    def __init__(
        self,
        decoder: Any,
        memory_BSD: torch.Tensor,
        lengths: Sequence[int],
        prompts: Sequence[Sequence[int]],
    ) -> None:
        self.decoder = decoder
        self.device = memory_BSD.device
        self._experts = experts_of(decoder, prompts, memory_BSD)
        self._lengths = list(lengths)
        self._prompts = [list(prompt) for prompt in prompts]
        self._prompt_lengths_R = torch.tensor([len(p) for p in prompts], device=self.device)
        self._prompt_slots = max(len(p) for p in prompts)
        self._length = 0  # tokens in the caches
        self._positions_LD: torch.Tensor | None = None
        self._cross: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in decoder.decoders:
            key_BSHC, value_BSHC = keys_and_values(layer.src_attn, memory_BSD)
            # heads outermost: every step reads them, and reads them in order
            self._cross.append(
                (
                    key_BSHC.transpose(1, 2).contiguous(),
                    value_BSHC.transpose(1, 2).contiguous(),
                )
            )
        self._self: list[torch.Tensor] = []  # keys and values (L, R, 2, D), one per layer
        self._spare: torch.Tensor | None = None
        self._after_batch_change(len(prompts))

    @torch.no_grad()
    def start(self) -> torch.Tensor:
        """Read the prompts in one pass.

        Returns:
            float (B, D): the hidden state behind each prompt's last token.
        """
        tokens_BP = torch.zeros(len(self._prompts), self._prompt_slots, dtype=torch.int64)
        for row, prompt in enumerate(self._prompts):
            tokens_BP[row, : len(prompt)] = torch.tensor(prompt)
        x_BPD = self.decoder.embed(tokens_BP.to(self.device))
        # Padding stands behind the prompts, where causal attention does not look.
        x_BPD = self._layers(x_BPD)
        last_B = self._prompt_lengths_R - 1
        return self._normed(x_BPD[torch.arange(len(x_BPD), device=self.device), last_B])

    @torch.no_grad()
    def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        """Decode one token of every row.

        Args:
            tokens_R: int64 (R,).

        Returns:
            float (R, D): the hidden state of each.
        """
        embed, position = self.decoder.embed[0], self.decoder.embed[-1]
        where_R = self._prompt_lengths_R + (self._length - self._prompt_slots)
        if self._positions_LD is None or len(self._positions_LD) <= self._length:
            room = self._length + 1 + 4 * GROW
            zeros = embed.weight.new_zeros(1, room, embed.weight.shape[1])
            self._positions_LD = position(zeros)[0]
        scale = position.xscale if type(position) is PositionalEncoding else 1.0
        x_RD = embed(tokens_R) * scale + self._positions_LD.index_select(0, where_R)
        return self._normed(self._layers(x_RD[:, None])[:, 0])

    @torch.no_grad()
    def select(self, rows_R: torch.Tensor, utts: Sequence[int] | None = None) -> None:
        """Make the caches those of other rows.

        Args:
            rows_R: The present row that each next row continues, int64 (R,).
            utts: The present utterances that stay, if some leave.
        """
        if utts is not None:
            utts_B = torch.tensor(utts, device=self.device)
            self._lengths = [self._lengths[utt] for utt in utts]
            longest = max(self._lengths)
            self._cross = [
                (key[:, :, :longest][utts_B], value[:, :, :longest][utts_B])
                for key, value in self._cross
            ]
            if self._experts is not None:
                self._experts = tuple(self._experts[utt] for utt in utts)
            self._prompts = [self._prompts[utt] for utt in utts]
        for index, old in enumerate(self._self):
            new = self._spare
            if new is None or new.shape[:2] != (len(old), len(rows_R)):
                new = old.new_empty(len(old), len(rows_R), *old.shape[2:])
            torch.index_select(old[: self._length], 1, rows_R, out=new[: self._length])
            self._self[index], self._spare = new, old
        self._prompt_lengths_R = self._prompt_lengths_R.index_select(0, rows_R)
        if utts is not None or len(rows_R) != self._rows:
            self._after_batch_change(len(rows_R))

    def _after_batch_change(self, rows: int) -> None:
        """Work out the masks and the route of a changed set of rows."""
        self._rows = rows
        lengths_B = torch.tensor(self._lengths, device=self.device)
        frames = self._cross[0][0].shape[2]
        self._cross_mask_B11S = None
        if min(self._lengths) < frames:
            inside_BS = torch.arange(frames, device=self.device) < lengths_B[:, None]
            self._cross_mask_B11S = inside_BS[:, None, None]
        self._slot_is_prompt_RP = None
        if min(len(p) for p in self._prompts) < self._prompt_slots:
            slots = torch.arange(self._prompt_slots, device=self.device)
            self._slot_is_prompt_RP = slots < self._prompt_lengths_R[:, None]
        self._route = None
        if self._experts is not None:
            beams = rows // len(self._experts)
            names = [name for name in self._experts for _ in range(beams)]
            self._route = Route.of(names, self.device)

    def _self_mask(self) -> torch.Tensor | None:
        """Which cached tokens a step attends to: bool (R, 1, 1, L); None: all."""
        if self._slot_is_prompt_RP is None:
            return None
        later = self._slot_is_prompt_RP.new_ones(self._rows, self._length - self._prompt_slots)
        return torch.cat([self._slot_is_prompt_RP, later], dim=1)[:, None, None]

    def _layers(self, x_NTD: torch.Tensor) -> torch.Tensor:
        """Run the decoder's layers on the next T tokens of each row and cache them."""
        if self._route is not None:
            for part in routed_parts(self.decoder):  # others may have used it in between
                part.set_route(self._route)
        before, self._length = self._length, self._length + x_NTD.shape[1]
        mask = self._self_mask() if before else None
        for index, layer in enumerate(self.decoder.decoders):
            x_NTD = run_layer(
                layer,
                x_NTD,
                partial(self._attend_self, layer.self_attn, index, before=before, mask=mask),
                partial(self._attend_memory, layer.src_attn, index),
            )
        return x_NTD

    def _attend_self(
        self, attention: Any, index: int, x_NTD: torch.Tensor, before: int, mask: Any
    ) -> torch.Tensor:
        query_NTHC = queries(attention, x_NTD)
        key_NTHC, value_NTHC = keys_and_values(attention, x_NTD)
        cache = self._cache(index, x_NTD)
        cache[before : self._length, :, 0] = key_NTHC.flatten(2).transpose(0, 1)
        cache[before : self._length, :, 1] = value_NTHC.flatten(2).transpose(0, 1)
        cached = cache[: self._length].unflatten(3, query_NTHC.shape[2:])  # (L, R, 2, H, C)
        y_NHTC = scaled_dot_product_attention(
            query_NTHC.transpose(1, 2),
            cached[:, :, 0].permute(1, 2, 0, 3),
            cached[:, :, 1].permute(1, 2, 0, 3),
            mask,
            is_causal=before == 0,
        )
        return attention.linear_out(y_NHTC.transpose(1, 2).flatten(2))

    def _attend_memory(self, attention: Any, index: int, x_NTD: torch.Tensor) -> torch.Tensor:
        """Attend to the encoder's output: an utterance's beams and tokens share the keys."""
        key_BHSC, value_BHSC = self._cross[index]
        query_NTHC = queries(attention, x_NTD)
        query_BKHC = query_NTHC.reshape(len(key_BHSC), -1, *query_NTHC.shape[2:])
        y_BHKC = scaled_dot_product_attention(
            query_BKHC.transpose(1, 2), key_BHSC, value_BHSC, self._cross_mask_B11S
        )
        return attention.linear_out(y_BHKC.transpose(1, 2).reshape(x_NTD.shape))

    def _cache(self, index: int, x_NTD: torch.Tensor) -> torch.Tensor:
        """The cache of a layer, with room for the tokens of this call."""
        if index == len(self._self):
            shape = (self._length + GROW, len(x_NTD), 2, x_NTD.shape[2])
            self._self.append(x_NTD.new_empty(shape))
        cache = self._self[index]
        if len(cache) < self._length:
            cache = torch.cat(
                [cache, cache.new_empty(max(GROW, len(cache) // 2), *cache.shape[1:])]
            )
            self._self[index] = cache
        return cache

    def _normed(self, x_ND: torch.Tensor) -> torch.Tensor:
        return self.decoder.after_norm(x_ND) if self.decoder.normalize_before else x_ND


def queries(attention: Any, x_NTD: torch.Tensor) -> torch.Tensor:
    """An attention's queries (N, T, H, C)."""
    heads = (attention.h, attention.d_k)
    return attention.q_norm(attention.linear_q(x_NTD).unflatten(2, heads))


def keys_and_values(attention: Any, x_NTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An attention's keys and values, each (N, T, H, C)."""
    heads = (attention.h, attention.d_k)
    key_NTHC = attention.k_norm(attention.linear_k(x_NTD).unflatten(2, heads))
    return key_NTHC, attention.linear_v(x_NTD).unflatten(2, heads)
