#!/usr/bin/env python3
"""Does a model in ONNX write what it writes in PyTorch?

    python ../../../benchmarks/onnx_texts.py --beams "1 5" --json onnx_texts.json \\
        --case exp/mini/routes/wb_asr dump/mini/s2t/test_wb asr \\
        --case exp/mini/routes/nb_asr dump/mini/s2t/test_nb asr

Run in the recipe directory. A case is a dense model (an exported route), a directory with
``wav.scp``, and a task. The model is written as ONNX into a temporary directory; every utterance is
decoded by `espnet_smoe.onnx_decode` and by `espnet_smoe.Speech2Text`, one at a time, and each text
that differs is printed with both scores.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from espnet_smoe import Speech2Text
from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import read_table
from espnet_smoe.onnx_decode import OnnxSpeech2Text
from espnet_smoe.onnx_export import export_onnx
from espnet_smoe.pretrained import find_model, load


@dataclass(frozen=True)
class Difference:
    """An utterance of which the two wrote different texts."""

    utt: str
    onnx: str
    pytorch: str
    onnx_score: float
    pytorch_score: float


@dataclass(frozen=True)
class Comparison:
    """A case at one beam size; seconds are those of decoding, onnxruntime's and PyTorch's."""

    model: str
    data: str
    task: str
    beam_size: int
    utts: int
    differences: list[Difference]
    largest_score_gap: float
    onnx_seconds: float
    pytorch_seconds: float


def compare(model: str, data: str, task: str, beams: list[int], limit: int) -> list[Comparison]:
    """Decode a set with both, at each beam size."""
    table = list(read_table(Path(data) / "wav.scp").items())[: limit or None]
    results = []
    with tempfile.TemporaryDirectory() as directory:
        largest = export_onnx(load(find_model(model)), Path(directory) / "onnx")
        print(f"{model}: onnxruntime differs from PyTorch by {largest:.2g} on noise", flush=True)
        ours = OnnxSpeech2Text(Path(directory) / "onnx", threads=torch.get_num_threads())
        for beam_size in beams:
            s2t = Speech2Text.from_pretrained(model, beam_size=beam_size)
            differences, gaps, seconds = [], [0.0], [0.0, 0.0]
            for utt, locator in table:
                x, rate = read_audio(locator)
                if rate != s2t.fs:
                    raise ValueError(f"{utt}: {rate} Hz; accepted: {s2t.fs}")
                start = time.perf_counter()
                found = ours(x, task=task, beam_size=beam_size)
                middle = time.perf_counter()
                expected = s2t((x, rate), tasks=task)
                seconds[0] += middle - start
                seconds[1] += time.perf_counter() - middle
                gaps.append(abs(found.score - expected.score))
                if found.text != expected.text:
                    row = (utt, found.text, expected.text, found.score, expected.score)
                    differences.append(Difference(*row))
                    print(f"  {utt}\n    onnx    {row[1]} {row[3]:.4f}")
                    print(f"    pytorch {row[2]} {row[4]:.4f}", flush=True)
            case = Comparison(
                model, data, task, beam_size, len(table), differences, max(gaps), *seconds
            )
            print(
                f"{data} {task} beam {beam_size}: {len(table)} utterances, "
                f"{len(differences)} texts differ, scores by at most {case.largest_score_gap:.2g}; "
                f"{seconds[0]:.0f} s with onnxruntime, {seconds[1]:.0f} s with PyTorch",
                flush=True,
            )
            results.append(case)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--case", nargs=3, action="append", required=True, metavar=("MODEL", "DATA", "TASK")
    )
    parser.add_argument("--beams", default="1", help="beam sizes between spaces")
    parser.add_argument("--limit", type=int, default=0, help="utterances a set; 0: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    beams = [int(beam) for beam in args.beams.split()]
    results = [row for case in args.case for row in compare(*case, beams, args.limit)]
    if args.json:
        text = json.dumps([asdict(row) for row in results], indent=2, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    differing, texts = sum(len(r.differences) for r in results), sum(r.utts for r in results)
    print(f"{texts} texts, {differing} differ")


if __name__ == "__main__":
    main()
