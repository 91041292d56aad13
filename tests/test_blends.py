"""Rows that several experts share: against explicit mixing, and every error."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    DENSE,
    SMOE,
    close,
    encoder_options,
    expert_key,
    features,
    randomize,
    smoe_model,
    speech,
)

from espnet_smoe.blends import checked_shares
from espnet_smoe.experts import ExpertFeedForward
from espnet_smoe.model import ROUTE_LOG_VARIABLE, ROUTE_VARIABLE, SMoES2TModel
from espnet_smoe.routing import Route, RoutingError, TagTable

NAMES = ("a", "b", "c")
CPU = torch.device("cpu")
TABLE = TagTable(NAMES, option="experts")
SHARES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5), min_size=1).filter(
    lambda counts: sum(counts.values()) > 0
)
ROW = st.sampled_from(NAMES) | SHARES.map(
    lambda counts: {name: n / sum(counts.values()) for name, n in counts.items()}
)
LENGTHS = torch.tensor([31, 31, 27, 30])


def bank() -> ExpertFeedForward:
    torch.manual_seed(1)
    expert = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    made: ExpertFeedForward = randomize(ExpertFeedForward(expert, names=NAMES))
    return made


def run(module: ExpertFeedForward, x: torch.Tensor, tags: Sequence[Any]) -> torch.Tensor:
    module.set_route(Route.of(TABLE.route(tags, origin="test"), CPU))
    y: torch.Tensor = module(x)
    return y


def explicit(module: ExpertFeedForward, x: torch.Tensor, tags: Sequence[Any]) -> torch.Tensor:
    """Every expert on every row, weighted by its share."""
    rows = []
    for row, tag in enumerate(tags):
        shares = {tag: 1.0} if isinstance(tag, str) else tag
        part = x[row : row + 1]
        rows.append(sum(share * module.experts[name](part) for name, share in shares.items()))
    return torch.cat(rows)


@settings(max_examples=80, deadline=None)
@given(tags=st.lists(ROW, min_size=1, max_size=7))
def test_any_mix_of_rows_equals_explicit_mixing(tags: list[Any]) -> None:
    module = bank()
    x = torch.randn(len(tags), 5, 4, requires_grad=True)
    weight = torch.randn(len(tags), 5, 4)
    wanted = []
    for call in (run, explicit):
        module.zero_grad(set_to_none=True)
        x.grad = None
        y = call(module, x, tags)
        (y * weight).sum().backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        wanted.append((y.detach(), x.grad, gradients))
    (y, x_grad, gradients), (y_, x_grad_, gradients_) = wanted
    close(y, y_)
    close(x_grad, x_grad_)
    for name, gradient in gradients.items():  # the reference also runs experts of share 0
        close(gradient, gradients_[name], atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(tags=st.lists(ROW, min_size=1, max_size=7))
def test_hard_rows_are_bit_for_bit_those_of_a_batch_without_blends(tags: list[Any]) -> None:
    module, x = bank(), torch.randn(len(tags), 5, 4)
    hard = [row for row, tag in enumerate(TABLE.route(tags, origin="")) if isinstance(tag, str)]
    y = run(module, x, tags)
    if hard:
        alone = run(module, x[hard], [TABLE.route(tags, origin="")[row] for row in hard])
        assert torch.equal(y[hard], alone)


@settings(max_examples=60, deadline=None)
@given(tags=st.lists(ROW, min_size=1, max_size=7))
def test_each_expert_runs_on_the_rows_it_has_a_share_in(tags: list[Any]) -> None:
    module = bank()
    rows = dict.fromkeys(NAMES, 0)

    def count(name: str) -> Any:
        def add(_: Any, args: Any) -> None:
            rows[name] += len(args[0])

        return add

    for name, expert in module.experts.items():
        expert.register_forward_pre_hook(count(name))
    run(module, torch.randn(len(tags), 5, 4), tags)
    shares = [{tag: 1.0} if isinstance(tag, str) else tag for tag in tags]
    assert rows == {name: sum(row.get(name, 0) > 0 for row in shares) for name in NAMES}


def test_without_a_blend_the_route_is_the_hard_one() -> None:
    route = Route.of(TABLE.route([{"a": 1.0, "b": 0.0}, {"a": 0.9995}], origin=""), CPU)
    assert route.names == ("a", "a")
    assert route.groups == (("a", None),)
    assert route.blends == ()


def test_shares_are_normalised() -> None:
    assert checked_shares({"a": 0.6, "b": 0.4004, "c": 0}, NAMES) == pytest.approx(
        {"a": 0.6 / 1.0004, "b": 0.4004 / 1.0004}
    )
    assert TABLE.route({"a": 0.5, "b": 0.5}, origin="") == ({"a": 0.5, "b": 0.5},)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "d": 0.5}, r"'d' has no expert \(known: a, b, c\); it is row 1 of data"),
        ({"a": 0.5, "b": 0.4}, r"sum to 0.9; accepted: finite numbers .*; it is row 1 of data"),
        ({"a": 1.5, "b": -0.5}, "that of b is -0.5; accepted"),
        ({"a": float("nan"), "b": 1.0}, "that of a is nan; accepted"),
        ({"a": float("inf")}, "that of a is inf; accepted"),
        ({"a": "much"}, "that of a is 'much'; accepted"),
        ({}, "sum to 0; accepted"),
    ],
)
def test_bad_shares_raise(shares: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RoutingError, match=message) as error:
        TABLE.route(["a", shares], origin="data")
    assert error.value.row == 1


def test_no_expert_is_called_blend() -> None:
    with pytest.raises(RoutingError, match="encoder_conf.experts names an expert 'blend'"):
        SMOE["transformer"](**encoder_options("transformer", experts=["wb", "blend"]))


class Mix(torch.nn.Module):
    """A dense feed-forward that is the explicit mix of a bank's experts, per row."""

    def __init__(self, source: ExpertFeedForward, tags: Sequence[Any]) -> None:
        super().__init__()
        self.source, self.tags = source, tags

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return explicit(self.source, x, self.tags)


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_an_encoder_blends_in_every_bank(kind: str) -> None:
    tags = [{"wb": 0.3, "nb": 0.7}, "nb", {"nb": 0.5, "wb": 0.5}, "wb"]
    torch.manual_seed(4)
    smoe = randomize(SMOE[kind](**encoder_options(kind))).eval()
    dense = DENSE[kind](**encoder_options(kind)).eval()
    state = {expert_key(key): value for key, value in smoe.state_dict().items()}
    dense.load_state_dict(state)
    for name, module in smoe.named_modules():
        if isinstance(module, ExpertFeedForward):
            dense.set_submodule(name, Mix(copy.deepcopy(module), tags))
    assert smoe.set_route(tags) == ("blend", "nb", "blend", "wb")
    close(smoe(features(), LENGTHS)[0], dense(features(), LENGTHS)[0])


