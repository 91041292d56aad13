#!/usr/bin/env python3
"""ASR and ST of a file in one call against two calls: what sharing the encoder's pass saves.

    python benchmarks/tasks_together.py [--tokens 40] [--json FILE]

A model of the paper's size with random weights; every hypothesis has `--tokens` tokens. One call
and two calls take turns on each file, and the ratio of their times is printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from pathlib import Path

import torch
from decode import CONF, FS, Clock, search_options, stock_decoder

from espnet_smoe import Speech2Text

TASKS = ["asr", "st_eng"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 4.0, 8.0, 12.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--ctc_weight", type=float, default=0.0)
    parser.add_argument("--vocabulary", type=int, default=40000)
    parser.add_argument("--config", type=Path, default=CONF)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        stock_decoder(args, Path(directory))
        files = Path(directory) / "config.yaml", Path(directory) / "model.pth"
        s2t = Speech2Text(*files, **search_options(args))
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
    if args.json:
        summary = {"threads": torch.get_num_threads(), "median": overall, "files": rows}
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
