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

RESULT = re.compile(r"(\d+)epoch results: ")
OPTION = "--max_epoch"


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
        for path in directory.glob("*.pth"):
            path.unlink()
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


def max_epoch(options: list[str]) -> int:
    """The last epoch that the options ask for; later options win, as in ESPnet."""
    config = yaml.safe_load(Path(options[options.index("--config") + 1]).read_text("utf-8"))
    values = [options[i + 1] for i, option in enumerate(options[:-1]) if option == OPTION]
    values += [o.partition("=")[2] for o in options if o.startswith(OPTION + "=")]
    return int(values[-1] if values else config.get("max_epoch", 40))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    options = args.options[1:] if args.options[:1] == ["--"] else args.options
    args.out.mkdir(parents=True, exist_ok=True)
    repair_after_kill(args.out)
    log = args.out / "train.log"

    def epochs_done() -> int:
        found = RESULT.findall(log.read_text(encoding="utf-8", errors="replace"))
        return int(found[-1]) if found else 0

    command = [
        *args.python.split(),
        *("-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_train", "--resume", "true"),
        *("--output_dir", str(args.out), *options),
    ]
    job = Job(command, log, append=True)
    try:
        run_jobs(
            [job], nj=1, total=max_epoch(options), done=epochs_done, title="train", unit="epoch"
        )
    except JobError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
