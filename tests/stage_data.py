"""Data as stage 3 leaves it, and the recipe's programs called on it as functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
from recipe_copy import RECIPE

from espnet_smoe.datadir import write_table

sys.path.insert(0, str(RECIPE / "local"))

import make_examples  # noqa: E402
import plan_batches  # noqa: E402

UTTS = [f"u{number}" for number in range(4)]
TEST_UTTS = [f"t{number}" for number in range(4)]  # no test utterance occurs in training
SAMPLES = 8000  # of the shortest utterance; the others have twice, three and four times as many
CONFIG = "batch_bins: 64000\niterator_type: task"
TOKENS = ["<blank>", "<unk>", "<na>", "<spa>", "<asr>", "<st_eng>", "<notimestamps>"]
TOKENS += ["<0.00>", "<30.00>", "a", "<sop>", "<sos>", "<eos>"]


def make_raw(directory: Path) -> None:
    """Write raw/{train,valid,test} and a token list; the tables name files relative to it."""
    rng = np.random.default_rng(0)
    for name in ("train", "valid", "test"):
        utts = TEST_UTTS if name == "test" else UTTS
        sizes = {utt: SAMPLES * (number + 1) for number, utt in enumerate(utts)}
        folder = directory / "raw" / name
        (folder / "audio").mkdir(parents=True)
        for utt, size in sizes.items():
            samples = 0.1 * rng.standard_normal(size)
            soundfile.write(folder / "audio" / f"{utt}.flac", samples, 16000)
        write_table(folder / "wav.scp", {u: f"raw/{name}/audio/{u}.flac" for u in utts})
        write_table(folder / "text", {utt: f"hola {utt}" for utt in utts})
        write_table(folder / "text.st_eng", {utt: f"hello {utt}" for utt in utts})
        write_table(folder / "utt2lang", dict.fromkeys(utts, "spa"))
        write_table(folder / "utt2bw", dict(zip(utts, ("wb", "nb") * 2, strict=True)))
        write_table(folder / "utt2num_samples", sizes)
    (directory / "tokens.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")


def run_main(main: Callable[[], int], *options: object) -> int:
    """Call a program's main() with a command line; returns the exit status."""
    with mock.patch.object(sys, "argv", ["program", *map(str, options)]):
        return main()


def make_s2t(*options: object) -> int:
    """Stage 4."""
    sets = ("--train_sets", "train valid", "--test_sets", "test")
    return run_main(make_examples.main, "--raw", "raw", "--out", "s2t", *sets, *options)


def make_plan(config: str = CONFIG, *options: object) -> int:
    """Stage 6."""
    Path("train.yaml").write_text(config, encoding="utf-8")
    rest = ("--sets", "train valid", *options, "--", "--config", "train.yaml")
    return run_main(plan_batches.main, "--examples", "s2t", *rest)


def edit(path: Path, utt: str, value: str | None) -> None:
    """Replace the value of one line, or drop the line."""
    rows = [line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [(u, " ", value if u == utt else v) for u, _, v in rows if u != utt or value is not None]
    path.write_text("".join("".join(row) + "\n" for row in rows), encoding="utf-8")
