"""The S2T model: ESPnet's, with the encoder's bandwidth route and statistics per route.

Shape letters: B utterances, N samples, T tokens, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel

from espnet_smoe.balance import ROUTE_FLOOR
from espnet_smoe.bandwidth import BANDWIDTHS, measure_batch
from espnet_smoe.decoder import RoutedDecoder, SMoETransformerDecoder
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.learned_gate import balance_loss, forget_balance
from espnet_smoe.route_stats import ObservedLoss, RouteStats
from espnet_smoe.routing import RoutingError
from espnet_smoe.signatures import adds_options_to
from espnet_smoe.train_only import freeze_all_but, keep_statistics, put_rows_back, train_rows

ROUTE_VARIABLE = "ESPNET_SMOE_ROUTE"  # forces the encoder's expert in stock programs
ROUTE_LOG_VARIABLE = "ESPNET_SMOE_ROUTE_LOG"  # file to which inference appends its routes


@adds_options_to(ESPnetS2TModel)
class SMoES2TModel(ESPnetS2TModel):
    """``model: smoe``: `espnet2.s2t.espnet_model.ESPnetS2TModel` with routes.

    The bandwidth comes from the data (``bandwidth``, one integer per utterance: a position in
    `espnet_smoe.bandwidth.BANDWIDTHS` followed by `channels`) when given, else it is measured from
    the waveform.
    `route_override` (or, outside training, the environment variable ESPNET_SMOE_ROUTE) forces one
    expert. Dense encoders and decoders work too: their side has no routes.

    With learned gates (`espnet_smoe.learned_moe`) the loss of training has their load-balance loss
    in it, which is logged as ``balance_loss``. That of validation has not, so it compares with that
    of other models.

    Args:
        trim_padding: At inference, drop a trailing run of exact zeros when the input is exactly
            ``speech_length * fs`` samples long: the padding that ESPnet's ``Speech2Text`` adds.
            Right for a model trained on unpadded audio; leave false for one trained padded.
        speech_length: The preprocessor's ``speech_length``, seconds.
        fs: The preprocessor's ``fs``, Hz.
        route_floor: Least share of the training utterances that a route may have, over 1000
            steps, without a warning in the log; 0: no warning.
        channels: Experts of the encoder beside the bandwidths. No measurement picks them: the data
            do (``bandwidth``), or `route_override`, or ``route`` of `encode`.
        train_only: Names of the parameters that train, shell patterns allowed; None: all. What is
            frozen stays bit by bit, BatchNorm statistics included (`espnet_smoe.train_only`).
        train_rows: With `train_only`: tokens whose rows of the decoder's embedding and output layer
            train too, and no others.
        private_tokens: ``{token: experts}``: tokens that only those of the decoder's experts may
            write (`espnet_smoe.private_tokens`).
        **options: Every option of the ESPnet class.
    """

    def __init__(
        self,
        *args: Any,
        trim_padding: bool = False,
        speech_length: float = 30.0,
        fs: int = 16000,
        route_floor: float = ROUTE_FLOOR,
        channels: Sequence[str] = (),
        train_only: Sequence[str] | None = None,
        train_rows: Sequence[str] = (),
        private_tokens: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if not 0.0 <= route_floor < 1.0:
            raise ValueError(f"model_conf.route_floor is {route_floor}; accepted: 0 to below 1")
        self.trim_padding = trim_padding
        self.fs = fs
        self.padded_length = int(speech_length * fs)  # samples
        self._given_bandwidth: torch.Tensor | None = None
        self.last_route: tuple[str, ...] | None = None
        if self.ctc is not None:
            self.ctc.behind_prompt = True  # see espnet_smoe.ctc_scorer
        self.route_override: str | None = None
        self.encoder_tags = (*BANDWIDTHS, *channels)
        encoder_axis: Sequence[str] = ()
        if isinstance(self.encoder, RoutedEncoder):
            encoder_axis = self.encoder.expert_names
            unknown = [name for name in encoder_axis if name not in self.encoder_tags]
            routes_by_bandwidth = type(self).encoder_route is SMoES2TModel.encoder_route
            if unknown and routes_by_bandwidth:
                raise RoutingError(
                    f"{self.encoder.expert_table.option}: model 'smoe' routes by bandwidth and "
                    f"never picks {', '.join(unknown)} (accepted: {', '.join(self.encoder_tags)}); "
                    "name it in model_conf.channels if the data say where it serves; for another "
                    "axis override SMoES2TModel.encoder_route"
                )
        decoder_axis: Sequence[str] = ()
        if isinstance(self.decoder, RoutedDecoder):
            decoder_axis = self.decoder.expert_names
        if isinstance(self.decoder, SMoETransformerDecoder):
            self.decoder.bind_tokens(self.token_list, private_tokens)
        elif private_tokens:
            raise RoutingError(
                "model_conf.private_tokens: the decoder has no experts that tokens pick"
            )
        self.route_stats = RouteStats(
            decoder_axis,
            encoder_axis,
            per_token=self.criterion_att.normalize_length,
            floor=route_floor,
        )
        self.criterion_att: ObservedLoss = ObservedLoss(self.criterion_att)  # type: ignore[has-type]
        self._choose_what_trains(train_only, train_rows)

    def _choose_what_trains(self, patterns: Sequence[str] | None, tokens: Sequence[str]) -> None:
        self._trains_only = patterns is not None
        if patterns is None:
            if tokens:
                raise ValueError("model_conf.train_rows needs train_only, of which it is a part")
            return
        freeze_all_but(self, patterns)
        unknown = [token for token in tokens if token not in self.token_list]
        if unknown:
            raise ValueError(f"model_conf.train_rows: {', '.join(unknown)} not in the token list")
        if tokens:
            ids = [self.token_list.index(token) for token in tokens]
            train_rows(self.decoder.embed[0], ids)
            if self.decoder.output_layer is not None:
                train_rows(self.decoder.output_layer, ids)

    def train(self, mode: bool = True) -> SMoES2TModel:
        """As PyTorch's; with ``train_only``, what is frozen keeps its statistics."""
        super().train(mode)
        if getattr(self, "_trains_only", False):
            if mode:
                keep_statistics(self)
            else:
                put_rows_back(self)
        return self

    def forward(  # type: ignore[override]
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        *args: Any,
        bandwidth: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss and statistics, those per route included.

        Args:
            speech: float (B, N).
            speech_lengths: int64 (B,), samples.
            text: int64 (B, T), padded with -1.
            text_lengths: int64 (B,).
            *args: ``text_prev``, ``text_ctc`` and their lengths.
            bandwidth: int64 (B, 1); None: measured.
            **kwargs: As ESPnet's; ``utt_id`` names the utterances in errors.

        Raises:
            RoutingError: A tag or prompt without an expert; names the utterance.
        """
        self._given_bandwidth = bandwidth
        forget_balance(self)
        try:
            loss, stats, weight = super().forward(
                speech, speech_lengths, text, text_lengths, *args, **kwargs
            )
        except RoutingError as error:
            utt_ids = kwargs.get("utt_id")
            if error.row is None or not utt_ids:
                raise
            raise RoutingError(f"utterance {utt_ids[error.row]}: {error}") from error
        finally:
            self._given_bandwidth = None
        learns = self._trains_only and self.training and torch.is_grad_enabled()
        if learns and not loss.requires_grad:
            raise RoutingError(
                "nothing that trains (model_conf.train_only) took part in this batch: its "
                f"utterances go to the experts {sorted(set(self._routes_of_batch()))}; train "
                "with examples of the new expert alone"
            )
        if self.error_calculator is not None and not self.training:
            # None would be dropped before ESPnet's DDP average, which matches keys by position.
            for key in [k for k in stats if k.startswith(("cer_ctc", "cer_interctc"))]:
                stats[key] = _or_nan(stats[key], loss)
        if self.training:
            balance = balance_loss(self)
            if balance is not None:
                loss = loss + balance
                stats["loss"] = loss.detach()
                stats["balance_loss"] = balance.detach()[None]
        if self.decoder is not None:
            decoder_names = None
            if isinstance(self.decoder, RoutedDecoder):
                decoder_names = self.decoder.last_route
            scores = self.criterion_att.take()
            stats.update(self.route_stats(scores, decoder_names, self.last_route, self.training))
        return loss, stats, weight

    def _routes_of_batch(self) -> list[str]:
        """The experts that the last batch went to, on both sides."""
        return [*(getattr(self.decoder, "last_route", None) or ()), *(self.last_route or ())]

    def encode(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        *,
        route: Sequence[str | Mapping[str, float]] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Front end and encoder, routed; ESPnet's inference calls this.

        Args:
            speech: float (B, N), or (B, N, channels): ESPnet's own preprocessor gives (B, N, 1).
            speech_lengths: int64 (B,), samples.
            route: Per utterance an expert of the encoder by name, whatever `encoder_route` would
                say, or shares such as ``{"wb": 0.6, "nb": 0.4}`` by which the experts' outputs
                are mixed (`last_route` then has ``blend``). None: as `encoder_route` says.

        Raises:
            RoutingError: A route that the encoder's experts cannot take, of another length than
                the batch, or for an encoder without experts.
        """
        speech_BN = speech[..., 0] if speech.dim() == 3 else speech
        if self.trim_padding and not self.training and speech.shape[1] == self.padded_length:
            speech_lengths = _without_trailing_zeros(speech_BN, speech_lengths)
            longest = int(speech_lengths.max())
            speech, speech_BN = speech[:, :longest], speech_BN[:, :longest]
        self.last_route = None
        if isinstance(self.encoder, RoutedEncoder):
            origin = "bandwidth" if route is None else "route"
            if route is None:
                route = self.encoder_route(speech_BN, speech_lengths, self._given_bandwidth)
            names = self.encoder.set_route(route, origin=origin)
            if len(names) != len(speech):
                raise RoutingError(
                    f"{origin} is for {len(names)} utterances, the batch holds {len(speech)}"
                )
            self.last_route = names
            log = os.environ.get(ROUTE_LOG_VARIABLE)
            if log and not self.training:
                with Path(log).open("a", encoding="utf-8") as file:
                    file.writelines(f"{name}\n" for name in self.last_route)
        elif route is not None:
            raise RoutingError(
                f"route is {route!r}, but the encoder ({type(self.encoder).__name__}) has no "
                "experts; accepted: None"
            )
        return super().encode(speech, speech_lengths)

    def forced_route(self, utterances: int) -> tuple[str, ...] | None:
        """The encoder's expert of each utterance by an override; None if there is none.

        Raises:
            RoutingError: An override that is no expert.
        """
        from_environment = None if self.training else os.environ.get(ROUTE_VARIABLE)
        override = self.route_override or from_environment
        if not override:
            return None
        if override not in self.encoder.expert_names:
            raise RoutingError(
                f"route_override (or {ROUTE_VARIABLE}) is {override!r}; accepted: "
                f"{', '.join(self.encoder.expert_names)}"
            )
        return (override,) * utterances

    def encoder_route(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, given: torch.Tensor | None
    ) -> tuple[str, ...]:
        """The encoder's expert of each utterance: override, given bandwidth, or measured.

        Args:
            speech: float (B, N).
            speech_lengths: int64 (B,), samples.
            given: The data's ``bandwidth``, int64 (B, 1) or (B,); or None.

        Raises:
            RoutingError: An override that is no expert, or a given value that is no bandwidth.
        """
        forced = self.forced_route(len(speech))
        if forced is not None:
            return forced
        if given is None:
            return tuple(e.likelier for e in measure_batch(speech, speech_lengths, self.fs))
        names = []
        for row, value in enumerate(given.reshape(len(speech), -1)[:, 0].tolist()):
            if not 0 <= value < len(self.encoder_tags):
                accepted = ", ".join(f"{i} ({name})" for i, name in enumerate(self.encoder_tags))
                raise RoutingError(f"bandwidth is {value}; accepted: {accepted}", row=row)
            names.append(self.encoder_tags[value])
        return tuple(names)


def _without_trailing_zeros(speech_BN: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Lengths (B,) without each row's trailing exact zeros; an all-zero row keeps its length."""
    positions = torch.arange(1, speech_BN.shape[1] + 1, device=speech_BN.device)
    last_B = torch.where(speech_BN != 0, positions, 0).amax(dim=1).to(lengths_B)
    return torch.where(last_B == 0, lengths_B, torch.minimum(last_B, lengths_B))


def _or_nan(value: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(like.detach(), float("nan")) if value is None else value
