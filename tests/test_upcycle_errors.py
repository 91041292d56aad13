"""What `espnet-smoe upcycle` refuses: each names what is wrong, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from saved_model import STOCK, model_directory, save_model

from espnet_smoe.cli import main

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def conformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dense") / "model"
    return save_model(directory, "conformer", encoder="conformer", **STOCK)


@pytest.fixture
def dense(conformer: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(conformer, tmp_path / "dense"))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command, which fails; its one line. `config`: the YAML's content."""

    def run(model: Path, *options: str, config: Any = None) -> str:
        out = tmp_path / "out"
        if config is not None:
            text = config if isinstance(config, str) else yaml.safe_dump(config)
            (tmp_path / "smoe.yaml").write_text(text, encoding="utf-8")
            options = (*options, "--config", str(tmp_path / "smoe.yaml"))
        assert main(["upcycle", "--model", str(model), "--out", str(out), *options]) == 1
        assert not out.exists()
        assert not [path for path in tmp_path.iterdir() if ".partial" in path.name]
        error = capsys.readouterr().err
        assert error.startswith("espnet-smoe upcycle: ") and "Traceback" not in error
        return error

    return run


class Payload:
    """Unpickling it runs code."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Payload, "ran", True)


def test_a_malicious_pickle_is_not_executed(dense: Path, refused: Refused) -> None:
    path = dense / "valid.acc.ave.pth"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "decoder.embed.0.weight": Payload()}, path)
    assert "holds more than weights" in refused(dense)
    assert not Payload.ran


def test_files_that_are_broken(dense: Path, refused: Refused, tmp_path: Path) -> None:
    path = dense / "valid.acc.ave.pth"
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert f"checkpoint '{path}'" in refused(dense)
    path.unlink()
    assert "has no valid.acc.ave.pth" in refused(dense)
    assert "does not exist" in refused(tmp_path / "gone")
    (tmp_path / "broken.zip").write_bytes(whole[: len(whole) // 2])
    assert "broken.zip' cannot be unpacked" in refused(tmp_path / "broken.zip")


@pytest.mark.parametrize(
    "changes",
    [{"encoder_conf": {"num_blocks": "x"}}, {"decoder_conf": {"nothing": 1}}, {"ctc_conf": None}],
    ids=str,
)
def test_configs_of_the_dense_model_that_describe_none(
    changes: dict[str, Any], dense: Path, refused: Refused
) -> None:
    path = dense / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    assert f"config '{path}' describes no model: " in refused(dense)


@pytest.mark.parametrize("meta", ["- a", "files: [", "files: 3", "{}"])
def test_packed_models_without_a_list_of_their_files(
    meta: str, dense: Path, refused: Refused
) -> None:
    (dense / "meta.yaml").write_text(meta, encoding="utf-8")
    assert f"packed model '{dense}'" in refused(dense)


def test_weights_that_are_not_the_configs(dense: Path, refused: Refused) -> None:
    path = dense / "valid.acc.ave.pth"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "lm.weight": torch.zeros(2), "ctc.x": torch.zeros(1)}, path)
    assert "holds lm.weight, ctc.x, which its config knows nothing of" in refused(dense)
    assert "holds ctc.x, which" in refused(dense, "--drop", "lm.*")
    torch.save({k: v for k, v in state.items() if "norm_ff." not in k}, path)
    assert "lacks encoder.encoders.0.norm_ff.weight" in refused(dense)
    torch.save({**state, "ctc.ctc_lo.bias": torch.zeros(3)}, path)
    assert "does not fit its config: " in refused(dense)


def test_what_was_dropped_by_name_is_dropped(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dense / "valid.acc.ave.pth"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "lm.weight": torch.zeros(2)}, path)
    command = ["upcycle", "--model", str(dense), "--out", str(tmp_path / "out")]
    assert main([*command, "--drop", "lm.*"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if "dropped" in x)
    assert line.replace("│", " ").split() == ["dropped", "1", "2", "0", "0"]


def test_a_model_that_has_experts_already(refused: Refused) -> None:
    error = refused(model_directory())
    assert "is an S-MoE model already (encoder: smoe_conformer); accepted is a dense one" in error


def test_encoders_without_a_place_for_experts(tmp_path: Path, refused: Refused) -> None:
    conf = {"use_ffn": False, "macaron_ffn": False}
    options = {**STOCK, "encoder_conf": conf}
    model = save_model(tmp_path / "ebf", "e_branchformer", encoder="e_branchformer", **options)
    assert "no feed-forward to make experts of (encoder_conf.use_ffn is false)" in refused(model)
    other = {"decoder": "lightweight_conv", "decoder_conf": {"num_blocks": 1}}
    other["decoder_conf"]["conv_kernel_length"] = [3]  # type: ignore[index]
    model = save_model(tmp_path / "light", encoder="conformer", **STOCK | other)
    assert "decoder is 'lightweight_conv', which cannot be given experts; accepted: tra" in (
        refused(model)
    )


def test_a_directory_that_holds_something(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine", encoding="utf-8")
    assert main(["upcycle", "--model", str(dense), "--out", str(tmp_path / "full")]) == 1
    assert "full' exists and holds something; nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "full/notes").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("encoder: [", "smoe.yaml' cannot be read"),
        ("- a", "smoe.yaml' holds a list; accepted: a training YAML"),
        ("!!python/object/apply:os.system ['true']", "smoe.yaml' cannot be read"),
        (
            {"encoder": "smoe_conformer", "encoder_conf": [1]},
            "encoder_conf is [1]; accepted: a map",
        ),
        ({"max_epoch": 3}, "no experts; accepted is smoe_conformer, smoe_transformer, or both"),
        ({"encoder": "smoe_conformer", "epochs": 3}, "epochs: no such option of ESPnet's S2T task"),
        (
            {"encoder": "smoe_conformer", "encoder_conf": {"blocks": 2}},
            "encoder_conf.blocks: smoe_conformer has no such option",
        ),
        (
            {"decoder": "smoe_transformer", "encoder_conf": {"experts": ["wb"]}},
            "encoder_conf.experts: conformer has no such option",
        ),
        (
            {"encoder": "smoe_conformer", "model": "espnet"},
            "model is 'espnet'; experts need 'model",
        ),
        (
            {"decoder": "smoe_transformer", "decoder_conf": {"experts": {"fra": ["<st_fra>"]}}},
            "'<st_fra>' match no token of the token list",
        ),
        (
            {"encoder": "smoe_conformer", "model_conf": {"lsm_weight": "much"}},
            "smoe.yaml' describes no model: ",
        ),
        (
            {"encoder": "smoe_conformer", "encoder_conf": {"experts": 2}},
            "smoe.yaml' describes no model: ",
        ),
        (
            {"encoder": "smoe_conformer", "encoder_conf": {"expert_blocks": [7]}},
            "7 is no block; accepted: 0 to 1",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_configs_that_say_nothing_usable(
    config: Any, message: str, dense: Path, refused: Refused
) -> None:
    assert message in refused(dense, config=config)


@pytest.mark.parametrize(
    ("config", "option", "value", "own"),
    [
        ({"encoder": "smoe_transformer"}, "encoder", "'smoe_transformer'", "'conformer'"),
        ({"encoder_conf": {"num_blocks": 12}}, "encoder_conf.num_blocks", "12", "2"),
        ({"encoder_conf": {"zero_triu": True}}, "encoder_conf.zero_triu", "True", "False"),
        ({"decoder_conf": {"linear_units": 11}}, "decoder_conf.linear_units", "11", "10"),
        ({"frontend_conf": {"n_mels": 80}}, "frontend_conf.n_mels", "80", "12"),
        ({"frontend_conf": {"fmin": 20}}, "frontend_conf.fmin", "20", "None"),
        ({"normalize": "global_mvn"}, "normalize", "'global_mvn'", "None"),
        ({"token_type": "char"}, "token_type", "'char'", "'word'"),
        ({"bpemodel": "other.model"}, "bpemodel", "'other.model'", "None"),
        ({"token_list": "gone.txt"}, "token_list", "'gone.txt'", "72 tokens"),
        ({"preprocessor": "smoe"}, "preprocessor", "'smoe'", "'s2t'"),
        (
            {"preprocessor_conf": {"last_time_symbol": "<30.00>"}},
            *("preprocessor_conf.last_time_symbol", "'<30.00>'", "'<1.00>'"),
        ),
        ({"model_conf": {"trim_padding": True}}, "model_conf.trim_padding", "True", "False"),
        ({"model_conf": {"speech_length": 30}}, "model_conf.speech_length", "30", "1.0"),
        ({"model_conf": {"ctc_weight": 1.0}}, "model_conf.ctc_weight", "1.0", "0.3"),
        ({"model_conf": {"sym_eos": "<eot>"}}, "model_conf.sym_eos", "'<eot>'", "'<eos>'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_config_that_contradicts_the_dense_model_is_told_both_values(
    config: dict[str, Any], option: str, value: str, own: str, dense: Path, refused: Refused
) -> None:
    error = refused(dense, config={"encoder": "smoe_conformer"} | config)
    assert "does not describe the dense model: " in error
    assert f"{option} is {value}, the dense model's " in error
    assert own in error.split(f"{option} is {value}, ")[1]


def test_all_contradictions_are_told_at_once(dense: Path, refused: Refused) -> None:
    config = {"encoder_conf": {"num_blocks": 12, "output_size": 99}, "frontend_conf": {"fs": 8000}}
    error = refused(dense, config={"encoder": "smoe_conformer", **config})
    for option in ("encoder_conf.num_blocks", "encoder_conf.output_size", "frontend_conf.fs"):
        assert f"{option} is" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["<st_fra>"], "accepted is '<new>=<old>'"),
        (["<asr>=<st_eng>"], "'<asr>' is in the token list already"),
        (["<st_fra>=<st_ita>"], "which is no token of the model"),
        (["fra=<spa>"], "'fra' is no special token"),
    ],
)
def test_new_tokens_that_cannot_be(
    options: list[str], message: str, dense: Path, refused: Refused
) -> None:
    assert message in refused(dense, "--new_token", *options)


def test_new_tokens_that_training_would_split(dense: Path, refused: Refused) -> None:
    path = dense / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, "token_type": "char"}), encoding="utf-8")
    error = refused(dense, "--new_token", "<st_fra>=<st_eng>")
    assert "token_type is 'char', which would split new tokens in training" in error


def test_a_pattern_that_drops_nothing(dense: Path, refused: Refused) -> None:
    assert "drop 'lm.*': no tensor is called so" in refused(dense, "--drop", "lm.*")


def test_a_model_that_takes_features(dense: Path, refused: Refused) -> None:
    path = dense / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, "input_size": 12}), encoding="utf-8")
    state = torch.load(dense / "valid.acc.ave.pth", weights_only=True)
    kept = {name: value for name, value in state.items() if not name.startswith("frontend")}
    torch.save(kept, dense / "valid.acc.ave.pth")
    assert "takes features of size 12; accepted is one that takes audio" in refused(dense)
