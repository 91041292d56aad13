"""What a model is made of, and how far the experts of each bank have drifted apart.

Numbers alone; `espnet_smoe.inspect_report` shows them. All of an expert's parameters count as one
vector. Experts that start as copies of one feed-forward begin at distance 0 and cosine 1;
independent random ones of the same size are at distance 1.41 and cosine 0.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.experts import ExpertBank, ParamCounts, param_counts

SIDES = {"encoder": "encoders", "decoder": "decoders"}  # and the name of their stack of blocks
_IN_BLOCK = re.compile(r"(?:(.+?)\.)?((?:en|de)coder)s\.(\d+)\.(.+)")  # side, stack, block, layer
_EXPERT = re.compile(r"\.experts\.[^.]+")


@dataclass(frozen=True)
class Side:
    """Encoder or decoder.

    Attributes:
        name: ``encoder`` or ``decoder``.
        kind: Its class.
        blocks: How many blocks it has.
        experts: Their names; none in a dense side.
        expert_blocks: The blocks that have a bank.
    """

    name: str
    kind: str
    blocks: int
    experts: tuple[str, ...]
    expert_blocks: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A share of the model's parameters; those of all parts add up to its total.

    Attributes:
        name: A module of the model, such as ``encoder`` or ``ctc``.
        expert: The expert to which they belong; None: all routes use them.
        parameters: How many.
    """

    name: str
    expert: str | None
    parameters: int


@dataclass(frozen=True)
class Place:
    """A bank's place in the model.

    Attributes:
        part: Side and layer, such as ``encoder feed_forward_macaron``.
        block: Index of the block.
    """

    part: str
    block: int


@dataclass(frozen=True)
class PairDrift:
    """Two experts of one bank.

    Attributes:
        place: The bank's.
        first: An expert.
        second: Another.
        distance: ``||a - b||`` over the mean of ``||a||`` and ``||b||``, Frobenius norms.
        cosine: Of the angle between ``a`` and ``b``; NaN if one is zero.
        change_cosine: Of the angle between what each has become since a common origin: 1 where
            both learned the same, 0 where they have nothing in common. None: no common origin
            is given; NaN: one has not changed.
    """

    place: Place
    first: str
    second: str
    distance: float
    cosine: float
    change_cosine: float | None = None


@dataclass(frozen=True)
class ExpertDrift:
    """An expert and what it was.

    Attributes:
        place: Its bank's.
        expert: Its name.
        distance: ``||a - o||`` over the mean of ``||a||`` and ``||o||``, ``o`` its origin.
    """

    place: Place
    expert: str
    distance: float


@dataclass(frozen=True)
class Inspection:
    """A model in numbers.

    Attributes:
        sides: Encoder and decoder.
        parameters: In total, and active on each route.
        parts: Where they are.
        pairs: Every pair of experts of every bank, in the model's order.
        origins: Every expert against its origin, if one is given.
    """

    sides: tuple[Side, ...]
    parameters: ParamCounts
    parts: tuple[Part, ...]
    pairs: tuple[PairDrift, ...]
    origins: tuple[ExpertDrift, ...]


def inspect_model(model: nn.Module, origin: Mapping[str, torch.Tensor] | None = None) -> Inspection:
    """Look into a model.

    Args:
        model: An S2T model, dense or with experts on any side.
        origin: Weights by name from which it was trained: those of an S-MoE model with the same
            banks, or of the dense model that was upcycled.

    Raises:
        ModelError: `origin` lacks an expert and its dense feed-forward, or has another shape.
    """
    banks = [(n, m) for n, m in model.named_modules() if isinstance(m, ExpertBank)]
    pairs: list[PairDrift] = []
    origins: list[ExpertDrift] = []
    for name, bank in banks:
        place = place_of(name)
        vectors = {expert: _vector(module) for expert, module in bank.experts.items()}
        starts: dict[str, torch.Tensor] = {}
        if origin is not None:
            starts = {expert: _origin(name, expert, bank, origin) for expert in bank.names}
            for expert, start in starts.items():
                distance = relative_distance(vectors[expert], start)
                origins.append(ExpertDrift(place, expert, distance))
        for first, second in itertools.combinations(bank.names, 2):
            a, b = vectors[first], vectors[second]
            changes = None
            if starts and torch.equal(starts[first], starts[second]):
                changes = cosine(a - starts[first], b - starts[second])
            distance = relative_distance(a, b)
            pairs.append(PairDrift(place, first, second, distance, cosine(a, b), changes))
    sides = tuple(_side(name, getattr(model, name, None)) for name in SIDES)
    return Inspection(
        tuple(side for side in sides if side is not None),
        param_counts(model),
        _parts(model),
        tuple(pairs),
        tuple(origins),
    )


def place_of(module: str) -> Place:
    """Where a bank is, from its module's name (``encoder.encoders.3.feed_forward``)."""
    found = _IN_BLOCK.fullmatch(module)
    if found is None:
        return Place(module, 0)
    side, stack, block, layer = found.groups()
    return Place(f"{side or stack} {layer}", int(block))


def relative_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """``||a - b||`` over the mean of ``||a||`` and ``||b||``; 0 for two zeros."""
    mean = (float(a.norm()) + float(b.norm())) / 2
    return float((a - b).norm()) / mean if mean else 0.0


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of the angle between two vectors; NaN if one is zero."""
    norms = float(a.norm()) * float(b.norm())
    return float(a @ b) / norms if norms else math.nan


def _vector(module: nn.Module) -> torch.Tensor:
    """All parameters as one vector; double, since sums of squares of millions round."""
    return torch.cat([p.detach().double().cpu().flatten() for p in module.parameters()])


def _origin(
    name: str, expert: str, bank: ExpertBank, origin: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """What an expert was, in the order of `_vector`."""
    values = []
    for key, parameter in bank.experts[expert].named_parameters():
        own, dense = f"{name}.experts.{expert}.{key}", f"{name}.{key}"
        value = origin.get(own, origin.get(dense))
        if value is None:
            raise ModelError(f"the model to compare with has neither {own} nor {dense}")
        if value.shape != parameter.shape:
            raise ModelError(
                f"{own} is of shape {tuple(parameter.shape)}, and of {tuple(value.shape)} in the "
                "model to compare with"
            )
        values.append(value.detach().double().cpu().flatten())
    return torch.cat(values)


def _side(name: str, module: Any) -> Side | None:
    if module is None:
        return None
    blocks = getattr(module, SIDES[name], ())
    having = [
        (index, bank)
        for index, block in enumerate(blocks)
        for bank in block.modules()
        if isinstance(bank, ExpertBank)
    ]
    experts = dict.fromkeys(expert for _, bank in having for expert in bank.names)
    indices = dict.fromkeys(index for index, _ in having)
    return Side(name, type(module).__name__, len(blocks), tuple(experts), tuple(indices))


def _parts(model: nn.Module) -> tuple[Part, ...]:
    counts: dict[tuple[str, str | None], int] = {}
    for name, parameter in model.named_parameters():  # gives a shared parameter once
        expert = _EXPERT.search(name)
        key = (name.split(".")[0], expert[0].removeprefix(".experts.") if expert else None)
        counts[key] = counts.get(key, 0) + parameter.numel()
    return tuple(Part(part, expert, count) for (part, expert), count in counts.items())
