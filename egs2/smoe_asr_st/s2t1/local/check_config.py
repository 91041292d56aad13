#!/usr/bin/env python3
"""Stage 8: build the model from the YAML and run one forward and backward on real examples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from options import behind_dashes

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
from espnet_smoe.audio import read_at
from espnet_smoe.datadir import DataError, iter_table
from espnet_smoe.encoder import banks_of
from espnet_smoe.tables import join

NEVER = 1e-9  # as a probability: so small that it does not happen, and yet not switched off
PER_ROUTE = 2  # examples of each task and bandwidth
TEXTS = {"text": "text", "text_prev": "text.prev", "text_ctc": "text.ctc"}


def pick_examples(directory: Path) -> list[str]:
    """The shortest examples of each task and bandwidth."""
    names = ("utt2num_samples", "utt2task", "utt2bw")
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for utt, row in join(*(iter_table(directory / name) for name in names)):
        if None in row:
            raise DataError(f"{directory}: utterance {utt} is not in all of {', '.join(names)}")
        samples, task, bandwidth = map(str, row)
        group = groups.setdefault((task, bandwidth), [])
        group.append((int(samples), utt))
        group.sort()
        del group[PER_ROUTE:]
    return [utt for group in groups.values() for _, utt in group]


def values_of(path: Path, utts: Collection[str]) -> dict[str, str]:
    """A table's values of some utterances."""
    return {utt: value for utt, value in iter_table(path) if utt in utts}


def check_lengths(args: argparse.Namespace, directory: Path, audio_fs: int) -> None:
    """Check the options that speak of lengths against each other and the data."""
    model_conf, conf = args.model_conf, args.preprocessor_conf
    fs = conf.get("fs", 16000)
    limit = conf.get("speech_length", 30)
    rates = {"preprocessor_conf.fs": fs, "frontend_conf.fs": args.frontend_conf.get("fs", 16000)}
    for name, rate in rates.items():
        if args.frontend is not None and rate != audio_fs:
            raise DataError(f"{name} is {rate} Hz, the audio of stage 3 is at {audio_fs} Hz (--fs)")
    if str(args.model).startswith("smoe") and model_conf.get("trim_padding"):
        pair = (model_conf.get("speech_length", 30.0), model_conf.get("fs", 16000))
        if pair != (limit, fs):
            raise DataError(
                f"model_conf has speech_length {pair[0]} and fs {pair[1]}, preprocessor_conf "
                f"{limit} and {fs}: trim_padding needs them equal"
            )
    for utt, samples in iter_table(directory / "utt2num_samples"):
        if int(samples) > limit * fs:
            raise DataError(
                f"utterance {utt}: {int(samples) / fs:.2f} s is longer than "
                f"preprocessor_conf.speech_length ({limit} s); drop it in stage 4 (--max_seconds)"
            )


def main() -> int:
    from espnet2.tasks.s2t import S2TTask

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, required=True, help="training set of stage 4")
    parser.add_argument("--fs", type=int, default=16000, help="of the audio that stage 3 wrote")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    own = parser.parse_args()
    options = behind_dashes(own.options)
    args = S2TTask.get_parser().parse_args([*options, "--output_dir", "unused"])
    try:
        check_lengths(args, own.examples, own.fs)
        args.normalize, args.normalize_conf = None, {}  # its statistics come in stage 10
        model = S2TTask.build_model(args)
        preprocess = S2TTask.build_preprocess_fn(args, True)
        collate = S2TTask.build_collate_fn(args, True)
        utts = pick_examples(own.examples)
        chosen = set(utts)
        tables = {key: values_of(own.examples / name, chosen) for key, name in TEXTS.items()}
        audio = values_of(own.examples / "wav.scp", chosen)
        bandwidth = values_of(own.examples / "bandwidth", chosen)
        examples = []
        for number, utt in enumerate(utts):
            speech = read_at(audio[utt], own.fs, utt=utt)
            data = {"speech": speech, **{key: table[utt] for key, table in tables.items()}}
            data["bandwidth"] = np.array([int(bandwidth[utt])])
            if 0 < getattr(preprocess, "narrowband_prob", 0) < 1:
                preprocess.narrowband_prob = number % 2 or NEVER  # both of them, not by chance
            examples.append((utt, preprocess(utt, data)))
        utts, batch = collate(examples)
        model.train()
        loss, stats, _ = model(**batch, utt_id=utts)
        loss.sum().backward()
        if not torch.isfinite(loss).all():
            raise DataError(f"the loss is {loss.item()} on {', '.join(utts)}")
        idle = sorted(
            {
                name
                for bank in banks_of(model)
                for name, expert in bank.experts.items()
                if all(p.grad is None for p in expert.parameters())
            }
        )
        if idle and args.model != "smoe_random":  # by chance, few examples may miss one
            raise DataError(
                f"no example of the training set reaches expert(s) {', '.join(idle)}: they would "
                "stay untrained. Leave them out of the config, or add such data (run.sh's "
                "--telephone_share 0.5 makes narrowband copies of wideband speech)"
            )
    except ValueError as error:
        print(f"check_config.py: {error}", file=sys.stderr)
        return 1
    except TypeError as error:  # Python's own words for an option that a class does not have
        if "unexpected keyword argument" not in str(error):
            raise
        print(f"check_config.py: an option that does not exist: {error}", file=sys.stderr)
        return 1
    figures = ", ".join(f"{k} {v.item():.2f}" for k, v in stats.items() if k.startswith("loss"))
    print(f"check_config.py: forward and backward on {len(utts)} examples: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
