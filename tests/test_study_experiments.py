"""What the study's experiments compute: swapped experts, failures of texts, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from saved_model import load_model
from tiny import EXPERTS, model_batch, smoe_decoder, smoe_model, speech

from espnet_smoe import Speech
from espnet_smoe.encoder import banks_of
from espnet_smoe.failures import Vocabularies, failures, vocabularies_of, without_prompt
from espnet_smoe.gradient_cosines import (
    LOSSES,
    Part,
    Pull,
    cosines,
    gram,
    loss_gradients,
    mean_interval,
    part_of,
    together,
)
from espnet_smoe.routing import RoutingError
from espnet_smoe.swaps import exchanged, guided_as

TASKS = ["asr", "st_eng"]
SWAP = {"asr": "st", "st": "asr"}


def decoded(s2t: object) -> list[tuple[str, str, str]]:
    """(task, route, text) of two recordings."""
    items = [Speech(speech(9000 + 900 * n, seed=n).numpy(), name=f"u{n}") for n in range(2)]
    results = s2t(items, tasks=TASKS, bandwidth="wb")  # type: ignore[operator]
    return [(task, found[task].route, found[task].text) for found in results for task in TASKS]


@contextmanager
def moved_experts(decoder: object) -> Iterator[None]:
    """The reference: the experts themselves change places."""

    def move() -> None:
        for bank in banks_of(decoder):
            first, second = (bank.experts[name] for name in EXPERTS)
            bank.experts.update(dict(zip(EXPERTS, (second, first), strict=True)))

    move()
    yield
    move()


def test_swapped_experts_write_what_moved_experts_write_and_are_named() -> None:
    s2t = load_model()
    decoder = s2t.s2t_model.decoder
    right = decoded(s2t)
    with moved_experts(decoder):
        moved = [text for _, _, text in decoded(s2t)]
    with guided_as(decoder, exchanged(decoder.expert_names)):
        swapped = decoded(s2t)
    assert [text for _, _, text in swapped] == moved != [text for _, _, text in right]
    assert {route for task, route, _ in swapped if task == "asr"} == {"wb/st"}
    assert decoded(s2t) == right


def test_the_swap_ends_by_an_error_too_and_moves_no_weight() -> None:
    decoder = smoe_decoder()
    table, before = decoder.guide_table, {k: v.clone() for k, v in decoder.state_dict().items()}
    with pytest.raises(KeyError, match="stop"), guided_as(decoder, SWAP):
        assert decoder.guide_table.guides["<asr>"] == "st"
        raise KeyError("stop")
    assert decoder.guide_table is table and table.guides["<asr>"] == "asr"
    assert all(torch.equal(before[k], v) for k, v in decoder.state_dict().items())


def test_a_default_expert_is_swapped_with_the_others() -> None:
    decoder = smoe_decoder(default_expert="asr")
    with guided_as(decoder, SWAP):
        assert decoder.guide_table.default_expert == "st"
    assert decoder.guide_table.default_expert == "asr"


def test_what_cannot_be_swapped_is_said() -> None:
    with pytest.raises(RoutingError, match="foo is no expert of .*known: asr, st"):
        smoe_decoder().guide_table.remapped({"asr": "foo"})
    with pytest.raises(RoutingError, match=r"a, b, c: 3 expert\(s\).*accepted: two"):
        exchanged(["a", "b", "c"])
    with pytest.raises(RoutingError, match="Linear.*has no experts"), guided_as(
        torch.nn.Linear(1, 1), SWAP
    ):  # fmt: skip
        pass


SPANISH, ENGLISH = "el perro come una manzana", "the dog eats an apple"
KNOWN = Vocabularies.of([SPANISH, "hotel en madrid"], [ENGLISH, "a hotel in madrid"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SPANISH, set()),
        ("El perro come una MANZANA, hotel.", set()),  # shared words and case decide nothing
        (ENGLISH, {"wrong_language", "other_task"}),
        ("el perro eats una manzana", {"language_mix"}),
        ("the dog eats una manzana", {"wrong_language", "language_mix", "other_task"}),
        ("", {"empty"}),
        (" . ", {"empty"}),
        ("hotel madrid", {"no_language"}),
        (" ".join([SPANISH] * 3), {"runaway"}),
    ],
)
def test_failures_of_a_transcript(text: str, expected: set[str]) -> None:
    assert failures([text], [[SPANISH]], [[ENGLISH]], KNOWN) == [expected]


def test_failures_of_a_translation_mirror_those_of_a_transcript() -> None:
    other_way = Vocabularies(KNOWN.other, KNOWN.wanted)
    assert failures([SPANISH, ENGLISH], [[ENGLISH]] * 2, [[SPANISH]] * 2, other_way) == [
        {"wrong_language", "other_task"},
        set(),
    ]


def test_the_margin_and_a_missing_reference_keep_other_task_from_being_found() -> None:
    assert failures([ENGLISH], [[SPANISH]], [[]], KNOWN) == [{"wrong_language"}]
    alike = Vocabularies.of(["hola"], ["hello"])
    texts = (["holla"], [["hola"]], [["hello", "holla"]])
    assert "other_task" in failures(*texts, alike)[0]
    assert "other_task" not in failures(*texts, alike, margin=101.0)[0]


def test_vocabularies_are_those_of_the_task_against_all_others() -> None:
    texts = {"asr": ["hola casa"], "st_eng": ["hello"], "st_fra": ["salut casa"]}
    assert vocabularies_of(texts, "asr") == Vocabularies(
        frozenset({"hola"}), frozenset({"hello", "salut"})
    )
    assert without_prompt("<spa><asr><notimestamps> hola <casa>") == "hola <casa>"


def dense_model() -> object:
    return smoe_model(encoder="conformer", decoder="transformer")


def test_gradients_are_those_of_the_losses() -> None:
    model = dense_model()
    batch = model_batch(["<asr>", "<st_eng>"])
    found = loss_gradients(model, batch)
    for kind, weight in zip(LOSSES, (model.ctc_weight, 0.0), strict=True):
        model.ctc_weight = weight
        model.zero_grad(set_to_none=True)
        model(**model_batch(["<asr>", "<st_eng>"]))[0].sum().backward()
        expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert expected.keys() == found[kind].keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[kind][name], gradient, atol=1e-6, rtol=1e-5)
    assert not any(name.startswith("ctc.") for name in found["attention"])


def test_cosine_is_1_for_the_same_batch_and_minus_1_for_the_opposite_loss_in_every_part() -> None:
    model = dense_model()
    batch = model_batch(["<asr>", "<st_eng>"])
    first, second = (loss_gradients(model, batch)["total"] for _ in range(2))
    opposite = {name: -gradient for name, gradient in first.items()}
    grams = gram([first, second, opposite])
    kinds = {(part.side, part.module) for part in grams}
    assert kinds == {
        *(("encoder", m) for m in ("subsampling", "self-attention", "convolution", "FFN",
                                   "macaron FFN", "norms")),
        *(("decoder", m) for m in ("embedding", "self-attention", "cross-attention", "FFN",
                                   "norms", "output layer")),
        ("ctc", "CTC"),
    }  # fmt: skip
    for part, products in grams.items():
        found = cosines(products, np.eye(3))
        assert found[0, 1] == pytest.approx(1.0), part
        assert found[0, 2] == pytest.approx(-1.0), part


def test_combinations_are_the_gradients_of_unions() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((4, 7))
    names = ("encoder.encoders.0.feed_forward.w_1.weight", "ctc.ctc_lo.weight")
    gradients = [
        {names[0]: torch.tensor(v[:4]).view(2, 2), names[1]: torch.tensor(v[4:])} for v in vectors
    ]
    grams = gram(gradients)
    assert set(grams) == {Part("encoder", "FFN", 0), Part("ctc", "CTC")}
    weights = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    a, b = weights @ vectors
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosines(together(grams.values()), weights)[0, 1] == pytest.approx(expected)
    pull = Pull.of(together(grams.values()), *np.eye(4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    table = unit @ unit.T
    assert pull.across == pytest.approx(table[:2, 2:].mean())
    assert pull.within == pytest.approx((table[0, 1] + table[2, 3]) / 2)


def test_parameters_that_a_batch_does_not_reach_have_no_cosine() -> None:
    gradient = torch.ones(2)
    products = gram([{"ctc.ctc_lo.bias": gradient}, {"decoder.embed.0.weight": gradient}])
    assert np.isnan(cosines(products[Part("ctc", "CTC")], np.eye(2))[0, 1])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.encoders.11.conv_module.norm.weight", Part("encoder", "norms", 11)),
        ("encoder.encoders.0.norm_ff_macaron.weight", Part("encoder", "norms", 0)),
        ("encoder.encoders.2.feed_forward_macaron.experts.wb.w_1.bias",
         Part("encoder", "macaron FFN", 2)),
        ("decoder.decoders.1.src_attn.linear_q.weight", Part("decoder", "cross-attention", 1)),
        ("decoder.after_norm.weight", Part("decoder", "norms")),
        ("encoder.embed.conv.0.weight", Part("encoder", "subsampling")),
        ("criterion.weight", Part("model", "other")),
    ],
)  # fmt: skip
def test_parameters_belong_to_parts(name: str, part: Part) -> None:
    assert part_of(name) == part


def test_the_interval_over_rounds_is_students() -> None:
    from scipy import stats

    values = [0.1, 0.4, 0.2, 0.5]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((0.3, expected.low, expected.high))
