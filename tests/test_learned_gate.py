"""The bank with a learned gate: who computes a token, the load-balance loss, the record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import close, randomize

from espnet_smoe.compat import PositionwiseFeedForward
from espnet_smoe.experts import ExpertLoadError, param_counts
from espnet_smoe.learned_gate import (
    GatedFeedForward,
    balance_loss,
    forget_balance,
    give_gates,
    load_balance,
    record_gates,
)

EXACT = 1e-6
SIZE = 4


def feed_forward() -> Any:
    torch.manual_seed(1)
    return randomize(PositionwiseFeedForward(SIZE, 6, 0.0))


def bank(experts: int = 3, **options: Any) -> GatedFeedForward:
    """Distinct random experts and a gate that uses all of them."""
    made: GatedFeedForward = randomize(
        GatedFeedForward(feed_forward(), SIZE, experts=experts, **options)
    )
    with torch.no_grad():
        made.gate_weight.normal_()
    return made


def tokens(batch: int = 3, length: int = 7, seed: int = 3) -> torch.Tensor:
    return torch.randn(batch, length, SIZE, generator=torch.Generator().manual_seed(seed))


def chosen(module: GatedFeedForward, x: torch.Tensor) -> torch.Tensor:
    """The expert of each token by the definition."""
    return (x @ module.gate_weight.T).argmax(dim=-1)


def by_hand(module: GatedFeedForward, x: torch.Tensor) -> torch.Tensor:
    """The output of each token by itself."""
    rows = []
    for token in x.reshape(-1, SIZE):
        prob = (module.gate_weight @ token).softmax(dim=0)
        best = int(prob.argmax())
        y = module.experts[f"e{best}"](token)
        rows.append(y * prob[best] if module.gate_scale == "switch" else y)
    return torch.stack(rows).view_as(x)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 9),
    experts=st.integers(1, 5),
    scale=st.sampled_from(["one", "switch"]),
    train=st.booleans(),
)
def test_each_token_goes_through_the_likeliest_expert(
    batch: int, length: int, experts: int, scale: str, train: bool
) -> None:
    module = bank(experts, gate_scale=scale).train(train)
    x = tokens(batch, length)
    close(module(x), by_hand(module, x), atol=EXACT)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("experts", [1, 2, 4])
def test_equal_experts_are_the_dense_feed_forward(experts: int, train: bool) -> None:
    dense = feed_forward()
    module = GatedFeedForward(dense, SIZE, experts=experts).train(train)
    with torch.no_grad():
        module.gate_weight.normal_()
    x = tokens()
    close(module(x), dense(x), atol=EXACT)


def test_the_papers_scale_is_the_gates_probability() -> None:
    dense = feed_forward()
    module = GatedFeedForward(dense, SIZE, gate_scale="switch")
    x = tokens()
    prob = (x @ module.gate_weight.T).softmax(dim=-1).amax(dim=-1, keepdim=True)
    close(module(x), prob * dense(x), atol=EXACT)
    single = GatedFeedForward(dense, SIZE, experts=1, gate_scale="switch")
    close(single(x), dense(x), atol=EXACT)


@pytest.mark.parametrize("scale", ["one", "switch"])
def test_the_gate_learns_from_the_output(scale: str) -> None:
    module = bank(2, gate_scale=scale, balance_weight=0.0).train()
    x = tokens(1, 1)
    weight = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
    module(x)[0, 0].dot(weight).backward()
    prob = (x[0, 0] @ module.gate_weight.T).softmax(dim=-1).detach()
    best = int(prob.argmax())
    value = module.experts[f"e{best}"](x[0, 0]).dot(weight).item()
    # d p_best / d logit_j = p_best (1[j = best] - p_j); "one" divides it by p_best
    slope = (torch.nn.functional.one_hot(torch.tensor(best), 2) - prob) * value
    if scale == "switch":
        slope = slope * prob[best]
    assert module.gate_weight.grad is not None
    close(module.gate_weight.grad, slope[:, None] * x[0, 0])


def test_no_other_expert_touches_a_token() -> None:
    module = bank(3)
    x = tokens(1, 12)
    choice = chosen(module, x)[0]
    assert set(choice.tolist()) == {0, 1, 2}
    before = module(x)
    for token, best in enumerate(choice.tolist()):
        module.zero_grad(set_to_none=True)
        module(x)[0, token].sum().backward()
        for name, parameter in module.experts.named_parameters():
            used = parameter.grad is not None and bool(parameter.grad.any())
            assert used == name.startswith(f"e{best}."), name
    with torch.no_grad():
        for parameter in module.experts["e1"].parameters():
            parameter.add_(1.0)
    after = module(x)
    assert torch.equal(after[0, choice != 1], before[0, choice != 1])
    assert not (after[0, choice == 1] == before[0, choice == 1]).any()


def test_an_expert_without_tokens_is_not_run() -> None:
    module = bank(2)
    with torch.no_grad():
        module.gate_weight[0], module.gate_weight[1] = 1.0, -1.0
    seen: list[Any] = []
    for name, expert in module.experts.items():
        expert.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
    x = tokens().abs()
    module(x)
    assert [(name, len(rows)) for name, rows in seen] == [("e0", 21)]
    x[0, :2] *= -1
    seen.clear()
    module(x)
    assert [(name, len(rows)) for name, rows in seen] == [("e0", 19), ("e1", 2)]


PROB = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]])
REAL = torch.tensor([True, True, True, True, False])
# The four real tokens: f = (3/4, 1/4); P = ((.9 + .6 + .3 + .8) / 4, (.1 + .4 + .7 + .2) / 4)
# = (0.65, 0.35); 2 (0.75 * 0.65 + 0.25 * 0.35) = 1.15
BY_HAND = 1.15


def test_the_load_balance_loss_of_a_case_computed_by_hand() -> None:
    loss = load_balance(PROB, PROB.argmax(dim=1), REAL)
    assert loss.item() == pytest.approx(BY_HAND, abs=EXACT)
    whole = load_balance(PROB, PROB.argmax(dim=1), torch.ones(5, dtype=torch.bool))
    # f = (3/5, 2/5), P = (2.7 / 5, 2.3 / 5)
    assert whole.item() == pytest.approx(2 * (0.6 * 0.54 + 0.4 * 0.46), abs=EXACT)


def test_the_banks_loss_is_that_of_its_real_tokens() -> None:
    module = GatedFeedForward(PositionwiseFeedForward(2, 3, 0.0), 2, balance_weight=0.01).train()
    with torch.no_grad():
        module.gate_weight.copy_(torch.eye(2))
    module.mask_BT = REAL[None]
    module(PROB.log()[None])  # whose softmax is PROB
    loss = balance_loss(module)
    assert loss is not None and loss.item() == pytest.approx(0.01 * BY_HAND, abs=EXACT)
    # d loss / d P_i = alpha E f_i: the gate's gradient comes through P alone
    loss.backward()
    share = torch.tensor([0.75, 0.25])
    slope = torch.zeros(5, 2)
    for n in range(4):
        jacobian = torch.diag(PROB[n]) - PROB[n][:, None] * PROB[n]
        slope[n] = 0.01 * 2 * share @ jacobian / 4
    assert module.gate_weight.grad is not None
    close(module.gate_weight.grad, slope.T @ PROB.log(), atol=EXACT)


@pytest.mark.parametrize("experts", [2, 3, 5])
def test_equal_shares_have_loss_1_and_one_expert_for_all_has_their_number(experts: int) -> None:
    real = torch.ones(experts, dtype=torch.bool)
    even = torch.full((experts, experts), 1 / experts)
    assert load_balance(even, torch.arange(experts), real).item() == pytest.approx(1.0)
    collapsed = torch.eye(experts)[torch.zeros(experts, dtype=torch.int64)]
    loss = load_balance(collapsed, collapsed.argmax(dim=1), real)
    assert loss.item() == pytest.approx(experts)


def test_the_loss_is_averaged_over_the_banks_that_were_called() -> None:
    modules = torch.nn.ModuleList([bank(2, balance_weight=w) for w in (0.1, 0.2, 0.3)]).train()
    x = tokens()
    losses = []
    for module in list(modules)[:2]:
        module(x)
        prob = (x @ module.gate_weight.T).softmax(dim=-1).view(-1, 2)
        load = load_balance(prob, prob.argmax(dim=1), torch.ones(21, dtype=torch.bool))
        losses.append(module.balance_weight * load)
    assert balance_loss(modules).item() == pytest.approx(sum(losses).item() / 2, abs=EXACT)
    forget_balance(modules)
    assert balance_loss(modules).item() == 0.0
    assert balance_loss(torch.nn.Linear(2, 2)) is None


def test_no_loss_in_inference_nor_with_one_expert() -> None:
    for module in (bank(2).eval(), bank(1).train()):
        module(tokens())
        assert module.balance is None


def test_padding_changes_neither_loss_nor_choices() -> None:
    module = bank(3).train()
    x = tokens(2, 5)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = []
    for garbage in (0.0, 50.0):
        padded = torch.nn.functional.pad(x, (0, 0, 0, 4))
        padded[0, 5:], padded[1, 3:] = garbage, -garbage
        module.mask_BT = torch.nn.functional.pad(mask, (0, 4))
        with record_gates(module) as record:
            y = module(padded)
        found.append((balance_loss(module), record.choices[""], y[0, :5], y[1, :3]))
    module.mask_BT = mask
    module(x)
    plain = balance_loss(module)
    alone = [chosen(module, x[0]), chosen(module, x[1, :3])]
    for loss, choices, *outputs in found:
        assert loss.item() == pytest.approx(plain.item(), abs=EXACT)
        assert [c.tolist() for c in choices] == [c.tolist() for c in alone]
        close(outputs[0], by_hand(module, x)[0], atol=EXACT)
        close(outputs[1], by_hand(module, x)[1, :3], atol=EXACT)


def test_a_mask_serves_one_call() -> None:
    module = bank(2)
    module.mask_BT = torch.zeros(3, 7, dtype=torch.bool)
    module(tokens())
    with record_gates(module) as record:
        module(tokens())
    assert [len(c) for c in record.choices[""]] == [7, 7, 7]


def test_shares_are_recorded() -> None:
    model = torch.nn.ModuleDict({"a": bank(2), "b": bank(4)})
    x, y = tokens(3, 7), tokens(2, 4, seed=9)
    record = record_gates(model)
    for part in (x, y):
        model["a"](part)
    model["b"](y)
    record.stop()
    model["b"](x)
    assert record.experts == {"a": 2, "b": 4}
    wanted = [*chosen(model["a"], x), *chosen(model["a"], y)]
    assert [c.tolist() for c in record.choices["a"]] == [c.tolist() for c in wanted]
    assert [len(c) for c in record.choices["b"]] == [4, 4]
    shares = record.shares()
    every = torch.cat(wanted)
    assert shares["a"].tolist() == pytest.approx(
        [(every == expert).double().mean().item() for expert in range(2)]
    )
    assert len(shares["b"]) == 4 and shares["b"].sum().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no learned gates to record"):
        record_gates(torch.nn.Linear(2, 2))


def test_jitter_disturbs_training_only() -> None:
    noisy, calm = bank(3, gate_jitter=0.5, gate_scale="switch"), bank(3, gate_scale="switch")
    noisy.load_state_dict(calm.state_dict())
    x = tokens()
    close(noisy.eval()(x), calm.eval()(x), atol=EXACT)
    state = torch.get_rng_state()
    calm.train()(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    first = noisy.train()(x)
    assert (first - calm(x)).abs().max() > 1e-3
    torch.manual_seed(4)
    factors = torch.empty(21, SIZE).uniform_(0.5, 1.5)
    logits = (x.view(-1, SIZE) * factors) @ noisy.gate_weight.T
    best = [
        noisy.experts[f"e{i}"](t)
        for i, t in zip(logits.argmax(1).tolist(), x.view(-1, SIZE), strict=True)
    ]
    close(first.view(-1, SIZE), torch.stack(best) * logits.softmax(1).amax(1, keepdim=True))


def test_autocast_leaves_the_gate_in_full_precision() -> None:
    module = bank(4).train()
    x = tokens(8, 50) * torch.linspace(0.99, 1.01, 50)[:, None]
    with torch.autocast("cpu", dtype=torch.bfloat16), record_gates(module) as record:
        y = module(x)
    assert y.dtype == torch.bfloat16
    assert module.balance is not None and module.balance.dtype == torch.float32
    assert torch.equal(torch.stack(record.choices[""]), chosen(module, x))


def test_a_dense_checkpoint_fills_every_expert_and_leaves_the_gate() -> None:
    module, dense = bank(2), feed_forward()
    gate = module.gate_weight.clone()
    module.load_state_dict(dense.state_dict(), strict=True)
    assert torch.equal(module.gate_weight, gate)
    close(module(tokens()), dense(tokens()), atol=EXACT)
    again = bank(2)
    again.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(again.gate_weight, gate)


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_other_experts_or_without_gate_raises(strict: bool) -> None:
    with pytest.raises(ExpertLoadError, match=r"\(missing: none; unknown: e2\)"):
        bank(2).load_state_dict(bank(3).state_dict(), strict=strict)
    state = bank(2).state_dict()
    del state["gate_weight"]
    with pytest.raises(ExpertLoadError, match="the checkpoint lacks gate_weight"):
        bank(2).load_state_dict(state, strict=strict)


def test_active_are_the_gate_and_one_expert() -> None:
    model = torch.nn.ModuleList([bank(3), torch.nn.Linear(2, 2)])
    expert = sum(p.numel() for p in feed_forward().parameters())
    counts = param_counts(model)
    assert counts.total == sum(p.numel() for p in model.parameters()) == 3 * (expert + SIZE) + 6
    assert counts.active == {"learned": expert + 3 * SIZE + 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "experts is 0; accepted: a number of experts, from 1 on"),
        ({"experts": ["wb", "nb"]}, r"experts is \['wb', 'nb'\]; accepted: a number"),
        ({"experts": True}, "experts is True; accepted: a number"),
        ({"gate_scale": "p"}, "gate_scale 'p'; accepted: one, switch"),
        ({"gate_jitter": 1.0}, "gate_jitter is 1.0; accepted: 0 to below 1"),
        ({"balance_weight": -0.1}, "balance_weight is -0.1; accepted: 0 or more"),
    ],
    ids=str,
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedFeedForward(feed_forward(), SIZE, **options)


def test_a_feed_forward_that_mixes_frames_raises() -> None:
    block = torch.nn.Module()
    block.feed_forward = torch.nn.Conv1d(4, 4, 3)
    with pytest.raises(ValueError, match=r"is a Conv1d, which mixes .* positionwise_layer_type"):
        give_gates(block, ["feed_forward"])
