"""What the study's experiment programs share: options, loading a model, writing the JSON.

An experiment runs on a trained model and writes one JSON. Several JSONs of one experiment (models,
seeds) become a section of text and pictures: `section(results)` and `plot(results, directory)`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import decode_dir

from espnet_smoe.datadir import write_text
from espnet_smoe.scoring import SEED


def get_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--s2t_dir", type=Path, required=True, help="the trained model's directory")
    parser.add_argument("--model_file", default="valid.acc.ave.pth")
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--sets", required=True, help="test sets, separated by spaces")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--tasks", default="", help="default: those with references in every set")
    parser.add_argument("--config", type=Path, default=Path("conf/decode.yaml"))
    parser.add_argument("--train_set", default="train", help="of --examples")
    parser.add_argument("--seed", type=int, default=SEED, help="of bootstrap and draws")
    parser.add_argument("--limit", type=int, help="first so many utterances of each set")
    return parser


def load_speech2text(args: argparse.Namespace) -> Any:
    """The model, decoding with the options of stage 12."""
    from espnet_smoe.transcribe import quietly

    options = decode_dir.inference_config(args)
    if not decode_dir.has_ctc(args.s2t_dir):
        options.pop("ctc_weight", None)
    with quietly():
        from espnet_smoe.inference import Speech2Text

        return Speech2Text.from_pretrained(args.s2t_dir, model_file=args.model_file, **options)


def load_model(args: argparse.Namespace, model_file: str | None = None) -> Any:
    """The model itself, in eval mode (`espnet_smoe.pretrained.Pretrained`).

    Args:
        args: The options.
        model_file: Another checkpoint than theirs.
    """
    from espnet_smoe.transcribe import quietly

    with quietly():
        import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
        from espnet_smoe.pretrained import find_model, load

        return load(find_model(args.s2t_dir, model_file=model_file or args.model_file))


def portable(word: str) -> str:
    """A word of a command line without directories that only this machine has."""
    if not os.path.isabs(word):
        return word
    path, here = Path(word), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def run(
    study: str,
    experiment: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Run an experiment and write its JSON; returns the exit status.

    Args:
        study: Its name, which the JSON holds.
        experiment: Gives the JSON's content.
        parser: Its options.
        argv: The command line; None: the process's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    try:
        found = experiment(args)
        head = {
            "study": study,
            "model": args.s2t_dir.name,
            "model_file": args.model_file,
            "sets": args.sets.split(),
            "command": shlex.join(["python", f"local/study_{study}.py", *map(portable, words)]),
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**head, **found}, indent=1, ensure_ascii=False)
        write_text(args.out, text + "\n")
    except (ValueError, OSError) as error:
        print(f"study_{study}.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: written")
    return 0
