"""``espnet-smoe upcycle``: a dense ESPnet model becomes an S-MoE model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def upcycle(args: argparse.Namespace) -> None:
    """Make the model and print what became of the dense one's parameters."""
    from rich.console import Console
    from rich.table import Table

    from espnet_smoe.new_tokens import parse_new_tokens
    from espnet_smoe.upcycle import upcycle

    new_tokens = parse_new_tokens(args.new_token)
    done = upcycle(
        args.model,
        args.out,
        config=args.config,
        new_tokens=new_tokens,
        drop=args.drop,
        model_file=args.model_file,
        safe=args.safetensors,
    )
    table = Table(title="parameters and buffers")
    table.add_column("")
    for side in ("dense", "S-MoE"):
        for column in ("tensors", "values"):
            table.add_column(f"{side}: {column}", justify="right")
    rows = [
        (s.what, s.dense_tensors, s.dense_values, s.smoe_tensors, s.smoe_values)
        for s in done.shares
    ]
    for what, *numbers in rows:
        table.add_row(what, *(f"{n:,}" for n in numbers))
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    table.add_section()
    table.add_row("all", *(f"{n:,}" for n in totals))
    console = Console(width=100)
    console.print(table)
    for route, difference in done.differences.items():
        print(f"route {route}: largest difference from the dense model {difference.absolute:.1e}")
    for token in done.tokens.new:
        number = done.tokens.token_list.index(token)
        print(f"new token {token}: number {number}, initialised from {new_tokens[token]}")
    directory = done.files.config.parent
    print(f"wrote {directory}; training goes on from it with")
    print(f"  --config {done.files.config} --init_param {done.files.weights}")


def add_upcycle(commands: Any) -> None:
    """The options of ``espnet-smoe upcycle``."""
    command = commands.add_parser("upcycle", help="a dense ESPnet model to an S-MoE model")
    command.add_argument("--model", required=True, help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument(
        "--config",
        type=Path,
        help="training YAML with experts; what it leaves out is the dense model's. default: "
        "experts wb and nb in the encoder, asr and st in the decoder",
    )
    command.add_argument("--out", type=Path, required=True, help="directory to write")
    command.add_argument(
        "--new_token",
        nargs="+",
        action="extend",
        default=[],
        metavar="NEW=OLD",
        help="new special tokens, each initialised from an old one: '<st_deu>=<st_eng>'",
    )
    command.add_argument(
        "--drop",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="parameters that may be left out, as shell patterns",
    )
    command.add_argument("--safetensors", action="store_true", help="model.safetensors too")
    command.set_defaults(run=upcycle)
