"""``espnet-smoe export``: routes of an S-MoE model as stock ESPnet models.

Imports what it needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_smoe.dense_routes import Experts
    from espnet_smoe.export import Exporter

PACKED = ".zip"


def export(args: argparse.Namespace) -> None:
    """Write one route, or all of them.

    Raises:
        ModelError: Says what is wrong with the model, the choice or the place.
    """
    from espnet_smoe.checkpoints import ModelError
    from espnet_smoe.dense_routes import choose_route, every_route
    from espnet_smoe.export import Exporter
    from espnet_smoe.model_files import require_new
    from espnet_smoe.pretrained import ARCHIVES, find_model, load

    out: Path = args.out
    if args.all and (args.bandwidth or args.task):
        raise ModelError("all writes every route; accepted beside it is no bandwidth and no task")
    if args.safetensors and (args.pack or out.name.endswith(ARCHIVES)):
        raise ModelError("a packed model holds one checkpoint; accepted: pack or safetensors")
    if args.all and out.name.endswith(ARCHIVES):
        raise ModelError(f"out is {str(out)!r}; accepted with all: a directory")
    require_new(out)
    loaded = load(find_model(args.model, model_file=args.model_file))
    model = loaded.model
    routes = every_route(model) if args.all else [choose_route(model, args.bandwidth, args.task)]
    exporter = Exporter(loaded, speech_length=args.speech_length)
    for experts in routes:
        place = out
        if args.pack and not out.name.endswith(ARCHIVES):
            place = out / f"{experts.name}{PACKED}"
        elif args.all:
            place = out / experts.name
        measured = _measured(exporter, experts, args) if args.audio else ""
        written = exporter.write(experts, place, safe=args.safetensors, measured=measured)
        count = sum(p.numel() for p in exporter.stock.parameters())
        total = sum(p.numel() for p in model.parameters())
        print(f"{written}: route {experts.name}, {count:,} of {total:,} parameters", flush=True)
        if measured:
            print(f"  {measured}", flush=True)
    print(f"Padding: {exporter.padding}.")
    if not args.audio:
        print("What padding costs is measured with --audio.")
    if exporter.ctc:
        print(f"CTC: {exporter.ctc}.")


def _measured(exporter: Exporter, experts: Experts, args: argparse.Namespace) -> str:
    """What padding costs a route on the user's recordings, as a sentence."""
    from espnet_smoe.inputs import find_recordings
    from espnet_smoe.padding_cost import padding_cost
    from espnet_smoe.vocabulary import Vocabulary

    exporter.weights(experts)  # into the stock model
    vocabulary = Vocabulary(
        exporter.smoe.token_list, exporter.tokenizer, exporter.preprocessor_conf
    )
    guiding = exporter.serves(experts)
    tasks = [token for token in guiding if token in vocabulary.tasks] or vocabulary.tasks
    languages = [token for token in guiding if token in vocabulary.languages]
    named = args.language or (languages[0] if languages else None)
    length = exporter.speech_length if exporter.speech_length > 0 else exporter.trained_length
    cost = padding_cost(
        exporter.stock,
        vocabulary,
        vocabulary.prompt(vocabulary.language(named), tasks[0]),
        [recording.source for recording in find_recordings(args.audio)],
        fs=exporter.fs,
        seconds=length,
    )
    return f"Measured with prompt {tasks[0]}: {cost}."


def add_export(commands: Any) -> None:
    """The options of ``espnet-smoe export``."""
    command = commands.add_parser("export", help="a route as a stock ESPnet model, without plugin")
    command.add_argument("--model", required=True, help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument("--bandwidth", help="the encoder's expert: wb, nb, or another name")
    command.add_argument(
        "--task", help="the decoder's: a guiding token (asr, st_eng, ...) or an expert's name"
    )
    command.add_argument("--all", action="store_true", help="every route, in OUT/<route>")
    command.add_argument(
        "--out", type=Path, required=True, help="new directory, or a packed model (.zip, .tgz)"
    )
    command.add_argument(
        "--pack", action="store_true", help="packed models: OUT/<route>.zip (ESPnet's program)"
    )
    command.add_argument(
        "--safetensors", action="store_true", help="write model.safetensors beside model.pth"
    )
    command.add_argument(
        "--speech_length",
        type=float,
        help="seconds to which stock ESPnet pads or cuts (negative: neither); default: neither for "
        "a model that was trained unpadded, else the model's",
    )
    command.add_argument(
        "--audio", nargs="+", metavar="FILE", help="recordings on which padding's cost is measured"
    )
    command.add_argument("--language", help="spoken in them; default: the model's only one")
    command.set_defaults(run=export)
