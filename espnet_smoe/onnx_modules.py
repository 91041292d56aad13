"""A dense S2T model as two modules that ONNX can hold: waveform to memory, and one decoding step.

ESPnet's encoder and decoder layers are called as they are. Replaced is what cannot be traced: the
STFT (here a convolution with the windowed sines and cosines, the same numbers), and masks that
ESPnet makes from Python integers. The decoder keeps keys and values, as `CachedDecoder` does.

Shape letters: B utterances, N samples, F frames of features, S encoder frames, D model dimension,
K beams, R = B x K rows, T tokens of this call, L cached tokens, J layers,
H heads, C dimension of a head, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.layers.utterance_mvn import UtteranceMVN
from torch import nn
from torch.nn.functional import conv1d, log_softmax, pad, scaled_dot_product_attention

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.compat import PositionalEncoding
from espnet_smoe.decoder_cache import check_decoder, keys_and_values, queries, run_layer
from espnet_smoe.experts import ExpertBank

ENCODERS = (ConformerEncoder, TransformerEncoder, EBranchformerEncoder)
MOST_TOKENS = 5000  # of a hypothesis with its prompt; ESPnet's own table of positions


def check_exportable(model: Any) -> None:
    """Say what stands in the way of writing a model as ONNX.

    Raises:
        ModelError: It has experts, or a part of another kind than the accepted ones.
    """
    if any(isinstance(module, ExpertBank) for module in model.modules()):
        raise ModelError(
            "the model has experts; accepted are dense models: write the route that you want with "
            "'espnet-smoe export' first"
        )
    frontend, normalize, encoder = model.frontend, model.normalize, model.encoder
    for what, part, accepted, names in (
        ("encoder", encoder, type(encoder) in ENCODERS, "conformer, transformer, e_branchformer"),
        ("frontend", frontend, type(frontend) is DefaultFrontend, "default"),
        (
            "normalize",
            normalize,
            normalize is None or type(normalize) in (GlobalMVN, UtteranceMVN),
            "global_mvn, utterance_mvn, none",
        ),
        ("preencoder", model.preencoder, model.preencoder is None, "none"),
        ("postencoder", model.postencoder, model.postencoder is None, "none"),
    ):
        if not accepted:
            raise ModelError(f"the {what} is a {type(part).__name__}; accepted: {names}")
    if frontend.stft is None or frontend.logmel.log_base is not None:
        raise ModelError("frontend_conf: accepted are apply_stft: true and the natural logarithm")
    embed = encoder.embed
    if not (isinstance(embed, nn.Sequential) or hasattr(embed, "pos_enc") or hasattr(embed, "out")):
        raise ModelError(
            f"encoder_conf.input_layer gives a {type(embed).__name__}; accepted are those that end "
            "with a positional encoding, such as conv2d and linear"
        )
    if encoder.interctc_use_conditioning:
        raise ModelError("encoder_conf.interctc_use_conditioning is true; accepted: false")
    try:
        check_decoder(model.decoder)
    except ValueError as error:
        raise ModelError(str(error)) from error


class LogMel(nn.Module):
    """`espnet2.asr.frontend.default.DefaultFrontend` and the normalisation behind it.

    Args:
        frontend: The model's.
        normalize: The model's; None: none.
    """

    def __init__(self, frontend: Any, normalize: Any) -> None:
        super().__init__()
        stft = frontend.stft
        self.size, self.hop = stft.n_fft, stft.hop_length
        self.margin = stft.n_fft // 2 if stft.center else 0
        window = torch.ones(stft.win_length, dtype=torch.float64)
        if stft.window is not None:
            window = getattr(torch, f"{stft.window}_window")(stft.win_length, dtype=torch.float64)
        before = (self.size - stft.win_length) // 2  # torch.stft puts the window in the middle
        window = pad(window, (before, self.size - stft.win_length - before))
        if stft.normalized:
            window = window / math.sqrt(self.size)
        self.bins = self.size // 2 + 1 if stft.onesided else self.size
        turns = torch.arange(self.bins)[:, None] * torch.arange(self.size) % self.size
        angle = turns.double() * (2 * math.pi / self.size)
        waves = torch.cat([angle.cos(), angle.sin()]) * window
        self.register_buffer("waves", waves[:, None].float())
        self.register_buffer("melmat", frontend.logmel.melmat)
        self.means = self.deviations = False
        self.eps = 0.0
        self.per_utterance = type(normalize) is UtteranceMVN
        if normalize is not None:
            self.means, self.deviations = normalize.norm_means, normalize.norm_vars
            self.eps = normalize.eps
        if type(normalize) is GlobalMVN:
            self.register_buffer("mean", normalize.mean.float())
            self.register_buffer("std", normalize.std.float())

    def forward(
        self, speech_BN: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features float (B, F, M), and which of them are inside the utterances, bool (B, F)."""
        x_B1N = speech_BN[:, None]
        if self.margin:
            x_B1N = pad(x_B1N, (self.margin, self.margin), mode="reflect")
        wave_BWF = conv1d(x_B1N, self.waves, stride=self.hop)
        power_BWF = wave_BWF[:, : self.bins].square() + wave_BWF[:, self.bins :].square()
        y_BFM = torch.matmul(power_BWF.transpose(1, 2), self.melmat).clamp(min=1e-10).log()
        frames_B = (lengths_B + 2 * self.margin - self.size) // self.hop + 1
        inside_BF = torch.arange(y_BFM.shape[1], device=y_BFM.device) < frames_B[:, None]
        outside_BF1 = ~inside_BF[:, :, None]
        y_BFM = y_BFM.masked_fill(outside_BF1, 0.0)
        if self.per_utterance:
            return self._by_utterance(y_BFM, frames_B, outside_BF1), inside_BF
        if self.means:
            y_BFM = (y_BFM - self.mean).masked_fill(outside_BF1, 0.0)
        return (y_BFM / self.std if self.deviations else y_BFM), inside_BF

    def _by_utterance(
        self, y_BFM: torch.Tensor, frames_B: torch.Tensor, outside_BF1: torch.Tensor
    ) -> torch.Tensor:
        """As `espnet2.layers.utterance_mvn.utterance_mvn`, which leaves ``-mean`` behind the end
        (and counts it in the variance) when it takes means away."""
        count_B11 = frames_B[:, None, None].to(y_BFM.dtype)
        centred_BFM = y_BFM - y_BFM.sum(dim=1, keepdim=True) / count_B11
        deviating_BFM = centred_BFM
        if self.means:
            y_BFM = centred_BFM
        else:
            deviating_BFM = centred_BFM.masked_fill(outside_BF1, 0.0)
        if self.deviations:
            variance_B1M = deviating_BFM.square().sum(dim=1, keepdim=True) / count_B11
            y_BFM = y_BFM / variance_B1M.sqrt().clamp(min=self.eps)
        return y_BFM


