"""A model of the paper's size with random weights, which several benchmarks decode with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_smoe import Speech2Text

FS = 16000
CONF = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1/conf/train_encdec_smoe.yaml"
LANGUAGE, TASK = "<spa>", "<asr>"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SECONDS = (2.0, 12.0)  # of an utterance


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the model and of the search."""
    parser.add_argument("--tokens", type=int, default=40, help="of every hypothesis")
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--ctc_weight", type=float, default=0.0)
    parser.add_argument("--vocabulary", type=int, default=40000)
    parser.add_argument("--config", type=Path, default=CONF)
    parser.add_argument("--json", type=Path, help="write what was measured here")


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """``<eos>`` comes at the longest length only, so that every search writes as many tokens."""
    return {
        "beam_size": args.beam_size,
        "ctc_weight": args.ctc_weight,
        "maxlenratio": -float(args.tokens),
        "minlenratio": -float(args.tokens - 1),
    }


def token_list(size: int, every: int = 1) -> list[str]:
    """A vocabulary of the recipe's form, with every so many of the 1,501 times."""
    head = ["<blank>", "<unk>", "<na>", LANGUAGE, TASK, "<st_eng>", "<notimestamps>"]
    head += [f"<{i * 0.02:.2f}>" for i in range(0, 1501, every)]
    tail = ["<sop>", "<sos>", "<eos>"]
    return head + [f"w{i}" for i in range(size - len(head) - len(tail))] + tail


def write_model(args: argparse.Namespace, directory: Path) -> tuple[Path, Path]:
    """Write a random model; returns its config and its checkpoint."""
    from espnet2.tasks.s2t import S2TTask

    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    config.update(token_list=token_list(args.vocabulary), token_type="word", bpemodel=None)
    config.update(use_amp=False, normalize=None)
    (directory / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    options = S2TTask.get_parser().parse_args(["--config", str(directory / "train.yaml")])
    torch.manual_seed(0)
    model = S2TTask.build_model(options)
    files = directory / "config.yaml", directory / "model.pth"
    torch.save(model.state_dict(), files[1])
    files[0].write_text(yaml.safe_dump(vars(options)), encoding="utf-8")
    return files


def stock(args: argparse.Namespace, files: tuple[Path, Path]) -> Any:
    """ESPnet's `Speech2Text` of a model that `write_model` wrote."""
    from espnet2.bin.s2t_inference import Speech2Text as StockSpeech2Text

    options = {"lang_sym": LANGUAGE, "task_sym": TASK, "device": DEVICE, **search_options(args)}
    return StockSpeech2Text(*files, **options)


def ours(args: argparse.Namespace, files: tuple[Path, Path], **options: Any) -> Speech2Text:
    """This package's `Speech2Text` of it."""
    known = {"lang_sym": LANGUAGE, "task_sym": TASK, "device": DEVICE, **search_options(args)}
    known["max_length"] = 30.0  # seconds; noise that is cut at pauses has no speech
    return Speech2Text(*files, **known | options)


def random_speech(utts: int) -> list[torch.Tensor]:
    """Noise of `SECONDS`, always the same, the shortest first; each (N,)."""
    generator = torch.Generator().manual_seed(1)
    low, high = SECONDS
    seconds = torch.rand(utts, generator=generator) * (high - low) + low
    lengths = sorted((seconds * FS).int().tolist())
    return [torch.randn(n, generator=generator) * 0.1 for n in lengths]


def write_json(args: argparse.Namespace, summary: dict[str, Any]) -> None:
    """Write the summary where ``--json`` says, if it does."""
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