def test_half_precision_sums_in_float32() -> None:
    module = bank().bfloat16()
    x = torch.randn(2, 5, 4).bfloat16()
    tags = ["a", {"a": 0.3, "b": 0.3, "c": 0.4}]
    y = run(module, x, tags)
    assert y.dtype == torch.bfloat16
    parts = [share * module.experts[name](x[1:]).float() for name, share in tags[1].items()]
    assert torch.equal(y[1:], sum(parts).bfloat16())


@pytest.fixture(scope="module")
def model() -> SMoES2TModel:
    made: SMoES2TModel = smoe_model()
    return made


def encode(model: SMoES2TModel, route: Any = None, rows: int = 2) -> torch.Tensor:
    x = torch.stack([speech(seed=row) for row in range(rows)])
    memory: torch.Tensor = model.encode(x, torch.full((rows,), 6000), route=route)[0]
    return memory


def test_a_given_route_goes_before_everything_else(
    model: SMoES2TModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = encode(model, ["nb", "wb"])
    assert model.last_route == ("nb", "wb")
    monkeypatch.setenv(ROUTE_LOG_VARIABLE, str(tmp_path / "routes"))
    monkeypatch.setenv(ROUTE_VARIABLE, "wb")
    monkeypatch.setattr(model, "route_override", "wb")
    assert torch.equal(encode(model, ["nb", "wb"]), expected)
    encode(model, [{"wb": 0.5, "nb": 0.5}, {"nb": 1.0}])
    assert model.last_route == ("blend", "nb")
    assert (tmp_path / "routes").read_text().split() == ["nb", "wb", "blend", "nb"]
    encode(model)
    assert model.last_route == ("wb", "wb")


def test_a_blend_lies_between_its_experts(model: SMoES2TModel) -> None:
    whole = encode(model, ["wb"], rows=1)
    close(encode(model, [{"wb": 0.9999, "nb": 0.0001}], rows=1), whole, atol=1e-2)
    half = encode(model, [{"wb": 0.5, "nb": 0.5}], rows=1)
    assert (half - whole).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (["wb", "fm"], r"tag 'fm' has no expert \(known: wb, nb\); it is row 1 of route"),
        (["wb"], "route is for 1 utterances, the batch holds 2"),
        ("wb", "route is for 1 utterances, the batch holds 2"),
        ([{"wb": 0.5}, "nb"], "sum to 0.5; .*it is row 0 of route"),
    ],
)
def test_a_bad_route_raises(model: SMoES2TModel, route: Any, message: str) -> None:
    with pytest.raises(RoutingError, match=message):
        encode(model, route)
    assert model.last_route is None


def test_a_dense_encoder_takes_no_route() -> None:
    dense = smoe_model(encoder="conformer")
    with pytest.raises(RoutingError, match=r"the encoder \(ConformerEncoder\) has no experts"):
        encode(dense, ["wb", "nb"])
    encode(dense)


class ByLoudness(SMoES2TModel):
    """Routes on another axis than bandwidth."""

    def encoder_route(self, speech: torch.Tensor, *_: Any) -> tuple[str, ...]:
        return ("loud",) * len(speech)


def test_a_model_of_another_axis_takes_its_own_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    from espnet2.tasks import s2t

    monkeypatch.setitem(s2t.model_choices.classes, "smoe", ByLoudness)
    other = smoe_model(encoder_conf={"experts": ["loud", "soft"]})
    loud = encode(other)
    assert other.last_route == ("loud", "loud")
    given = encode(other, ["loud", {"loud": 0.2, "soft": 0.8}])
    assert other.last_route == ("loud", "blend")
    close(given[0], loud[0])
    with pytest.raises(RoutingError, match=r"tag 'nb' has no expert \(known: loud, soft\)"):
        encode(other, ["nb", "wb"])
