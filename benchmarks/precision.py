#!/usr/bin/env python3
"""What bfloat16, int8 and `torch.compile` gain in speed, and what they cost in WER and BLEU.

Speed: one model of the paper's size (random weights, 40k tokens), copied and prepared once per
case; the cases take turns on groups of utterances in one process, and each is divided by float32's
turn on the same group. Their hypotheses' scores are compared with float32's:

    python benchmarks/precision.py [--cases bfloat16 int8 compile] [--utts 16] [--json FILE]

Accuracy, in the recipe directory after stages 4 and 11, by `espnet_smoe.Speech2Text`:

    python ../../../benchmarks/precision.py --utts 0 --s2t_dir exp/mini/s2t_train_mini \\
        --data dump/mini/s2t/test_wb dump/mini/s2t/test_nb --ctc_weight 0.3
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from decode import decode_batched
from paper_size import (
    DEVICE,
    LANGUAGE,
    TASK,
    add_options,
    random_speech,
    search_options,
    stock,
    write_json,
    write_model,
)

from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.datadir import read_table
from espnet_smoe.precision import prepare
from espnet_smoe.scoring import metrics_for, paired_difference, score

CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},  # on a GPU
    "int8": {"quantize": True},  # on a CPU
    "compile": {"compile": True},
    "bfloat16+compile": {"dtype": "bfloat16", "compile": True},
}
Row = dict[str, Any]


def median(rows: list[Row], key: str) -> float:
    return statistics.median(float(row[key]) for row in rows)


def measure_speed(args: argparse.Namespace, cases: list[str]) -> list[Row]:
    """Per case the medians over the groups of float32's seconds divided by its own."""
    with tempfile.TemporaryDirectory() as directory:
        model = stock(args, write_model(args, Path(directory))).s2t_model
    tokens = ["<sos>", LANGUAGE, TASK, "<notimestamps>"]
    prompt = [model.token_list.index(token) for token in tokens]
    speech = random_speech(args.utts)
    searches, warm_up = {}, {}
    for case in cases:
        start = time.perf_counter()
        prepared = prepare(copy.deepcopy(model), **CASES[case])
        searches[case] = BatchedBeamSearch(prepared, SearchOptions(**search_options(args)))
        for group in (speech[:1], speech[-1:], speech[:2]):
            decode_batched(searches[case], group, prompt)
        warm_up[case] = time.perf_counter() - start
    turns: dict[str, list[Row]] = {case: [] for case in cases}
    for turn in range(args.rounds):
        for start in range(0, args.utts, args.group):
            group = speech[start : start + args.group]
            order = cases[turn % len(cases) :] + cases[: turn % len(cases)]
            found = {case: decode_batched(searches[case], group, prompt) for case in order}
            base, base_search, best = found["float32"]
            for case, (whole, search, hypotheses) in found.items():
                pairs = list(zip(hypotheses, best, strict=True))
                turns[case].append(
                    {
                        "seconds": whole,
                        "all": base / whole,
                        "encoder": (base - base_search) / (whole - search),
                        "search": base_search / search,
                        "same_best": sum(a[0] == b[0] for a, b in pairs) / len(pairs),
                        "score_gap": max(abs(a[1] - b[1]) for a, b in pairs),
                    }
                )
    table = []
    for case in cases:
        rows = turns[case]
        row: Row = {"case": case, "warm_up_s": warm_up[case], "groups": len(rows)}
        row |= {key: median(rows, key) for key in ("encoder", "search", "all", "same_best")}
        row["score_gap"] = max(r["score_gap"] for r in rows)
        row["seconds"] = sum(r["seconds"] for r in rows)
        table.append(row)
        print(
            f"{case:17s} encoder {row['encoder']:.2f} x, search {row['search']:.2f} x, all "
            f"{row['all']:.2f} x; {row['same_best']:.0%} of the best hypotheses are float32's, "
            f"scores within {row['score_gap']:.3f}; warm-up {row['warm_up_s']:.0f} s",
            flush=True,
        )
    return table


def measure_accuracy(args: argparse.Namespace, cases: list[str]) -> list[Row]:
    """Per case, test set and task: metric, its difference to float32's, real-time factor."""
    from espnet_smoe import Speech2Text

    table: list[Row] = []
    texts: dict[tuple[str, str, str], dict[str, str]] = {}
    for case in cases:
        options = dict(CASES[case])
        if options.pop("quantize", False):
            options["quantize_s2t_model"] = True
        speech2text = Speech2Text.from_pretrained(
            args.s2t_dir,
            device=DEVICE,
            beam_size=args.beam_size,
            ctc_weight=args.ctc_weight,
            **options,
        )
        for data in args.data:
            audio = read_table(data / "wav.scp")
            languages = read_table(data / "utt2lang")
            tasks = {"asr": data / "text"}
            tasks |= {p.name[5:]: p for p in sorted(data.glob("text.*_*"))}
            start = time.perf_counter()
            found = speech2text(
                [audio[utt] for utt in audio],
                tasks=list(tasks),
                lang_sym=[languages[utt] for utt in audio],
            )
            seconds = time.perf_counter() - start
            for task, path in tasks.items():
                references = read_table(path)
                answers = {u: r[task].text for u, r in zip(audio, found, strict=True)}
                texts[case, data.name, task] = answers
                base = texts["float32", data.name, task]
                for metric in metrics_for(task):
                    result = score(references, answers, metric)
                    change = paired_difference(references, base, answers, metric)
                    table.append(
                        {
                            "case": case,
                            "test_set": data.name,
                            "task": task,
                            "metric": metric,
                            "value": result.value,
                            "ci95": list(result.ci95),
                            "change": list(change),  # to float32: value, 95 % interval
                            "other_texts": sum(answers[u] != base[u] for u in answers),
                            "n_utts": len(answers),
                            "seconds": seconds,
                        }
                    )
                    print(
                        f"{case:17s} {data.name} {task:7s} {metric:4s} {result.value:6.2f} "
                        f"({result.ci95[0]:.2f} to {result.ci95[1]:.2f}); "
                        f"{table[-1]['other_texts']} of {len(answers)} texts differ from "
                        f"float32's; {seconds:.1f} s for all tasks",
                        flush=True,
                    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["bfloat16", "int8"])
    parser.add_argument("--utts", type=int, default=16, help="0: no speed")
    parser.add_argument("--group", type=int, default=8, help="utterances searched together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--s2t_dir", type=Path, help="a trained model, for accuracy")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="stage 4's test sets")
    add_options(parser)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    cases = ["float32", *(case for case in args.cases if case != "float32")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    results: dict[str, Any] = {
        "device": device,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if args.utts:
        results["speed"] = measure_speed(args, cases)
    if args.s2t_dir:
        results["accuracy"] = measure_accuracy(args, cases)
    write_json(args, results)


if __name__ == "__main__":
    main()
