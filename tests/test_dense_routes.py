"""Which route a user means, and what a model must be for it to be exported."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.tasks import s2t
from tiny import TOKENS, smoe_model, training_config

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.dense_routes import Experts, choose_route, every_route, route_weights
from espnet_smoe.encoder import SMoETransformerEncoder
from espnet_smoe.export import Exporter
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.pretrained import ModelFiles, Pretrained
from espnet_smoe.stock_config import stock_class


class ByLanguage(SMoES2TModel):
    """Routes the encoder along an axis of the user's own."""

    def encoder_route(self, speech: torch.Tensor, *_: Any) -> tuple[str, ...]:
        return ("deu",) * len(speech)


class Doubled(SMoETransformerEncoder):
    """Computes something that ESPnet's class does not."""

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        output, *rest = super().forward(*arguments, **keywords)
        return 2 * output, *rest


@pytest.fixture
def own_classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(s2t.model_choices.classes, "by_language", ByLanguage)
    monkeypatch.setitem(s2t.encoder_choices.classes, "doubled", Doubled)
    yield


def pretrained(kind: str = "transformer", **options: Any) -> Pretrained:
    """A tiny model as if it were loaded."""
    args = vars(s2t.S2TTask.get_parser().parse_args([])) | training_config(kind, **options)
    model = smoe_model(kind, **options)
    return Pretrained(model, argparse.Namespace(**args), None, ModelFiles(Path("none"), None))


def test_all_routes() -> None:
    names = [experts.name for experts in every_route(smoe_model("transformer"))]
    assert names == ["wb_asr", "wb_st", "nb_asr", "nb_st"]
    decoder_only = smoe_model("transformer", encoder="transformer")
    assert every_route(decoder_only) == [Experts(None, "asr"), Experts(None, "st")]
    encoder_only = smoe_model("transformer", decoder="transformer")
    assert every_route(encoder_only) == [Experts("wb", None), Experts("nb", None)]


@pytest.mark.parametrize(
    ("task", "expert"),
    [
        ("asr", "asr"),
        ("<asr>", "asr"),
        ("st", "st"),
        ("st_eng", "st"),
        ("<st_deu>", "st"),
    ],
)
def test_a_task_is_a_token_or_an_experts_name(task: str, expert: str) -> None:
    assert choose_route(smoe_model("transformer"), "nb", task) == Experts("nb", expert)


def test_any_axis(own_classes: None) -> None:
    experts = {"spanish": ["<spa>"], "rest": ["<st_*>"]}
    options = {"model": "by_language", "encoder_conf": {"experts": ["spa", "deu"]}}
    loaded = pretrained(**options, decoder_conf={"experts": experts})
    assert choose_route(loaded.model, "deu", "spa") == Experts("deu", "spanish")
    assert choose_route(loaded.model, "deu", "st_eng") == Experts("deu", "rest")
    exporter = Exporter(loaded)
    assert exporter.config["model"] == "espnet"
    for route in every_route(loaded.model):
        weights = exporter.weights(route)
        key = "encoder.encoders.1.feed_forward.w_1.weight"
        own = key.replace("feed_forward.", f"feed_forward.experts.{route.encoder}.")
        assert torch.equal(weights[key], loaded.model.state_dict()[own])


def test_one_expert_needs_no_name() -> None:
    model = smoe_model("transformer", decoder_conf={"experts": {"all": ["<asr>", "<st_*>"]}})
    assert choose_route(model, "wb", None) == Experts("wb", "all")


