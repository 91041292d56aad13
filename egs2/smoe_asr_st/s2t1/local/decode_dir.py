"""Stage 12's directory, whichever program fills it: options, what is to decode, its tables.

    <out>/fingerprint                            of the model and all that the texts depend on
    <out>/<test set>/<task>/{text,score,utt2route}

and beside them the program's own notes on how far it has come.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from jobs import JobError
from make_examples import find_tasks
from options import behind_dashes

from espnet_smoe.datadir import DataError, publish_dir, read_table, write_table, write_text
from espnet_smoe.locator import ARK_ENTRY, parse_locator
from espnet_smoe.transcribe import digest

TRANSCRIBING = "asr"


@dataclass(frozen=True)
class TestSet:
    """What is to be decoded of a test set.

    Attributes:
        name: The set's.
        tasks: Those asked for, or with references.
        languages: The language of each utterance.
        audio: What its audio is known by: other audio, other figures.
    """

    name: str
    tasks: list[str]
    languages: dict[str, str]
    audio: dict[str, str]


def read_sets(examples: Path, names: list[str], tasks: list[str]) -> list[TestSet]:
    """Stage 4's test sets.

    Args:
        examples: Its directory.
        names: The sets.
        tasks: What to decode; empty: the tasks with references.
    """
    return [
        TestSet(
            name,
            tasks or list(find_tasks(examples / name)),
            read_table(examples / name / "utt2lang"),
            audio_sizes(examples / name / "wav.scp"),
        )
        for name in names
    ]


def audio_sizes(wav_scp: Path) -> dict[str, str]:
    """The file and its bytes of each utterance."""
    sizes = {}
    for utt, path in read_table(wav_scp).items():
        where = parse_locator(path)
        if where.is_command:  # its output is not known without running it
            sizes[utt] = path
        else:
            file = ARK_ENTRY.sub(".ark", where.source)
            sizes[utt] = f"{path} {os.stat(file).st_size}"
    return sizes


def fingerprint(args: argparse.Namespace, options: list[str], program: str) -> str:
    """What a text depends on besides its utterance's audio."""
    files = (args.s2t_dir / args.model, args.config, args.s2t_dir / "config.yaml")
    return digest(files, json.dumps([options, args.route_override, program]))


def prepare(out: Path, current: str) -> None:
    """Empty the directory unless it holds what was decoded with this fingerprint.

    Raises:
        DataError: It holds something else, and no fingerprint: it is not stage 12's.
    """
    mark = out / "fingerprint"
    if mark.exists():
        if mark.read_text(encoding="utf-8").strip() == current:
            return
        write_text(mark, "")  # to be emptied, also if this is killed meanwhile
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != mark:
                path.unlink()
    elif out.exists() and any(path.name != f"{mark.name}.partial" for path in out.iterdir()):
        raise DataError(
            f"{out} holds files but no fingerprint, so it is not stage 12's and is not emptied; "
            "accepted is another directory (--inference_tag)"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, current + "\n")


def inference_config(args: argparse.Namespace) -> dict[str, object]:
    """The options of ``--config``, ESPnet's."""
    return yaml.safe_load(args.config.read_text(encoding="utf-8")) or {}


def has_ctc(s2t_dir: Path) -> bool:
    """ESPnet's model has no CTC layer when it was trained without."""
    trained = yaml.safe_load((s2t_dir / "config.yaml").read_text(encoding="utf-8"))
    return trained.get("model_conf", {}).get("ctc_weight", 0.5) > 0.0


def write_results(out: Path, test_set: str, task: str, tables: dict[str, dict[str, str]]) -> None:
    """Write a test set's ``text``, ``score`` and ``utt2route`` for a task; empty ones are not."""
    with publish_dir(out / test_set / task) as directory:
        for name, table in tables.items():
            if table:
                write_table(directory / name, table)


def run(
    decode: Callable[[argparse.Namespace, list[str]], None], program: str, description: str | None
) -> int:
    """The main function of a decoding program; returns its exit status.

    Args:
        decode: What it does, given its options and the further inference options.
        program: Its name, for errors.
        description: What it is.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True)
    parser.add_argument("--tasks", default="", help="default: those with references")
    parser.add_argument("--s2t_dir", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--audio_type", default="sound", help="of ESPnet's program")
    parser.add_argument("--route_override", default="")
    parser.add_argument("--nj", type=int, default=2, help="processes of ESPnet's program")
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument("--python", default="python3", help="runs ESPnet's program")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- further inference options")
    args = parser.parse_args()
    try:
        decode(args, behind_dashes(args.options))
    except (JobError, ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
