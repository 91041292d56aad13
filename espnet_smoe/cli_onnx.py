"""The command ``espnet-smoe onnx``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def onnx(args: argparse.Namespace) -> None:
    """Write a dense model as ONNX.

    Raises:
        ModelError: It cannot be read, has a part that ONNX cannot hold, or DIR holds something.
    """
    from espnet_smoe.onnx_export import export_onnx
    from espnet_smoe.pretrained import find_model, load

    loaded = load(find_model(args.model, model_file=args.model_file))
    difference = export_onnx(loaded, args.out)
    print(f"{args.out}: onnxruntime differs from PyTorch by at most {difference:.2g}")


def add_onnx(commands: Any) -> None:
    """The options of ``espnet-smoe onnx``."""
    command = commands.add_parser(
        "onnx", help="a dense model (an exported route) as encoder.onnx and decoder.onnx"
    )
    command.add_argument("--model", required=True, help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument("--out", type=Path, required=True, help="directory to write")
    command.set_defaults(run=onnx)
