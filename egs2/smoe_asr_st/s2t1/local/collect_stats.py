#!/usr/bin/env python3
"""Stage 10: ESPnet's own statistics, collected by several processes and summed up by ESPnet."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from jobs import Job, JobError, run_jobs, split
from options import UTT2CATEGORY, behind_dashes

from espnet_smoe.datadir import iter_table, publish_dir


def count_lines(paths: list[Path]) -> int:
    """Lines written so far."""
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train_dir", type=Path, required=True)
    parser.add_argument("--valid_dir", type=Path, required=True)
    parser.add_argument("--nj", type=int, default=2)
    parser.add_argument("--python", default="python3")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    options = behind_dashes(args.options)
    for directory in (args.train_dir, args.valid_dir):
        # With it ESPnet would collect one example at a time; stage 11 writes it again.
        (directory / UTT2CATEGORY).unlink(missing_ok=True)
    train, valid = (
        [utt for utt, _ in iter_table(directory / "wav.scp")]
        for directory in (args.train_dir, args.valid_dir)
    )
    nj = min(args.nj, len(train), len(valid))  # a part is some of both
    parts = list(zip(split(train, nj), split(valid, nj), strict=True))
    try:
        with publish_dir(args.out) as directory:
            jobs, shapes = [], []
            for index, (train_part, valid_part) in enumerate(parts, 1):
                part = directory / f"part.{index}"
                part.mkdir()
                for name, keys in (("train", train_part), ("valid", valid_part)):
                    lines = "".join(f"{key} x\n" for key in keys)
                    (part / f"{name}.keys").write_text(lines, encoding="utf-8")
                    shapes.append(part / name / "speech_shape")
                command = [
                    *args.python.split(),
                    *("-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_train"),
                    *("--collect_stats", "true", "--output_dir", str(part), *options),
                    *("--train_shape_file", str(part / "train.keys")),
                    *("--valid_shape_file", str(part / "valid.keys")),
                    *("--normalize", "none", "--batch_size", "20", "--num_workers", "0"),
                ]
                jobs.append(Job(command, part / "log"))
            run_jobs(
                jobs,
                nj=nj,
                total=len(train) + len(valid),
                done=lambda: count_lines(shapes),
                title="statistics",
                unit="example",
            )
            command = [*args.python.split(), "-m", "espnet2.bin.aggregate_stats_dirs"]
            for index in range(1, len(parts) + 1):
                command += ["--input_dir", str(directory / f"part.{index}")]
            subprocess.run([*command, "--output_dir", str(directory)], check=True)
    except (JobError, ValueError, subprocess.CalledProcessError) as error:
        print(f"collect_stats.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
