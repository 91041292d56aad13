"""Bandwidth embeddings: dense encoders that hear an utterance's bandwidth as a learned vector.

The alternative that S-MoE's encoder is compared with (Mantena et al., 2019, arXiv:1909.02667): all
parameters are shared, and the bandwidth is one more input. The paper gives its acoustic model the
embedding as an auxiliary feature; here it is added to the features, which for a layer that is
linear in them comes to the same, and leaves every ESPnet encoder as it is. Its parallel
convolutions are not part of it.

Shape letters: B utterances, T frames, F features, E bandwidths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from torch import nn

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.encoder import RoutedEncoder, Tag
from espnet_smoe.routing import TagTable
from espnet_smoe.signatures import adds_options_to


class EmbeddingEncoder(RoutedEncoder):
    """Mixin in front of an ESPnet encoder class: adds a vector per bandwidth to the features.

    The route comes as it does for S-MoE (``model: smoe``: from the data, measured, or forced).
    Shares of several bandwidths (a blend) mix their vectors by them. Padding stays as it is.

    Parameters are called ``bandwidth_vector_<name>``, float (input_size,). They start at zero, so
    that the encoder starts as the dense one; each gets a gradient of its own from the first step.

    Args:
        input_size: Feature dimension.
        bandwidths: The tags that have a vector.
        **options: Every option of the ESPnet class.

    Raises:
        RoutingError: Bad names.
    """

    def __init__(
        self,
        input_size: int,
        *args: Any,
        bandwidths: Sequence[str] = BANDWIDTHS,
        **options: Any,
    ) -> None:
        super().__init__(input_size, *args, **options)
        self.expert_table = TagTable(bandwidths, option="encoder_conf.bandwidths")
        for name in self.expert_names:
            vector_F = nn.Parameter(torch.zeros(input_size))
            self.register_parameter(f"bandwidth_vector_{name}", vector_F)

    def take_tags(
        self, tags: Sequence[Tag], xs_pad: torch.Tensor, ilens: torch.Tensor
    ) -> torch.Tensor:
        """Features float (B, T, F) plus each utterance's vector, up to its length."""
        share_BE = torch.zeros(len(tags), len(self.expert_names))
        for row, tag in enumerate(tags):
            for name, share in ({tag: 1.0} if isinstance(tag, str) else tag).items():
                share_BE[row, self.expert_names.index(name)] = share
        vector_EF = torch.stack(
            [getattr(self, f"bandwidth_vector_{name}") for name in self.expert_names]
        )
        # no matrix product, which autocast would round
        vector_BF = (share_BE.to(vector_EF)[:, :, None] * vector_EF).sum(dim=1)
        frame_T = torch.arange(xs_pad.shape[1], device=xs_pad.device)
        inside_BT = frame_T < ilens.to(xs_pad.device)[:, None]
        return xs_pad + vector_BF[:, None] * inside_BT[:, :, None]


@adds_options_to(ConformerEncoder)
class BandwidthEmbeddingConformerEncoder(EmbeddingEncoder, ConformerEncoder):
    """``encoder: bandwidth_embedding_conformer``: `espnet2.asr.encoder.conformer_encoder`."""


@adds_options_to(TransformerEncoder)
class BandwidthEmbeddingTransformerEncoder(EmbeddingEncoder, TransformerEncoder):
    """``encoder: bandwidth_embedding_transformer``: `espnet2.asr.encoder.transformer_encoder`."""
