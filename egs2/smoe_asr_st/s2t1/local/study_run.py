#!/usr/bin/env python3
"""One run of the study: train, decode, score (run.sh's stages 11 to 13), then its JSON.

``study.py`` writes the job and starts this; a restart goes on where it stopped. Training is
resumed from ESPnet's checkpoint, decoding from its journal. Nothing is trained if the directory
holds a run of another identity.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from study_collect import collect
from study_places import differences
from study_results import write_result

from espnet_smoe.datadir import DataError, write_text

STEPS = ("train", "decode", "score")
IDENTITY = "study.json"  # in the model's directory: whose it is
TIMES = "study_times.json"


def claim(s2t_dir: Path, identity: dict[str, Any], other_commits: bool) -> None:
    """Take a model's directory for a run.

    Raises:
        DataError: It holds another run's. Names what differs.
    """
    path = s2t_dir / IDENTITY
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differs = differences(found, identity)
        if other_commits:
            differs = [line for line in differs if not line.startswith("commit ")]
        if differs:
            raise DataError(
                f"{s2t_dir} holds a run that was begun with other settings (its / this run's): "
                f"{'; '.join(differs)}. Remove it to train anew"
            )
        return
    if (s2t_dir / "checkpoint.pth").exists():
        raise DataError(f"{s2t_dir} holds a training that is not the study's; remove it")
    s2t_dir.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(identity) + "\n")


def timed(step: str, command: list[str], s2t_dir: Path) -> None:
    """Run a step, and add up its seconds over its attempts.

    Raises:
        DataError: It failed.
    """
    path = s2t_dir / TIMES
    times = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    mine = times.setdefault(step, {"attempts": 0, "seconds": 0.0})
    mine["attempts"] += 1  # noted before: a killed one leaves no seconds
    write_text(path, json.dumps(times) + "\n")
    start = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    mine["seconds"] += time.monotonic() - start
    write_text(path, json.dumps(times) + "\n")
    if code != 0:
        raise DataError(f"{step}: exit status {code}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="written by study.py")
    parser.add_argument("--other_commits", choices=["refuse", "accept"], default="refuse")
    args = parser.parse_args()
    job = json.loads(args.job.read_text(encoding="utf-8"))
    s2t_dir = Path(job["s2t_dir"])
    try:
        claim(s2t_dir, job["identity"], args.other_commits == "accept")
        for step in STEPS:
            timed(step, job["commands"][step], s2t_dir)
        times = json.loads((s2t_dir / TIMES).read_text(encoding="utf-8"))
        write_result(Path(job["out"]), collect(job, times))
    except (DataError, OSError) as error:
        print(f"study_run.py: {error}", file=sys.stderr)
        return 1
    print(f"{job['out']}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
