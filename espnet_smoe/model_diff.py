"""What differs between two checkpoints, module by module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from espnet_smoe.inspect_model import relative_distance


@dataclass(frozen=True)
class ModuleChange:
    """A module that both checkpoints have.

    Attributes:
        module: Such as ``encoder.encoders.3.self_attn``.
        tensors: How many floating-point tensors it has.
        equal: How many of them are equal bit for bit.
        distance: ``||a - b||`` over the mean of ``||a||`` and ``||b||``, all tensors as one vector.
        largest: The largest absolute difference of two numbers.
    """

    module: str
    tensors: int
    equal: int
    distance: float
    largest: float


@dataclass(frozen=True)
class ShapeChange:
    """A tensor whose shape or kind differs, so that it cannot be compared.

    Attributes:
        name: The tensor's.
        first: Its shape and dtype in the first checkpoint.
        second: In the second.
    """

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class WeightsDiff:
    """Two checkpoints compared; every tensor of either is in one of these.

    Attributes:
        modules: Floating-point tensors of equal shapes, by module, in the first one's order.
        counters: Tensors of integers (BatchNorm's counters) that differ: name, first, second.
        equal_counters: How many tensors of integers are equal.
        shapes: Tensors of unequal shapes.
        only_first: Names that the second lacks.
        only_second: Names that the first lacks.
    """

    modules: tuple[ModuleChange, ...]
    counters: tuple[tuple[str, str, str], ...]
    equal_counters: int
    shapes: tuple[ShapeChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def diff_weights(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
) -> WeightsDiff:
    """Compare two checkpoints' weights by name."""
    groups: dict[str, list[str]] = {}
    counters: list[tuple[str, str, str]] = []
    shapes: list[ShapeChange] = []
    equal_counters = 0
    for name, value in first.items():
        if name not in second:
            continue
        other = second[name]
        if value.shape != other.shape or value.is_floating_point() != other.is_floating_point():
            shapes.append(ShapeChange(name, _kind(value), _kind(other)))
        elif value.is_floating_point():
            groups.setdefault(module_of(name), []).append(name)
        elif torch.equal(value, other):
            equal_counters += 1
        else:
            counters.append((name, _brief(value), _brief(other)))
    modules = tuple(_change(module, names, first, second) for module, names in groups.items())
    return WeightsDiff(
        modules,
        tuple(counters),
        equal_counters,
        tuple(shapes),
        tuple(name for name in first if name not in second),
        tuple(name for name in second if name not in first),
    )


def module_of(name: str) -> str:
    """The module under which a tensor is counted: a block's layer, and an expert apart.

    ``encoder.encoders.3.self_attn.linear_q.weight`` counts under ``encoder.encoders.3.self_attn``,
    what is in no block under what holds it.
    """
    parts = name.split(".")
    end = next((i + 2 for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    if "experts" in parts[end:-1]:
        end = parts.index("experts", end) + 2
    return ".".join(parts[: min(end, len(parts) - 1)]) or name


def _change(
    module: str,
    names: Sequence[str],
    first: Mapping[str, torch.Tensor],
    second: Mapping[str, torch.Tensor],
) -> ModuleChange:
    a = torch.cat([first[name].detach().double().flatten() for name in names])
    b = torch.cat([second[name].detach().double().flatten() for name in names])
    equal = sum(torch.equal(first[name], second[name]) for name in names)
    largest = float((a - b).abs().max()) if a.numel() else 0.0
    return ModuleChange(module, len(names), equal, relative_distance(a, b), largest)


def _kind(value: torch.Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _brief(value: torch.Tensor) -> str:
    return str(value.item()) if value.numel() == 1 else f"{value.numel()} values"
