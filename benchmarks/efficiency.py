#!/usr/bin/env python3
"""Parameters, training step, decoding and memory of the study's systems, measured together.

    python benchmarks/efficiency.py [--config conf/study/mini_hard.yaml] [--systems base ...]
        [--rounds 20] [--utts 10] [--seconds 2] [--tokens 12] [--vocabulary 500] [--json FILE]

Every system of ``conf/study/systems`` is merged into the config, as the study does, and built with
random weights. Training steps (forward, backward, clipping, update) and decodings
(`espnet_smoe.Speech2Text`, beam 5, every hypothesis of as many tokens) of the same noise alternate
in one process, in a random order in each round: medians of the ratios to the first system's, with
bootstrap intervals. RTF is decoding time by seconds of audio. Peak memory is that of a process
for each system and use, above what it has with everything imported. One batch holds one task and
both bandwidths, as the recipe's batches do. Names of `--config` and of systems are relative to the
recipe.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from export import interval
from memory import MIB, forget_peak, resident
from paper_size import FS, LANGUAGE, TASK, token_list

from espnet_smoe import Speech2Text
from espnet_smoe.experts import param_counts
from espnet_smoe.model_files import write_model

RECIPE = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1"
sys.path.insert(0, str(RECIPE / "local"))

from study_config import merge_system  # noqa: E402

BEAM = 5
SYSTEMS = [
    "base",
    "dec_ffnx2",
    "dec_smoe",
    "encdec_smoe",
    "learned_moe",
    "bandwidth_embedding",
    "random_routes",
]
USES = ("training", "decoding")


def tokens(args: argparse.Namespace) -> list[str]:
    """The vocabulary, with the first and the last time only."""
    return token_list(args.vocabulary, every=1500)


def options_of(args: argparse.Namespace, system: str) -> dict[str, Any]:
    """ESPnet's options of a system on the config."""
    from espnet2.tasks.s2t import S2TTask

    config = yaml.safe_load((RECIPE / args.config).read_text(encoding="utf-8"))
    path = RECIPE / f"conf/study/systems/{system}.yaml"
    config = merge_system(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    config.pop("data", None)
    config.update(token_list=tokens(args), token_type="word", bpemodel=None)
    config.update(use_amp=False, normalize=None)
    return vars(S2TTask.get_parser().parse_args([])) | config


def build(args: argparse.Namespace, system: str) -> torch.nn.Module:
    """A random model."""
    from espnet2.tasks.s2t import S2TTask

    torch.manual_seed(0)
    return S2TTask.build_model(argparse.Namespace(**options_of(args, system)))


def noises(args: argparse.Namespace) -> torch.Tensor:
    """The batch's audio (B, N)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(args.utts, int(args.seconds * FS), generator=generator) * 0.1


def training(args: argparse.Namespace, system: str) -> Callable[[], object]:
    """One training step of a system, again and again."""
    model = build(args, system).train()
    speech = noises(args)
    n = len(speech)
    known = tokens(args)
    prompt = [known.index(token) for token in (LANGUAGE, TASK, "<notimestamps>")]
    words = torch.arange(n * args.tokens).reshape(n, -1) % (args.vocabulary // 2)
    words += known.index("w0")
    texts = {
        "text": torch.cat([torch.tensor([prompt] * n), words], dim=1),
        "text_prev": torch.full((n, 1), known.index("<na>")),
        "text_ctc": words,
    }
    batch = {"speech": speech, **texts, "bandwidth": torch.arange(n)[:, None] % 2}
    for name in ("speech", *texts):
        batch[f"{name}_lengths"] = torch.full((n,), batch[name].shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def decoding(args: argparse.Namespace, system: str) -> Callable[[], object]:
    """Decoding the batch with a system, again and again."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), options_of(args, system), build(args, system).state_dict())
        speech2text = Speech2Text.from_pretrained(
            directory,
            lang_sym=LANGUAGE,
            task_sym=TASK,
            beam_size=BEAM,
            ctc_weight=0.0,
            maxlenratio=-float(args.tokens),
            minlenratio=-float(args.tokens - 1),
            max_length=30.0,
        )
    audio = list(noises(args))
    return lambda: speech2text(audio)


MAKE = {"training": training, "decoding": decoding}


def peak(args: argparse.Namespace, system: str, use: str) -> int:
    """Peak of this process above what it had with everything imported, bytes."""
    from espnet2.tasks.s2t import S2TTask  # noqa: F401  (imported before the count begins)

    torch.nn.Linear(8, 8)(torch.zeros(1, 8))  # the libraries' own buffers
    before = resident("VmRSS")
    forget_peak()
    call = MAKE[use](args, system)
    for _ in range(2):
        call()
    return resident("VmHWM") - before


def alternate(args: argparse.Namespace, use: str) -> dict[str, list[float]]:
    """Seconds of each call, by system."""
    calls = {system: MAKE[use](args, system) for system in args.systems}
    for call in calls.values():
        call()  # warm up
    spent: dict[str, list[float]] = {system: [] for system in calls}
    rng = np.random.default_rng(0)
    for _ in range(args.rounds):
        for system in rng.permutation(list(calls)):
            start = time.perf_counter()
            calls[system]()
            spent[system].append(time.perf_counter() - start)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/study/mini_hard.yaml")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--utts", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of an utterance")
    parser.add_argument("--tokens", type=int, default=12, help="of a text")
    parser.add_argument("--vocabulary", type=int, default=500)
    parser.add_argument("--peak", choices=USES, help="(its own: print the first system's peak)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.peak:
        print(peak(args, args.systems[0], args.peak))
        return
    given = {"--config": args.config, "--utts": args.utts, "--seconds": args.seconds}
    given |= {"--tokens": args.tokens, "--vocabulary": args.vocabulary}
    words = [str(word) for pair in given.items() for word in pair]
    rows: dict[str, dict[str, Any]] = {}
    for system in args.systems:
        counts = param_counts(build(args, system))
        rows[system] = {"total": counts.total, "active": dict(counts.active)}
        for use in USES:
            command = [sys.executable, __file__, *words, "--systems", system, "--peak", use]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows[system][f"{use}_peak"] = int(done.stdout.splitlines()[-1])
    for use in USES:
        spent = alternate(args, use)
        for system, seconds in spent.items():
            ratios = [a / b for a, b in zip(seconds, spent[args.systems[0]], strict=True)]
            rows[system] |= {f"{use}_seconds": median(seconds), f"{use}_ratio": interval(ratios)}
    print(
        "| system | parameters, active | training step | decoding, RTF | peak training, decoding |"
    )
    print("| --- | --- | --- | --- | --- |")
    for system, row in rows.items():
        step, rtf = (row[f"{use}_seconds"] for use in USES)
        ratios = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[f"{use}_ratio"]) for use in USES]
        peaks = ", ".join(f"{row[f'{use}_peak'] / MIB:.0f}" for use in USES)
        print(
            f"| {system} | {row['total'] / 1e6:.2f} M, {max(row['active'].values()) / 1e6:.2f} M | "
            f"{step:.3f} s, {ratios[0]} x | {rtf / args.utts / args.seconds:.4f}, {ratios[1]} x | "
            f"{peaks} MiB |"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
