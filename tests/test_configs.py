"""Every shipped config builds, uses only options that exist, and has the size it is said to have.

Models of the paper's size are built on torch's meta device: shapes without memory.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from espnet2.bin.s2t_inference import get_parser as inference_parser
from espnet2.tasks import s2t
from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from espnet2.tasks.s2t import S2TTask
from recipe_copy import RECIPE, REPOSITORY
from stage_data import edit, make_raw, make_s2t, run_main

from espnet_smoe import cli
from espnet_smoe.experts import param_counts

import check_config  # isort: skip  (stage_data puts the recipe's local/ on the path)
import train_bbpe  # isort: skip
from study_config import merge_system  # isort: skip

SHIPPED = sorted((RECIPE / "conf").glob("train_*.yaml"))
TINY = REPOSITORY / "tests" / "data" / "train_tiny.yaml"
PAPER = ["base", "dec_ffnx2", "enc_smoe", "dec_smoe", "encdec_smoe"]  # the ladder and a rung more
COMPARED = ["learned_moe", "bandwidth_embedding", "random_routes"]  # with it; then our conformer
VOCABULARY = 40000
CLASSES = {choices.name: choices for choices in S2TTask.class_choices_list}
CLASSES["preprocessor"] = s2t.preprocessor_choices
PARTS = ["encoder", "decoder", "model", "preprocessor"]
PARTS += ["frontend", "specaug", "optim", "scheduler"]
TRAINING = ["iterator_type", "valid_iterator_type", "batch_bins", "num_workers", "seed"]
TRAINING += ["max_epoch", "accum_grad", "grad_clip", "keep_nbest_models", "best_model_criterion"]
TRAINING += ["num_att_plot", "unused_parameters"]
SMOE_MODEL = {"trim_padding", "speech_length", "fs"}
GATED = {"experts", "expert_blocks", "balance_weight", "gate_scale", "gate_jitter"}
OWN = {  # options that ESPnet's class does not have
    "encoder: smoe_conformer": {"experts", "expert_blocks", "macaron_experts"},
    "encoder: smoe_transformer": {"experts", "expert_blocks"},
    "decoder: smoe_transformer": {"experts", "expert_blocks", "default_expert"},
    "encoder: learned_moe_transformer": GATED,
    "encoder: bandwidth_embedding_transformer": {"bandwidths"},
    "decoder: learned_moe_transformer": GATED,
    "decoder: smoe_transformer_random": {"experts", "expert_blocks"},
    "model: smoe": SMOE_MODEL,
    "model: smoe_random": SMOE_MODEL,
    "preprocessor: smoe": {"pad_prob"},
}
BY_ID = {"ids": lambda path: path.stem}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def class_of(config: dict[str, Any], part: str) -> Callable[..., Any]:
    """The class that a config's ``part:`` names."""
    if part == "optim":
        return optim_classes[config[part]]
    if part == "scheduler":
        return scheduler_classes[config[part]]
    return CLASSES[part].get_class(config[part])


def build(path: Path, vocabulary: int = VOCABULARY) -> Any:
    """Build a config's model without memory for its parameters."""
    args = S2TTask.get_parser().parse_args(["--config", str(path)])
    args.token_list = cli.placeholder_tokens(vocabulary, args.decoder_conf)
    args.normalize, args.normalize_conf = None, {}
    with torch.device("meta"):
        return S2TTask.build_model(args)


def without_ctc(path: Path) -> tuple[int, dict[str, int]]:
    """Total and active parameters, less those of the CTC layer."""
    model = build(path)
    ctc = sum(p.numel() for p in model.ctc.parameters())
    counts = param_counts(model)
    assert counts.total == sum(p.numel() for p in model.parameters())
    return counts.total - ctc, {route: n - ctc for route, n in counts.active.items()}


def paper(name: str) -> Path:
    return RECIPE / "conf" / f"train_{name}.yaml"


def test_the_ladder_is_shipped() -> None:
    names = {path.stem.removeprefix("train_") for path in SHIPPED}
    assert {*PAPER, *COMPARED, "encdec_smoe_conformer", "mini", "mboshi_fr"} == names


@pytest.mark.parametrize("path", [*SHIPPED, TINY], **BY_ID)
def test_a_config_uses_only_options_that_exist(path: Path) -> None:
    config = read(path)
    known = vars(S2TTask.get_parser().parse_args([]))
    assert config.keys() <= known.keys()
    for name in [name for name in config if name.endswith("_conf")]:
        part = name.removesuffix("_conf")
        assert part in config, f"{name} without {part}"
        named = class_of(config, part)  # None: the part is left out
        options = inspect.signature(named).parameters if named else {}
        assert config[name].keys() <= options.keys(), name


@pytest.mark.parametrize("path", [*SHIPPED, TINY], **BY_ID)
def test_a_config_lists_the_options_it_uses(path: Path) -> None:
    """Every part of the model and of training, and every option that is this package's own."""
    config = read(path)
    assert {*PARTS, *(f"{part}_conf" for part in PARTS), *TRAINING} <= config.keys()
    for part in ("encoder", "decoder", "model", "preprocessor"):
        assert OWN.get(f"{part}: {config[part]}", set()) <= config[f"{part}_conf"].keys()


