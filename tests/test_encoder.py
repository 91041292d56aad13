"""The three encoders: parity with ESPnet's, routes, options."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from espnet2.asr.ctc import CTC
from tiny import (
    DENSE,
    FEATURES,
    SMOE,
    backward,
    close,
    dense_of,
    encoder_options,
    encoder_pair,
    expert_key,
    features,
    randomize,
    same_gradients,
    seeded,
)

from espnet_smoe.experts import ExpertFeedForward, param_counts
from espnet_smoe.routing import RoutingError

MIXED = ["wb", "nb", "nb", "wb"]
KINDS = ["conformer", "transformer", "e_branchformer"]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("conformer", {}),
    ("conformer", {"positionwise_layer_type": "conv1d"}),
    ("conformer", {"positionwise_layer_type": "conv1d-linear", "macaron_style": False}),
    ("conformer", {"normalize_before": False, "concat_after": True, "rel_pos_type": "legacy"}),
    ("transformer", {}),
    ("transformer", {"positionwise_layer_type": "conv1d", "positionwise_conv_kernel_size": 3}),
    (
        "transformer",
        {"positionwise_layer_type": "conv1d-linear", "positionwise_conv_kernel_size": 3},
    ),
    ("transformer", {"normalize_before": False, "input_layer": "linear"}),
    ("e_branchformer", {}),
    ("e_branchformer", {"macaron_ffn": False}),
]
LENGTHS = torch.tensor([31, 31, 27, 30])


def case_id(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value.values())) or "default"


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=case_id)
def test_identical_experts_equal_dense_encoder(
    kind: str, options: dict[str, Any], train: bool
) -> None:
    dense, smoe = encoder_pair(kind, **options)
    dense.train(train)
    smoe.train(train)
    x = features()
    smoe.set_route(MIXED)
    expected, expected_lengths, _ = dense(x, LENGTHS)
    actual, lengths, _ = smoe(x, LENGTHS)
    close(actual, expected)
    assert lengths.tolist() == expected_lengths.tolist()
    same_gradients(backward(dense, expected), backward(smoe, actual))
    for name, value in dense.state_dict().items():  # BatchNorm's statistics too
        if name in smoe.state_dict():
            close(smoe.state_dict()[name].float(), value.float())


@pytest.mark.parametrize("kind", KINDS)
def test_one_route_with_dropout_equals_dense_encoder(kind: str) -> None:
    options = {"dropout_rate": 0.3, "positional_dropout_rate": 0.2, "attention_dropout_rate": 0.1}
    dense, smoe = encoder_pair(kind, **options)
    x = features()
    smoe.set_route(["nb"] * 4)
    expected = seeded(lambda: dense.train()(x, LENGTHS)[0])
    actual = seeded(lambda: smoe.train()(x, LENGTHS)[0])
    close(actual, expected)
    same_gradients(backward(dense, expected), backward(smoe, actual))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_batch_equals_one_at_a_time(kind: str) -> None:
    smoe = randomize(SMOE[kind](**encoder_options(kind))).eval()
    x = features()
    full = torch.full((4,), x.shape[1])
    smoe.set_route(MIXED)
    mixed = smoe(x, full)[0]
    for row, name in enumerate(MIXED):
        smoe.set_route([name])
        close(smoe(x[row : row + 1], full[:1])[0], mixed[row : row + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_batch_with_padding_equals_each_routes_dense_encoder(kind: str) -> None:
    smoe = randomize(SMOE[kind](**encoder_options(kind))).eval()
    x, lengths = features(), torch.tensor([31, 12, 25, 19])
    smoe.set_route(MIXED)
    mixed, out_lengths, _ = smoe(x, lengths)
    for name in ("wb", "nb"):
        dense = dense_of(smoe, DENSE[kind](**encoder_options(kind)), name)
        expected = dense(x, lengths)[0]
        for row in range(4):
            if MIXED[row] == name:
                valid = int(out_lengths[row])
                close(mixed[row, :valid], expected[row, :valid])


def test_the_other_expert_gives_another_output() -> None:
    smoe = randomize(SMOE["conformer"](**encoder_options("conformer"))).eval()
    outputs = []
    for name in ("wb", "nb"):
        smoe.set_route([name])
        outputs.append(smoe(features(1), torch.tensor([31]))[0])
    assert (outputs[0] - outputs[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_inter_ctc_with_conditioning_equals_dense_encoder(kind: str) -> None:
    vocab = 7
    dense, smoe = encoder_pair(kind, interctc_layer_idx=[1, 2], interctc_use_conditioning=True)
    ctc = CTC(odim=vocab, encoder_output_size=8)
    dense.conditioning_layer = torch.nn.Linear(vocab, 8)
    smoe.conditioning_layer = torch.nn.Linear(vocab, 8)
    smoe.load_state_dict(dense.state_dict())
    x = features()
    (expected, expected_inter), _, _ = dense(x, LENGTHS, ctc=ctc)
    smoe.set_route(MIXED)
    (actual, inter), _, _ = smoe(x, LENGTHS, ctc=ctc)
    close(actual, expected)
    assert [layer for layer, _ in inter] == [1, 2]
    for (_, a), (_, b) in zip(inter, expected_inter, strict=True):
        close(a, b)
    same_gradients(backward(dense, expected), backward(smoe, actual))


def test_stochastic_depth_equals_dense_encoder() -> None:
    dense, smoe = encoder_pair("conformer", stochastic_depth_rate=[0.0, 0.5, 0.5])
    x = features()
    for seed in range(6):
        expected = seeded(lambda: dense.train()(x, LENGTHS)[0], seed)
        smoe.set_route(MIXED)
        actual = seeded(lambda: smoe.train()(x, LENGTHS)[0], seed)
        close(actual, expected)
        same_gradients(backward(dense, expected), backward(smoe, actual))


def test_layer_drop_and_gradient_checkpointing_equal_dense_encoder() -> None:
    options = {"layer_drop_rate": 0.4, "num_blocks": 4}
    dense, plain = encoder_pair("e_branchformer", **options)
    checkpointed = SMOE["e_branchformer"](
        **encoder_options("e_branchformer", gradient_checkpoint_layers=[0, 1, 2, 4], **options)
    )
    checkpointed.load_state_dict(plain.state_dict())
    x = features()
    for seed in range(4):
        expected = seeded(lambda: dense.train()(x, LENGTHS)[0], seed)
        gradients = backward(dense, expected)
        for smoe in (plain, checkpointed):
            smoe.set_route(MIXED)
            actual = seeded(partial(smoe.train(), x, LENGTHS), seed)[0]
            close(actual, expected)
            same_gradients(gradients, backward(smoe, actual))


def test_gradient_checkpointing_gives_the_same_gradients_of_distinct_experts() -> None:
    """With dropout and mixed routes; the recomputation runs long after the forward call."""
    grads = []
    torch.manual_seed(4)
    state = randomize(SMOE["e_branchformer"](**encoder_options("e_branchformer"))).state_dict()
    for layers in ([], [0, 1, 2, 3]):
        smoe = SMOE["e_branchformer"](
            **encoder_options("e_branchformer", gradient_checkpoint_layers=layers, dropout_rate=0.2)
        )
        smoe.load_state_dict(state)
        smoe.set_route(MIXED)
        output = seeded(partial(smoe.train(), features(), LENGTHS))[0]
        grads.append(backward(smoe, output))
    for name, gradient in grads[0].items():
        assert gradient is not None and grads[1][name] is not None, name
        close(grads[1][name], gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_with_mixed_routes(kind: str) -> None:
    dense, smoe = encoder_pair(kind)
    x = features()
    smoe.set_route(MIXED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = dense(x, LENGTHS)[0]
        actual = smoe(x, LENGTHS)[0]
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, atol=0.1, rtol=0.0)
    for name, gradient in backward(smoe, actual).items():
        assert gradient is not None and torch.isfinite(gradient).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_return_all_hidden_states_and_masks_pass_through(kind: str) -> None:
    dense, smoe = encoder_pair(kind)
    x = features()
    smoe.set_route(MIXED)
    (_, expected), _, _ = dense(x, LENGTHS, return_all_hs=True)
    (_, actual), _, _ = smoe(x, LENGTHS, return_all_hs=True)
    assert len(actual) == 3
    for a, b in zip(actual, expected, strict=True):
        close(a, b)
    masks = torch.zeros(4, 31, dtype=torch.bool)
    masks[:, 20:] = True
    smoe.set_route(MIXED)
    close(smoe(x, LENGTHS, None, masks)[0], dense(x, LENGTHS, None, masks)[0])


def test_max_layer_passes_through() -> None:
    dense, smoe = encoder_pair("e_branchformer")
    smoe.set_route(MIXED)
    close(smoe(features(), LENGTHS, max_layer=1)[0], dense(features(), LENGTHS, max_layer=1)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_keys_differ_from_espnets_only_by_the_expert(kind: str) -> None:
    dense, smoe = encoder_pair(kind)
    keys = [key for key in smoe.state_dict() if ".experts." in key]
    assert {key.split(".experts.")[1].split(".")[0] for key in keys} == {"wb", "nb"}
    assert all(".feed_forward" in key for key in keys)
    assert {expert_key(key) for key in smoe.state_dict()} == set(dense.state_dict())
    assert set(smoe.state_dict()) - set(keys) == set(dense.state_dict()) - {
        expert_key(key) for key in keys
    }


def test_int_routes_are_positions_in_the_option() -> None:
    smoe = SMOE["transformer"](**encoder_options("transformer", experts=["clean", "noisy", "far"]))
    assert smoe.set_route(torch.tensor([2, 0])) == ("far", "clean")
    assert smoe.set_route(["noisy"]) == ("noisy",)


def test_a_call_without_its_own_route_raises() -> None:
    smoe = SMOE["conformer"](**encoder_options("conformer"))
    x, lengths = features(2), torch.tensor([31, 31])
    with pytest.raises(RoutingError, match=r"SMoEConformerEncoder has no route.*wb, nb"):
        smoe(x, lengths)
    smoe.set_route(["wb", "nb"])
    smoe(x, lengths)
    with pytest.raises(RoutingError, match="has no route for this batch"):
        smoe(x, lengths)  # a route serves one call


def test_a_route_of_another_batch_size_raises() -> None:
    smoe = SMOE["conformer"](**encoder_options("conformer"))
    smoe.set_route(["wb"])
    with pytest.raises(RoutingError, match="for 1 utterances, the batch holds 2"):
        smoe(features(2), torch.tensor([31, 31]))


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (["wb", "xb"], r"tag 'xb' has no expert \(known: wb, nb\); it is row 1 of set_route"),
        (torch.tensor([0, 2]), r"tag 2 has no expert \(known: wb, nb\); it is row 1"),
        (torch.tensor([-1]), "tag -1 has no expert"),
        (torch.tensor([0.0]), r"int64 tensor of shape \(B,\), not torch.float32"),
        (torch.tensor([[0]]), r"of shape \(1, 1\)"),
    ],
)
def test_an_unknown_tag_raises(route: Any, message: str) -> None:
    smoe = SMOE["conformer"](**encoder_options("conformer"))
    with pytest.raises(RoutingError, match=message):
        smoe.set_route(route)


def test_expert_blocks_limits_the_banks() -> None:
    smoe = SMOE["conformer"](**encoder_options("conformer", expert_blocks=[2]))
    banks = [n for n, m in smoe.named_modules() if isinstance(m, ExpertFeedForward)]
    assert banks == ["encoders.2.feed_forward", "encoders.2.feed_forward_macaron"]
    none = SMOE["conformer"](**encoder_options("conformer", expert_blocks=[]))
    assert not [m for m in none.modules() if isinstance(m, ExpertFeedForward)]


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
def test_macaron_experts_can_be_left_out(kind: str) -> None:
    smoe = SMOE[kind](**encoder_options(kind, macaron_experts=False))
    assert all(isinstance(b.feed_forward, ExpertFeedForward) for b in smoe.encoders)
    assert not any(isinstance(b.feed_forward_macaron, ExpertFeedForward) for b in smoe.encoders)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert_blocks": [3]}, r"encoder_conf.expert_blocks: 3 is no block; accepted: 0 to 2"),
        ({"expert_blocks": [-1]}, "-1 is no block"),
        ({"expert_blocks": [True]}, "True is no block"),
        ({"expert_blocks": [0, 0]}, r"\[0, 0\] names a block twice"),
        ({"experts": []}, "encoder_conf.experts is empty"),
        ({"experts": ["a", "a"]}, "names a more than once"),
        ({"experts": ["a.b"]}, r"'a\.b' is no expert name"),
        ({"experts": "wb"}, "is the string 'wb'"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMOE["conformer"](**encoder_options("conformer", **options))


def test_e_branchformer_without_ffn_says_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"block 0 of SMoEEBranchformerEncoder.*use_ffn: true"):
        SMOE["e_branchformer"](input_size=FEATURES, num_blocks=1)


def test_param_counts_of_an_encoder() -> None:
    dense = DENSE["conformer"](**encoder_options("conformer"))
    smoe = SMOE["conformer"](**encoder_options("conformer", expert_blocks=[0, 2]))
    counts = param_counts(smoe)
    dense_size = sum(p.numel() for p in dense.parameters())
    ffn = sum(p.numel() for p in dense.encoders[0].feed_forward.parameters())
    assert counts.total == dense_size + 4 * ffn == sum(p.numel() for p in smoe.parameters())
    assert counts.active == {"wb": dense_size, "nb": dense_size}
