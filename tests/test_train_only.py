"""What does not train stays bit by bit, through ESPnet's optimizer."""

from __future__ import annotations

import argparse
import copy
import pickle
from typing import Any

import pytest
import torch
from tiny import ID, TOKENS, close, model_batch, smoe_model
from torch import nn

from espnet_smoe.routing import RoutingError
from espnet_smoe.train_only import freeze_all_but, put_rows_back, train_rows

EXPERTS = {"asr": ["<asr>"], "st": ["<st_eng>"], "deu": ["<st_deu>"]}
NEW = "decoder.*.experts.deu.*"
ROW_TENSORS = {f"decoder.{name}" for name in ("embed.0.weight", "output_layer.weight")}
ROW_TENSORS |= {"decoder.output_layer.bias"}


def model_with(**model_conf: Any) -> Any:
    """A tiny conformer with dropout."""
    dropout = {"dropout_rate": 0.1, "positional_dropout_rate": 0.1}
    return smoe_model(
        encoder_conf=dropout,
        decoder_conf={**dropout, "experts": EXPERTS},
        model_conf={"ctc_weight": 0.3, **model_conf},
    )


def train(model: Any, *, steps: int = 3, routes: tuple[str, ...] = ("<st_deu>",) * 3) -> None:
    """Steps of ESPnet's AdamW, with weight decay, in training mode."""
    from espnet2.tasks.s2t import S2TTask

    args = S2TTask.get_parser().parse_args([])
    args.optim, args.optim_conf = "adamw", {"lr": 0.01, "weight_decay": 0.5}
    (optimizer,) = S2TTask.build_optimizers(args, model)
    model.train()
    for _ in range(steps):
        loss, _, _ = model(**model_batch(routes, [0, 1, 0][: len(routes)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def copied_state(model: Any) -> dict[str, torch.Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def old_logits(model: Any) -> list[torch.Tensor]:
    """The decoder's scores of the old routes, in evaluation mode."""
    model.eval()
    batch = model_batch(["<asr>", "<st_eng>", "<asr>"], [0, 1, 1])
    with torch.no_grad():
        memory, lengths = model.encode(batch["speech"], batch["speech_lengths"], route=["wb"] * 3)
        sos = torch.full((3, 1), ID["<sos>"])
        text = torch.cat([sos, batch["text"].clamp(min=0)], dim=1)
        scores, _ = model.decoder(memory, lengths, text, batch["text_lengths"] + 1)
        return [memory, scores, model.ctc.log_softmax(memory)]


def test_only_the_new_expert_changes_in_real_steps() -> None:
    model = model_with(train_only=[NEW])
    before, logits = copied_state(model), old_logits(model)
    train(model)
    new = {name for name in before if ".experts.deu." in name}
    assert new and changed(before, copied_state(model)) == new
    assert all(torch.equal(a, b) for a, b in zip(logits, old_logits(model), strict=True))


def test_of_the_vocabulary_only_the_named_rows_change() -> None:
    model = model_with(train_only=[NEW], train_rows=["<st_deu>"])
    before, logits = copied_state(model), old_logits(model)
    assert before.keys() == model_with().state_dict().keys()  # stock programs can load it
    train(model)
    after = copied_state(model)
    assert changed(before, after) > ROW_TENSORS
    for name in ROW_TENSORS:
        rows = {i for i in range(len(TOKENS)) if not torch.equal(before[name][i], after[name][i])}
        assert rows == {ID["<st_deu>"]}
    own = {name for name in before if ".experts.deu." in name} | ROW_TENSORS
    assert changed(before, after) == own
    old = [ID[token] for token in TOKENS if token != "<st_deu>"]
    memory, scores, ctc = old_logits(model)
    assert torch.equal(memory, logits[0]) and torch.equal(ctc, logits[2])
    assert torch.equal(scores[..., old], logits[1][..., old])


def test_frozen_parameters_alone_would_not_do() -> None:
    """The reason for `keep_statistics`: BatchNorm goes on counting."""
    model = model_with()
    freeze_all_but(model, [NEW])
    before = copied_state(model)
    train(model)
    moved = changed(before, copied_state(model))
    assert any(name.endswith("norm.running_mean") for name in moved)


def test_evaluation_sees_the_rows_as_trained() -> None:
    model = model_with(train_only=[NEW], train_rows=["<st_deu>"])
    train(model)
    rows = model.decoder.embed[0].trained_rows_of_weight
    model.eval()
    assert torch.equal(model.decoder.embed[0].weight[[ID["<st_deu>"]]], rows)
    assert torch.equal(model.decoder.embed[0](torch.tensor([ID["<st_deu>"]])), rows)


@pytest.mark.parametrize("kind", ["embedding", "linear"])
def test_rows_train_as_they_would_in_the_whole_matrix(kind: str) -> None:
    torch.manual_seed(1)
    if kind == "embedding":
        whole: Any = nn.Embedding(9, 4)
        x = torch.tensor([[1, 7, 3], [7, 7, 2]])
    else:
        whole, x = nn.Linear(4, 9), torch.randn(2, 3, 4)
    part = copy.deepcopy(whole)
    train_rows(part, [3, 7])
    weight = torch.randn(2, 3, whole(x).shape[-1])
    for module in (whole, part):
        (module(x) * weight).sum().backward()
    close(part(x), whole(x))
    for name, parameter in whole.named_parameters():
        assert getattr(part, name).grad is None and not getattr(part, name).requires_grad
        close(getattr(part, f"trained_rows_of_{name}").grad, parameter.grad[[3, 7]])


def test_rows_are_saved_loaded_and_copied_in_the_plain_layout() -> None:
    torch.manual_seed(1)
    module, other = nn.Linear(4, 6), nn.Linear(4, 6)
    plain = copied_state(module)
    train_rows(module, [2, 5])
    with torch.no_grad():
        module.trained_rows_of_weight += 1.0
    saved = copied_state(module)
    assert list(saved) == list(plain)
    assert torch.equal(saved["weight"][[2, 5]], plain["weight"][[2, 5]] + 1.0)
    assert torch.equal(saved["weight"][[0, 1, 3, 4]], plain["weight"][[0, 1, 3, 4]])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    for model in (module, twin):
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.trained_rows_of_weight, other.weight[[2, 5]])
        assert torch.equal(model.trained_rows_of_bias, other.bias[[2, 5]])
        put_rows_back(model)
        assert torch.equal(model.weight, other.weight)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        module.load_state_dict(nn.Linear(4, 7).state_dict())


def test_averages_of_equal_values_are_exact_for_two_and_not_for_three() -> None:
    """Why the training config keeps few models: ESPnet adds and divides."""
    x = torch.randn(10000, generator=torch.Generator().manual_seed(1))
    assert torch.equal((x + x) / 2, x)
    assert not torch.equal((x + x + x) / 3, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_only": ["decoder.nothing.*"]}, "'decoder.nothing.\\*' matches no parameter"),
        ({"train_only": NEW}, "train_only is the string"),
        ({"train_rows": ["<asr>"]}, "train_rows needs train_only"),
        ({"train_only": [NEW], "train_rows": ["<x>"]}, "train_rows: <x> not in the token list"),
        ({"train_only": [NEW], "train_rows": ["<asr>", "<asr>"]}, r"rows \[4, 4\]"),
    ],
    ids=["nothing", "string", "alone", "unknown", "twice"],
)
def test_what_cannot_be_chosen_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_with(**options)


def test_a_batch_in_which_nothing_trains_is_refused() -> None:
    model = model_with(train_only=[NEW])
    with pytest.raises(RoutingError, match=r"nothing that trains .* experts \['asr', 'nb', 'wb'\]"):
        train(model, routes=("<asr>", "<asr>"))
    model.eval()  # validation is free to
    model(**model_batch(["<asr>", "<asr>"], [0, 1]))


def test_every_parameter_trains_without_the_option() -> None:
    model = model_with()
    assert all(p.requires_grad for p in model.parameters())
    assert isinstance(model.train(), type(model)) and model.training
    args = argparse.Namespace(model=model)
    assert not hasattr(args.model.decoder.embed[0], "rows_that_train")