class WaveformInput(nn.Module):
    """Waveform to what the encoder's blocks take, positions aside.

    Args:
        model: What `check_exportable` accepts, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.features = LogMel(model.frontend, model.normalize)
        self.embed, self.masked = _without_positions(model.encoder.embed)

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed.

        Args:
            speech: float (B, N), padded with zeros; N is the longest length, as in ESPnet, where
                the shorter utterances' last frames see a little of the padding.
            lengths: Samples, int64 (B,).

        Returns:
            embedded: float (B, S, D).
            inside: Which frames are an utterance's, bool (B, 1, S).
        """
        y_BFM, inside_BF = self.features(speech, lengths)
        inside_B1F = inside_BF[:, None]
        if self.masked:
            return self.embed(y_BFM, inside_B1F)
        return self.embed(y_BFM), inside_B1F


class EncoderBlocks(nn.Module):
    """The encoder's blocks, and the keys and values that the decoder makes of their output.

    Apart from `WaveformInput`, since tracing takes several times as long where the number of frames
    is an expression in the number of samples.

    Args:
        model: What `check_exportable` accepts, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.positions = _positions(model.encoder.embed)
        self.blocks = model.encoder.encoders
        self.after_norm = nn.Identity()
        if getattr(model.encoder, "normalize_before", True):  # e_branchformer has no such option
            self.after_norm = model.encoder.after_norm
        self.attentions = nn.ModuleList(layer.src_attn for layer in model.decoder.decoders)

    def forward(
        self, embedded: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode.

        Args:
            embedded: float (B, S, D).
            inside: bool (B, 1, S).

        Returns:
            memory: float (B, S, D).
            memory_lengths: int64 (B,).
            memory_cache: float (J, 2, B, H, S, C).
        """
        x: Any = self.positions(embedded)  # with relative positions, a pair
        mask_B1S = inside
        for block in self.blocks:
            x, mask_B1S = block(x, mask_B1S)
        memory_BSD = self.after_norm(x[0] if isinstance(x, tuple) else x)
        caches = [
            torch.stack([part.transpose(1, 2) for part in keys_and_values(attention, memory_BSD)])
            for attention in self.attentions
        ]
        return memory_BSD, inside[:, 0].sum(dim=1), torch.stack(caches)


