#!/usr/bin/env python3
"""Does `espnet_smoe.Speech2Text` find what ESPnet's own `Speech2Text` finds?

    python ../../../benchmarks/same_best.py --model exp/mini/s2t_train_mini \\
        --examples dump/mini/s2t --sets "test_wb test_nb" --beams "1 5 10" --json same_best.json

Run in the recipe directory after stage 11. Every utterance of the sets is decoded for every task by
both, with the same weights, the same audio and the same options (`--ctc_weight` on `asr` only), at
each beam size. The best hypotheses are compared token by token; each difference is printed with
both scores. ESPnet's class gets the audio unpadded where the model was trained so.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from espnet2.bin.s2t_inference import Speech2Text as StockSpeech2Text

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import read_table
from espnet_smoe.pretrained import find_model

TIE = 1e-4  # of scores


@dataclass(frozen=True)
class Difference:
    """An utterance of which the two found different best hypotheses."""

    utt: str
    task: str
    ours: str
    stock: str
    our_score: float
    stock_score: float


@dataclass(frozen=True)
class Comparison:
    """One task at one beam size."""

    task: str
    beam_size: int
    ctc_weight: float
    utts: int
    stock_fails: list[str]
    differences: list[Difference]
    seconds: float
    stock_seconds: float


def compare(
    args: argparse.Namespace, ours: Any, files: Any, task: str, beam_size: int, utts: dict[str, str]
) -> Comparison:
    """Decode all utterances with both."""
    ctc_weight = args.ctc_weight if task == "asr" else 0.0
    options = {"beam_size": beam_size, "ctc_weight": ctc_weight, "lang_sym": f"<{args.language}>"}
    stock = StockSpeech2Text(files.config, files.weights, task_sym=f"<{task}>", **options)
    begin = time.perf_counter()
    items = (Speech(wav, name=utt) for utt, wav in utts.items())
    found = {r.name: r for r in ours(items, tasks=task, **options)}
    middle = time.perf_counter()
    differences, fails = [], []
    for utt, wav in utts.items():
        x, rate = read_audio(wav)
        assert rate == ours.fs, f"{wav}: {rate} Hz"
        if not ours.trained_padded:
            stock.preprocessor_conf["speech_length"] = (len(x) + 0.5) / rate  # it cuts
        try:
            theirs = stock(x)[0]
        except IndexError:  # ESPnet's CTC scorer, when a hypothesis outgrows the frames
            fails.append(utt)
            continue
        mine = found[utt][0]
        if mine.token_int != theirs[2]:
            scores = float(mine.hyp.score), float(theirs[4].score)
            differences.append(Difference(utt, task, mine[3] or "", theirs[3] or "", *scores))
    end = time.perf_counter()
    return Comparison(
        task, beam_size, ctc_weight, len(utts), fails, differences, middle - begin, end - middle
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--model_file", help="the checkpoint's name in the directory")
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True)
    parser.add_argument("--tasks", default="asr st_eng")
    parser.add_argument("--language", default="spa")
    parser.add_argument("--beams", default="1 5 10")
    parser.add_argument("--ctc_weight", type=float, default=0.3)
    parser.add_argument("--every", type=int, default=1, help="only every so manieth utterance")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    files = find_model(args.model, model_file=args.model_file)
    ours = Speech2Text(files.config, files.weights)
    utts: dict[str, str] = {}
    for test_set in args.sets.split():
        table = read_table(args.examples / test_set / "wav.scp")
        utts.update({f"{test_set}/{utt}": wav for utt, wav in table.items()})
    utts = dict(list(utts.items())[:: args.every])
    comparisons = []
    for beam_size in map(int, args.beams.split()):
        for task in args.tasks.split():
            result = compare(args, ours, files, task, beam_size, utts)
            comparisons.append(result)
            utts_of_both = result.utts - len(result.stock_fails)
            same = utts_of_both - len(result.differences)
            ties = sum(abs(d.our_score - d.stock_score) <= TIE for d in result.differences)
            print(
                f"{args.model.name} {task:8} beam {beam_size:2} ctc {result.ctc_weight}: {same} of "
                f"{utts_of_both} equal ({100 * same / utts_of_both:.2f} %), of the others {ties} "
                f"ties; ESPnet's search fails on {len(result.stock_fails)}; "
                f"{result.stock_seconds / result.seconds:.1f} x as fast",
                flush=True,
            )
            for d in result.differences:
                print(
                    f"  {d.utt}: ours {d.our_score:.6f} {d.ours!r}, ESPnet's {d.stock_score:.6f} "
                    f"{d.stock!r}",
                    flush=True,
                )
            if args.json:
                summary = {
                    "model": str(args.model),
                    "threads": torch.get_num_threads(),
                    "comparisons": [asdict(c) for c in comparisons],
                }
                args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
