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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Set:
    """A test set and a task: what is heard and what should be written."""

    data: Path
    task: str
    bandwidth: str
    experts: Experts
    speech: dict[str, torch.Tensor]
    references: Texts
    options: list[dict[str, Any]]  # of a decode, one per CTC weight


def read_set(args: argparse.Namespace, exporter: Exporter, data: Path, task: str) -> Set:
    """Read the tables and audio that stages 3 and 4 wrote."""
    bandwidths = set(read_table(data / "utt2bw").values())
    languages = set(read_table(data / "utt2lang").values())
    if len(bandwidths) > 1 or len(languages) > 1:
        raise SystemExit(f"{data} mixes {bandwidths | languages}; one bandwidth, one language each")
    (bandwidth,), (language,) = bandwidths, languages
    speech = {}
    for utt, path in list(read_table(data / "wav.scp").items())[: args.utts]:
        x, rate = read_audio(path, utt=utt)
        speech[utt] = torch.from_numpy(resample(x, rate, TARGET_RATE))
    table = read_table(references(data, task))
    experts = choose_route(exporter.smoe, bandwidth, task)
    prompt = {"beam_size": BEAM, "lang_sym": f"<{language}>", "task_sym": f"<{task}>"}
    weights = args.ctc if task == "asr" else [0.0]
    options = [{**prompt, "ctc_weight": float(ctc)} for ctc in weights]
    return Set(data, task, bandwidth, experts, speech, {u: table[u] for u in speech}, options)


def stock_texts(sets: list[Set], exporter: Exporter, silence: float) -> list[list[Texts]]:
    """What ESPnet writes on the exported routes, per set and options."""
    before = torch.zeros(int(silence * TARGET_RATE))
    with tempfile.TemporaryDirectory() as parent:
        requests = []
        for each in sets:
            route = Path(parent) / each.experts.name
            if not route.is_dir():
                exporter.write(each.experts, route)
            heard = [torch.cat([before, x]) for x in each.speech.values()]
            files = {"config": str(route / "config.yaml"), "weights": str(route / "model.pth")}
            requests.append({**files, "speech": heard, "decode": each.options})
        answers = ask(requests)
    for each, answer in zip(sets, answers, strict=True):
        for options, found in zip(each.options, answer["decoded"], strict=True):
            failed = sum(tokens is None for tokens, _ in found)
            if failed:
                print(
                    f"{each.data.name} {each.task}, ctc {options['ctc_weight']}: ESPnet's CTC "
                    f"scorer failed on {failed} recordings, taken as empty texts"
                )
    return [
        [{u: t for u, (_, t) in zip(each.speech, d, strict=True)} for d in answer["decoded"]]
        for each, answer in zip(sets, answers, strict=True)
    ]


def compare(
    args: argparse.Namespace, each: Set, options: dict[str, Any], theirs: Texts
) -> list[dict[str, Any]]:
    """One set with one CTC weight: the S-MoE model's texts against the exported route's."""
    s2t = Speech2Text.from_pretrained(args.model, **options, bandwidth=each.bandwidth)
    found = s2t(list(each.speech.values()))
    ours = {u: r.text for u, r in zip(each.speech, found, strict=True)}
    equal = sum(ours[u] == theirs[u] for u in ours)
    rows = []
    for metric in metrics_for(each.task):
        whole = score(each.references, ours, metric)
        exported = score(each.references, theirs, metric)
        difference, low, high = paired_difference(each.references, ours, theirs, metric)
        row = {"data": each.data.name, "route": each.experts.name, "task": each.task}
        row |= {"ctc_weight": options["ctc_weight"], "metric": metric, "n_utts": len(ours)}
        row |= {"silence": args.silence, "same_texts": equal}
        row |= {"smoe": whole.value, "smoe_ci95": whole.ci95}
        row |= {"exported": exported.value, "exported_ci95": exported.ci95}
        row |= {"difference": difference, "ci95": [low, high]}
        rows.append(row)
        print(
            f"{each.data.name:8s} {each.experts.name:7s} {each.task:7s} ctc "
            f"{options['ctc_weight']:.1f} {metric:5s} S-MoE {whole.value:6.2f}, exported "
            f"{exported.value:6.2f}, difference {difference:+.2f} [{low:+.2f}, {high:+.2f}] "
            f"({equal} of {len(ours)} texts equal)",
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
    sets = [read_set(args, exporter, data, task) for data in args.data for task in args.tasks]
    texts = stock_texts(sets, exporter, args.silence)
    rows: list[dict[str, Any]] = []
    for each, found in zip(sets, texts, strict=True):
        for options, theirs in zip(each.options, found, strict=True):
            rows += compare(args, each, options, theirs)
    if args.json:
        summary = {"speech_length": exporter.speech_length, "rows": rows}
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
