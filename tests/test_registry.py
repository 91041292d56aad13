"""ESPnet knows the names: in this process, in its programs, in the processes that it spawns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import espnet2.asr.decoder.transformer_decoder as stock_decoder
import pytest
import yaml
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.tasks import s2t
from espnet2.train.preprocessor import S2TPreprocessor
from espnet2.utils.get_default_kwargs import get_default_kwargs
from tiny import DENSE, SMOE

from espnet_smoe import registry
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.preprocessor import SMoEPreprocessor

NAMES: list[tuple[Any, dict[str, Any]]] = [
    (s2t.encoder_choices, registry.ENCODERS),
    (s2t.decoder_choices, registry.DECODERS),
    (s2t.model_choices, registry.MODELS),
    (s2t.encoder_choices, registry.BASELINE_ENCODERS),
    (s2t.decoder_choices, registry.BASELINE_DECODERS),
    (s2t.model_choices, registry.BASELINE_MODELS),
    (s2t.preprocessor_choices, registry.PREPROCESSORS),
]
GATED = {"experts", "expert_blocks", "balance_weight", "gate_scale", "gate_jitter"}
BASES = [
    *((SMOE[kind], DENSE[kind], {"experts", "expert_blocks", "macaron_experts"}) for kind in SMOE),
    (
        SMoETransformerDecoder,
        stock_decoder.TransformerDecoder,
        {"experts", "expert_blocks", "default_expert"},
    ),
    (
        SMoES2TModel,
        ESPnetS2TModel,
        {
            *("trim_padding", "speech_length", "fs", "route_floor"),
            *("channels", "private_tokens", "train_only", "train_rows"),
        },
    ),
    *(
        (registry.BASELINE_ENCODERS[f"{name}_{kind}"], DENSE[kind], own)
        for kind in ("conformer", "transformer")
        for name, own in (
            ("learned_moe", GATED | {"macaron_experts"}),
            ("bandwidth_embedding", {"bandwidths"}),
        )
    ),
    (
        registry.BASELINE_DECODERS["learned_moe_transformer"],
        stock_decoder.TransformerDecoder,
        GATED,
    ),
    (
        registry.BASELINE_DECODERS["smoe_transformer_random"],
        stock_decoder.TransformerDecoder,
        {"experts", "expert_blocks"},
    ),
    (registry.BASELINE_MODELS["smoe_random"], SMoES2TModel, set()),
    (
        SMoEPreprocessor,
        S2TPreprocessor,
        {"pad_prob", *(f"narrowband_{part}" for part in ("prob", "codecs", "level", "noise_prob"))},
    ),
]


def test_every_registered_name_resolves_through_espnets_choices() -> None:
    for choices, classes in NAMES:
        for name, cls in classes.items():
            assert name == name.lower()
            assert choices.get_class(name) is cls
            assert name in choices.choices()
            assert issubclass(cls, choices.base_type)


def test_stock_names_stay() -> None:
    assert s2t.encoder_choices.get_class("conformer") is DENSE["conformer"]
    assert s2t.model_choices.get_class("espnet") is ESPnetS2TModel
    assert s2t.model_choices.default == "espnet"


def test_registering_twice_changes_nothing() -> None:
    before = s2t.S2TTask.optional_data_names()
    assert before.count("bandwidth") == 1 and "text_ctc" in before
    registry.register()
    assert s2t.S2TTask.optional_data_names() == before


@pytest.mark.parametrize(("cls", "base", "own"), BASES, ids=lambda v: getattr(v, "__name__", ""))
def test_the_signature_shows_every_option_of_espnet_and_ours(
    cls: type, base: type, own: set[str]
) -> None:
    options, stock = get_default_kwargs(cls), get_default_kwargs(base)
    assert {name: options[name] for name in stock} == stock
    assert options.keys() - stock.keys() == own


@pytest.fixture(scope="module")
def processes() -> Any:
    """Both at once: each spends its time importing ESPnet."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    commands = {
        "plugin": ["plugin_process", "--flag", "value"],
        "config": ["espnet2.bin.s2t_train", "--print_config"]
        + ["--encoder", "smoe_conformer", "--decoder", "smoe_transformer"]
        + ["--model", "smoe", "--preprocessor", "smoe"],
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "espnet_smoe.run", "-m", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, arguments in commands.items()
    }
    found = {}
    try:
        for name, process in running.items():
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            found[name] = out
    finally:
        for process in running.values():
            process.kill()
    return found


def test_print_config_shows_the_options_of_both(processes: dict[str, str]) -> None:
    config = yaml.safe_load(processes["config"])
    for part, cls in (
        ("encoder_conf", SMOE["conformer"]),
        ("decoder_conf", SMoETransformerDecoder),
        ("model_conf", SMoES2TModel),
        ("preprocessor_conf", SMoEPreprocessor),
    ):
        options = get_default_kwargs(cls)
        assert config[part] == {name: options[name] for name in config[part]}, part
    assert config["encoder_conf"]["experts"] == ["wb", "nb"]
    assert config["encoder_conf"]["cnn_module_kernel"] == 31
    assert config["decoder_conf"]["experts"] == {
        "asr": ["<asr>", "<transcribe>"],
        "st": ["<st_*>", "<translate>"],
    }
    assert config["model_conf"]["trim_padding"] is False
    assert config["preprocessor_conf"]["pad_prob"] == 0.0
    assert config["preprocessor_conf"]["speech_resolution"] == 0.02


def test_a_spawned_child_knows_the_plugin(processes: dict[str, str]) -> None:
    result = json.loads(processes["plugin"].splitlines()[-1])
    assert result["argv"][1:] == ["--flag", "value"]
    assert result["main"] == "espnet_smoe.run"
    assert result["child"] == {
        "encoder": "SMoEConformerEncoder",
        "keys": [f"encoders.0.feed_forward.experts.{name}.w_1.bias" for name in ("wb", "nb")],
        "data_names": list(s2t.S2TTask.optional_data_names()),
        "iterator": True,
    }