def _positions(embed: nn.Module) -> nn.Module:
    """The positional encoding at an encoder input's end."""
    if isinstance(embed, nn.Sequential):
        return embed[-1]
    last: Any = embed.pos_enc if hasattr(embed, "pos_enc") else embed.out[-1]  # type: ignore[index]
    return last


def _without_positions(embed: nn.Module) -> tuple[nn.Module, bool]:
    """An encoder's input without its last part, and whether it takes the mask too."""
    embed = copy.deepcopy(embed)
    if isinstance(embed, nn.Sequential):
        return embed[:-1], False
    if hasattr(embed, "pos_enc"):
        embed.pos_enc = nn.Identity()
    else:
        embed.out[-1] = nn.Identity()  # type: ignore[operator]
    return embed, True


class DecoderStep(nn.Module):
    """The next T tokens of every row: the whole prompt first, then one token at a time.

    Args:
        decoder: What `check_exportable` accepts, in eval mode.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder
        embed, position = decoder.embed[0], decoder.embed[-1]
        with torch.no_grad():
            zeros = embed.weight.new_zeros(1, MOST_TOKENS, embed.weight.shape[1])
            self.register_buffer("positions", position(zeros)[0].clone())
        self.scale = position.xscale if type(position) is PositionalEncoding else 1.0

    def forward(
        self,
        tokens: torch.Tensor,
        cache: torch.Tensor,
        memory_cache: torch.Tensor,
        memory_lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode.

        Args:
            tokens: int64 (B, K, T), T from 1 on.
            cache: What the call before returned, float (J, 2, B, K, H, L, C); L = 0 at first.
            memory_cache: The encoder's, float (J, 2, B, H, S, C).
            memory_lengths: int64 (B,).

        Returns:
            log_probs: Of the token behind the last, float (B, K, V).
            next_cache: float (J, 2, B, K, H, L + T, C).
        """
        batch, beams, count = tokens.shape
        before = cache.shape[5]
        slot_L = torch.arange(before + count, device=tokens.device)
        place_T = torch.arange(count, device=tokens.device) + before
        seen_TL = slot_L <= place_T[:, None]
        inside_BS = (
            torch.arange(memory_cache.shape[4], device=tokens.device) < (memory_lengths[:, None])
        )
        embedded_RTD = self.decoder.embed[0](tokens.flatten(0, 1)) * self.scale
        x_RTD = embedded_RTD + self.positions.index_select(0, place_T)
        caches: list[torch.Tensor] = []
        for index, layer in enumerate(self.decoder.decoders):
            x_RTD = run_layer(
                layer,
                x_RTD,
                partial(_attend_self, layer.self_attn, cache[index].flatten(1, 2), seen_TL, caches),
                partial(_attend_memory, layer.src_attn, memory_cache[index], inside_BS),
            )
        last_RD = x_RTD[:, -1]
        if self.decoder.normalize_before:
            last_RD = self.decoder.after_norm(last_RD)
        log_probs_RV = log_softmax(self.decoder.output_layer(last_RD), dim=-1)
        shape = (batch, beams)
        return log_probs_RV.unflatten(0, shape), torch.stack(caches).unflatten(2, shape)


def _attend_self(
    attention: Any,
    cache_2RHLC: torch.Tensor,
    seen_TL: torch.Tensor,
    caches: list[torch.Tensor],
    x_RTD: torch.Tensor,
) -> torch.Tensor:
    """Attend to the tokens so far; their keys and values are appended to `caches`."""
    new_2RHTC = torch.stack([y.transpose(1, 2) for y in keys_and_values(attention, x_RTD)])
    all_2RHLC = torch.cat([cache_2RHLC, new_2RHTC], dim=3)
    caches.append(all_2RHLC)
    query_RHTC = queries(attention, x_RTD).transpose(1, 2)
    y_RHTC = scaled_dot_product_attention(query_RHTC, all_2RHLC[0], all_2RHLC[1], seen_TL)
    return attention.linear_out(y_RHTC.transpose(1, 2).flatten(2))


def _attend_memory(
    attention: Any, memory_2BHSC: torch.Tensor, inside_BS: torch.Tensor, x_RTD: torch.Tensor
) -> torch.Tensor:
    """Attend to the encoder's output, whose keys an utterance's rows share."""
    query_RTHC = queries(attention, x_RTD)
    query_BKHC = query_RTHC.reshape(memory_2BHSC.shape[1], -1, *query_RTHC.shape[2:])
    y_BHKC = scaled_dot_product_attention(
        query_BKHC.transpose(1, 2), memory_2BHSC[0], memory_2BHSC[1], inside_BS[:, None, None]
    )
    return attention.linear_out(y_BHKC.transpose(1, 2).reshape(x_RTD.shape))
