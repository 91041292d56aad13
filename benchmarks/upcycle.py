#!/usr/bin/env python3
"""Upcycling a trained dense model: what each route computes, and where training then starts.

Run in the recipe directory after stage 11 of a dense model (`conf/train_base.yaml`, say):

    python ../../../benchmarks/upcycle.py --dense exp/mini/s2t_dense_conformer \
        --config conf/train_mini.yaml --examples dump/mini/s2t --test_sets "test_wb test_nb" \
        --work DIR

Upcycles it, compares every route with the dense model on every test utterance, and trains with
ESPnet's trainer, same config, seed and batches: the dense model at rate 0, which gives its loss;
the S-MoE model from the upcycled weights; the S-MoE model from scratch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import torch
from tqdm import tqdm

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
from espnet_smoe.audio import read_at
from espnet_smoe.datadir import read_table
from espnet_smoe.model_files import write_model
from espnet_smoe.new_tokens import extend_tokens
from espnet_smoe.pretrained import find_model, load
from espnet_smoe.route_differences import Difference, route_differences
from espnet_smoe.upcycle import upcycle

LOSS = re.compile(r":train:\d+-\d+batch: .*(?<![a-z_])loss=([-+.\deinfa]+)")  # ESPnet drops commas
# As run.sh has it: keep freed memory, which makes a step about 1.4 times as fast.
TUNABLES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296"
SHOWN = 20  # updates averaged at the beginning and at the end


def largest_differences(
    dense: Path, smoe: Path, examples: Path, test_sets: list[str]
) -> tuple[dict[str, Difference], int]:
    """Per route the largest difference on any test utterance; how many there are."""
    models = [load(find_model(path)) for path in (dense, smoe)]
    tokens = extend_tokens(models[0].args.token_list, {})
    fs = int(models[0].preprocessor_conf["fs"])
    largest: dict[str, Difference] = {}
    scps = {name: read_table(examples / name / "wav.scp") for name in test_sets}
    audio = {f"{name} {utt}": path for name, scp in scps.items() for utt, path in scp.items()}
    for name, path in tqdm(audio.items(), desc="test utterances", mininterval=5):
        speech_BN = torch.as_tensor(read_at(path, fs, utt=name), dtype=torch.float32)[None]
        found = route_differences(models[0].model, models[1].model, tokens, speech_BN=speech_BN)
        for route, difference in found.items():
            before = largest.get(route)
            if before is None or not difference.absolute <= before.absolute:
                largest[route] = difference
    return largest, len(audio)


def losses(config: Path, examples: Path, out: Path, updates: int, *options: str) -> list[float]:
    """Train; the loss of each update. What was trained by an earlier run is not trained again."""
    log = out / "log"
    if log.exists() and len(found := losses_in(log)) == updates:
        return found
    command = [sys.executable, "-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_train"]
    command += ["--config", str(config), "--output_dir", str(out), "--ngpu", "0", "--seed", "1"]
    command += ["--num_iters_per_epoch", str(updates), "--max_epoch", "1", "--log_interval", "1"]
    command += ["--num_workers", "0", "--keep_nbest_models", "1", "--use_tensorboard", "false"]
    command += options
    for part in ("train", "valid"):
        for entry in (
            *("wav.scp,speech,sound", "text,text,text", "text.prev,text_prev,text"),
            *("text.ctc,text_ctc,text", "bandwidth,bandwidth,text_int"),
        ):
            command += [f"--{part}_data_path_and_name_and_type", f"{examples / part}/{entry}"]
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    with log.open("w", encoding="utf-8") as file:
        run = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    found = losses_in(log)
    if run.returncode != 0 or len(found) != updates:
        raise SystemExit(f"{log}: status {run.returncode}, {len(found)} of {updates} updates")
    return found


def losses_in(log: Path) -> list[float]:
    """The losses that ESPnet's trainer wrote down."""
    return [float(x) for x in LOSS.findall(log.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True, help="training YAML with experts")
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--test_sets", default="test_wb test_nb")
    parser.add_argument("--work", type=Path, required=True, help="directory to write")
    parser.add_argument("--updates", type=int, default=200)
    args = parser.parse_args()
    smoe, dense = args.work / "smoe", args.work / "dense"
    if not smoe.exists():
        upcycle(args.dense, smoe, config=args.config)
    if not dense.exists():  # a config that ESPnet's trainer takes
        loaded = load(find_model(args.dense))
        write_model(dense, vars(loaded.args), loaded.model.state_dict())
    differences, n_utts = largest_differences(dense, smoe, args.examples, args.test_sets.split())
    for route, difference in differences.items():
        print(f"{route}: largest difference {difference.absolute:.1e} on {n_utts} utterances")
    still = ("--optim_conf", "lr=0.0", "--scheduler", "none")
    begin = ("--init_param", f"{dense}/model.pth")
    run = {
        "dense, not trained": losses(
            dense / "config.yaml", args.examples, args.work / "still", SHOWN, *begin, *still
        ),
        "from the upcycled model": losses(
            *(smoe / "config.yaml", args.examples, args.work / "upcycled", args.updates),
            *("--init_param", f"{smoe}/model.pth"),
        ),
        "from scratch": losses(
            smoe / "config.yaml", args.examples, args.work / "scratch", args.updates
        ),
    }
    for name, values in run.items():
        print(
            f"{name}: loss {values[0]:.2f} at the first update, {mean(values[:SHOWN]):.2f} over "
            f"the first {SHOWN}, {mean(values[-SHOWN:]):.2f} over the last {SHOWN} of {len(values)}"
        )
    result = {
        "differences": {route: d.absolute for route, d in differences.items()},
        "utterances": n_utts,
        "losses": run,
    }
    (args.work / "upcycle.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
