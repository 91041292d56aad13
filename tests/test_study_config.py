"""The systems of the study: what the merge does, and that every system runs on every corpus."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from espnet2.tasks.s2t import S2TTask
from recipe_copy import RECIPE
from tiny import FRONTEND, TIMES, TOKENS, model_batch

from espnet_smoe.experts import ExpertBank, param_counts

sys.path.insert(0, str(RECIPE / "local"))
from study_config import BLOCKS, StudyConfigError, merge_system  # noqa: E402  # isort: skip

CONF = RECIPE / "conf"
CORPORA = ["mini", "mboshi_fr"]
FILES = sorted(path.stem for path in (CONF / "study" / "systems").glob("*.yaml"))
SYSTEMS = [name for name in FILES if "." not in name]
VARIANTS = [name for name in FILES if "." in name]
HALVES = ["first_half", "last_half", "every_other"]
NAMES = ["base", "dec_ffnx2", "enc_smoe", "dec_smoe", "encdec_smoe", "learned_moe"]
NAMES += ["bandwidth_embedding", "random_routes", *(f"encdec_{half}" for half in HALVES)]
NAMES += ["asr_only", "st_eng_only"]
ROUTES = {
    "base": {"dense"},
    "asr_only": {"dense"},
    "st_eng_only": {"dense"},
    "dec_ffnx2": {"dense"},
    "bandwidth_embedding": {"dense"},
    "enc_smoe": {"wb", "nb"},
    "dec_smoe": {"asr", "st"},
    "learned_moe": {"learned"},
    "random_routes": {f"{e}/{d}" for e in ("e0", "e1") for d in ("d0", "d1")},
}
BOTH = {f"{bandwidth}/{task}" for bandwidth in ("wb", "nb") for task in ("asr", "st")}
CORPUS: dict[str, Any] = {
    "encoder": "smoe_conformer",
    "encoder_conf": {"experts": ["wb", "nb"], "expert_blocks": None, "num_blocks": 6},
    "decoder_conf": {"linear_units": 384, "num_blocks": 3, "dropout_rate": 0.1},
    "specaug": "specaug",
    "max_epoch": 10,
}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def system(name: str) -> dict[str, Any]:
    return read(CONF / "study" / "systems" / f"{name}.yaml")


def corpus(name: str) -> dict[str, Any]:
    return read(CONF / f"train_{name}.yaml")


def tiny(config: dict[str, Any]) -> dict[str, Any]:
    """The corpus's config at a size for tests; a system's options come over it."""
    small = {"attention_heads": 2, "linear_units": 12}
    config["encoder_conf"] |= {**small, "output_size": 8, "num_blocks": 3, "cnn_module_kernel": 3}
    config["decoder_conf"] |= {**small, "num_blocks": 2}
    config["model_conf"] |= {"speech_length": 0.5}
    config["preprocessor_conf"] |= {"last_time_symbol": TIMES[-1]}
    config["frontend_conf"] = FRONTEND
    return config


def build(config: dict[str, Any], tokens: list[str] = TOKENS) -> Any:
    """By ESPnet's own parser, from a file, as in training; ``data`` is the harness's."""
    config = {name: value for name, value in config.items() if name != "data"}
    args = S2TTask.get_parser().parse_args([])
    assert config.keys() <= vars(args).keys()
    for name, value in config.items():
        setattr(args, name, value)
    args.token_list, args.token_type = tokens, "word"
    args.normalize, args.normalize_conf = None, {}
    torch.manual_seed(3)
    return S2TTask.build_model(args)


def test_the_systems_are_those_of_the_study() -> None:
    assert sorted(NAMES) == SYSTEMS


@pytest.mark.parametrize("corpus_name", CORPORA)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_trains_on_every_corpus(name: str, corpus_name: str) -> None:
    config = merge_system(tiny(corpus(corpus_name)), system(name))
    model = build(config).train()
    batch = model_batch(["<asr>", "<st_eng>", "<asr>", "<st_deu>"], [0, 1, 1, 0])
    loss, stats, _ = model(**batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert ("balance_loss" in stats) == (name == "learned_moe")
    assert param_counts(model).active.keys() == ROUTES.get(name, BOTH)
    reached = [p for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(p.grad).all() for p in reached)
    dense = [n for n, p in model.named_parameters() if p.grad is None and ".experts." not in n]
    assert dense == []


@pytest.mark.parametrize("corpus_name", CORPORA)
def test_the_systems_sizes(corpus_name: str) -> None:
    """At the study's own sizes, on the meta device."""
    with torch.device("meta"):
        counts = {
            name: param_counts(build(merge_system(corpus(corpus_name), system(name))))
            for name in SYSTEMS
        }
    base = counts["base"].total
    for name in ("enc_smoe", "dec_smoe", "encdec_smoe", "random_routes", "encdec_first_half"):
        assert set(counts[name].active.values()) == {base}, name
    assert counts["random_routes"].total == counts["encdec_smoe"].total
    assert abs(counts["dec_ffnx2"].total - counts["dec_smoe"].total) < 1e-3 * base
    assert 0 < counts["learned_moe"].total - counts["encdec_smoe"].total < 1e-2 * base
    assert counts["bandwidth_embedding"].total == base + 2 * 40  # mel channels
    halves = {counts[f"encdec_{half}"].total for half in HALVES}
    assert len(halves) == 1 and base < halves.pop() < counts["encdec_smoe"].total


