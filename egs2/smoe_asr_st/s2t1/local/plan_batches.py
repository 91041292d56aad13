#!/usr/bin/env python3
"""Stage 6: plan the batches and print the share of each route."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from options import behind_dashes, setting, value_of
from rich.console import Console
from rich.table import Table

from espnet_smoe.batching import PLAN_NAME, plan_batches, route_shares, write_plan
from espnet_smoe.datadir import DataError, read_table, require_same_keys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True, help="training and validation sets")
    parser.add_argument("--min_batch_size", type=int, default=1, help="the number of DDP ranks")
    parser.add_argument("--mixed", choices=["true", "false"], default="false")
    parser.add_argument("--fs", type=int, default=16000)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    try:
        batch_bins = setting(behind_dashes(args.options), "batch_bins")
        if not isinstance(batch_bins, int):
            config = value_of(behind_dashes(args.options), "config")
            raise DataError(f"{config}: batch_bins is {batch_bins!r}; it takes samples")
        for name in args.sets.split():
            plan_set(args, args.examples / name, batch_bins)
    except ValueError as error:
        print(f"plan_batches.py: {error}", file=sys.stderr)
        return 1
    return 0


def plan_set(args: argparse.Namespace, directory: Path, batch_bins: int) -> None:
    """Write one set's plan and print its shares."""
    lengths = {u: int(n) for u, n in read_table(directory / "utt2num_samples").items()}
    tasks = read_table(directory / "utt2task")
    bandwidths = read_table(directory / "utt2bw")
    require_same_keys(lengths, bandwidths, names=("utt2num_samples", f"{directory}/utt2bw"))
    batches = plan_batches(
        lengths,
        tasks,
        batch_bins=batch_bins,
        bandwidths=bandwidths,
        min_batch_size=args.min_batch_size,
        mixed=args.mixed == "true",
    )
    write_plan(directory / PLAN_NAME, batches)
    real = sum(lengths.values())
    padded = sum(batch.samples for batch in batches)
    sizes = Counter(len(batch.utts) for batch in batches)
    table = Table(title=f"{directory}: {len(batches)} batches")
    for column in ("task", "bandwidth", "examples", "share"):
        table.add_column(column, justify="right" if column in ("examples", "share") else "left")
    for (task, bandwidth), share in route_shares(batches, tasks, bandwidths).items():
        table.add_row(task, bandwidth, str(round(share * len(lengths))), f"{share:.1%}")
    Console().print(table)
    print(
        f"{real / args.fs / 3600:.2f} h of audio, {1 - real / padded:.1%} padding, "
        f"{min(sizes)} to {max(sizes)} examples a batch"
    )


if __name__ == "__main__":
    sys.exit(main())
