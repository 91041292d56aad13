"""The commands ``espnet-smoe inspect`` and ``espnet-smoe average``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

WIDTH = 100  # columns


def inspect(args: argparse.Namespace) -> None:
    """Print what a model is made of, and what differs from another.

    Raises:
        ModelError: A model cannot be read, or a file to write exists.
    """
    from rich.console import Console

    from espnet_smoe.checkpoints import ModelError, read_weights
    from espnet_smoe.inspect_model import inspect_model
    from espnet_smoe.inspect_report import (
        check_free,
        check_picture,
        draw,
        print_diff,
        print_inspection,
        write_json,
    )
    from espnet_smoe.model_diff import diff_weights
    from espnet_smoe.pretrained import find_model, load

    if args.picture is not None:
        check_picture(args.picture)
    if args.json is not None:
        check_free(args.json)
    if args.against_file is not None and args.against is None:
        raise ModelError("--against_file names a checkpoint of --against, which is not given")
    console = Console(width=WIDTH)
    files = find_model(args.model, model_file=args.model_file)
    assert files.weights is not None
    diff = origin = None
    second = ""
    if args.against is not None:
        against = find_model(args.against, model_file=args.against_file)
        assert against.weights is not None
        origin, second = read_weights(against.weights), str(against.weights)
        diff = diff_weights(read_weights(files.weights), origin)
    model = load(files).model
    note = ""
    try:
        found = inspect_model(model, origin)
    except ModelError as error:  # another architecture; the difference lists what is unequal
        note = f"no distances from --against: {error}"
        found = inspect_model(model)
    print_inspection(found, str(args.model), console)
    if note:
        console.print(note)
    if diff is not None:
        print_diff(diff, str(files.weights), second, console)
    if args.json is not None:
        write_json(args.json, found, diff)
    if args.picture is not None:
        draw(found, args.picture, title=str(args.model))


def average(args: argparse.Namespace) -> None:
    """Write the mean of a model's checkpoints.

    Raises:
        ModelError: They are of different models, do not fit the config, or the file exists.
    """
    from espnet_smoe.averaging import average_checkpoints
    from espnet_smoe.checkpoints import SUFFIXES, ModelError, fit_weights, write_weights
    from espnet_smoe.inspect_report import check_free
    from espnet_smoe.pretrained import ModelFiles, load

    if args.out.suffix not in SUFFIXES:
        raise ModelError(
            f"--out {str(args.out)!r}: accepted are names that end in {', '.join(SUFFIXES)}"
        )
    check_free(args.out)
    within = [args.model / name for name in args.checkpoints]
    paths = [
        inside if inside.is_file() else name
        for inside, name in zip(within, args.checkpoints, strict=True)
    ]
    mean = average_checkpoints(paths)
    config = args.model / "config.yaml"
    fit_weights(load(ModelFiles(config, paths[0])).model, mean, origin="the average")
    write_weights(mean, args.out)
    print(f"{args.out}: mean of {', '.join(map(str, paths))}")


def add_inspect(commands: Any) -> None:
    """The options of ``espnet-smoe inspect``."""
    command = commands.add_parser(
        "inspect", help="a model's layers, experts, sizes, and how far its experts have drifted"
    )
    command.add_argument("model", help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument(
        "--against", help="another model: what differs; if this one was trained from it, how far"
    )
    command.add_argument("--against_file", help="the checkpoint's name in that directory")
    command.add_argument("--picture", type=Path, help="heat map of the experts' distances, .png")
    command.add_argument("--json", type=Path, help="file for all of the numbers")
    command.set_defaults(run=inspect)


def add_average(commands: Any) -> None:
    """The options of ``espnet-smoe average``."""
    command = commands.add_parser("average", help="mean of several checkpoints")
    command.add_argument("model", type=Path, help="directory with config.yaml and checkpoints")
    command.add_argument(
        "--checkpoints", type=Path, nargs="+", required=True, help="names there, or paths"
    )
    command.add_argument(
        "--out", type=Path, required=True, help="file to write, .pth or .safetensors"
    )
    command.set_defaults(run=average)