@pytest.mark.parametrize(
    ("bandwidth", "task", "message"),
    [
        (None, "asr", r"the encoder has 2 experts; name one with bandwidth: wb, nb$"),
        ("uwb", "asr", r"bandwidth 'uwb' has no expert in the encoder; accepted: wb, nb$"),
        ("nb", None, r"the decoder has 2 experts; name one with task: asr, st, <asr>, <st_eng>"),
        ("nb", "st_fra", r"task 'st_fra' has no expert in the decoder; accepted: asr, st, <asr>"),
        ("nb", "spa", r"task 'spa' has no expert in the decoder; accepted: asr, st, <asr>"),
        ("nb", "", r"task '' has no expert in the decoder"),
    ],
)
def test_choices_that_no_expert_serves(
    bandwidth: str | None, task: str | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        choose_route(smoe_model("transformer"), bandwidth, task)


def test_a_side_without_experts_takes_no_name() -> None:
    decoder_only = smoe_model("transformer", encoder="transformer")
    assert choose_route(decoder_only, None, "asr") == Experts(None, "asr")
    with pytest.raises(ModelError, match="but the encoder has no experts; accepted: no bandwidth"):
        choose_route(decoder_only, "nb", "asr")
    encoder_only = smoe_model("transformer", decoder="transformer")
    with pytest.raises(ModelError, match="but the decoder has no experts; accepted: no task"):
        choose_route(encoder_only, "nb", "asr")


def test_a_model_without_experts_is_named() -> None:
    dense = smoe_model("transformer", encoder="transformer", decoder="transformer")
    for find in (every_route, lambda model: choose_route(model, None, None)):
        with pytest.raises(ModelError, match="the model has no experts, so there is no route"):
            find(dense)


def test_a_name_with_two_meanings_is_not_guessed() -> None:
    swapped = {"experts": {"asr": ["<st_*>"], "st": ["<asr>"]}}
    model = smoe_model("transformer", decoder_conf=swapped)
    with pytest.raises(ModelError, match=r"'asr' is an expert, and token '<asr>' goes to"):
        choose_route(model, "nb", "asr")
    assert choose_route(model, "nb", "<asr>") == Experts("nb", "st")
    assert choose_route(model, "nb", "st_eng") == Experts("nb", "asr")


def test_a_route_takes_its_experts_and_everything_shared() -> None:
    model = smoe_model("conformer")
    weights = route_weights(model, Experts("nb", "st"))
    state = model.state_dict()
    shared = {name for name in state if ".experts." not in name}
    own = {name for name in state if ".experts.nb." in name or ".experts.st." in name}
    assert len(weights) == len(shared) + len(own)
    for name in shared:
        assert torch.equal(weights[name], state[name])
    for name in own:
        dense = name.replace("experts.nb.", "").replace("experts.st.", "")
        assert torch.equal(weights[dense], state[name])


def test_a_class_that_computes_something_else_is_not_exported(own_classes: None) -> None:
    config = training_config("transformer")
    options = {"encoder": "doubled", "encoder_conf": {**config["encoder_conf"]}}
    args = vars(s2t.S2TTask.get_parser().parse_args([])) | config | options
    model = s2t.S2TTask.build_model(argparse.Namespace(**args)).eval()
    loaded = Pretrained(model, argparse.Namespace(**args), None, ModelFiles(Path("none"), None))
    exporter = Exporter(loaded)
    assert exporter.config["encoder"] == "transformer"
    with pytest.raises(ModelError, match=r"misses the S-MoE model's outputs by .*Doubled"):
        exporter.weights(Experts("nb", "asr"))


def test_weights_that_are_no_numbers_are_named() -> None:
    loaded = pretrained()
    with torch.no_grad():
        loaded.model.decoder.output_layer.bias[3] = float("nan")
    with pytest.raises(ModelError, match=r"weight decoder\.output_layer\.bias of route nb_asr h"):
        Exporter(loaded).weights(Experts("nb", "asr"))


def test_more_weights_than_espnets_class_has_are_named() -> None:
    loaded = pretrained()
    loaded.model.encoder.register_parameter("extra", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ModelError, match=r"stock ESPnet has no place for encoder\.extra"):
        Exporter(loaded).weights(Experts("nb", "asr"))


@pytest.mark.parametrize("length", [0.0, float("nan"), float("inf")])
def test_lengths_that_are_none(length: float) -> None:
    with pytest.raises(ModelError, match=r"speech_length is .*; accepted: seconds, or a negative"):
        Exporter(pretrained(), speech_length=length)


def test_espnets_class_behind_a_name(own_classes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = s2t.encoder_choices
    for name in ("doubled", "smoe_transformer", "transformer"):
        assert stock_class(choices, name) == ("transformer", TransformerEncoder)
    monkeypatch.setitem(choices.classes, "other", torch.nn.Linear)
    with pytest.raises(ModelError, match=r"'other' \(Linear\) extends no class .*conformer"):
        stock_class(choices, "other")


def test_the_tokens_are_not_touched() -> None:
    assert Exporter(pretrained()).config["token_list"] == TOKENS