def test_variants_cost_on_a_route_what_the_system_costs() -> None:
    """Each further task adds one expert per decoder layer."""
    labels = ["<intent>", "<voice>", "<background>", "<rate>", "<bandwidth>", "<st_spa>"]
    tokens = [*TOKENS[:7], *labels, *TOKENS[7:]]
    mini_hard = read(CONF / "study/mini_hard.yaml")
    with torch.device("meta"):
        counts = {
            name: param_counts(build(merge_system(mini_hard, system(name)), tokens))
            for name in ("base", "encdec_smoe", *VARIANTS)
        }
    base = counts["base"].total
    for name in VARIANTS:
        assert set(counts[name].active.values()) == {base}, name
        if "tasks" not in name:
            assert counts[name].total == counts[name.partition(".")[0]].total
    sizes = [counts[f"encdec_smoe.tasks{n}"].total for n in (2, 4, 6, 8)]
    assert sizes[0] == counts["encdec_smoe"].total
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == sizes[3] - sizes[2] > 0


@pytest.mark.parametrize(
    ("half", "six", "three"),
    [
        ("first_half", [0, 1, 2], [0, 1]),
        ("last_half", [3, 4, 5], [1, 2]),
        ("every_other", [0, 2, 4], [0, 2]),
    ],
)
def test_blocks_are_set_on_both_sides(half: str, six: list[int], three: list[int]) -> None:
    merged = merge_system(CORPUS, {"blocks": half})
    assert merged["encoder_conf"]["expert_blocks"] == six
    assert merged["decoder_conf"]["expert_blocks"] == three
    assert "blocks" not in merged
    model = build(merge_system(tiny(corpus("mini")), system(f"encdec_{half}")))
    for stack, blocks in ((model.encoder.encoders, three), (model.decoder.decoders, None)):
        having = [n for n, block in enumerate(stack) if any_bank(block)]
        assert having == (BLOCKS[half](2) if blocks is None else blocks)


def any_bank(block: torch.nn.Module) -> bool:
    return any(isinstance(module, ExpertBank) for module in block.modules())


def test_encdec_smoe_is_the_corpus_config() -> None:
    for name in CORPORA:
        assert merge_system(corpus(name), system("encdec_smoe")) == corpus(name)


def test_merging_goes_key_by_key_and_null_takes_an_option_out() -> None:
    given, changes = (
        copy.deepcopy(CORPUS),
        {
            "encoder": "conformer",
            "encoder_conf": {"experts": None, "absent": None, "dropout_rate": 0.2},
            "decoder_conf": {"dropout_rate": 0.3},
            "specaug": None,
            "optim_conf": {"lr": 1},
            "note": "not ESPnet's",
        },
    )
    before = copy.deepcopy(changes)
    merged = merge_system(given, changes)
    assert merged == {
        "encoder": "conformer",
        "encoder_conf": {"expert_blocks": None, "num_blocks": 6, "dropout_rate": 0.2},
        "decoder_conf": {"linear_units": 384, "num_blocks": 3, "dropout_rate": 0.3},
        "specaug": None,  # null elsewhere is a value
        "max_epoch": 10,
        "optim_conf": {"lr": 1},
        "note": "not ESPnet's",
    }
    assert (given, changes) == (CORPUS, before)
    merged["encoder_conf"]["num_blocks"] = merged["optim_conf"]["lr"] = 0
    assert (given, changes) == (CORPUS, before)


def test_mappings_take_the_place_of_lists_and_the_other_way_round() -> None:
    swapped = {"encoder_conf": {"experts": {"a": 1}}}
    assert merge_system(CORPUS, swapped)["encoder_conf"]["experts"] == {"a": 1}
    listed = {"decoder_conf": {"experts": {"asr": ["<asr>"]}}}
    merged = merge_system(merge_system(CORPUS, listed), {"decoder_conf": {"experts": ["d0", "d1"]}})
    assert merged["decoder_conf"]["experts"] == ["d0", "d1"]


def test_data_is_left_to_the_harness() -> None:
    data = {"train": {"keep": None}}
    merged = merge_system({**CORPUS, "data": {"old": 1}}, {"data": data})
    assert merged["data"] == data
    assert "data" not in merge_system(CORPUS, {})


def test_scales_multiply_the_corpus_values() -> None:
    merged = merge_system(
        CORPUS, {"scale": {"decoder_conf.linear_units": 0.5, "decoder_conf.dropout_rate": 2}}
    )
    assert merged["decoder_conf"] == {"linear_units": 192, "num_blocks": 3, "dropout_rate": 0.2}
    assert isinstance(merged["decoder_conf"]["linear_units"], int) and "scale" not in merged
    assert merge_system(CORPUS, {"scale": {"max_epoch": 2}})["max_epoch"] == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scale": {"decoder_conf.units": 2}},
            "decoder_conf.units of the corpus is None; accepted",
        ),
        ({"scale": {"encoder.linear_units": 2}}, "encoder.linear_units of the corpus is None"),
        ({"scale": {"specaug": 2}}, "specaug of the corpus is 'specaug'; accepted: a number"),
        ({"scale": {"max_epoch": "2"}}, "scale.max_epoch is '2'; accepted: a number"),
        ({"scale": {"max_epoch": 0.25}}, r"scale.max_epoch: 10 times 0.25 is 2.5; accepted"),
        ({"scale": [2]}, r"scale is \[2\]; accepted: a mapping"),
        ({"blocks": "middle"}, "blocks is 'middle'; accepted: first_half, last_half, every_other"),
        (
            {"blocks": "last_half", "encoder_conf": {"num_blocks": None}},
            "encoder_conf.num_blocks is None; accepted: a number",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_raises(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyConfigError, match=message):
        merge_system(CORPUS, changes)
