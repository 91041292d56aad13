"""Encoders that take a route, and the supervised-MoE encoders: ESPnet's own, with expert banks.

The utterance's bandwidth picks the expert (Eq. 2, arXiv:2508.10009). Everything else,
attention, convolution, embedding, is ESPnet's and shared by all routes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.blends import BLEND
from espnet_smoe.experts import ExpertFeedForward
from espnet_smoe.routing import Route, RoutingError, TagTable
from espnet_smoe.signatures import adds_options_to

Tag = str | dict[str, float]  # as `TagTable.route` gives them


class RoutedEncoder(AbsEncoder):
    """Mixin in front of an ESPnet encoder class: takes a route, a tag per utterance, at its entry.

    A subclass says in `__init__` which tags there are (`expert_table`), and in `take_tags` what
    they do.
    """

    expert_table: TagTable
    _next_route: tuple[Tag, ...] | None = None

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The tags' names, which are the experts' where there are experts; as the option has it."""
        return self.expert_table.names

    @abstractmethod
    def take_tags(
        self, tags: Sequence[Tag], xs_pad: torch.Tensor, ilens: torch.Tensor
    ) -> torch.Tensor:
        """Do with the tags of a batch what they are for.

        Args:
            tags: Per utterance a tag or shares of several.
            xs_pad: Features, float (B, T, input_size).
            ilens: Lengths in frames, int64 (B,).

        Returns:
            The features that the ESPnet class gets.
        """

    def set_route(
        self,
        route: Sequence[str | Mapping[str, float]] | torch.Tensor,
        *,
        origin: str = "set_route",
    ) -> tuple[str, ...]:
        """Choose the expert of each utterance of the next call.

        Args:
            route: Per utterance an expert's name, or shares such as ``{"wb": 0.6, "nb": 0.4}``
                by which every bank mixes the experts' outputs for that utterance; or int64 (B,)
                positions in `expert_names`.
            origin: Where it came from, for error messages.

        Returns:
            The names, one per utterance: ``blend`` for one with shares of several experts.

        Raises:
            RoutingError: A value has no expert, or shares that do not sum to 1.
        """
        self._next_route = self.expert_table.route(route, origin=origin)
        return tuple(tag if isinstance(tag, str) else BLEND for tag in self._next_route)

    def forward(self, xs_pad: torch.Tensor, ilens: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the ESPnet class's forward; `set_route` comes before every call.

        Args:
            xs_pad: Features, float (B, T, input_size).
            ilens: Lengths in frames, int64 (B,).

        Raises:
            RoutingError: No route was set for this call, or one of another batch size.
        """
        tags = self._next_route
        if tags is None:
            raise RoutingError(
                f"{type(self).__name__} has no route for this batch: call set_route with one of "
                f"{', '.join(self.expert_names)} per utterance before each call, or set "
                "'model: smoe', which does"
            )
        if len(tags) != xs_pad.shape[0]:
            raise RoutingError(
                f"the route is for {len(tags)} utterances, the batch holds {xs_pad.shape[0]}"
            )
        self._next_route = None
        xs_pad = self.take_tags(tags, xs_pad, ilens)
        return super().forward(xs_pad, ilens, *args, **kwargs)


class ExpertEncoder(RoutedEncoder):
    """Mixin in front of an ESPnet encoder class: experts in its blocks, which the tag picks.

    Args:
        input_size: Feature dimension.
        experts: One name per expert; the tag that picks it is its name.
        expert_blocks: Which blocks get experts, by index from 0; None: every block.
        macaron_experts: Give the first half-step feed-forward of a macaron block experts too.
        **options: Every option of the ESPnet class.

    Raises:
        RoutingError: Bad expert names.
        ValueError: A block index out of range, or a block without a feed-forward.
    """

    def __init__(
        self,
        input_size: int,
        *args: Any,
        experts: Sequence[str] = BANDWIDTHS,
        expert_blocks: Sequence[int] | None = None,
        macaron_experts: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(input_size, *args, **options)
        self.expert_table = TagTable(experts, option="encoder_conf.experts")
        for index in expert_block_indices(expert_blocks, len(self.encoders), "encoder_conf"):
            block = self.encoders[index]
            if getattr(block, "feed_forward", None) is None:
                raise ValueError(
                    f"block {index} of {type(self).__name__} has no feed-forward to make experts "
                    "of: set use_ffn: true in encoder_conf"
                )
            block.feed_forward = ExpertFeedForward(block.feed_forward, names=self.expert_names)
            if macaron_experts and getattr(block, "feed_forward_macaron", None) is not None:
                block.feed_forward_macaron = ExpertFeedForward(
                    block.feed_forward_macaron, names=self.expert_names
                )

    def take_tags(
        self, tags: Sequence[Tag], xs_pad: torch.Tensor, ilens: torch.Tensor
    ) -> torch.Tensor:
        """Tell the banks which expert serves which row; the features stay."""
        route = Route.of(tags, xs_pad.device)
        for bank in banks_of(self):
            bank.set_route(route)
        return xs_pad


def banks_of(module: torch.nn.Module) -> list[ExpertFeedForward]:
    """The expert banks below a module, found anew so that DataParallel's replicas find theirs."""
    return [m for m in module.modules() if isinstance(m, ExpertFeedForward)]


def expert_block_indices(
    blocks: Sequence[int] | None, n_blocks: int, option: str
) -> tuple[int, ...]:
    """Check the option ``expert_blocks``.

    Raises:
        ValueError: An index is no block, or comes twice.
    """
    if blocks is None:
        return tuple(range(n_blocks))
    for index in blocks:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < n_blocks:
            raise ValueError(
                f"{option}.expert_blocks: {index!r} is no block; accepted: 0 to {n_blocks - 1}"
            )
    if len(set(blocks)) != len(blocks):
        raise ValueError(f"{option}.expert_blocks {list(blocks)} names a block twice")
    return tuple(blocks)


@adds_options_to(ConformerEncoder)
class SMoEConformerEncoder(ExpertEncoder, ConformerEncoder):
    """``encoder: smoe_conformer``: `espnet2.asr.encoder.conformer_encoder.ConformerEncoder`."""


@adds_options_to(TransformerEncoder)
class SMoETransformerEncoder(ExpertEncoder, TransformerEncoder):
    """``encoder: smoe_transformer``: `espnet2.asr.encoder.transformer_encoder`."""


@adds_options_to(EBranchformerEncoder)
class SMoEEBranchformerEncoder(ExpertEncoder, EBranchformerEncoder):
    """``encoder: smoe_e_branchformer``; needs ``use_ffn: true``, which ESPnet leaves false."""
