"""The command line: ``espnet-smoe extend`` and ``same``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def extend(args: argparse.Namespace) -> None:
    """Write a model with one expert more, and say how to train it."""
    from espnet_smoe.checkpoints import ModelError
    from espnet_smoe.extend import DECODER, ENCODER, NewExpert
    from espnet_smoe.extend import extend as write
    from espnet_smoe.new_tokens import parse_new_tokens

    side, patterns, name = ENCODER, (), args.encoder_expert
    if args.decoder_expert:
        side = DECODER
        name, equals, listed = args.decoder_expert.partition("=")
        patterns = tuple(listed.split(","))
        if not (name and equals and all(patterns)):
            raise ModelError(
                f"--decoder_expert {args.decoder_expert!r}: accepted is 'name=<token>' with the "
                "guiding tokens that the expert serves, such as 'deu=<st_deu>'; several with commas"
            )
    expert = NewExpert(
        side=side,
        name=name,
        source=args.source,
        patterns=patterns,
        new_tokens=parse_new_tokens(args.new_token or []),
        train_embedding=args.train_embedding,
    )
    files = write(args.model, args.out, expert, model_file=args.model_file, safe=args.safetensors)
    print(f"{files.weights}: expert {name} of the {side}, a copy of {args.source}")
    print(
        "train it, and nothing else: python -m espnet_smoe.run -m espnet2.bin.s2t_train --config "
        f"{files.config} --init_param {files.weights} --use_preprocessor true --output_dir "
        "EXP, and the data"
    )


def same(args: argparse.Namespace) -> None:
    """Print whether a model's old routes are what they were.

    Raises:
        ModelError: They are not; names what differs.
    """
    from tqdm import tqdm

    from espnet_smoe.audio import read_audio, resample
    from espnet_smoe.checkpoints import ModelError
    from espnet_smoe.datadir import read_table
    from espnet_smoe.pretrained import find_model, load
    from espnet_smoe.sameness import compare

    files: list[tuple[str, str]] = []
    for path in args.files:
        is_table = path.suffix == ".scp"
        files += read_table(path).items() if is_table else [(str(path), str(path))]
    files = files[: args.max_utts]
    old = load(find_model(args.old, model_file=args.old_file))
    new = load(find_model(args.new, model_file=args.new_file))
    fs = int(old.preprocessor_conf.get("fs", 16000))
    recordings = ((name, read_audio(file, utt=name)) for name, file in files)
    audio = ((name, resample(x, rate, fs).astype("float32")) for name, (x, rate) in recordings)
    with tqdm(total=len(files), unit="utt", mininterval=5.0) as bar:
        found = compare(old, new, audio, language=args.language, on_utterance=bar.update)
    print(f"{len(files)} utterances, routes {', '.join(found.routes)}")
    for kind, tally in found.tallies.items():
        print(f"{kind}: {tally}")
    if not found.all_same:
        raise ModelError("\n  ".join(["not the same:", *found.different]))


def add_extend(commands: Any) -> None:
    """The options of ``espnet-smoe extend`` and ``espnet-smoe same``."""
    command = commands.add_parser("extend", help="add an expert to a trained model")
    command.add_argument("--model", required=True, help="directory, packed model or hub tag")
    command.add_argument("--model_file", help="the checkpoint's name in the directory")
    command.add_argument("--out", type=Path, required=True, help="a new directory")
    side = command.add_mutually_exclusive_group(required=True)
    side.add_argument("--decoder_expert", help="its name and guiding tokens: 'deu=<st_deu>'")
    side.add_argument("--encoder_expert", help="its name, such as far; see model_conf.channels")
    command.add_argument(
        "--from", dest="source", required=True, help="the expert that it is a copy of"
    )
    command.add_argument(
        "--new_token",
        action="append",
        help="a token to add and the one that it starts as: '<st_deu>=<st_eng>'; may be repeated",
    )
    command.add_argument(
        "--train_embedding", action="store_true", help="train the rows of new tokens too"
    )
    command.add_argument("--safetensors", action="store_true", help="write that format too")
    command.set_defaults(run=extend)
    command = commands.add_parser("same", help="whether a changed model's old routes are the same")
    command.add_argument("old", help="the model as it was")
    command.add_argument("new", help="what became of it")
    command.add_argument("files", nargs="+", type=Path, help="audio, or tables such as wav.scp")
    command.add_argument("--old_file", help="the old checkpoint's name in its directory")
    command.add_argument("--new_file", help="the new checkpoint's name in its directory")
    command.add_argument("--language", help="the language spoken; default: the model's only one")
    command.add_argument("--max_utts", type=int, help="take the first of them only")
    command.set_defaults(run=same)
