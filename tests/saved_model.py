"""Tiny random models as ESPnet's training leaves them: a directory with config and checkpoint."""

from __future__ import annotations

import argparse
import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import EXPERTS, TOKENS, ids, randomize, training_config

from espnet_smoe import Speech2Text
from espnet_smoe.results import Result

MAXLEN = -6.0  # random models rarely end by themselves
STOCK = {"model": "espnet", "preprocessor": "s2t", "decoder": "transformer"}


def save_model(directory: Path, kind: str = "conformer", **options: Any) -> Path:
    """Write a tiny model; `options` are those of `tiny.training_config`.

    ``encoder``, ``decoder``, ``model`` and ``preprocessor`` of ESPnet's own make it a dense one.
    """
    from espnet2.tasks.s2t import S2TTask

    model_conf = {"ctc_weight": 0.3, "lsm_weight": 0.1}
    if options.get("model", "smoe") == "smoe":
        model_conf |= {"speech_length": 1.0, "trim_padding": True}
    config = training_config(kind, **options)
    config["model_conf"] = {**model_conf, **options.get("model_conf", {})}
    if "encoder_conf" in config and config["encoder"].startswith("smoe_"):
        config["encoder_conf"].setdefault("experts", ["wb", "nb"])
    config["preprocessor_conf"] = {
        **config["preprocessor_conf"],
        "fs": 16000,
        "notime_symbol": "<notimestamps>",
        "first_time_symbol": "<0.00>",
    }
    args = {**S2TTask.get_default_config(), **config}
    torch.manual_seed(3)
    model = randomize(S2TTask.build_model(argparse.Namespace(**args)), 0.3)
    with torch.no_grad():  # mostly words, and those heard: the texts then tell something
        for layer in model.decoder.decoders:
            layer.src_attn.linear_out.weight.mul_(8.0)
        for token in TOKENS[TOKENS.index("_") + 1 : TOKENS.index("<sop>")]:
            model.decoder.output_layer.bias[ids(token)] += 2.0
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), directory / "valid.acc.ave.pth")
    text = yaml.safe_dump(args, sort_keys=False)
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    return directory


def temporary_directory() -> Path:
    """A directory that goes when the process ends."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


@functools.cache
def model_directory() -> Path:
    """A saved S-MoE conformer, the same for all tests of a process."""
    return save_model(temporary_directory() / "model", decoder_conf={"experts": EXPERTS})


def load_model(**keywords: Any) -> Speech2Text:
    """`Speech2Text` of `model_directory`."""
    return Speech2Text.from_pretrained(model_directory(), **{"maxlenratio": MAXLEN, **keywords})


def same_entries(mine: Result, theirs: list[Any]) -> None:
    """Our result unpacks into what ESPnet's class gives."""
    assert len(mine) == len(theirs) > 0
    for (text, token, token_int, plain, hyp), expected in zip(mine, theirs, strict=True):
        assert (text, token, token_int, plain) == expected[:4]
        assert hyp.yseq.tolist() == expected[4].yseq.tolist()
        assert float(hyp.score) == pytest.approx(float(expected[4].score), abs=1e-4)
        assert hyp.scores.keys() == {
            k for k, v in expected[4].scores.items() if v or k in hyp.scores
        }