@pytest.mark.parametrize("path", [*SHIPPED, TINY], **BY_ID)
def test_a_config_agrees_with_itself(path: Path) -> None:
    config = read(path)
    random = config["decoder"] == "smoe_transformer_random"
    assert config["model"] == ("smoe_random" if random else "smoe")
    assert config["preprocessor"] == "smoe"
    assert config["iterator_type"] == config["valid_iterator_type"] == "task"
    for part in ("encoder", "decoder"):  # experts are for classes that have some
        has_experts = config[part].startswith(("smoe_", "learned_moe_"))
        assert has_experts == ("experts" in config[f"{part}_conf"])
    model, preprocessor = config["model_conf"], config["preprocessor_conf"]
    assert model["speech_length"] == preprocessor["speech_length"]
    assert model["fs"] == preprocessor["fs"] == config["frontend_conf"]["fs"] == 16000
    assert config["batch_bins"] >= preprocessor["speech_length"] * preprocessor["fs"]


@pytest.mark.parametrize("path", [*SHIPPED, TINY], **BY_ID)
def test_a_config_builds_with_its_experts(path: Path) -> None:
    config = read(path)
    model = build(path, 500)
    routes = list(param_counts(model).active)
    encoder, decoder = (
        config[f"{part}_conf"].get("experts", []) for part in ("encoder", "decoder")
    )
    if config["encoder"].startswith("learned_moe_"):
        assert (encoder, decoder, routes) == (2, 2, ["learned"])
        return
    pairs = ["/".join(filter(None, (e, d))) for e in encoder or [""] for d in decoder or [""]]
    assert sorted(routes) == sorted(pairs if pairs != [""] else ["dense"])


def test_the_ladder_has_the_papers_sizes() -> None:
    """At 40,000 tokens, without the CTC layer; 111.4 M where the paper's front end gives 107 M."""
    sizes = {name: without_ctc(paper(name)) for name in PAPER}
    totals = {name: round(total / 1e6, 1) for name, (total, _) in sizes.items()}
    smoe = {"enc_smoe": 136.6, "dec_smoe": 124.0, "encdec_smoe": 149.2}
    assert totals == {"base": 111.4, "dec_ffnx2": 124.0, **smoe}
    base = sizes["base"][0]
    for name in ("base", *smoe):
        assert set(sizes[name][1].values()) == {base}  # a route costs what the dense model costs
    assert sizes["encdec_smoe"][1].keys() == {"wb/asr", "wb/st", "nb/asr", "nb/st"}
    assert abs(sizes["dec_ffnx2"][0] - sizes["dec_smoe"][0]) < 1e-4 * base


def test_what_it_is_compared_with_has_the_same_sizes() -> None:
    base, smoe = without_ctc(paper("base"))[0], without_ctc(paper("encdec_smoe"))
    gates = (12 + 6) * 2 * 512
    assert without_ctc(paper("learned_moe")) == (smoe[0] + gates, {"learned": base + gates})
    vectors = 2 * 80
    embedded = base + vectors
    assert without_ctc(paper("bandwidth_embedding")) == (embedded, {"dense": embedded})
    random = {f"{e}/{d}": base for e in ("e0", "e1") for d in ("d0", "d1")}
    assert without_ctc(paper("random_routes")) == (smoe[0], random)


