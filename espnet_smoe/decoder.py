"""Decoders with expert banks: ESPnet's transformer, each block's feed-forward a bank of experts.

The guiding token in the prompt (the task token) picks the expert (Eq. 3, arXiv:2508.10009).
Every way into the decoder reads the route from the prompt, so ESPnet's beam search needs no
change and a hypothesis cannot change its expert.

Shape letters: B utterances or hypotheses, S encoder frames, T tokens, D model dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

from espnet_smoe.encoder import expert_block_indices
from espnet_smoe.experts import ExpertFeedForward
from espnet_smoe.private_tokens import PrivateOutput, hidden_ids
from espnet_smoe.routing import GuideTable, Route
from espnet_smoe.signatures import adds_options_to

TASK_EXPERTS: dict[str, list[str]] = {
    "asr": ["<asr>", "<transcribe>"],
    "st": ["<st_*>", "<translate>"],
}


def routed_parts(decoder: torch.nn.Module) -> list[ExpertFeedForward | PrivateOutput]:
    """What a route is set on; found anew so that DataParallel's replicas find theirs."""
    return [m for m in decoder.modules() if isinstance(m, ExpertFeedForward | PrivateOutput)]


class RoutedDecoder(TransformerDecoder):
    """ESPnet's transformer decoder with experts, whose banks get a route at every way into it.

    A subclass has `expert_names`, builds its banks with `give_experts`, and says in
    `experts_of_rows` which expert serves each row.
    """

    last_route: tuple[str, ...] | None = None  # of the last call, one name per row

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names."""
        raise NotImplementedError

    def experts_of_rows(
        self, ys_BT: torch.Tensor, memory_BSD: torch.Tensor, *, origin: str, whole_prompt: bool
    ) -> tuple[str, ...]:
        """The expert of each row of a call.

        Args:
            ys_BT: Tokens that begin with the prompt, int64 (B, T).
            memory_BSD: Encoder output, float (B, S, D), or (1, S, D) for rows of one utterance.
            origin: Where the tokens come from, for errors.
            whole_prompt: Whether to check the prompt to its end for contradictions.

        Raises:
            RoutingError: A row has no, or no single, expert.
        """
        raise NotImplementedError

    def experts_of_memory(self, memory_BSD: torch.Tensor) -> tuple[str, ...] | None:
        """The experts of utterances by their encoder output; None: their prompts tell."""
        return None

    def give_experts(self, names: Sequence[str], expert_blocks: Sequence[int] | None) -> None:
        """Put banks into the blocks; None: into all.

        Raises:
            RoutingError: Bad names.
            ValueError: A block index out of range.
        """
        for index in expert_block_indices(expert_blocks, len(self.decoders), "decoder_conf"):
            block = self.decoders[index]
            block.feed_forward = ExpertFeedForward(block.feed_forward, names=names)

    def _enter(
        self, ys_BT: torch.Tensor, memory_BSD: torch.Tensor, origin: str, *, whole_prompt: bool
    ) -> None:
        names = self.experts_of_rows(ys_BT, memory_BSD, origin=origin, whole_prompt=whole_prompt)
        route = Route.of(names, ys_BT.device)
        self.last_route = names
        for part in routed_parts(self):
            part.set_route(route)

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As the ESPnet class's forward.

        Args:
            hs_pad: Encoder output, float (B, frames, D).
            hlens: Its lengths, int64 (B,).
            ys_in_pad: Tokens with ``<sos>`` and prompt, int64 (B, T).
            ys_in_lens: Their lengths, int64 (B,).

        Raises:
            RoutingError: A row has no, or no single, expert.
        """
        self._enter(ys_in_pad, hs_pad, "text", whole_prompt=True)
        return super().forward(hs_pad, hlens, ys_in_pad, ys_in_lens, *args, **kwargs)

    def forward_one_step(
        self,
        tgt: torch.Tensor,
        tgt_mask: torch.Tensor,
        memory: torch.Tensor,
        *args: Any,
        cache: list[torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the ESPnet class's; `score` and `batch_score` come here too.

        Args:
            tgt: Prefixes that begin with the prompt, int64 (B, T).
            tgt_mask: Their mask.
            memory: Encoder output, float (B, frames, D).
            cache: ESPnet's per-block cache; None at the first step, where the prompt is checked
                for contradictions.

        Raises:
            RoutingError: A row has no, or no single, expert.
        """
        self._enter(tgt, memory, "the search's prompt", whole_prompt=cache is None)
        return super().forward_one_step(tgt, tgt_mask, memory, *args, cache=cache, **kwargs)

    def forward_partially_AR(
        self,
        tgt: torch.Tensor,
        tgt_mask: torch.Tensor,
        tgt_lengths: torch.Tensor,
        memory: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As the ESPnet class's: prefixes int64 (B, T), one per mask and hypothesis.

        Raises:
            RoutingError: A row has no expert.
        """
        self._enter(tgt, memory, "the search's prompt", whole_prompt=False)
        return super().forward_partially_AR(tgt, tgt_mask, tgt_lengths, memory, *args, **kwargs)


@adds_options_to(TransformerDecoder)
class SMoETransformerDecoder(RoutedDecoder):
    """``decoder: smoe_transformer``: `espnet2.asr.decoder.transformer_decoder`.

    Args:
        vocab_size: Number of tokens.
        encoder_output_size: Model dimension.
        experts: ``{expert: patterns of guiding tokens}``; a token's expert is the one whose
            patterns match it.
        default_expert: The expert of a prompt without a guiding token; None: RoutingError.
        expert_blocks: Which blocks get experts, by index from 0; None: every block.
        **options: Every option of the ESPnet class.

    Raises:
        RoutingError: Bad expert names or patterns.
        ValueError: A block index out of range, or an ``input_layer`` that takes no tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        *args: Any,
        experts: Mapping[str, Sequence[str]] = TASK_EXPERTS,
        default_expert: str | None = None,
        expert_blocks: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        if options.get("input_layer", "embed") != "embed":
            raise ValueError(
                f"input_layer {options['input_layer']!r}: the route is read from tokens, so only "
                "'embed' is accepted"
            )
        super().__init__(vocab_size, encoder_output_size, *args, **options)
        self.guide_table = GuideTable(experts, default_expert=default_expert)
        self.give_experts(self.expert_names, expert_blocks)

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names, sorted."""
        return self.guide_table.names

    def bind_tokens(
        self,
        token_list: Sequence[str],
        private_tokens: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Tell the decoder its tokens, once; `model: smoe` does it.

        Args:
            token_list: The token of each id.
            private_tokens: Tokens that only some experts may write, and those experts
                (`espnet_smoe.private_tokens`).

        Raises:
            RoutingError: An expert whose patterns match no token, or an ambiguous token; a private
                token or its expert that is not there.
        """
        self.guide_table.bind(token_list)
        hidden = hidden_ids(private_tokens or {}, token_list, self.expert_names)
        layer: Any = getattr(self, "output_layer", None)
        if any(hidden.values()) and layer is not None:
            self.output_layer = PrivateOutput(layer, hidden)

    def route_of(self, ys_BT: torch.Tensor) -> tuple[str, ...]:
        """The expert of each row of a batch of prompts (B, T), as the next call will use."""
        return self.guide_table.route(ys_BT)

    def experts_of_rows(
        self, ys_BT: torch.Tensor, memory_BSD: torch.Tensor, *, origin: str, whole_prompt: bool
    ) -> tuple[str, ...]:
        """As the prompts say."""
        return self.guide_table.route(ys_BT, origin=origin, whole_prompt=whole_prompt)
