#!/usr/bin/env python3
"""Whether a dask cluster gives what processes of this machine give, also when a worker dies.

    python benchmarks/dask_cluster.py --work DIR [--sentences 1000]

Runs the stages that read audio (2, 3, 7) on the built-in corpus three times: with ``--nj 2``, on a
cluster of two workers, and on such a cluster with one of them sent SIGKILL in the middle of
stage 2's copies and of stage 3. Exits with 1 if a file that was written differs by a byte.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from recipe_copy import copy_recipe, environment  # noqa: E402

STAGES = range(2, 8)
MIDWAY = {2: "dump/mini/telephone/train.partial", 3: "dump/mini/raw/train.partial/audio"}
POLL_SECONDS = 0.02


def start(command: list[str], recipe: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a program in the recipe's directory."""
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=recipe, stdout=file, stderr=file, env=environment())


def fingerprint(directory: Path) -> dict[str, str]:
    """SHA-256 of every file but pictures (which hold the time they were drawn at)."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".png"
    }


class Cluster:
    """A scheduler and two workers, each a process of this machine without a nanny."""

    def __init__(self, recipe: Path, work: Path) -> None:
        self.recipe, self.log = recipe, work / "dask.log"
        self.file = work / f"scheduler.{time.time_ns()}.json"
        dask = [sys.executable, "-m", "dask"]
        address = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        options = [*address, "--scheduler-file", str(self.file)]
        self.scheduler = start([*dask, "scheduler", *options], recipe, self.log)
        while not self.file.exists():
            time.sleep(POLL_SECONDS)
        self.workers = [self.add_worker() for _ in range(2)]

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of one thread."""
        command = [sys.executable, "-m", "dask", "worker", "--scheduler-file", str(self.file)]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        return start([*command, *options], self.recipe, self.log)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def run_stages(recipe: Path, log: Path, size: list[str], cluster: Cluster | None, kill: bool):
    """Run the stages one by one; with `kill`, a worker dies midway in those of `MIDWAY`."""
    for stage in STAGES:
        numbers = ["--stage", str(stage), "--stop_stage", str(stage)]
        engine = ["--dask", str(cluster.file)] if cluster else ["--nj", "2"]
        began = time.monotonic()
        running = start([str(recipe / "run.sh"), *numbers, *size, *engine], recipe, log)
        if kill and cluster and stage in MIDWAY:
            half = int(size[1]) // (4 if stage == 2 else 2)
            folder = recipe / MIDWAY[stage]
            while running.poll() is None and not (
                folder.exists() and sum(1 for _ in folder.iterdir()) >= half
            ):
                time.sleep(POLL_SECONDS)
            if running.poll() is not None:
                raise SystemExit(f"stage {stage} ended before its worker could be killed")
            cluster.workers[0].send_signal(signal.SIGKILL)
            print(f"  stage {stage}: worker killed after {half} files", flush=True)
        if running.wait() != 0:
            raise SystemExit(f"stage {stage} ended with {running.returncode}; see {log}")
        print(f"  stage {stage}: {time.monotonic() - began:.1f} s", flush=True)
        if kill and cluster and stage in MIDWAY:
            cluster.workers[0].wait()
            cluster.workers[0] = cluster.add_worker()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="an empty directory")
    parser.add_argument("--sentences", type=int, default=1000)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True)
    recipe = copy_recipe(work / "recipe")
    log = work / "stages.log"
    size = ["--mini_size", str(args.sentences)]
    if start([str(recipe / "run.sh"), "--stop_stage", "1", *size], recipe, log).wait() != 0:
        raise SystemExit(f"stage 1 failed; see {log}")
    found = {}
    for name in ("--nj 2", "two workers", "two workers, one killed"):
        print(name, flush=True)
        cluster = None if name.startswith("--nj") else Cluster(recipe, work)
        try:
            run_stages(recipe, log, size, cluster, "killed" in name)
        finally:
            if cluster:
                cluster.close()
        (recipe / "dump").rename(work / f"dump.{len(found)}")
        found[name] = fingerprint(work / f"dump.{len(found)}")
    reference = found["--nj 2"]
    differing = 0
    for name, files in found.items():
        differs = {
            file
            for file in files.keys() | reference.keys()
            if files.get(file) != reference.get(file)
        }
        print(f"{name}: {len(files)} files, {len(differs)} differ {sorted(differs)[:5]}")
        differing += len(differs)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