def test_the_configs_differ_in_their_experts_only() -> None:
    configs = {name: read(paper(name)) for name in [*PAPER, *COMPARED]}
    for config in configs.values():
        config["model"] = config["model"].removesuffix("_random")
        for part in ("encoder", "decoder"):
            assert config[part].removesuffix("_random").endswith("transformer")
            for own in OWN.get(f"{part}: {config.pop(part)}", ()):
                config[f"{part}_conf"].pop(own)
    assert configs["dec_ffnx2"]["decoder_conf"].pop("linear_units") == 4096
    assert configs["base"]["decoder_conf"]["linear_units"] == 2048
    configs["dec_ffnx2"]["decoder_conf"]["linear_units"] = 2048
    assert all(config == configs["base"] for config in configs.values())


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("base", {"total": "111.4 M (111,401,024)", "active on dense": "111.4 M (111,401,024)"}),
        ("encdec_smoe", {"total": "149.2 M (149,195,840)", "active on nb/st": "111.4 M (111,4"}),
    ],
)
def test_the_command_line_prints_total_and_active(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    rows: dict[str, str],
) -> None:
    monkeypatch.chdir(RECIPE)
    config = f"conf/train_{name}.yaml"
    with torch.device("meta"):
        assert cli.main(["params", config, "--vocab_size", str(VOCABULARY)]) == 0
    out = capsys.readouterr().out
    assert f"{config}: {VOCABULARY} tokens" in out
    for row, figure in rows.items():
        assert re.search(rf"│ {row} +│ {re.escape(figure)}", out), out
    assert "131.9 M (131,921,024)" in out  # a route, with the CTC layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conf/none.yaml", "--vocab_size", "500"], "conf/none.yaml"),
        ([str(paper("base")), "--vocab_size", "9"], r"--vocab_size 9 is too small; accepted: from"),
        ([str(paper("base")), "--token_list", "none.txt"], "none.txt"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        status = cli.main(["params", *arguments])
    except SystemExit as error:  # ESPnet's own parser, on a config that is not there
        status = int(error.code or 0)
    assert status != 0
    assert re.search(message, capsys.readouterr().err)


def test_decode_options_exist() -> None:
    config = read(RECIPE / "conf" / "decode.yaml")
    assert config.keys() <= vars(argparse.Namespace(**defaults(inference_parser()))).keys()


def defaults(parser: argparse.ArgumentParser) -> dict[str, Any]:
    return {action.dest: action.default for action in parser._actions}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which stages 4 and 5 have run."""
    directory = tmp_path_factory.mktemp("data")
    make_raw(directory)
    options = ("--train_dir", "s2t/train", "--out", "tokens", "--vocab_size", "245")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert make_s2t() == 0
        assert train_bbpe.main(options) == 0
    return directory


@pytest.fixture
def stage_8(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Stage 8 on a tiny config with changes; returns the exit status and what it prints."""
    monkeypatch.chdir(data)
    config_path = tmp_path / "train.yaml"

    def run(
        examples: Path = data / "s2t" / "train", system: str = "encdec_smoe", **changes: Any
    ) -> tuple[int, str]:
        systems = RECIPE / "conf" / "study" / "systems"
        config = merge_system(read(TINY), read(systems / f"{system}.yaml"))
        for name, options in changes.items():
            config[name].update(options)
        config_path.write_text(yaml.safe_dump(config), encoding="utf-8")
        tokens = ("--token_list", "tokens/tokens.txt", "--bpemodel", "tokens/bpe.model")
        options = ("--config", config_path, "--token_type", "bpe", *tokens)
        capsys.readouterr()
        status = run_main(
            check_config.main, "--examples", examples, "--", "--use_preprocessor", "true", *options
        )
        printed = capsys.readouterr()
        return status, printed.out if status == 0 else printed.err

    return run


def test_stage_8_runs_every_route_forward_and_backward(
    stage_8: Callable[..., tuple[int, str]],
) -> None:
    status, out = stage_8()
    assert status == 0, out
    assert "forward and backward on 8 examples: loss_ctc" in out
    for route in ("asr_wb", "asr_nb", "st_wb", "st_nb"):
        assert f"loss_att_{route} " in out


@pytest.mark.parametrize(
    ("system", "figures"),
    [
        ("learned_moe", ["loss_att"]),
        ("bandwidth_embedding", ["loss_att_wb", "loss_att_nb"]),
        ("random_routes", ["loss_att_d0_e0", "loss_att_d1_e1"]),
    ],
)
def test_stage_8_runs_what_smoe_is_compared_with(
    stage_8: Callable[..., tuple[int, str]], system: str, figures: list[str]
) -> None:
    status, out = stage_8(system=system)
    assert status == 0, out
    assert all(f"{figure} " in out for figure in figures)
    status, error = stage_8(system=system, preprocessor_conf={"speech_length": 9})
    assert status == 1
    assert "model_conf has speech_length 8" in error


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "decoder_conf",
            {"experts": {"asr": ["<asrr>"], "st": ["<st_*>"]}},
            r"decoder_conf\.experts.*asr.*<asrr>",
        ),
        ("decoder_conf", {"experts": {"asr": ["<asr>"], "st": ["st_*"]}}, r"decoder_conf\.experts"),
        ("encoder_conf", {"experts": ["wb", "nbb"]}, r"encoder_conf\.experts.*nbb"),
        ("encoder_conf", {"expert_blocks": [7]}, r"expert_blocks.*7"),
        ("encoder_conf", {"linear_unit": 3}, "option that does not exist.*'linear_unit'"),
        ("preprocessor_conf", {"speech_length": 9}, "model_conf has speech_length 8 .* need"),
        ("preprocessor_conf", {"pad_prob": 2}, r"preprocessor_conf\.pad_prob is 2"),
    ],
)
def test_stage_8_names_the_option_that_is_wrong(
    stage_8: Callable[..., tuple[int, str]], part: str, changes: dict[str, Any], message: str
) -> None:
    status, error = stage_8(**{part: changes})
    assert status == 1
    assert re.search(message, error), error


def test_stage_8_names_an_utterance_that_is_too_long_and_experts_without_data(
    stage_8: Callable[..., tuple[int, str]], data: Path, tmp_path: Path
) -> None:
    short = {"speech_length": 1.6}
    status, error = stage_8(model_conf=short, preprocessor_conf=short)
    assert status == 1
    assert "utterance u3_asr: 2.00 s is longer than preprocessor_conf.speech_length" in error
    wide = shutil.copytree(data / "s2t" / "train", tmp_path / "wide")
    for example in ("u1_asr", "u1_st_eng", "u3_asr", "u3_st_eng"):
        edit(wide / "bandwidth", example, "0")
    status, error = stage_8(wide)
    assert status == 1
    assert "no example of the training set reaches expert(s) nb" in error
