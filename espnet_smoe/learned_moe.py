"""Encoders and decoder with learned gates: ESPnet's own, in the places where S-MoE has experts.

What they share with S-MoE: the experts, their size and their places. What differs: a gate picks
an expert for each frame or token (`espnet_smoe.learned_gate`), and nobody tells it the bandwidth or
the task. They have no route; ``model: smoe`` adds the load-balance loss in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

from espnet_smoe.encoder import expert_block_indices
from espnet_smoe.learned_gate import give_gates
from espnet_smoe.signatures import adds_options_to


class GatedEncoder(AbsEncoder):
    """Mixin in front of an ESPnet encoder class: gated experts in its blocks.

    Args:
        input_size: Feature dimension.
        experts: How many experts a bank has.
        expert_blocks: Which blocks get experts, by index from 0; None: every block.
        macaron_experts: Give the first half-step feed-forward of a macaron block experts too.
        balance_weight: Weight of the load-balance loss.
        gate_scale: ``one`` or ``switch`` (`espnet_smoe.learned_gate.GatedFeedForward`).
        gate_jitter: Half the width of the noise on the gate's input in training.
        **options: Every option of the ESPnet class; ``positionwise_layer_type`` is ``linear``.

    Raises:
        ValueError: A value that is not accepted, a block index out of range.
    """

    def __init__(
        self,
        input_size: int,
        *args: Any,
        experts: int = 2,
        expert_blocks: Sequence[int] | None = None,
        macaron_experts: bool = True,
        balance_weight: float = 0.01,
        gate_scale: str = "one",
        gate_jitter: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(input_size, *args, **options)
        layers = ["feed_forward", *(["feed_forward_macaron"] if macaron_experts else [])]
        for index in expert_block_indices(expert_blocks, len(self.encoders), "encoder_conf"):
            give_gates(
                self.encoders[index],
                layers,
                experts=experts,
                balance_weight=balance_weight,
                gate_scale=gate_scale,
                gate_jitter=gate_jitter,
            )


@adds_options_to(ConformerEncoder)
class LearnedMoEConformerEncoder(GatedEncoder, ConformerEncoder):
    """``encoder: learned_moe_conformer``: `espnet2.asr.encoder.conformer_encoder`."""


@adds_options_to(TransformerEncoder)
class LearnedMoETransformerEncoder(GatedEncoder, TransformerEncoder):
    """``encoder: learned_moe_transformer``: `espnet2.asr.encoder.transformer_encoder`."""


@adds_options_to(TransformerDecoder)
class LearnedMoETransformerDecoder(TransformerDecoder):
    """``decoder: learned_moe_transformer``: `espnet2.asr.decoder.transformer_decoder`.

    Args:
        vocab_size: Number of tokens.
        encoder_output_size: Model dimension.
        experts: How many experts a bank has.
        expert_blocks: Which blocks get experts, by index from 0; None: every block.
        balance_weight: Weight of the load-balance loss.
        gate_scale: ``one`` or ``switch`` (`espnet_smoe.learned_gate.GatedFeedForward`).
        gate_jitter: Half the width of the noise on the gate's input in training.
        **options: Every option of the ESPnet class.

    Raises:
        ValueError: A value that is not accepted, a block index out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        *args: Any,
        experts: int = 2,
        expert_blocks: Sequence[int] | None = None,
        balance_weight: float = 0.01,
        gate_scale: str = "one",
        gate_jitter: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(vocab_size, encoder_output_size, *args, **options)
        for index in expert_block_indices(expert_blocks, len(self.decoders), "decoder_conf"):
            give_gates(
                self.decoders[index],
                ["feed_forward"],
                experts=experts,
                balance_weight=balance_weight,
                gate_scale=gate_scale,
                gate_jitter=gate_jitter,
            )
