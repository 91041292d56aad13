"""One route of an S-MoE model: named by its experts, and its weights as a dense model has them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import ExpertEncoder, RoutedEncoder
from espnet_smoe.experts import ExpertBank, ExpertFeedForward
from espnet_smoe.vocabulary import symbol_of


@dataclass(frozen=True)
class Experts:
    """A route: the expert of each side; None for a side without experts."""

    encoder: str | None
    decoder: str | None

    @property
    def name(self) -> str:
        """Such as ``nb_asr``."""
        return "_".join(name for name in (self.encoder, self.decoder) if name)


def expert_names(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The experts of the encoder and of the decoder; empty for a side without."""
    sides = ((model.encoder, ExpertEncoder), (model.decoder, SMoETransformerDecoder))
    encoder, decoder = (side.expert_names if isinstance(side, cls) else () for side, cls in sides)
    return encoder, decoder


def guides(model: Any) -> dict[str, str]:
    """The expert of each guiding token; empty for a decoder without experts."""
    if not isinstance(model.decoder, SMoETransformerDecoder):
        return {}
    model.decoder.bind_tokens(model.token_list)
    return model.decoder.guide_table.guides


def every_route(model: Any) -> list[Experts]:
    """All routes of a model.

    Raises:
        ModelError: It has no experts, or some that neither a tag nor a token picks.
    """
    _check_kind(model)
    encoder, decoder = expert_names(model)
    if not encoder and not decoder:
        raise ModelError(
            "the model has no experts, so there is no route to export: it is a stock model already"
        )
    return [Experts(*pair) for pair in itertools.product(encoder or [None], decoder or [None])]


def _check_kind(model: Any) -> None:
    for side, kinds in (("encoder", ExpertEncoder), ("decoder", SMoETransformerDecoder)):
        part = getattr(model, side)
        if part is None or isinstance(part, kinds):
            continue
        if isinstance(part, RoutedEncoder):
            raise ModelError(
                f"the model's encoder ({type(part).__name__}) does with a bandwidth what ESPnet's "
                "own encoders cannot, so no route of it is a stock model"
            )
        if any(isinstance(module, ExpertBank) for module in part.modules()):
            raise ModelError(
                f"the model's {side} ({type(part).__name__}) has experts that no tag or token "
                "picks, so no route of it is a dense model"
            )


def choose_route(model: Any, bandwidth: str | None, task: str | None) -> Experts:
    """Find the route that a user means.

    Args:
        model: The S-MoE model.
        bandwidth: The encoder's expert, by name; None for its only one, or for none.
        task: The decoder's: a guiding token (``asr``, ``<asr>``) or an expert's name.

    Raises:
        ModelError: There is no such expert, or there are several and none is named.
    """
    every_route(model)
    encoder, decoder = expert_names(model)
    return Experts(
        _one_of(encoder, bandwidth, "encoder", "bandwidth", {}),
        _one_of(decoder, task, "decoder", "task", guides(model)),
    )


def _one_of(
    names: tuple[str, ...], given: str | None, side: str, option: str, guided: Mapping[str, str]
) -> str | None:
    accepted = ", ".join((*names, *guided)) or f"no {option}"
    if given is None:
        if len(names) > 1:
            raise ModelError(
                f"the {side} has {len(names)} experts; name one with {option}: {accepted}"
            )
        return names[0] if names else None
    if not names:
        raise ModelError(
            f"{option} is {given!r}, but the {side} has no experts; accepted: {accepted}"
        )
    if given in guided:
        return guided[given]
    by_token = guided.get(symbol_of(given))
    by_name = given if given in names else None
    if by_name and by_token and by_name != by_token:
        raise ModelError(
            f"{option} {given!r} is an expert, and token {symbol_of(given)!r} goes to expert "
            f"{by_token}; accepted: {symbol_of(given)} for the token, or another token of "
            f"{by_name}: {', '.join(t for t, name in guided.items() if name == by_name)}"
        )
    found = by_name or by_token
    if found is None:
        raise ModelError(f"{option} {given!r} has no expert in the {side}; accepted: {accepted}")
    return found


def route_weights(model: Any, experts: Experts) -> dict[str, torch.Tensor]:
    """The weights of one route by the names of the dense model."""
    chosen = {
        f"{side}.{name}.": expert
        for side, expert in (("encoder", experts.encoder), ("decoder", experts.decoder))
        if getattr(model, side) is not None
        for name, module in getattr(model, side).named_modules()
        if isinstance(module, ExpertFeedForward)
    }
    weights = {}
    for name, value in model.state_dict().items():
        bank = next((prefix for prefix in chosen if name.startswith(prefix)), None)
        if bank is None:
            weights[name] = value
            continue
        _, expert, rest = name[len(bank) :].split(".", 2)  # experts.<name>.<parameter>
        if expert == chosen[bank]:
            weights[bank + rest] = value
    return weights
