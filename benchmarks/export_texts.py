#!/usr/bin/env python3
"""WER and BLEU of exported routes in ESPnet's own `Speech2Text`, against the S-MoE model's.

Run in the recipe directory after stage 11:

    python ../../../benchmarks/export_texts.py --model exp/mini/s2t_train_mini \\
        --data dump/mini/s2t/test_wb dump/mini/s2t/test_nb [--utts N] [--ctc 0 0.3]
        [--speech_length 8] [--silence 0.25] [--json FILE]

ESPnet decodes in a process in which this package cannot be imported, padding and all: with the
exported ``speech_length``, or with that of `--speech_length`. The S-MoE model is decoded by
`espnet_smoe.Speech2Text` on the same route with the same options. Differences are paired by
utterance, with 95 % bootstrap intervals. `--silence` puts so many seconds of zeros before each
recording that ESPnet hears: whether that mends what its CTC scorer skips.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from stock_process import ask

from espnet_smoe import Speech2Text
from espnet_smoe.audio import TARGET_RATE, read_audio, resample
from espnet_smoe.datadir import read_table
from espnet_smoe.dense_routes import Experts, choose_route
from espnet_smoe.export import Exporter
from espnet_smoe.pretrained import find_model, load
from espnet_smoe.scoring import metrics_for, paired_difference, score

BEAM = 5
Texts = dict[str, str]


def references(data: Path, task: str) -> Path:
    return data / ("text" if task == "asr" else f"text.{task}")


def stock_texts(
    route: Path, speech: dict[str, torch.Tensor], options: dict[str, Any]
) -> tuple[Texts, float]:
    """What ESPnet writes on an exported route, and how many tokens a text has."""
    files = {"config": str(route / "config.yaml"), "weights": str(route / "model.pth")}
    (answer,) = ask([{**files, "speech": list(speech.values()), "decode": [options]}])
    texts = {u: text for u, (_, text) in zip(speech, answer["decoded"][0], strict=True)}
    return texts, sum(len(ids) for ids, _ in answer["decoded"][0]) / len(texts)


def compare(args: argparse.Namespace, exporter: Exporter, data: Path, task: str) -> list[Any]:
    """One test set and task, with every CTC weight."""
    bandwidths = set(read_table(data / "utt2bw").values())
    languages = set(read_table(data / "utt2lang").values())
    if len(bandwidths) > 1 or len(languages) > 1:
        raise SystemExit(f"{data} mixes {bandwidths | languages}; one bandwidth, one language each")
    (bandwidth,), (language,) = bandwidths, languages
    experts: Experts = choose_route(exporter.smoe, bandwidth, task)
    audio = dict(list(read_table(data / "wav.scp").items())[: args.utts])
    speech = {}
    for utt, path in audio.items():
        x, rate = read_audio(path, utt=utt)
        speech[utt] = torch.from_numpy(resample(x, rate, TARGET_RATE))
    table = read_table(references(data, task))
    refs = {utt: table[utt] for utt in speech}
    silence = torch.zeros(int(args.silence * TARGET_RATE))
    heard = {utt: torch.cat([silence, x]) for utt, x in speech.items()}
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        route = exporter.write(experts, Path(parent) / "route")
        for ctc in args.ctc if task == "asr" else [0.0]:
            options = {"beam_size": BEAM, "ctc_weight": float(ctc)}
            prompt = {"lang_sym": f"<{language}>", "task_sym": f"<{task}>"}
            s2t = Speech2Text.from_pretrained(args.model, **options, **prompt, bandwidth=bandwidth)
            ours = {u: r.text for u, r in zip(speech, s2t(list(speech.values())), strict=True)}
            theirs, tokens = stock_texts(route, heard, {**options, **prompt})
            for metric in metrics_for(task):
                whole = score(refs, ours, metric)
                exported = score(refs, theirs, metric)
                difference, low, high = paired_difference(refs, ours, theirs, metric)
                rows.append(
                    {
                        **{"data": data.name, "route": experts.name, "task": task},
                        **{"ctc_weight": ctc, "metric": metric, "n_utts": len(refs)},
                        **{"speech_length": exporter.speech_length, "silence": args.silence},
                        **{"smoe": whole.value, "smoe_ci95": whole.ci95},
                        **{"exported": exported.value, "exported_ci95": exported.ci95},
                        **{"difference": difference, "ci95": [low, high], "tokens": tokens},
                        "same_texts": sum(ours[u] == theirs[u] for u in refs),
                    }
                )
                print(
                    f"{data.name:8s} {experts.name:7s} {task:7s} ctc {ctc:.1f} {metric:5s} S-MoE "
                    f"{whole.value:6.2f}, exported {exported.value:6.2f}, difference "
                    f"{difference:+.2f} [{low:+.2f}, {high:+.2f}] ({rows[-1]['same_texts']} of "
                    f"{len(refs)} texts equal)",
                    flush=True,
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="stage 4's test sets")
    parser.add_argument("--tasks", nargs="+", default=["asr", "st_eng"])
    parser.add_argument("--ctc", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--utts", type=int, help="of each test set, at most")
    parser.add_argument("--speech_length", type=float, help="seconds; default: the export's choice")
    parser.add_argument("--silence", type=float, default=0.0, help="seconds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    exporter = Exporter(load(find_model(args.model)), speech_length=args.speech_length)
    print(f"Padding: {exporter.padding}.")
    rows = []
    for data in args.data:
        for task in args.tasks:
            rows += compare(args, exporter, data, task)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
