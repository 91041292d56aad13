"""The expert bank: forward, gradients, and what it loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import close, decoder_pair, encoder_pair, expert_key, randomize

from espnet_smoe.experts import ExpertFeedForward, ExpertLoadError, param_counts
from espnet_smoe.routing import Route, RoutingError


def feed_forward() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))


def bank(*names: str) -> ExpertFeedForward:
    torch.manual_seed(1)
    made: ExpertFeedForward = randomize(ExpertFeedForward(feed_forward(), names=names or "ab"))
    return made


def go(module: ExpertFeedForward, *names: str) -> None:
    module.set_route(Route.of(names, torch.device("cpu")))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_mixed_batch_equals_one_at_a_time(names: list[str]) -> None:
    module = bank("a", "b", "c")
    x = torch.randn(len(names), 5, 4)
    go(module, *names)
    mixed = module(x)
    for row, name in enumerate(names):
        close(mixed[row], module.experts[name](x[row : row + 1])[0])


def test_one_route_runs_the_expert_on_the_tensor_itself() -> None:
    module = bank("a", "b")
    seen = []
    module.experts["b"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(3, 5, 4)
    go(module, "b", "b", "b")
    module(x)
    assert seen[0] is x


def test_unused_expert_gets_no_gradient_and_no_update() -> None:
    module = bank("a", "b", "c")
    before = {name: p.clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    go(module, "a", "c")
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(2, 5, 4)).square().sum().backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        if ".b." in name or name.startswith("experts.b."):
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
        else:
            assert not torch.equal(parameter, before[name])


def test_a_bank_without_a_route_or_with_a_wrong_one_raises() -> None:
    module = bank("a", "b")
    with pytest.raises(RoutingError, match=r"expert bank \(a, b\) was called without a route"):
        module(torch.zeros(1, 2, 4))
    go(module, "a", "b")
    with pytest.raises(RoutingError, match="the route is for 2 utterances, the batch holds 3"):
        module(torch.zeros(3, 2, 4))


def test_names_that_are_methods_of_module_dict_raise() -> None:
    for name in ("keys", "pop", "items", "type"):
        with pytest.raises(RoutingError, match=f"experts: .*{name}.*choose another name"):
            ExpertFeedForward(feed_forward(), names=["asr", name])


def test_experts_start_as_copies() -> None:
    module = ExpertFeedForward(feed_forward(), names=["a", "b"])
    state = module.state_dict()
    assert torch.equal(state["experts.a.0.weight"], state["experts.b.0.weight"])
    assert state["experts.a.0.weight"].data_ptr() != state["experts.b.0.weight"].data_ptr()


def test_own_checkpoint_loads() -> None:
    source, target = bank("a", "b"), ExpertFeedForward(feed_forward(), names=["b", "a"])
    target.load_state_dict(source.state_dict())
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    target.load_state_dict(target.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_that_lacks_an_expert_raises(strict: bool) -> None:
    state = {k: v for k, v in bank("a", "b").state_dict().items() if ".b." not in k}
    with pytest.raises(ExpertLoadError, match=r"has a; the bank has a, b \(missing: b; unknown"):
        bank("a", "b").load_state_dict(state, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_with_an_unknown_expert_raises(strict: bool) -> None:
    with pytest.raises(ExpertLoadError, match=r"\(missing: none; unknown: c\)"):
        bank("a", "b").load_state_dict(bank("a", "b", "c").state_dict(), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_that_lacks_one_tensor_raises(strict: bool) -> None:
    state = bank("a", "b").state_dict()
    del state["experts.b.2.bias"]
    with pytest.raises(ExpertLoadError, match=r"lacks experts\.b\.2\.bias"):
        bank("a", "b").load_state_dict(state, strict=strict)
    dense = feed_forward().state_dict()
    del dense["0.bias"]
    with pytest.raises(ExpertLoadError, match=r"lacks experts\.a\.0\.bias"):
        bank("a", "b").load_state_dict(dense, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_an_empty_checkpoint_raises(strict: bool) -> None:
    model = torch.nn.ModuleDict({"feed_forward": bank("a", "b")})
    with pytest.raises(ExpertLoadError, match=r"checkpoint has no feed_forward\.\*; the bank has"):
        model.load_state_dict({}, strict=strict)


def test_dense_and_experts_together_raise() -> None:
    state: dict[str, Any] = {**bank("a", "b").state_dict(), **feed_forward().state_dict()}
    with pytest.raises(ExpertLoadError, match=r"both a dense feed-forward and experts \(a, b\)"):
        bank("a", "b").load_state_dict(state)


@pytest.mark.parametrize("strict", [True, False])
def test_a_dense_checkpoint_fills_every_expert(strict: bool) -> None:
    dense = randomize(feed_forward())
    module = bank("a", "b")
    state = dense.state_dict()
    result = module.load_state_dict(state, strict=strict)
    assert not result.missing_keys and not result.unexpected_keys
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]  # the caller's, untouched
    for key, value in dense.state_dict().items():
        for name in "ab":
            own = module.state_dict()[f"experts.{name}.{key}"]
            assert torch.equal(own, value) and own.data_ptr() != value.data_ptr()


def test_a_dense_checkpoint_of_another_size_raises() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        bank("a", "b").load_state_dict(
            torch.nn.Sequential(torch.nn.Linear(4, 9)).state_dict()
            | {"2.weight": torch.zeros(4, 9), "2.bias": torch.zeros(4)},
            strict=False,
        )


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
def test_a_whole_dense_encoder_checkpoint_fills_every_expert(kind: str) -> None:
    dense, smoe = encoder_pair(kind)
    randomize(smoe)
    result = smoe.load_state_dict(dense.state_dict(), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    for key, value in smoe.state_dict().items():
        assert torch.equal(value, dense.state_dict()[expert_key(key)]), key


def test_init_param_with_a_dense_file_fills_every_expert(tmp_path: Any) -> None:
    """ESPnet's --init_param merges the file into the model's own values first."""
    dense, smoe = decoder_pair()
    randomize(smoe)
    torch.save(dense.state_dict(), tmp_path / "dense.pth")
    load_pretrained_model(str(tmp_path / "dense.pth"), smoe, ignore_init_mismatch=False)
    for key, value in smoe.state_dict().items():
        assert torch.equal(value, dense.state_dict()[expert_key(key)]), key


def test_init_param_with_an_own_or_a_foreign_file(tmp_path: Any) -> None:
    _, smoe = decoder_pair()
    other = randomize(decoder_pair()[1])
    path = tmp_path / "other.pth"
    torch.save(other.state_dict(), path)
    load_pretrained_model(str(path), smoe, ignore_init_mismatch=False)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in smoe.state_dict().items())
    torch.save({k: v for k, v in other.state_dict().items() if ".st." not in k}, path)
    with pytest.raises(ExpertLoadError, match=r"bank has asr, st \(missing: st; unknown: none\)"):
        load_pretrained_model(str(path), smoe, ignore_init_mismatch=False)
    renamed = {k.replace(".experts.st.", ".experts.mt."): v for k, v in other.state_dict().items()}
    torch.save(renamed, path)
    with pytest.raises(ExpertLoadError, match=r"missing: st; unknown: mt"):
        load_pretrained_model(str(path), smoe, ignore_init_mismatch=False)


def test_init_param_of_another_part_leaves_the_experts_alone(tmp_path: Any) -> None:
    _, smoe = decoder_pair()
    before = {k: v.clone() for k, v in smoe.state_dict().items()}
    torch.save({"after_norm.bias": torch.ones(8)}, tmp_path / "part.pth")
    load_pretrained_model(str(tmp_path / "part.pth"), smoe, ignore_init_mismatch=False)
    for key, value in smoe.state_dict().items():
        expected = torch.ones(8) if key == "after_norm.bias" else before[key]
        assert torch.equal(value, expected), key


def test_param_counts_equal_numel_on_two_axes() -> None:
    encoder, decoder = encoder_pair("conformer")[1], decoder_pair()[1]
    model = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    counts = param_counts(model)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert list(counts.active) == ["wb/asr", "wb/st", "nb/asr", "nb/st"]
    dense = encoder_pair("conformer")[0], decoder_pair()[0]
    dense_size = sum(p.numel() for module in dense for p in module.parameters())
    assert set(counts.active.values()) == {dense_size}
    used = sum(
        p.numel()
        for name, p in model.named_parameters()
        if ".experts." not in name or ".nb." in name or ".asr." in name
    )
    assert counts.active["nb/asr"] == used


def test_param_counts_of_experts_of_different_sizes() -> None:
    module = ExpertFeedForward(feed_forward(), names=["a", "b"])
    module.experts["b"] = torch.nn.Linear(4, 4)
    assert param_counts(module).active == {"a": 58, "b": 20}
    assert param_counts(module).total == 78


def test_param_counts_of_a_dense_model() -> None:
    counts = param_counts(torch.nn.Linear(3, 2))
    assert (counts.total, counts.active) == (8, {"dense": 8})
