#!/usr/bin/env python3
"""Stage 6: plan the batches, balance the routes, and print the share of each.

``--route_temperature`` raises the shares of small routes (task and bandwidth) of the training set
by repeating their examples. The table marks routes that starve, and those that have an expert in
the config but no example. With ESPnet's own samplers (``iterator_type`` other than ``task``) the
plan is not followed; ``iterator_type: category`` finds its ``category2utt`` here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from options import (
    CATEGORY2UTT,
    UTT2CATEGORY,
    behind_dashes,
    conf_value,
    iterator_type,
    setting,
    value_of,
)
from rich.console import Console
from rich.table import Table

from espnet_smoe.balance import (
    ROUTE_FLOOR,
    Route,
    narrowed,
    parse_temperature,
    repeats,
    shares,
    starving,
)
from espnet_smoe.batching import PLAN_NAME, Batch, as_batch, write_plan
from espnet_smoe.datadir import DataError, write_lines
from espnet_smoe.planner import Examples, Planned, plan


def expected_routes(options: list[str], examples: Examples) -> list[Route]:
    """The routes that the config has experts for: each task with each encoder expert.

    An expert of the decoder that no task of the data reaches stands for a task by its own name.
    """
    bands = conf_value(options, "encoder_conf", "experts") or examples.band_names
    experts = conf_value(options, "decoder_conf", "experts")
    tasks = set(examples.task_names)
    if isinstance(experts, dict):
        tokens = [f"<{task}>" for task in tasks]
        idle = {
            name
            for name, patterns in experts.items()
            if not any(fnmatchcase(token, str(p)) for token in tokens for p in patterns)
        }
        if len(idle) < len(experts):  # else they are experts of another axis
            tasks |= idle
    return [(task, str(band)) for task in sorted(tasks) for band in bands]


def plan_set(
    args: argparse.Namespace, directory: Path, options: list[str], *, training: bool
) -> None:
    """Write one set's plan and print its shares."""
    examples = Examples.read(directory)
    natural = examples.counts()
    prob = float(conf_value(options, "preprocessor_conf", "narrowband_prob") or 0.0)
    prob = prob if training else 0.0  # the preprocessor narrows in training only
    factors = dict.fromkeys(natural, 1.0)
    if training:
        factors = repeats(natural, temperature=args.route_temperature, narrowband_prob=prob)
    counts: dict[Route, int] = dict.fromkeys(natural, 0)
    totals = {"batches": 0, "real": 0, "padded": 0, "smallest": 1 << 62, "largest": 0}

    def batches() -> Iterator[Batch]:
        planned: Planned
        for planned in plan(
            examples,
            batch_bins=args.batch_bins,
            min_batch_size=args.min_batch_size,
            mixed=args.mixed == "true",
            repeats=factors,
        ):
            size = len(planned.members)
            totals["batches"] += 1
            totals["real"] += int(examples.lengths[planned.members].sum())
            totals["padded"] += planned.samples
            totals["smallest"] = min(totals["smallest"], size)
            totals["largest"] = max(totals["largest"], size)
            for route, number in examples.counts(planned.members).items():
                counts[route] += number
            yield as_batch(planned, examples)

    write_plan(directory / PLAN_NAME, batches())
    (directory / UTT2CATEGORY).unlink(missing_ok=True)  # stage 11 writes it, if asked for
    if iterator_type(options, training=training) == "category":
        write_categories(directory, examples)
    heard = shares(narrowed(counts, prob))
    expected = expected_routes(options, examples) if training else []
    low = starving(heard, args.route_floor, expected=expected) if training else {}
    table = Table(title=f"{directory}: {totals['batches']} batches")
    repeated = any(factor > 1.0 for factor in factors.values())
    columns = ["task", "bandwidth", "examples", *(["repeated"] if repeated else []), "share"]
    for column in [*columns, *(["floor"] if low else [])]:
        table.add_column(column, justify="left" if column in ("task", "bandwidth") else "right")
    for route in sorted({*natural, *heard, *low}):
        times = f"{factors[route]:.2f} x" if factors.get(route, 1.0) > 1.0 else ""
        mark = f"below {args.route_floor:.1%}" if route in low else ""
        row = [*route, str(natural.get(route, 0)), *([times] if repeated else [])]
        row += [f"{heard.get(route, 0.0):.1%}", *([mark] if low else [])]
        table.add_row(*row)
    Console().print(table)
    if prob:
        print(f"Shares after narrowing: {prob:.0%} of the wideband examples, on the fly")
    print(
        f"{totals['real'] / args.fs / 3600:.2f} h of audio, "
        f"{1 - totals['real'] / totals['padded']:.1%} padding, "
        f"{totals['smallest']} to {totals['largest']} examples a batch"
    )
    for (task, band), share in low.items():
        print(
            f"plan_batches.py: warning: route {task} {band} has {share:.2%} of the training "
            f"examples, below --route_floor {args.route_floor}; "
            + (
                "--route_temperature raises it"
                if share
                else "its experts would hear nothing of it: add such data, or take the expert out"
            ),
            file=sys.stderr,
        )


def write_categories(directory: Path, examples: Examples) -> None:
    """Write ``category2utt``, a line per route, for ESPnet's ``iterator_type: category``."""
    lines: dict[Route, list[str]] = {}
    for place in range(len(examples.ids)):
        route = (
            examples.task_names[examples.tasks[place]],
            examples.band_names[examples.bands[place]],
        )
        lines.setdefault(route, []).append(examples.ids[place])
    write_lines(
        directory / CATEGORY2UTT,
        (f"{'_'.join(route)} {' '.join(utts)}\n" for route, utts in sorted(lines.items())),
    )


def temperature(text: str) -> float:
    """Read --route_temperature."""
    try:
        return parse_temperature(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: 1 to inf") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True, help="training and validation sets")
    parser.add_argument("--train_set", default="train", help="which of them is balanced")
    parser.add_argument("--min_batch_size", type=int, default=1, help="the number of DDP ranks")
    parser.add_argument("--mixed", choices=["true", "false"], default="false")
    parser.add_argument("--route_temperature", type=temperature, default=1.0)
    parser.add_argument("--route_floor", type=float, default=ROUTE_FLOOR)
    parser.add_argument("--fs", type=int, default=16000)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    options = behind_dashes(args.options)
    try:
        args.batch_bins = setting(options, "batch_bins")
        if not isinstance(args.batch_bins, int):
            raise DataError(
                f"{value_of(options, 'config')}: batch_bins is {args.batch_bins!r}; it takes "
                "samples"
            )
        for name in args.sets.split():
            plan_set(args, args.examples / name, options, training=name == args.train_set)
    except ValueError as error:
        print(f"plan_batches.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
