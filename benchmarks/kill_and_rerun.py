#!/usr/bin/env python3
"""Kill each stage of the recipe half-way, run it again, and compare the final scores.

    python benchmarks/kill_and_rerun.py --work DIR [--whole_group false]

Runs stages 1 to 13 twice, on a tiny built-in corpus: once undisturbed, and once with every stage
sent SIGKILL at a random moment of the time that it took before, then run again. With
``--whole_group false`` only run.sh itself is killed, as an impatient `kill -9 PID` does. Exits
with 1 if a score, or a text or its log-probability, differs, or if most stages had ended before
their kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from recipe_copy import copy_recipe, environment  # noqa: E402

from espnet_smoe.datadir import read_table  # noqa: E402

OPTIONS = [
    *("--mini_size", "200", "--corpus_args", "--valid_size 8 --test_size 10", "--nbpe", "350"),
    *("--s2t_config", "conf/train_tiny.yaml", "--inference_args", "--beam_size 2"),
]
DECODED = "exp/mini/s2t_train_tiny/decode_valid.acc.ave"
COMPARED = ("results.json", "test_*/*/text", "test_*/*/utt2route")
SCORES = "test_*/*/score"
SCORE_TOLERANCE = 1e-3  # what is decoded in other company is summed in another order
MIN_HITS = 10  # stages that must have been running when their kill came
STAGES = range(1, 14)
TRIES = 3
SETTLE_SECONDS = 2.0  # for the children of a killed run.sh to end


def start(recipe: Path, stage: int, log: Path) -> subprocess.Popen[bytes]:
    """Start one stage in a process group of its own."""
    numbers = ["--stage", str(stage), "--stop_stage", str(stage)]
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(recipe / "run.sh"), *numbers, *OPTIONS],
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,
        )


def finish(recipe: Path, stage: int, log: Path) -> float:
    """Run one stage to its end; returns its seconds."""
    began = time.monotonic()
    code = start(recipe, stage, log).wait()
    if code != 0:
        raise SystemExit(f"stage {stage} ended with {code}; see {log}")
    return time.monotonic() - began


def kill_half_way(recipe: Path, stage: int, log: Path, after: float, *, whole_group: bool) -> bool:
    """Start a stage and kill it after some seconds; False if it had ended by then."""
    process = start(recipe, stage, log)
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        time.sleep(SETTLE_SECONDS)
        return True


def contents(decoded: Path) -> dict[str, bytes]:
    """The files that must not differ, with their bytes."""
    paths = [path for pattern in COMPARED for path in decoded.glob(pattern)]
    return {str(path.relative_to(decoded)): path.read_bytes() for path in paths}


def scores_differ(one: Path, other: Path) -> list[str]:
    """The tables of log-probabilities that are not the same."""
    names = {str(path.relative_to(top)) for top in (one, other) for path in top.glob(SCORES)}
    different = []
    for name in sorted(names):
        first, second = (read_table(top / name) for top in (one, other))
        same = first.keys() == second.keys() and all(
            abs(float(first[utt]) - float(second[utt])) <= SCORE_TOLERANCE for utt in first
        )
        if not same:
            different.append(name)
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a directory that is not there")
    parser.add_argument("--whole_group", choices=["true", "false"], default="true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    work, rng = args.work.absolute(), random.Random(args.seed)
    whole = copy_recipe(work / "undisturbed" / "smoe" / "s2t1")
    killed = copy_recipe(work / "killed" / "smoe" / "s2t1")
    seconds = {stage: finish(whole, stage, work / "undisturbed.log") for stage in STAGES}
    log = work / "killed.log"
    hits = 0
    for stage in STAGES:
        after = rng.uniform(0.1, 0.9) * seconds[stage]
        for _ in range(TRIES):  # a stage may be faster than before
            hit = kill_half_way(killed, stage, log, after, whole_group=args.whole_group == "true")
            if hit:
                break
            after /= 2
        hits += hit
        finish(killed, stage, log)
        done = f"killed after {after:.1f} s" if hit else f"had ended within {after:.1f} s"
        print(f"stage {stage:2d} ({seconds[stage]:5.1f} s): {done}, run again", flush=True)
    before, after_kills = contents(whole / DECODED), contents(killed / DECODED)
    equal = before == after_kills and not scores_differ(whole / DECODED, killed / DECODED)
    same = equal and hits >= MIN_HITS
    verdict = "equal" if equal else "DIFFERENT"
    print(f"{hits} stages killed; {len(before)} files of scores and texts: {verdict}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
