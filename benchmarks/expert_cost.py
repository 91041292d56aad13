#!/usr/bin/env python3
"""What a bank of experts costs against the dense feed-forward it replaces.

Alternates dense, one route and mixed routes in one process and prints the median of the ratios:

    python benchmarks/expert_cost.py [--rounds 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from espnet2.asr.encoder.transformer_encoder import PositionwiseFeedForward

from espnet_smoe.experts import ExpertFeedForward
from espnet_smoe.routing import Route

SHAPES = {"encoder, 16 x 10 s": (16, 250, 512, 2048), "one utterance, 10 s": (1, 250, 512, 2048)}


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call, with the device's work done."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(shape: tuple[int, int, int, int], rounds: int) -> dict[str, list[float]]:
    """Ratios bank / dense of a forward and backward pass, one per round and kind of batch."""
    n_utts, frames, dim, hidden = shape
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dense = PositionwiseFeedForward(dim, hidden, 0.0).to(device)
    bank = ExpertFeedForward(dense, names=["wb", "nb"]).to(device)
    x = torch.randn(n_utts, frames, dim, device=device, requires_grad=True)
    routes = {"one route": ["wb"] * n_utts}
    if n_utts > 1:
        routes["mixed"] = ["wb", "nb"] * (n_utts // 2)

    def step(module: torch.nn.Module) -> None:
        module(x).sum().backward()

    ratios: dict[str, list[float]] = {name: [] for name in routes}
    for round_ in range(rounds + 3):
        for name, names in routes.items():
            bank.set_route(Route.of(names, device))
            order = [dense, bank] if round_ % 2 else [bank, dense]
            times = {id(module): seconds(lambda m=module: step(m)) for module in order}
            if round_ >= 3:  # the first rounds warm up
                ratios[name].append(times[id(bank)] / times[id(dense)])
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    for label, shape in SHAPES.items():
        for name, ratios in measure(shape, args.rounds).items():
            quartiles = statistics.quantiles(ratios, n=4)
            results.append(
                {
                    "case": label,
                    "batch": name,
                    "median_ratio": statistics.median(ratios),
                    "quartiles": [quartiles[0], quartiles[2]],
                    "rounds": len(ratios),
                }
            )
            print(
                f"{label:22s} {name:10s} bank / dense = {statistics.median(ratios):.3f} "
                f"(quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}, {len(ratios)} rounds)"
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
