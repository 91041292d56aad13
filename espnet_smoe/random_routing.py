"""Random routes: S-MoE's experts and parameters with routes that mean nothing (a control).

An utterance's route depends neither on its bandwidth nor on the task, and yet it is the same
in every epoch, in training and in inference, alone and in a batch, and for all tasks of an
utterance; and it needs no data of its own. It is a hash of how many samples there are from the
utterance's first to its last that is not zero:

- The count alone would not do: audio that was at 8 kHz before has an even number of samples, so
  its parity would tell the bandwidth. The hash (BLAKE2b, of the count and of the side) does not,
  and the encoder's and the decoder's experts are independent of each other.
- Zeros at both ends do not count, so the silence and the padding that training adds
  (``speech_init_silence``, ``pad_prob``), a batch's padding and that of stock ``Speech2Text`` leave
  the route as it is.
- The number of encoder frames would not do for the decoder: ESPnet's subsampling gives an utterance
  one or two frames more where its batch has longer ones. So the model tells the decoder whose
  encoder outputs are whose (`RandomTransformerDecoder.remember`).

Its limits: utterances of one length share a route; copies of one recording at several speeds or
through a simulated telephone have routes of their own; the samples have to be the same, so audio
that is resampled or rounded in another way than the training data were may get another route; and
what changes the audio anew in every epoch (``narrowband_prob``, noise, reverberation) can do so at
its very ends.

Shape letters: B utterances, N samples, S encoder frames, T tokens, D model dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

from espnet_smoe.decoder import RoutedDecoder
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.routing import RoutingError, check_expert_names
from espnet_smoe.signatures import adds_options_to

REMEMBERED = 10_000  # utterances whose encoder output is known in inference
ENCODER, DECODER = "encoder", "decoder"


def random_expert(samples: int, names: Sequence[str], side: str) -> str:
    """The expert of an utterance of so many samples; the order of the names carries no meaning."""
    digest = hashlib.blake2b(f"{side} {samples}".encode(), digest_size=8).digest()
    return sorted(names)[int.from_bytes(digest, "big") % len(names)]


def sound_lengths(speech_BN: torch.Tensor, lengths_B: torch.Tensor) -> list[int]:
    """Samples from each utterance's first to its last that is not zero; 0 for silence.

    Args:
        speech_BN: float (B, N), or (B, N, channels), of which the first counts.
        lengths_B: int64 (B,), samples.
    """
    if speech_BN.dim() == 3:
        speech_BN = speech_BN[..., 0]
    place_N = torch.arange(speech_BN.shape[1], device=speech_BN.device)
    sounds_BN = (speech_BN != 0) & (place_N < lengths_B.to(speech_BN.device)[:, None])
    first_B = torch.where(sounds_BN, place_N, len(place_N)).amin(dim=1)
    end_B = torch.where(sounds_BN, place_N + 1, 0).amax(dim=1)
    return (end_B - first_B).clamp(min=0).tolist()


@adds_options_to(TransformerDecoder)
class RandomTransformerDecoder(RoutedDecoder):
    """``decoder: smoe_transformer_random``: experts that utterances get by chance.

    It needs ``model: smoe_random``, which calls `remember`: in ESPnet's search, and in ours, all
    that a decoder gets of an utterance is its encoder output.

    Args:
        vocab_size: Number of tokens.
        encoder_output_size: Model dimension.
        experts: One name per expert.
        expert_blocks: Which blocks get experts, by index from 0; None: every block.
        **options: Every option of the ESPnet class.

    Raises:
        RoutingError: Bad expert names.
        ValueError: A block index out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        *args: Any,
        experts: Sequence[str] = ("d0", "d1"),
        expert_blocks: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(vocab_size, encoder_output_size, *args, **options)
        if isinstance(experts, Mapping):
            raise RoutingError(
                f"decoder_conf.experts is {dict(experts)!r}; no token picks an expert here: "
                "accepted is a list of names"
            )
        self._names = check_expert_names(experts, option="decoder_conf.experts")
        self.give_experts(self._names, expert_blocks)
        self._expert_of: dict[bytes, str] = {}

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names, as the option has them."""
        return self._names

    def remember(self, memory_BSD: torch.Tensor, samples: Sequence[int]) -> None:
        """Note whose encoder outputs these are; they are known by the bits of their first frames.

        In training the last batch is remembered, in inference the last `REMEMBERED` utterances.

        Args:
            memory_BSD: Encoder output, float (B, S, D).
            samples: Per utterance what `sound_lengths` gives.
        """
        experts = [random_expert(n, self._names, DECODER) for n in samples]
        new = dict(zip(_first_frames(memory_BSD), experts, strict=True))
        # a new mapping: DataParallel's replicas share the old one
        known = {} if self.training else {**self._expert_of, **new}
        self._expert_of = dict(list(known.items())[-REMEMBERED:]) if known else new

    def experts_of_memory(self, memory_BSD: torch.Tensor) -> tuple[str, ...]:
        """The experts of encoder outputs that are remembered.

        Raises:
            RoutingError: One is not.
        """
        names = []
        for row, frame in enumerate(_first_frames(memory_BSD)):
            if frame not in self._expert_of:
                raise RoutingError(
                    f"row {row} of the encoder output is not known: random routes need 'model: "
                    f"smoe_random' and the output of its encode, of the last {REMEMBERED} "
                    "utterances, as it is",
                    row=row,
                )
            names.append(self._expert_of[frame])
        return tuple(names)

    def experts_of_rows(
        self, ys_BT: torch.Tensor, memory_BSD: torch.Tensor, *, origin: str, whole_prompt: bool
    ) -> tuple[str, ...]:
        """As remembered; the tokens tell nothing."""
        names = self.experts_of_memory(memory_BSD)
        return names * len(ys_BT) if len(names) == 1 else names


def _first_frames(memory_BSD: torch.Tensor) -> list[bytes]:
    """A digest of each first frame's bits."""
    rows = memory_BSD[:, 0].detach().contiguous().cpu().view(torch.uint8).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


@adds_options_to(SMoES2TModel)
class RandomS2TModel(SMoES2TModel):
    """``model: smoe_random``: `model: smoe` with routes that mean nothing.

    The data's ``bandwidth`` is not read and nothing is measured. What forces a route still does:
    `route_override`, the environment variable, ``route`` of `encode`.
    """

    def encoder_route(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, given: torch.Tensor | None
    ) -> tuple[str, ...]:
        """The encoder's expert of each utterance: override, or by chance.

        Args:
            speech: float (B, N).
            speech_lengths: int64 (B,), samples.
            given: Is not used.

        Raises:
            RoutingError: An override that is no expert.
        """
        forced = self.forced_route(len(speech))
        if forced is not None:
            return forced
        names = self.encoder.expert_names
        samples = sound_lengths(speech, speech_lengths)
        return tuple(random_expert(n, names, ENCODER) for n in samples)

    def encode(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        *,
        route: Sequence[str | Mapping[str, float]] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `SMoES2TModel.encode`; tells a decoder with random routes whose output is whose."""
        encoded, lengths = super().encode(speech, speech_lengths, route=route)
        if isinstance(self.decoder, RandomTransformerDecoder):
            memory_BSD = encoded[0] if isinstance(encoded, tuple) else encoded
            self.decoder.remember(memory_BSD, sound_lengths(speech, speech_lengths))
        return encoded, lengths
