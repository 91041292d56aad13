#!/usr/bin/env python3
"""ASR and ST of a file in one call against two calls: what sharing the encoder's pass saves.

    python benchmarks/tasks_together.py [--tokens 40] [--json FILE]

A model of the paper's size with random weights; every hypothesis has `--tokens` tokens. One call
and two calls take turns on each file, and the ratio of their times is printed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from pathlib import Path

import torch
from decode import Clock
from paper_size import FS, add_options, ours, write_json, write_model

TASKS = ["asr", "st_eng"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 4.0, 8.0, 12.0])
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        s2t = ours(args, write_model(args, Path(directory)))
    generator = torch.Generator().manual_seed(1)
    rows = []
    for seconds in args.seconds:
        x = torch.randn(int(seconds * FS), generator=generator) * 0.1
        s2t(x, tasks=TASKS)  # warm up
        ratios = []
        for turn in range(args.rounds):
            together, apart = Clock(), Clock()
            for is_first in (turn % 2 == 0, turn % 2 == 1):
                if is_first:
                    together(lambda x=x: s2t(x, tasks=TASKS))
                else:
                    apart(lambda x=x: [s2t(x, tasks=task) for task in TASKS])
            ratios.append(together.seconds / apart.seconds)
        rows.append({"seconds": seconds, "ratio": statistics.median(ratios), "ratios": ratios})
        print(
            f"{seconds:4.0f} s: one call costs {rows[-1]['ratio']:.2f} of two "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
    overall = statistics.median(r for row in rows for r in row["ratios"])
    print(f"median of all: {overall:.2f} ({torch.get_num_threads()} threads)")
    write_json(args, {"threads": torch.get_num_threads(), "median": overall, "files": rows})


if __name__ == "__main__":
    main()
