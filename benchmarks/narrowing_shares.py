#!/usr/bin/env python3
"""Whether training hears the routes in the shares that stage 6 announced, narrowing on the fly.

    python benchmarks/narrowing_shares.py --work DIR [--epochs 7]

Trains the tests' tiny model on the built-in corpus, a fifth of it narrowband already, with
``narrowband_prob: 0.5``. The trainer's own watch counts the utterances of each route after
narrowing, a thousand steps at a time. Exits with 1 when a share is off by a percent or more.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from recipe_copy import copy_recipe, run  # noqa: E402

ANNOUNCED = re.compile(r"│ (\w+) +│ (nb|wb) +│ +\d+ │ +([\d.]+)% │")
COUNTED = re.compile(r"route (\w+) had ([\d.]+)% of the utterances")
EXPERTS = {"asr": "asr", "st_eng": "st"}  # the decoder's expert of each task
TOLERANCE = 1.0  # percent of all utterances


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="an empty directory")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=7)
    args = parser.parse_args()
    recipe = copy_recipe(args.work.resolve() / "recipe")
    settings = "--preprocessor_conf narrowband_prob=0.5 --model_conf route_floor=0.999"
    options = [
        *("--mini_size", str(args.sentences), "--s2t_config", "conf/train_tiny.yaml"),
        *("--telephone_share", "0.2", "--nbpe", "350"),
        *("--s2t_args", f"{settings} --max_epoch {args.epochs}"),
    ]
    done = run(recipe, "--stop_stage", "11", *options)
    if done.returncode != 0:
        print(done.stdout)
        return 1
    text = done.stdout[done.stdout.index("Stage 6") :]
    announced = {f"{EXPERTS[t]}_{b}": float(v) for t, b, v in ANNOUNCED.findall(text)[:4]}
    log = (recipe / "exp/mini/s2t_train_tiny/train.log").read_text(encoding="utf-8")
    counted: dict[str, list[float]] = {}
    for route, share in COUNTED.findall(log):
        counted.setdefault(route, []).append(float(share))
    print("route   announced  counted  windows of 1000 steps")
    worst = 0.0
    for route, share in announced.items():
        mean = sum(counted[route]) / len(counted[route])
        worst = max(worst, abs(mean - share))
        print(f"{route:7} {share:8.2f} % {mean:6.2f} %  {counted[route]}")
    print(f"largest difference {worst:.2f} %")
    return int(worst >= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
