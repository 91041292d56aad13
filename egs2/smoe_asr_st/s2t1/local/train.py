#!/usr/bin/env python3
"""Stage 11: ESPnet's own training program, resumed where it stopped, with its progress shown."""

from __future__ import annotations

import argparse
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml
from jobs import Job, JobError, run_jobs
from options import (
    UTT2CATEGORY,
    behind_dashes,
    conf_value,
    config_of,
    data_dir,
    iterator_type,
    setting,
    value_of,
)

from espnet_smoe.datadir import DataError, write_text

RESULT = re.compile(r"(\d+)epoch results: ")
# What a checkpoint cannot be continued with when it differs.
SHAPE = "frontend encoder postencoder decoder model"


def is_whole(path: Path) -> bool:
    """Is a file that torch.save wrote complete?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def repair_after_kill(directory: Path) -> None:
    """Make what a killed training left behind resumable.

    ESPnet writes ``checkpoint.pth``, then ``<n>epoch.pth``, neither atomically, then the links to
    the latest and the best model. A broken checkpoint means starting over; a checkpoint without
    its epoch's model or links gets them back.
    """
    checkpoint = directory / "checkpoint.pth"
    if not checkpoint.exists():
        return
    if not is_whole(checkpoint):
        print(f"train.py: {checkpoint} is incomplete (killed while written): starting over")
        print(f"train.py: the models so far are kept in {directory / 'before_restart'}")
        aside = directory / "before_restart"
        aside.mkdir(exist_ok=True)
        for path in directory.glob("*.pth"):
            os.replace(path, aside / path.name)
        return
    import torch

    import espnet_smoe  # noqa: F401

    # The reporter inside is a Python object; the file is this stage's own.
    states = torch.load(checkpoint, map_location="cpu", weights_only=False)
    model = directory / f"{states['reporter']['epoch']}epoch.pth"
    if not is_whole(model):
        print(f"train.py: {model} is missing or incomplete: taken from the checkpoint")
        partial = model.with_name(model.name + ".partial")
        torch.save(states["model"], partial)
        os.replace(partial, model)
    relink(directory, states["reporter"])


def relink(directory: Path, reporter_state: dict[str, Any]) -> None:
    """Point ``latest.pth`` and ``<phase>.<key>.best.pth`` where ESPnet would have."""
    from espnet2.train.reporter import Reporter

    reporter = Reporter()
    reporter.load_state_dict(reporter_state)
    links = {"latest.pth": reporter.get_epoch()}
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    for phase, key, mode in config["best_model_criterion"]:
        if reporter.has(phase, key):
            links[f"{phase}.{key}.best.pth"] = reporter.get_best_epoch(phase, key, mode)
    for name, epoch in links.items():
        partial = directory / f"{name}.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(f"{epoch}epoch.pth")
        os.replace(partial, directory / name)


def require_same_model(directory: Path, options: list[str]) -> None:
    """Refuse to resume a model of other tokens or another architecture.

    ESPnet would load what fits, and decode old weights with new tokens.

    Raises:
        DataError: Names what differs and the way out.
    """
    saved_path = directory / "config.yaml"
    if not (directory / "checkpoint.pth").exists() or not saved_path.exists():
        return
    saved = yaml.safe_load(saved_path.read_text(encoding="utf-8"))
    with Path(value_of(options, "token_list") or "").open(encoding="utf-8") as file:
        tokens = [line.rstrip() for line in file]  # as ESPnet reads them
    differs = [] if saved["token_list"] == tokens else ["the token list"]
    config = config_of(options)
    for name in [key for part in SHAPE.split() for key in (part, f"{part}_conf")]:
        if name in config and value_of(options, name) is None and saved.get(name) != config[name]:
            differs.append(name)
    if differs:
        raise DataError(
            f"{directory} holds a model trained with another {', '.join(differs)}: give this one "
            "a name of its own (--s2t_tag), or remove the directory"
        )


def for_espnets_samplers(options: list[str]) -> list[str]:
    """What ESPnet's own samplers need beside ``iterator_type: task``'s plan.

    Writes ``utt2category`` (the task), by which ``batch_type: folded`` makes batches of one task;
    during stage 10 it would force batches of one example.

    Returns:
        Further options: the lengths that stage 10 measured, where none are given.
    """
    further: list[str] = []
    stats = conf_value(options, "normalize_conf", "stats_file")
    for part in ("train", "valid"):
        directory = data_dir(options, part)
        if directory is None:
            continue
        kind = iterator_type(options, training=part == "train")
        folded = setting(options, "batch_type", "folded")
        if part == "valid":
            folded = setting(options, "valid_batch_type") or folded
        if kind == "sequence" and folded == "folded":
            write_text(
                directory / UTT2CATEGORY, (directory / "utt2task").read_text(encoding="utf-8")
            )
        else:
            (directory / UTT2CATEGORY).unlink(missing_ok=True)
        name = f"{part}_shape_file"
        if kind != "task" and stats and not (value_of(options, name) or setting(options, name)):
            shape = Path(stats).parent.parent / part / "speech_shape"
            further += [f"--{name}", str(shape)]
    return further


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    options = behind_dashes(args.options)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "train.log"

    def epochs_done() -> int:
        found = RESULT.findall(log.read_text(encoding="utf-8", errors="replace"))
        return int(found[-1]) if found else 0

    command = [
        *args.python.split(),
        *("-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_train", "--resume", "true"),
        *("--output_dir", str(args.out), *options, *for_espnets_samplers(options)),
    ]
    job = Job(command, log, append=True)
    total = int(setting(options, "max_epoch", 40))
    try:
        require_same_model(args.out, options)
        repair_after_kill(args.out)
        run_jobs([job], nj=1, total=total, done=epochs_done, title="train", unit="epoch")
    except (JobError, DataError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
