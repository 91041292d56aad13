#!/usr/bin/env python3
"""Throughput and memory of stages 4, 6 and 7 against the number of utterances.

    python benchmarks/size.py --work DIR [--sizes "10000 100000 1000000"] [--json FILE]

Generates a training set as stage 3 leaves it (two tasks, so twice as many examples; the audio is
a few shared FLAC files, since nothing here is about decoding), runs each stage as the recipe
does, one after the other, and prints utterances per second and the peak resident memory of the
stage and its children. Remove DIR afterwards: a million utterances take about 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
LOCAL = ROOT / "egs2" / "smoe_asr_st" / "s2t1" / "local"
FILES = 50
RATE = 16000
CONFIG = "batch_bins: 16000000\niterator_type: task\nmodel_conf: {ctc_weight: 0.3}\n"
# Runs a program and says, in the last line, how long it took and how much memory it had.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"status": status, "seconds": time.perf_counter() - start, "peak_mib": peak}))
"""


def words(rng: random.Random, letters: str, count: int) -> list[str]:
    """Invented words of a language of its own."""
    return ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(count)]


def generate(directory: Path, size: int) -> None:
    """Write ``raw/train``, ``raw/test``, a token list and a config."""
    from espnet_smoe.audio import write_audio
    from espnet_smoe.tables import TableWriter

    rng = random.Random(size)
    audio = {}
    for name, count in (("train", FILES), ("test", 2)):
        for number in range(count):
            seconds = 1.0 + 4.0 * rng.random()
            noise = np.random.default_rng([number, count]).standard_normal(int(seconds * RATE))
            path = directory / "raw" / name / "audio" / f"{number}.flac"
            write_audio(path, (0.1 * noise).astype(np.float32), RATE)
            audio[name, number] = (path, len(noise))
    languages = (words(rng, "aeioulmnrs", 3000), words(rng, "aeiouhtkwdy", 3000))
    names = ["wav.scp", "text", "text.st_eng", "utt2lang", "utt2bw", "utt2spk", "utt2num_samples"]
    for name, count in (("train", size), ("test", 100)):
        tables = {n: TableWriter(directory / "raw" / name / n).__enter__() for n in names}
        for number in range(count):
            speaker = f"{name}{number // 200:06}"
            utt = f"{speaker}-{number:08}"
            path, samples = audio[name, number % (FILES if name == "train" else 2)]
            length = max(2, samples // RATE * 2)
            source, target = (" ".join(rng.choices(each, k=length)) for each in languages)
            values = (path, source, target, "spa", "wb" if number % 3 else "nb", speaker, samples)
            for table, value in zip(tables.values(), values, strict=True):
                table.write(utt, value)
        for table in tables.values():
            table.__exit__(None)
    tokens = ["<blank>", "<unk>", "<na>", "<spa>", "<asr>", "<st_eng>", "<notimestamps>"]
    (directory / "tokens.txt").write_text("\n".join([*tokens, "<sos>", "<eos>", ""]), "utf-8")
    (directory / "train.yaml").write_text(CONFIG, encoding="utf-8")


def measure(directory: Path, program: str, *options: str) -> dict[str, float]:
    """Run one stage program in a directory."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", MEASURE, sys.executable, str(LOCAL / program), *options]
    with (directory / f"{program}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=True,
        )
        log.write(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["status"] != 0:
        raise SystemExit(f"{program} failed: see {directory / program}.log")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a directory to fill")
    parser.add_argument("--sizes", default="10000 100000 1000000", help="utterances")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    behind = ("--", "--config", "train.yaml")
    stages = {
        "4 examples": (
            *("make_examples.py", "--raw", "raw", "--out", "s2t"),
            *("--train_sets", "train", "--test_sets", "test"),
        ),
        "6 batch plan": (
            *("plan_batches.py", "--examples", "s2t", "--sets", "train"),
            *("--route_temperature", "3", *behind),
        ),
        "7 check data": (
            *("check_data.py", "--examples", "s2t", "--sets", "train test"),
            *("--token_list", "tokens.txt", "--nj", "1", *behind),
        ),
    }
    figures = []
    print(f"{'utterances':>10}  {'stage':<13} {'seconds':>8} {'utt/s':>8} {'peak MiB':>9}")
    for size in map(int, args.sizes.split()):
        directory = args.work.resolve() / str(size)
        shutil.rmtree(directory, ignore_errors=True)
        started = time.perf_counter()
        generate(directory, size)
        print(f"{size:>10}  generated in {time.perf_counter() - started:.0f} s", flush=True)
        for stage, (program, *options) in stages.items():
            found = measure(directory, program, *options)
            rate = size / found["seconds"]
            figures.append({"utterances": size, "stage": stage, "per_second": rate, **found})
            print(
                f"{size:>10}  {stage:<13} {found['seconds']:8.1f} {rate:8.0f} "
                f"{found['peak_mib']:9.0f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
