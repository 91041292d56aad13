"""The mean of several checkpoints of one training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from espnet_smoe.checkpoints import ModelError, read_weights

COUNTER = "num_batches_tracked"  # BatchNorm's


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """Average checkpoints, as ESPnet does with the best ones of a training.

    Floating-point tensors are averaged in double precision. BatchNorm's counters are added up, as
    by `espnet2.main_funcs.average_nbest_models`; other tensors must be equal.

    Args:
        paths: Two or more checkpoints; one is in memory at a time.

    Returns:
        The tensors by name, of the first one's dtypes.

    Raises:
        ModelError: Fewer than two, one named twice, one that cannot be read, or that has other
            names, shapes or constants than the first.
    """
    files = [Path(path) for path in paths]
    if len({path.resolve() for path in files}) != len(files) or len(files) < 2:
        raise ModelError(
            f"checkpoints to average: {', '.join(map(str, files)) or 'none'}; accepted are two or "
            "more different ones"
        )
    first = read_weights(files[0])
    total = {name: _summand(value) for name, value in first.items()}
    for path in files[1:]:
        weights = read_weights(path)
        _check_same(files[0], first, path, weights)
        for name, value in weights.items():
            if value.is_floating_point() or name.endswith(COUNTER):
                total[name] += value
            elif not torch.equal(value, first[name]):
                raise ModelError(
                    f"{name} differs between {str(files[0])!r} and {str(path)!r}, and "
                    f"{_kind(value)} is not averaged; accepted are equal ones"
                )
    return {
        name: (value / len(files)).to(first[name].dtype) if value.is_floating_point() else value
        for name, value in total.items()
    }


def _summand(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value.clone()


def _check_same(
    first_path: Path,
    first: dict[str, torch.Tensor],
    path: Path,
    weights: dict[str, torch.Tensor],
) -> None:
    """Raises ModelError that names every tensor that only one has, or that differs in shape."""
    faults = [f"{name} is in {str(first_path)!r} alone" for name in first if name not in weights]
    faults += [f"{name} is in {str(path)!r} alone" for name in weights if name not in first]
    for name, value in weights.items():
        if name in first and _kind(value) != _kind(first[name]):
            faults.append(
                f"{name} is {_kind(first[name])} in {str(first_path)!r} and {_kind(value)} in "
                f"{str(path)!r}"
            )
    if faults:
        raise ModelError("\n  ".join(["these checkpoints cannot be averaged:", *faults]))


def _kind(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
