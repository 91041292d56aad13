#!/usr/bin/env python3
"""Copy a training set of stage 4, giving a share of it wrong or missing labels.

    python local/label_noise.py --source dump/s2t/train --out dump/s2t/train_bw10 --seed 1 \\
        --bandwidth_wrong 0.1

What the labels are: the bandwidth is the integer of the table ``bandwidth``, which picks the
encoder's expert; the task is the token in the prompt of ``text``, which picks the decoder's.

- A *wrong* bandwidth is the other one. A *missing* one becomes `FALLBACK`: a column of integers
  cannot say "none", and where all are missing the package measures the audio, which loses nothing
  worth studying (the meter's error rate is known). So a missing label changes nothing for
  wideband speech and is a wrong one for narrowband speech. A recording has one bandwidth: all of
  its examples get the same.
- A *wrong* task token is that of another task of the set, before the unchanged text. A *missing*
  one is left out of the prompt, which needs ``decoder_conf.default_expert``. Tasks are drawn per
  example.

The first so many of a random order are wrong and the next ones missing. So with one seed a larger
share holds the smaller one's utterances, and wrong and missing labels hit the same ones. The true
``utt2bw`` and ``utt2task`` stay, and so does the batch plan: what is wrong is the label, not the
batch, whose one task and mixed bandwidths are those of the training that it is compared with.
(The model routes each example of a batch by its own labels.)
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.batching import PLAN_NAME
from espnet_smoe.datadir import DataError, publish_dir, read_table, require_same_keys, write_table

FALLBACK = "wb"  # the encoder's expert where the bandwidth is not known
NOTES = "label_noise"  # a line per corrupted example, in the copy
WRONG, MISSING = "wrong", "missing"
SHARES = ("bandwidth_wrong", "bandwidth_missing", "task_wrong", "task_missing")
CHANGED = ("bandwidth", "text")  # the tables that differ; the others are links


def corrupt_examples(
    source: Path,
    out: Path,
    *,
    seed: int,
    bandwidth_wrong: float = 0.0,
    bandwidth_missing: float = 0.0,
    task_wrong: float = 0.0,
    task_missing: float = 0.0,
) -> dict[str, int]:
    """Make the copy.

    Args:
        source: A training or validation set of stage 4; stage 6's plan and anything else beside
            the tables are linked.
        out: The copy; what stood there is replaced at the end.
        seed: Of the draws.
        bandwidth_wrong: Share of the recordings, 0 to 1.
        bandwidth_missing: Likewise; both together at most 1.
        task_wrong: Share of the examples, 0 to 1.
        task_missing: Likewise.

    Returns:
        How many: ``utterances``, ``examples``, ``bandwidth_wrong`` and ``bandwidth_missing``
        (utterances), ``task_wrong`` and ``task_missing`` (examples), and how many examples have
        another ``bandwidth`` or ``text`` than before (``bandwidth_changed``, ``text_changed``).

    Raises:
        DataError: Shares that are none, one task only where it is to be wrong, a prompt without
            its task token, or a set that cannot be read.
    """
    for pair in (
        {SHARES[0]: bandwidth_wrong, SHARES[1]: bandwidth_missing},
        {SHARES[2]: task_wrong, SHARES[3]: task_missing},
    ):
        if min(pair.values()) < 0.0 or sum(pair.values()) > 1.0:
            shown = ", ".join(f"{name} {share}" for name, share in pair.items())
            raise DataError(f"{shown}; accepted: 0 to 1, and no more than 1 together")
    if source.resolve() == out.resolve():
        raise DataError(f"{out} is the source itself; accepted: another directory")
    tables = {n: read_table(source / n) for n in ("utt2task", "text", "bandwidth")}
    tasks = tables["utt2task"]
    for name in CHANGED:
        require_same_keys(tasks, tables[name], names=("utt2task", name))
    spoken = {example: example.removesuffix(f"_{task}") for example, task in tasks.items()}
    band_of = _drawn(sorted(set(spoken.values())), bandwidth_wrong, bandwidth_missing, [seed, 0])
    task_of = _drawn(sorted(tasks), task_wrong, task_missing, [seed, 1])
    band_noise = {e: band_of[utt] for e, utt in spoken.items() if utt in band_of}
    texts = _texts(source, tables["text"], tasks, task_of, seed)
    bands = {e: _band(source, e, v, band_noise.get(e)) for e, v in tables["bandwidth"].items()}
    notes = {
        e: " ".join(
            f"{kind}={noise[e]}"
            for kind, noise in (("bandwidth", band_noise), ("task", task_of))
            if e in noise
        )
        for e in {*band_noise, *task_of}
    }
    with publish_dir(out) as partial:
        for path in sorted(source.iterdir()):
            if path.name not in (*CHANGED, NOTES) and path.is_file():
                _link(path, partial / path.name)
        write_table(partial / "text", texts)
        write_table(partial / "bandwidth", bands)
        write_table(partial / NOTES, notes)
    return {
        "utterances": len(set(spoken.values())),
        "examples": len(tasks),
        **{f"bandwidth_{kind}": _count(band_of, kind) for kind in (WRONG, MISSING)},
        **{f"task_{kind}": _count(task_of, kind) for kind in (WRONG, MISSING)},
        **{
            f"{name}_changed": sum(new[e] != tables[name][e] for e in tasks)
            for name, new in (("bandwidth", bands), ("text", texts))
        },
    }


def _link(path: Path, target: Path) -> None:
    """Have the same file under another name, or a copy of it on another file system.

    Hard links, since the source may be removed. The recipe replaces whole files and never writes
    into one, so neither name sees what happens to the other. The plan is copied all the same: it
    is what one would edit.
    """
    if path.name != PLAN_NAME:
        try:
            os.link(path.resolve(), target)
            return
        except OSError:
            pass
    shutil.copyfile(path, target)


def _drawn(names: Sequence[str], wrong: float, missing: float, seed: list[int]) -> dict[str, str]:
    """Which of the names are wrong and which are missing."""
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    n_wrong = round(wrong * len(names))
    n_both = n_wrong + round(missing * len(names))
    return {
        names[place]: WRONG if rank < n_wrong else MISSING
        for rank, place in enumerate(order[:n_both])
    }


def _count(drawn: dict[str, str], kind: str) -> int:
    return sum(value == kind for value in drawn.values())


def _band(source: Path, example: str, value: str, noise: str | None) -> str:
    """The ``bandwidth`` of an example."""
    if not value.isdecimal() or int(value) >= len(BANDWIDTHS):
        accepted = ", ".join(f"{i} ({name})" for i, name in enumerate(BANDWIDTHS))
        raise DataError(f"{source}/bandwidth: {example!r} has {value!r}; accepted: {accepted}")
    if noise == MISSING:
        return str(BANDWIDTHS.index(FALLBACK))
    return value if noise is None else str(1 - int(value))


def _texts(
    source: Path, texts: dict[str, str], tasks: dict[str, str], noise: dict[str, str], seed: int
) -> dict[str, str]:
    """The ``text`` of every example."""
    known = sorted(set(tasks.values()))
    if len(known) < 2 and WRONG in noise.values():
        raise DataError(f"{source}: its only task is {known[0]}, so none can be wrong")
    rng = np.random.default_rng([seed, 2])
    changed = dict(texts)
    for example in sorted(noise):
        token = f"<{tasks[example]}>"
        match = re.fullmatch(rf"(<[^<>\s]+>){re.escape(token)}(.*)", texts[example], re.DOTALL)
        if match is None:
            raise DataError(
                f"{source}/text: {example!r} has {texts[example]!r}; accepted: a text that starts "
                f"with its language and {token}, as stage 4 writes it"
            )
        others = [task for task in known if task != tasks[example]]
        other = f"<{others[rng.integers(len(others))]}>" if noise[example] == WRONG else ""
        changed[example] = f"{match[1]}{other}{match[2]}"
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="a training set of stage 4")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    for name in SHARES:
        parser.add_argument(f"--{name}", type=float, default=0.0, help="0 to 1")
    args = parser.parse_args(argv)
    try:
        found = corrupt_examples(**vars(args))
    except (ValueError, OSError) as error:
        print(f"label_noise.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: " + ", ".join(f"{name} {count}" for name, count in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
