"""The plan of an upcycling, by names and shapes alone: nothing is left over on either side."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TOKENS

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.new_tokens import VOCABULARY_TENSORS, extend_tokens
from espnet_smoe.upcycle import account, apply_plan, plan_upcycle

PLAN = extend_tokens(TOKENS, {"<fra>": "<spa>"})
FFN = "encoder.encoders.0.feed_forward."
DENSE = {
    "encoder.embed.weight": (4, 3),
    f"{FFN}w_1.weight": (5, 4),
    "encoder.encoders.0.feed_forward_macaron.w_1.bias": (5,),
    "encoder.encoders.0.norm.num_batches_tracked": (),
    **{name: (len(TOKENS), 4)[: 1 if name.endswith("bias") else 2] for name in VOCABULARY_TENSORS},
}


def smoe_of(dense: dict[str, tuple[int, ...]], *, tokens: int = 0) -> dict[str, tuple[int, ...]]:
    """The S-MoE model of `dense`: two experts for each feed-forward, and `tokens` more rows."""
    found = {}
    for name, shape in dense.items():
        if name in VOCABULARY_TENSORS:
            shape = (shape[0] + tokens, *shape[1:])
        names = [
            re.sub(r"(feed_forward(_macaron)?)\.", rf"\1.experts.{e}.", name) for e in ("wb", "nb")
        ]
        found.update(dict.fromkeys(names, shape))
    return found


SHAPES = st.lists(st.integers(1, 4), max_size=2).map(tuple)
MODELS = st.dictionaries(
    st.builds(
        lambda block, kind, name: f"encoder.{block}.{kind}.{name}",
        st.integers(0, 3),
        st.sampled_from(["feed_forward", "feed_forward_macaron", "self_attn", "feed_forward2"]),
        st.sampled_from(["w_1.weight", "bias", "experts"]),
    ),
    SHAPES,
    min_size=1,
)


@settings(max_examples=100, deadline=None)
@given(MODELS, st.booleans())
def test_every_tensor_comes_from_somewhere_and_goes_somewhere(
    model: dict[str, tuple[int, ...]], grows: bool
) -> None:
    dense = DENSE | model
    smoe = smoe_of(dense, tokens=int(grows))
    plan = plan_upcycle(dense, smoe, tokens=PLAN if grows else None)
    assert plan.source_of.keys() == smoe.keys()
    assert set(plan.source_of.values()) == dense.keys()
    assert plan.dropped == ()
    assert set(plan.extended) == (set(VOCABULARY_TENSORS) if grows else set())
    weights = {name: torch.rand(shape) for name, shape in dense.items()}
    applied = apply_plan(plan, weights, PLAN if grows else None)
    assert {name: tuple(value.shape) for name, value in applied.items()} == smoe
    for name, source in plan.source_of.items():
        if source not in plan.extended:
            assert torch.equal(applied[name], weights[source])
    shares = account(plan, dense, smoe)
    sizes = [sum(map(math.prod, side.values())) for side in (dense, smoe)]
    assert [sum(s.dense_values for s in shares), sum(s.smoe_values for s in shares)] == sizes
    assert sum(s.dense_tensors for s in shares) == len(dense)
    assert sum(s.smoe_tensors for s in shares) == len(smoe)


@settings(max_examples=50, deadline=None)
@given(MODELS, st.data())
def test_whatever_is_left_over_is_named(
    model: dict[str, tuple[int, ...]], data: st.DataObject
) -> None:
    dense = DENSE | model
    smoe = smoe_of(dense)
    gone = data.draw(st.sampled_from(sorted(dense)))
    others = {name: shape for name, shape in dense.items() if name != gone}
    with pytest.raises(ModelError, match=r"of the S-MoE model comes from nowhere"):
        plan_upcycle(others, smoe)
    with pytest.raises(ModelError, match=f"{re.escape(gone)} of the dense model goes nowhere"):
        plan_upcycle(dense, smoe_of(others))
    with pytest.raises(ModelError, match=f"{re.escape(gone)} of shape .* in the dense one"):
        plan_upcycle(dense | {gone: (*dense[gone], 2)}, smoe)


def test_the_table() -> None:
    smoe = smoe_of(DENSE, tokens=1)
    shares = account(plan_upcycle(DENSE, smoe, tokens=PLAN), DENSE, smoe)
    v = len(TOKENS)
    assert [tuple(vars(s).values()) for s in shares] == [
        ("copied", 7, 13 + 14 * v, 7, 13 + 14 * v),
        ("replicated x2", 2, 25, 4, 50),
        ("new rows", 0, 0, 0, 14),
    ]


def test_what_may_be_dropped_is_said_by_name() -> None:
    smoe = {name: shape for name, shape in smoe_of(DENSE).items() if not name.startswith("ctc.")}
    plan = plan_upcycle(DENSE, smoe, drop=["ctc.*"])
    assert plan.dropped == ("ctc.ctc_lo.weight", "ctc.ctc_lo.bias")
    assert account(plan, DENSE, smoe)[-1].dense_tensors == 2
    with pytest.raises(ModelError, match=r"drop 'lm\.\*': no tensor is called so"):
        plan_upcycle(DENSE, smoe, drop=["ctc.*", "lm.*"])


def test_rows_grow_by_the_new_tokens_and_no_other_number() -> None:
    for tokens in (0, 2):
        with pytest.raises(ModelError, match=r"decoder\.embed\.0\.weight is of shape"):
            plan_upcycle(DENSE, smoe_of(DENSE, tokens=tokens), tokens=PLAN)
    with pytest.raises(ModelError, match=r"decoder\.embed\.0\.weight is of shape"):
        plan_upcycle(DENSE, smoe_of(DENSE, tokens=1))


def test_many_faults_are_not_all_listed() -> None:
    with pytest.raises(ModelError, match=r"; and 4 more$"):
        plan_upcycle(DENSE, {})
