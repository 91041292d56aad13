#!/usr/bin/env python3
"""Upcycling of random models of the paper's size: what it costs, and whether it is exact.

    python benchmarks/upcycle_sizes.py --work DIR [--vocab_size 40000]

The dense transformer is `conf/train_base.yaml`; the conformer (macaron) and the e-branchformer
(with feed-forwards) have its width and number of blocks.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import torch

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
from espnet_smoe.cli import placeholder_tokens
from espnet_smoe.model_files import write_model
from espnet_smoe.upcycle import upcycle
from espnet_smoe.upcycle_config import read_yaml

CONF = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1/conf"
KINDS: dict[str, dict[str, Any]] = {
    "transformer": {},
    "conformer": {"macaron_style": True, "rel_pos_type": "latest", "cnn_module_kernel": 31},
    "e_branchformer": {"use_ffn": True, "macaron_ffn": True, "cgmlp_linear_units": 2048},
}


def write_dense(directory: Path, kind: str, vocab_size: int) -> None:
    """A dense model with ESPnet's random weights."""
    from espnet2.tasks.s2t import S2TTask

    options = vars(S2TTask.get_parser().parse_args([])) | read_yaml(CONF / "train_base.yaml")
    options |= {"encoder": kind, "encoder_conf": options["encoder_conf"] | KINDS[kind]}
    if kind == "e_branchformer":
        del options["encoder_conf"]["normalize_before"]
    options |= {"normalize": None, "normalize_conf": {}, "init": None}
    options["token_list"] = placeholder_tokens(vocab_size, {})
    torch.manual_seed(1)
    model = S2TTask.build_model(argparse.Namespace(**options))
    write_model(directory, options, model.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="directory to write")
    parser.add_argument("--vocab_size", type=int, default=40000)
    args = parser.parse_args()
    found = []
    for kind in KINDS:
        dense = args.work / kind
        write_dense(dense, kind, args.vocab_size)
        for new_tokens in ({}, {"<st_new>": "<st_x>"}):
            out = args.work / f"{kind}_smoe"
            begin = time.perf_counter()
            done = upcycle(dense, out, new_tokens=new_tokens)
            seconds = time.perf_counter() - begin
            differences = done.differences.values()
            row = {
                "model": kind,
                "new_tokens": len(new_tokens),
                "dense": sum(share.dense_values for share in done.shares),
                "smoe": sum(share.smoe_values for share in done.shares),
                "difference": max(d.absolute for d in differences),
                "scale": max(d.scale for d in differences),
                "routes": len(differences),
                "seconds": seconds,
                "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
            found.append(row)
            print("  ".join(f"{k} {v:.3g}" if k != "model" else str(v) for k, v in row.items()))
            shutil.rmtree(out)
        shutil.rmtree(dense)
    (args.work / "upcycle_sizes.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
