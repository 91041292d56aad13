"""Blends: rows of a batch that several experts share, each with a weight of its own.

The paper's routes are hard (Eqs. 2 and 3, arXiv:2508.10009). A blend is for an utterance whose
bandwidth is in doubt: every bank then mixes the outputs of its experts by the same shares.

Shape letters: N rows that blend, n of them in which an expert has a share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

BLEND = "blend"  # stands for the name of an expert where a row has several
SHARE_TOLERANCE = 1e-3  # by which shares may miss the sum 1


@dataclass(frozen=True)
class Blend:
    """One expert's part in the rows that blend.

    Attributes:
        expert: Its name.
        rows: The rows of the batch that it has a share in, int64 (n,).
        places: Their places among all N rows that blend, int64 (n,).
        share: Its share of each, float32 (n,).
    """

    expert: str
    rows: torch.Tensor
    places: torch.Tensor
    share: torch.Tensor


def blends_of(rows: Mapping[int, Mapping[str, float]], device: torch.device) -> tuple[Blend, ...]:
    """Turn shares by row, ``{row: {expert: share}}``, into shares by expert."""
    parts: dict[str, list[tuple[int, int, float]]] = {}
    for place, (row, shares) in enumerate(rows.items()):
        for name, share in shares.items():
            parts.setdefault(name, []).append((row, place, share))
    return tuple(
        Blend(
            name,
            torch.tensor([row for row, _, _ in part], device=device),
            torch.tensor([place for _, place, _ in part], device=device),
            torch.tensor([share for _, _, share in part], dtype=torch.float32, device=device),
        )
        for name, part in parts.items()
    )


def checked_shares(shares: Mapping[str, float], names: Sequence[str]) -> str | dict[str, float]:
    """Check and normalise the shares of a row.

    Args:
        shares: ``{expert: share}``, with a sum of 1.
        names: The experts there are.

    Returns:
        The shares above 0, with a sum of 1 but for rounding; of a single one its name.

    Raises:
        ValueError: An unknown expert, a share that is no number from 0 on, another sum.
    """
    kept: dict[str, float] = {}
    for name, share in shares.items():
        if name not in names:
            raise ValueError(
                f"shares {dict(shares)}: {name!r} has no expert (known: {', '.join(names)})"
            )
        try:
            value = float(share)
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(
                f"shares {dict(shares)}: that of {name} is {share!r}; accepted: finite numbers "
                "from 0 on, with a sum of 1"
            )
        if value > 0.0:
            kept[name] = value
    total = sum(kept.values())
    if not abs(total - 1.0) <= SHARE_TOLERANCE:
        raise ValueError(
            f"shares {dict(shares)} sum to {total:g}; accepted: finite numbers from 0 on, with a "
            "sum of 1"
        )
    if len(kept) == 1:
        return next(iter(kept))
    return {name: value / total for name, value in kept.items()}
