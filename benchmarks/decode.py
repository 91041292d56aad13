#!/usr/bin/env python3
"""How fast `espnet_smoe.Speech2Text` decodes, against ESPnet's own.

Both get one model of the paper's size (random weights, 40k tokens) and the same audio of 2 to 12 s,
and write the same number of tokens. They take turns on groups of utterances in one process, and
their best hypotheses are compared. "In all" is a whole call, measuring the bandwidth included; "the
search" is what is left of it without the encoder.

    python benchmarks/decode.py [--utts 64] [--ctc_weight 0.3] [--config CONF.yaml] [--json FILE]

ESPnet's class gets the audio unpadded, which is no handicap to it; `--padded` leaves it as shipped:
it pads each utterance to 30 s, and decodes the padding too.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from paper_size import (
    FS,
    add_options,
    ours,
    random_speech,
    search_options,
    stock,
    write_json,
    write_model,
)

from espnet_smoe.allocator import keep_freed_memory
from espnet_smoe.beam_search import BatchedBeamSearch


class Clock:
    """Seconds spent, the device's work done."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, call: Callable[[], Any]) -> Any:
        start = self.now()
        result = call()
        self.seconds += self.now() - start
        return result

    @staticmethod
    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def encoder_clock(model: Any) -> Iterator[Clock]:
    """Counts the time in the model's encoder."""
    encoding, encode = Clock(), model.encode
    model.encode = lambda **batch: encoding(lambda: encode(**batch))
    try:
        yield encoding
    finally:
        del model.encode


def decode_stock(
    stock: Any, group: list[torch.Tensor], padded: bool = False
) -> tuple[float, float, list[Any]]:
    """Seconds in all and of the search, and the best hypotheses as (tokens, score)."""
    whole = Clock()
    best = []
    with encoder_clock(stock.s2t_model) as encoding:
        for speech in group:
            if not padded:
                stock.preprocessor_conf["speech_length"] = (len(speech) + 0.5) / FS  # it cuts
            result = whole(lambda s=speech: stock(s))
            hypothesis = result[0][-1]
            best.append((hypothesis.yseq.tolist(), float(hypothesis.score)))
    return whole.seconds, whole.seconds - encoding.seconds, best


def decode_ours(s2t: Any, group: list[torch.Tensor]) -> tuple[float, float, list[Any]]:
    """As `decode_stock`, by one call of this package's class."""
    whole = Clock()
    with encoder_clock(s2t.s2t_model) as encoding:
        results = whole(lambda: s2t(group))
    best = [(r[0].hyp.yseq.tolist(), r[0].hyp.score) for r in results]
    return whole.seconds, whole.seconds - encoding.seconds, best


@torch.inference_mode()
def decode_batched(
    search: BatchedBeamSearch, group: list[torch.Tensor], prompt: list[int]
) -> tuple[float, float, list[Any]]:
    """As `decode_ours`, by encoder and search alone; the encoder takes one utterance at a time."""
    encoding, searching = Clock(), Clock()
    device = next(search.model.parameters()).device

    def encode() -> tuple[torch.Tensor, list[int]]:
        rows = []
        for speech in group:
            lengths = torch.tensor([len(speech)], device=device)
            rows.append(search.model.encode(speech[None].to(device), lengths)[0][0])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, [len(row) for row in rows]

    memory_BSD, lengths = encoding(encode)
    prompts, transcribes = [prompt] * len(group), [True] * len(group)
    found = searching(lambda: search.search(memory_BSD, lengths, prompts, transcribes))
    best = [(hypotheses[0].tokens, hypotheses[0].score) for hypotheses in found]
    return encoding.seconds + searching.seconds, searching.seconds, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utts", type=int, default=64)
    parser.add_argument("--group", type=int, default=32, help="utterances searched together")
    parser.add_argument("--padded", action="store_true", help="ESPnet's class as shipped")
    parser.add_argument(
        "--keep_freed_memory", action="store_true", help="as `espnet-smoe transcribe` does"
    )
    add_options(parser)
    args = parser.parse_args()
    if args.keep_freed_memory and not keep_freed_memory():
        parser.error("--keep_freed_memory: an environment variable settles that, or no glibc")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        files = write_model(args, Path(directory))
        theirs, s2t = stock(args, files), ours(args, files, batch_size=args.group)
    theirs.s2t_model.trim_padding = not args.padded
    speech = random_speech(args.utts)
    decode_stock(theirs, speech[:1], args.padded)  # warm up
    decode_ours(s2t, speech[:2])
    rows = []
    for turn, start in enumerate(range(0, args.utts, args.group)):
        group = speech[start : start + args.group]
        first_is_stock = turn % 2 == 0
        if first_is_stock:
            expected = decode_stock(theirs, group, args.padded)
        found = decode_ours(s2t, group)
        if not first_is_stock:
            expected = decode_stock(theirs, group, args.padded)
        same = [a[0] == b[0] for a, b in zip(expected[2], found[2], strict=True)]
        gap = max(abs(a[1] - b[1]) for a, b in zip(expected[2], found[2], strict=True))
        rows.append(
            {
                "utts": len(group),
                "audio_s": sum(map(len, group)) / FS,
                "stock_s": expected[0],
                "batched_s": found[0],
                "stock_search_s": expected[1],
                "batched_search_s": found[1],
                "same_best": sum(same),
                "score_gap": gap,
            }
        )
        print(
            f"{len(group):3d} utts of {len(group[0]) / FS:.1f} to {len(group[-1]) / FS:.1f} s: "
            f"{expected[0] / found[0]:.2f} x in all, {expected[1] / found[1]:.2f} x the search; "
            f"{sum(same)} of {len(same)} best hypotheses equal, scores within {gap:.1e}",
            flush=True,
        )

    def total(key: str) -> float:
        return sum(float(row[key]) for row in rows)

    def median_ratio(a: str, b: str) -> float:
        return statistics.median(float(row[a]) / float(row[b]) for row in rows)

    summary = {
        "utts": args.utts,
        "options": {**search_options(args), "padded": args.padded},
        "threads": torch.get_num_threads(),
        "stock_utts_per_s": args.utts / total("stock_s"),
        "batched_utts_per_s": args.utts / total("batched_s"),
        "ratio": total("stock_s") / total("batched_s"),
        "median_ratio": median_ratio("stock_s", "batched_s"),
        "search_ratio": total("stock_search_s") / total("batched_search_s"),
        "median_search_ratio": median_ratio("stock_search_s", "batched_search_s"),
        "same_best": int(total("same_best")),
        "groups": rows,
    }
    print(
        f"{args.utts} utts, beam {args.beam_size}, CTC {args.ctc_weight}: stock "
        f"{summary['stock_utts_per_s']:.3f}, batched {summary['batched_utts_per_s']:.3f} utts/s: "
        f"{summary['ratio']:.2f} x (median of groups {summary['median_ratio']:.2f}); search alone "
        f"{summary['search_ratio']:.2f} x ({summary['median_search_ratio']:.2f}); "
        f"{summary['same_best']} of {args.utts} best hypotheses equal"
    )
    write_json(args, summary)


if __name__ == "__main__":
    main()
