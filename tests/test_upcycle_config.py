"""The config of an upcycled model: the dense model's own, and what a YAML says of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_copy import RECIPE
from tiny import TOKENS

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.new_tokens import extend_tokens
from espnet_smoe.upcycle_config import default_yaml, read_yaml, smoe_config

PLAN = extend_tokens(TOKENS, {"<fra>": "<spa>"})


def dense_config(name: str = "train_base", **changes: Any) -> dict[str, Any]:
    """The whole config of a dense model that a YAML of the recipe trains."""
    from espnet2.tasks.s2t import S2TTask

    args = vars(S2TTask.get_parser().parse_args([]))
    return args | read_yaml(RECIPE / f"conf/{name}.yaml") | {"token_list": TOKENS} | changes


def stock_config(**changes: Any) -> dict[str, Any]:
    """The whole config of a model of ESPnet's own classes, trained padded to 20 s."""
    conf = {"speech_length": 20, "fs": 16000, "last_time_symbol": "<1.00>"}
    model_conf = {"ctc_weight": 0.3}
    padded = {"preprocessor": "s2t", "preprocessor_conf": conf, "model_conf": model_conf}
    return dense_config(model="espnet", **padded) | changes


@pytest.mark.parametrize("name", ["train_dec_smoe", "train_encdec_smoe"])
def test_the_base_of_the_papers_ladder_becomes_its_other_rungs(name: str) -> None:
    given = read_yaml(RECIPE / f"conf/{name}.yaml")
    config = smoe_config(dense_config(), given, PLAN, origin="it")
    for option, value in given.items():
        if option.endswith("_conf"):
            assert config[option].items() >= value.items(), option
        else:
            assert config[option] == value, option
    assert config["token_list"] == list(PLAN.token_list)


def test_a_rung_without_experts_is_none() -> None:
    given = read_yaml(RECIPE / "conf/train_dec_ffnx2.yaml")
    with pytest.raises(ModelError, match="no experts; accepted is smoe_transformer"):
        smoe_config(dense_config(), given, PLAN, origin="it")


def test_a_yaml_for_unpadded_training_does_not_fit_a_model_trained_padded() -> None:
    given = read_yaml(RECIPE / "conf/train_encdec_smoe.yaml")
    with pytest.raises(ModelError) as caught:
        smoe_config(stock_config(), given, PLAN, origin="it")
    for words in (
        "preprocessor is 'smoe', the dense model's is 's2t'",
        "model_conf.trim_padding is True, the dense model's is False",
        "model_conf.speech_length is 30, the dense model's is 20",
    ):
        assert words in str(caught.value)


def test_without_a_yaml_both_sides_get_experts_and_the_padding_stays() -> None:
    dense = stock_config()
    config = smoe_config(dense, default_yaml(dense), PLAN, origin="it")
    assert config["encoder"] == config["decoder"] == "smoe_transformer"
    assert (config["model"], config["preprocessor"]) == ("smoe", "s2t")
    expected = {"ctc_weight": 0.3, "trim_padding": False, "speech_length": 20, "fs": 16000}
    assert config["model_conf"] == expected
    assert config["preprocessor_conf"] == dense["preprocessor_conf"]


def test_a_model_trained_unpadded_by_this_packages_preprocessor_may_trim() -> None:
    dense = dense_config(model="espnet", model_conf={"ctc_weight": 0.3})
    given = default_yaml(dense)
    for trims in (True, False):
        given["model_conf"] = {"trim_padding": trims}
        config = smoe_config(dense, given, PLAN, origin="it")
        assert config["model_conf"]["trim_padding"] is trims
        assert config["model_conf"]["speech_length"] == 30


def test_a_class_of_training_takes_no_options_of_another() -> None:
    dense = dense_config()
    given = default_yaml(dense) | {"optim": "sgd", "scheduler": "noamlr"}
    given["scheduler_conf"] = {"model_size": 64}
    config = smoe_config(dense, given, PLAN, origin="it")
    assert (config["optim"], config["optim_conf"]) == ("sgd", {})
    assert config["scheduler_conf"] == {"model_size": 64}
    assert (config["specaug"], config["specaug_conf"]) == (dense["specaug"], dense["specaug_conf"])


def test_a_yaml_may_name_copies_of_the_dense_models_files(tmp_path: Path) -> None:
    for name, content in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "tokens.txt").write_text("\n".join(PLAN.token_list), encoding="utf-8")
    dense = dense_config(bpemodel=str(tmp_path / "a"), normalize="global_mvn")
    dense["normalize_conf"] = {"stats_file": str(tmp_path / "a")}
    given = default_yaml(dense) | {"bpemodel": str(tmp_path / "b")}
    given |= {"normalize_conf": {"stats_file": str(tmp_path / "b")}}
    given |= {"token_list": str(tmp_path / "tokens.txt")}
    config = smoe_config(dense, given, PLAN, origin="it")
    assert config["bpemodel"] == config["normalize_conf"]["stats_file"] == str(tmp_path / "a")
    given |= {"bpemodel": str(tmp_path / "c"), "token_list": [*TOKENS, "more"]}
    given |= {"normalize_conf": {"stats_file": str(tmp_path / "gone")}}
    with pytest.raises(ModelError) as caught:
        smoe_config(dense, given, PLAN, origin="it")
    for words in (
        "bpemodel is",
        "normalize_conf.stats_file is",
        f"token_list is {len(TOKENS) + 1}",
    ):
        assert words in str(caught.value)


def test_ctc_cannot_come_from_nowhere_but_can_be_left_out() -> None:
    dense = dense_config(model_conf={"ctc_weight": 0.0})
    given = default_yaml(dense) | {"model_conf": {"ctc_weight": 0.3}}
    with pytest.raises(ModelError, match=r"ctc_weight is 0\.3, the dense model's is 0\.0"):
        smoe_config(dense, given, PLAN, origin="it")
    dense = dense_config()
    given["model_conf"] = {"ctc_weight": 0.0}
    assert smoe_config(dense, given, PLAN, origin="it")["model_conf"]["ctc_weight"] == 0.0


def test_yamls_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([1]), encoding="utf-8")
    with pytest.raises(ModelError, match=r"list\.yaml' holds a list"):
        read_yaml(tmp_path / "list.yaml")
    with pytest.raises(ModelError, match=r"gone\.yaml' cannot be read"):
        read_yaml(tmp_path / "gone.yaml")
