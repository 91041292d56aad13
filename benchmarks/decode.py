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
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_smoe import Speech2Text
from espnet_smoe.beam_search import BatchedBeamSearch

FS = 16000
CONF = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1/conf/train_encdec_smoe.yaml"
LANGUAGE, TASK = "<spa>", "<asr>"


def token_list(size: int) -> list[str]:
    """A vocabulary of the recipe's form."""
    head = ["<blank>", "<unk>", "<na>", LANGUAGE, TASK, "<st_eng>", "<notimestamps>"]
    head += [f"<{i * 0.02:.2f}>" for i in range(1501)]
    tail = ["<sop>", "<sos>", "<eos>"]
    return head + [f"w{i}" for i in range(size - len(head) - len(tail))] + tail


def stock_decoder(args: argparse.Namespace, directory: Path) -> Any:
    """ESPnet's `Speech2Text` with a random model."""
    from espnet2.bin.s2t_inference import Speech2Text
    from espnet2.tasks.s2t import S2TTask

    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    config.update(token_list=token_list(args.vocabulary), token_type="word", bpemodel=None)
    config.update(use_amp=False, normalize=None)
    (directory / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    options = S2TTask.get_parser().parse_args(["--config", str(directory / "train.yaml")])
    torch.manual_seed(0)
    model = S2TTask.build_model(options)
    torch.save(model.state_dict(), directory / "model.pth")
    (directory / "config.yaml").write_text(yaml.safe_dump(vars(options)), encoding="utf-8")
    return Speech2Text(
        directory / "config.yaml",
        directory / "model.pth",
        device="cuda" if torch.cuda.is_available() else "cpu",
        lang_sym=LANGUAGE,
        task_sym=TASK,
        **search_options(args),
    )


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of both. ``<eos>`` comes at the longest length only: both write as many tokens."""
    return {
        "beam_size": args.beam_size,
        "ctc_weight": args.ctc_weight,
        "maxlenratio": -float(args.tokens),
        "minlenratio": -float(args.tokens - 1),
    }


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
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--ctc_weight", type=float, default=0.0)
    parser.add_argument("--vocabulary", type=int, default=40000)
    parser.add_argument("--config", type=Path, default=CONF)
    parser.add_argument("--padded", action="store_true", help="ESPnet's class as shipped")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        stock = stock_decoder(args, Path(directory))
        s2t = Speech2Text(
            Path(directory) / "config.yaml",
            Path(directory) / "model.pth",
            device="cuda" if torch.cuda.is_available() else "cpu",
            lang_sym=LANGUAGE,
            task_sym=TASK,
            batch_size=args.group,
            **search_options(args),
        )
    stock.s2t_model.trim_padding = not args.padded
    generator = torch.Generator().manual_seed(1)
    seconds = torch.rand(args.utts, generator=generator) * 10 + 2
    lengths = sorted((seconds * FS).int().tolist())
    speech = [torch.randn(n, generator=generator) * 0.1 for n in lengths]
    decode_stock(stock, speech[:1])  # warm up
    decode_ours(s2t, speech[:2])
    rows = []
    for turn, start in enumerate(range(0, args.utts, args.group)):
        group = speech[start : start + args.group]
        first_is_stock = turn % 2 == 0
        if first_is_stock:
            theirs = decode_stock(stock, group, args.padded)
        ours = decode_ours(s2t, group)
        if not first_is_stock:
            theirs = decode_stock(stock, group, args.padded)
        same = [a[0] == b[0] for a, b in zip(theirs[2], ours[2], strict=True)]
        gap = max(abs(a[1] - b[1]) for a, b in zip(theirs[2], ours[2], strict=True))
        rows.append(
            {
                "utts": len(group),
                "audio_s": sum(map(len, group)) / FS,
                "stock_s": theirs[0],
                "batched_s": ours[0],
                "stock_search_s": theirs[1],
                "batched_search_s": ours[1],
                "same_best": sum(same),
                "score_gap": gap,
            }
        )
        print(
            f"{len(group):3d} utts of {len(group[0]) / FS:.1f} to {len(group[-1]) / FS:.1f} s: "
            f"{theirs[0] / ours[0]:.2f} x in all, {theirs[1] / ours[1]:.2f} x the search; "
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
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
