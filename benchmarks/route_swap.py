#!/usr/bin/env python3
"""What each route is worth: decode with the wrong expert and compare with the right one.

Run in the recipe directory after stage 12:

    python ../../../benchmarks/route_swap.py --s2t_dir exp/mini/s2t_train_mini \
        --decode_dir exp/mini/s2t_train_mini/decode_valid.acc.ave --examples dump/mini/s2t

Encoder swap: narrowband utterances through the wb expert, wideband ones through nb. Decoder swap:
the asr prompt with the st expert and the other way round. ESPnet's own `Speech2Text` decodes, with
the options of stage 12; the difference is paired by utterance, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
from espnet_smoe import bbpe
from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import read_table
from espnet_smoe.encoder import banks_of
from espnet_smoe.routing import SPECIAL
from espnet_smoe.scoring import metrics_for, paired_difference

OTHER_BANDWIDTH = {"wb": "nb", "nb": "wb"}


def swap_decoder_experts(model: Any) -> None:
    """Exchange the two experts of every decoder bank; a second call puts them back."""
    for bank in banks_of(model.decoder):
        first, second = bank.names
        bank.experts[first], bank.experts[second] = bank.experts[second], bank.experts[first]


def decode(speech2text: Any, examples: Path, test_set: str, task: str) -> dict[str, str]:
    """Decode a test set for a task, as stage 12 does."""
    texts = {}
    languages = read_table(examples / test_set / "utt2lang")
    audio = read_table(examples / test_set / "wav.scp")
    for utt, path in tqdm(audio.items(), desc=f"{test_set} {task}", mininterval=5):
        speech, _ = read_audio(path, utt=utt)
        best = speech2text(speech, lang_sym=f"<{languages[utt]}>", task_sym=f"<{task}>")[0]
        texts[utt] = bbpe.decode([t for t in best[1] if not SPECIAL.fullmatch(t)])
    return texts


def main() -> None:
    from espnet2.bin.s2t_inference import Speech2Text

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s2t_dir", type=Path, required=True)
    parser.add_argument("--decode_dir", type=Path, required=True, help="stage 12's output")
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--test_set", default="test")
    parser.add_argument("--model", default="valid.acc.ave.pth")
    parser.add_argument("--config", type=Path, default=Path("conf/decode.yaml"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    options = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    tasks = sorted(p.name for p in (args.decode_dir / f"{args.test_set}_wb").iterdir())
    results = []
    for task in tasks:
        ctc_weight = options.get("ctc_weight", 0.0) if task == "asr" else 0.0
        speech2text = Speech2Text(
            s2t_train_config=str(args.s2t_dir / "config.yaml"),
            s2t_model_file=str(args.s2t_dir / args.model),
            **{**options, "ctc_weight": ctc_weight},
        )
        model = speech2text.s2t_model
        for bandwidth, other in OTHER_BANDWIDTH.items():
            name = f"{args.test_set}_{bandwidth}"
            right = read_table(args.decode_dir / name / task / "text", allow_empty=True)
            reference_file = "text" if task == "asr" else f"text.{task}"
            references = read_table(args.examples / name / reference_file)
            model.route_override = other
            wrong = {
                f"encoder: {bandwidth} through {other}": decode(
                    speech2text, args.examples, name, task
                )
            }
            model.route_override = None
            swap_decoder_experts(model)
            wrong["decoder: the other task's expert"] = decode(
                speech2text, args.examples, name, task
            )
            swap_decoder_experts(model)
            for swap, hypotheses in wrong.items():
                for metric in metrics_for(task):
                    diff, low, high = paired_difference(references, right, hypotheses, metric)
                    results.append(
                        {
                            "task": task,
                            "bandwidth": bandwidth,
                            "swap": swap,
                            "metric": metric,
                            "difference": diff,
                            "ci95": [low, high],
                            "n_utts": len(references),
                        }
                    )
                    print(
                        f"{task:7s} {bandwidth} {swap:34s} {metric:5s} {diff:+7.2f} "
                        f"[{low:+.2f}, {high:+.2f}] ({len(references)} utterances)",
                        flush=True,
                    )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
