"""Tokens that only some experts may write: the others' probabilities are what they were."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from saved_model import MAXLEN
from stock_search import stock_search
from tiny import ID, TOKENS, close, ids, model_batch, smoe_model
from torch import nn

from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.precision import prepare
from espnet_smoe.private_tokens import HIDDEN, PrivateOutput, hidden_ids, hide_by_bias
from espnet_smoe.routing import Route, RoutingError
from espnet_smoe.token_scores import top_tokens

EXPERTS = {"asr": ["<asr>"], "st": ["<st_eng>"], "deu": ["<st_deu>"]}
PRIVATE = {"hello": ["deu"], "<st_deu>": ["deu"]}
PROMPTS = {task: ids("<sos>", "<spa>", task, "<notimestamps>") for task in ("<asr>", "<st_deu>")}
CPU = torch.device("cpu")


def private_model() -> Any:
    """A tiny model that would say ``hello`` all the time, were it not private."""
    model = smoe_model(
        decoder_conf={"experts": EXPERTS}, model_conf={"private_tokens": PRIVATE, "ctc_weight": 0.3}
    )
    with torch.no_grad():
        model.decoder.output_layer.bias[ID["hello"]] += 20.0
    return model


def open_model() -> Any:
    model = smoe_model(decoder_conf={"experts": EXPERTS}, model_conf={"ctc_weight": 0.3})
    model.load_state_dict(private_model().state_dict())
    return model


def memory(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 9, 8, generator=torch.Generator().manual_seed(4))


def test_the_ids_that_each_expert_may_not_write() -> None:
    found = hidden_ids(PRIVATE, TOKENS, EXPERTS)
    hidden = tuple(sorted(ids("hello", "<st_deu>")))
    assert found == {"asr": hidden, "st": hidden, "deu": ()}


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (["<st_deu>"], "it takes a mapping"),
        ({"<st_fra>": ["deu"]}, "'<st_fra>' is not in the token list"),
        ({"hello": ["fra"]}, "names 'fra'; accepted: asr, st, deu"),
        ({"hello": "deu"}, "is 'deu'; it takes a list"),
    ],
    ids=["list", "token", "expert", "string"],
)
def test_a_token_or_expert_that_is_not_there_is_refused(private: Any, message: str) -> None:
    with pytest.raises(RoutingError, match=message):
        hidden_ids(private, TOKENS, EXPERTS)


def test_a_decoder_without_experts_has_no_private_tokens() -> None:
    with pytest.raises(RoutingError, match="private_tokens: the decoder has no experts"):
        smoe_model(decoder="transformer", model_conf={"private_tokens": PRIVATE})


def test_parameters_keep_their_names_and_values() -> None:
    state, plain = private_model().state_dict(), open_model().state_dict()
    assert list(state) == list(plain)
    assert all(torch.equal(state[name], plain[name]) for name in state)


@torch.no_grad()
def test_old_routes_have_the_probabilities_of_the_vocabulary_without_the_token() -> None:
    decoder, plain = private_model().decoder, open_model().decoder
    kept = [i for i in range(len(TOKENS)) if i not in ids("hello", "<st_deu>")]
    prompt = torch.tensor([PROMPTS["<asr>"]] * 2)
    mask = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    logp_BV, _ = decoder.forward_one_step(prompt, mask, memory())
    assert (logp_BV.exp()[:, ids("hello", "<st_deu>")] == 0.0).all()
    (_, hidden_BD), _ = plain.forward_one_step(prompt, mask, memory(), return_hs=True)
    layer = plain.output_layer
    expected = nn.functional.linear(hidden_BD, layer.weight[kept], layer.bias[kept])
    close(logp_BV[:, kept], expected.log_softmax(-1), atol=1e-6)


@torch.no_grad()
def test_the_owner_writes_it_and_rows_of_a_batch_do_not_mix() -> None:
    decoder, plain = private_model().decoder, open_model().decoder
    tokens = torch.tensor([PROMPTS["<asr>"], PROMPTS["<st_deu>"]])
    lengths = torch.tensor([9, 9]), torch.tensor([4, 4])
    mixed, _ = decoder(memory(), lengths[0], tokens, lengths[1])
    for row in range(2):
        part = slice(row, row + 1)
        alone, _ = decoder(memory()[part], lengths[0][part], tokens[part], lengths[1][part])
        close(mixed[part], alone)
    everything, _ = plain(memory(), lengths[0], tokens, lengths[1])
    close(mixed[1], everything[1])
    assert (mixed[0][:, ids("hello", "<st_deu>")] == HIDDEN).all()


@pytest.mark.parametrize("task", ["<asr>", "<st_deu>"])
def test_neither_search_finds_a_hidden_token(task: str) -> None:
    model = private_model()
    options = SearchOptions(beam_size=4, maxlenratio=MAXLEN)
    found = BatchedBeamSearch(model, options).search(memory(1), [9], [PROMPTS[task]], [False])
    best = found[0][0].tokens
    assert best == stock_search(model, options, memory(1)[0], PROMPTS[task], False)[0]["yseq"]
    assert (ID["hello"] in best) == (task == "<st_deu>")


@pytest.mark.parametrize("how", [{"dtype": "bfloat16"}, {"quantize": True}], ids=["bf16", "int8"])
def test_it_stays_hidden_in_other_precisions(how: dict[str, Any]) -> None:
    model = prepare(private_model(), **how)
    dtype = next(model.decoder.parameters()).dtype
    options = SearchOptions(beam_size=4, maxlenratio=MAXLEN)
    prompts = [PROMPTS["<asr>"], PROMPTS["<st_deu>"]]
    found = BatchedBeamSearch(model, options).search(
        memory().to(dtype), [9, 9], prompts, [False, False]
    )
    assert [ID["hello"] in hypotheses[0].tokens for hypotheses in found] == [False, True]


@torch.no_grad()
def test_slices_of_the_vocabulary_hide_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = private_model().decoder.output_layer
    layer.set_route(Route.of(["asr", "deu", "st"], CPU))
    x_ND = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    expected = layer(x_ND).log_softmax(-1).topk(3)
    monkeypatch.setattr("espnet_smoe.token_scores.SLICE", 7)
    logp_NC, token_NC, _ = top_tokens(layer, x_ND, 3, eos=ID["<eos>"])
    close(logp_NC, expected.values)
    assert token_NC.tolist() == expected.indices.tolist()


def test_losses_stay_finite_and_have_no_gradient_for_it() -> None:
    model = private_model().train()
    loss, stats, _ = model(**model_batch(["<asr>", "<st_deu>"], [0, 1]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(stats["loss_att_asr_wb"])
    model.zero_grad()
    loss, _, _ = model(**model_batch(["<asr>", "<st_eng>"], [0, 1]))
    loss.backward()
    assert not model.decoder.output_layer.weight.grad[ids("hello", "<st_deu>")].any()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_hiding_by_bias_is_the_same_for_a_model_without_routes() -> None:
    decoder, plain = private_model().decoder, open_model().decoder
    weights = {f"decoder.{name}": value for name, value in plain.state_dict().items()}
    hidden = hidden_ids(PRIVATE, TOKENS, EXPERTS)["asr"]
    changed = hide_by_bias(weights, hidden)
    assert weights["decoder.output_layer.bias"][ID["hello"]] > 0  # not changed in place
    plain.load_state_dict({name.removeprefix("decoder."): v for name, v in changed.items()})
    tokens = torch.tensor([PROMPTS["<asr>"]] * 2)
    lengths = torch.tensor([9, 9]), torch.tensor([4, 4])
    assert torch.equal(
        plain(memory(), lengths[0], tokens, lengths[1])[0],
        decoder(memory(), lengths[0], tokens, lengths[1])[0],
    )
    with pytest.raises(RoutingError, match="decoder.output_layer.bias; tokens can be hidden"):
        hide_by_bias({"decoder.output_layer.weight": torch.zeros(3, 2)}, [1])
    with pytest.raises(RoutingError, match=r"has 3 tokens; to be hidden are \[3\]"):
        hide_by_bias({"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(3)}, [3], layer="a")


def test_a_call_without_its_route_is_refused() -> None:
    layer = PrivateOutput(nn.Linear(4, 5), {"asr": [1]})
    with pytest.raises(RoutingError, match="output layer was called without a route"):
        layer(torch.zeros(2, 4))
    layer.set_route(Route.of(["asr"], CPU))
    with pytest.raises(RoutingError, match="the route is for 1 rows, the batch holds 2"):
        layer(torch.zeros(2, 4))
    twin = copy.deepcopy(layer)
    assert (twin(torch.ones(1, 4))[0, 1] == HIDDEN) and twin.weight is not layer.weight
