"""The command line: ``espnet-smoe transcribe``, ``bandwidth``, ``params`` and others.

Imports what a command needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_smoe.cli_export import add_export
from espnet_smoe.cli_extend import add_extend
from espnet_smoe.cli_inspect import add_average, add_inspect
from espnet_smoe.cli_onnx import add_onnx
from espnet_smoe.cli_upcycle import add_upcycle

FRAME_TOKENS = ("<blank>", "<unk>")
END_TOKENS = ("<sos>", "<eos>")
# Options of `espnet_smoe.Speech2Text` that have their own names here.
TRANSCRIBE_OPTIONS = (
    *(
        "bandwidth",
        "ambiguous",
        "channels",
        "max_length",
        "pause",
        "beam_size",
        "ctc_weight",
        "nbest",
    ),
    *("batch_size", "device", "dtype"),
)


def placeholder_tokens(size: int, decoder_conf: dict[str, Any]) -> list[str]:
    """A token list of a given size that has a guiding token for every expert of a config.

    Args:
        size: Number of tokens.
        decoder_conf: The config's; its ``experts`` say which guiding tokens there are.

    Raises:
        ValueError: `size` is too small.
    """
    from espnet_smoe.decoder import TASK_EXPERTS

    experts = decoder_conf.get("experts")
    if not isinstance(experts, dict):  # no token picks an expert
        experts = TASK_EXPERTS
    guides = [p.replace("*", "x").replace("?", "x") for ps in experts.values() for p in ps]
    special = ["<na>", *guides, "<notimestamps>", "<0.00>", "<30.00>", "<sop>"]
    room = size - len(special) - len(FRAME_TOKENS) - len(END_TOKENS)
    if room < 0:
        raise ValueError(f"--vocab_size {size} is too small; accepted: from {size - room}")
    return [*FRAME_TOKENS, *special, *(f"token{i}" for i in range(room)), *END_TOKENS]


def params(args: argparse.Namespace) -> None:
    """Print total and active parameters of a training config."""
    from espnet2.tasks.s2t import S2TTask
    from rich.console import Console
    from rich.table import Table

    from espnet_smoe.experts import param_counts

    options = S2TTask.get_parser().parse_args(["--config", str(args.config), *args.options])
    if args.token_list:
        options.token_list = str(args.token_list)
    else:
        options.token_list = placeholder_tokens(args.vocab_size, options.decoder_conf)
    options.normalize, options.normalize_conf = None, {}  # its statistics hold no parameters
    model = S2TTask.build_model(options)
    with_ctc = param_counts(model)
    ctc = sum(p.numel() for p in model.ctc.parameters()) if model.ctc is not None else 0
    table = Table(title=f"{args.config}: {len(model.token_list)} tokens")
    table.add_column("parameters")
    table.add_column("without CTC layer", justify="right")
    table.add_column("with it", justify="right")
    rows = [("total", with_ctc.total)]
    rows += [(f"active on {route}", count) for route, count in with_ctc.active.items()]
    for name, count in rows:
        table.add_row(name, *(f"{n / 1e6:.1f} M ({n:,})" for n in (count - ctc, count)))
    Console(width=100).print(table)


def bandwidth(args: argparse.Namespace) -> None:
    """Print the measured bandwidth of audio files, a line each, or a line per segment.

    Raises:
        AudioError: Names every file that cannot be read, after the others are measured.
    """
    from espnet_smoe.audio import AudioError, read_audio
    from espnet_smoe.bandwidth import BandwidthError, BandwidthEstimate, measure
    from espnet_smoe.bandwidth_segments import measure_segments
    from espnet_smoe.datadir import read_table

    files: list[tuple[str, str]] = []
    for path in args.files:
        is_table = path.suffix == ".scp"
        files += read_table(path).items() if is_table else [(str(path), str(path))]
    span = ["start", "end"] if args.segments else []
    print("\t".join(["name", *span, "rate", "label", "edge", "confidence", "reason"]))
    unusable = []
    found: list[tuple[list[str], BandwidthEstimate]]
    for name, file in files:
        try:
            x, rate = read_audio(file)
            if args.segments:
                segments = measure_segments(x, rate)
                found = [([f"{s.start:.2f}", f"{s.end:.2f}"], s.estimate) for s in segments]
            else:
                found = [([], measure(x, rate))]
        except (AudioError, BandwidthError) as error:
            unusable.append(f"{name}: {error}")
            continue
        for times, e in found:
            cells = [str(rate), e.label, f"{e.edge_hz:.0f}", f"{e.confidence:.4f}", e.reason]
            print("\t".join([name, *times, *cells]))
    if unusable:
        raise AudioError("\n  ".join([f"{len(unusable)} of {len(files)} unusable:", *unusable]))


def transcribe(args: argparse.Namespace) -> None:
    """Transcribe and translate recordings.

    Raises:
        TranscriptionError: Names every recording that failed, after the others are done.
    """
    from espnet_smoe.allocator import keep_freed_memory
    from espnet_smoe.transcribe import transcribe

    keep_freed_memory()
    options = {name: getattr(args, name) for name in TRANSCRIBE_OPTIONS}
    transcribe(
        args.files,
        model=args.model,
        model_file=args.model_file,
        tasks=args.task or ["asr"],
        kind=args.format,
        out=args.out,
        overwrite=args.overwrite,
        lang_sym=args.language,
        predict_time=args.timestamps or None,
        **options,
    )


def channels(text: str) -> int | str:
    """The value of ``--channels``."""
    return int(text) if text.isdigit() else text


def add_transcribe(commands: Any) -> None:
    """The options of ``espnet-smoe transcribe``."""
    command = commands.add_parser("transcribe", help="recordings to text, with any tasks")
    command.add_argument("files", nargs="+", help="audio, directories, or tables such as wav.scp")
    command.add_argument("--model", required=True, help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument("--task", action="append", help="asr, st_eng, ...; may be repeated")
    command.add_argument("--language", help="the language spoken; default: the model's only one")
    command.add_argument("--format", default="txt", help="txt, json, srt, vtt or trn")
    command.add_argument("--out", type=Path, help="directory for a file per recording")
    command.add_argument(
        "--overwrite", action="store_true", help="replace files that hold something else"
    )
    command.add_argument("--timestamps", action="store_true", help="have the model write them")
    command.add_argument("--bandwidth", help="auto (measured), wb or nb")
    command.add_argument("--ambiguous", help="where that cannot be told: measured, wb or blend")
    command.add_argument("--channels", type=channels, help="a number from 1, each or mix")
    command.add_argument(
        "--max_length", type=float, help="longest stretch decoded at once, seconds"
    )
    command.add_argument(
        "--pause", type=float, help="seconds without speech at which longer audio is cut anyway"
    )
    command.add_argument("--beam_size", type=int)
    command.add_argument("--ctc_weight", type=float, help="of CTC, where a task transcribes")
    command.add_argument("--nbest", type=int)
    command.add_argument("--batch_size", type=int, help="recordings x tasks searched together")
    command.add_argument("--device", help="cpu, cuda, ...")
    command.add_argument("--dtype", help="float32, bfloat16 or float16")
    command.set_defaults(run=transcribe)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr, exit status 1."""
    parser = argparse.ArgumentParser(prog="espnet-smoe", description="Supervised MoE for ESPnet")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("params", help="total and active parameters of a config")
    command.add_argument("config", type=Path, help="training YAML")
    size = command.add_mutually_exclusive_group(required=True)
    size.add_argument("--vocab_size", type=int, help="number of tokens")
    size.add_argument("--token_list", type=Path, help="tokens.txt of stage 5")
    command.epilog = "Further options are ESPnet's training options, over the YAML's."
    command.set_defaults(run=params)
    command = commands.add_parser("bandwidth", help="measured bandwidth of audio files")
    command.add_argument("files", nargs="+", type=Path, help="audio, or tables such as wav.scp")
    command.add_argument(
        "--segments", action="store_true", help="a line for every stretch of one bandwidth"
    )
    command.set_defaults(run=bandwidth)
    add_transcribe(commands)
    add_export(commands)
    add_inspect(commands)
    add_average(commands)
    add_onnx(commands)
    add_upcycle(commands)
    add_extend(commands)
    args, further = parser.parse_known_args(argv)
    if further and args.run is not params:
        parser.error(f"unknown options: {' '.join(further)}")
    args.options = further
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"espnet-smoe {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"espnet-smoe {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
