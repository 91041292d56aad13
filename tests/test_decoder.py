"""The decoder: parity with ESPnet's, and a route that only the prompt decides."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from espnet.nets.batch_beam_search import BatchBeamSearch
from espnet.nets.beam_search import BeamSearch
from espnet.nets.scorers.length_bonus import LengthBonus
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from tiny import (
    EXPERTS,
    ID,
    TOKENS,
    backward,
    close,
    decoder_options,
    decoder_pair,
    dense_of,
    expert_key,
    ids,
    padded,
    randomize,
    same_gradients,
    seeded,
    smoe_decoder,
)

from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.routing import RoutingError

ASR = ("<sos>", "<spa>", "<asr>", "<notimestamps>")
ST = ("<sos>", "<spa>", "<st_eng>", "<notimestamps>")
ROWS = [
    ids(*ASR, "hola", "perro", "casa"),
    ids("<sop>", "<asr>", "dog", *ST, "dog"),
    ids("<sos>", "<spa>", "<st_deu>", "<0.00>", "big", "<0.10>"),
    ids(*ASR, "hola"),
]
ROUTES = ["asr", "st", "st", "asr"]


def memory(batch: int = 4, frames: int = 6) -> torch.Tensor:
    return torch.randn(batch, frames, 8, generator=torch.Generator().manual_seed(7))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, lengths = padded(ROWS, ID["<eos>"])
    return memory(), torch.tensor([6, 5, 6, 3]), tokens, lengths


def dense_expert(smoe: SMoETransformerDecoder, expert: str) -> Any:
    return dense_of(smoe, TransformerDecoder(**decoder_options()), expert)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize_before": False},
        {"concat_after": True},
        {"gradient_checkpoint_layers": [1, 2]},
        {"use_output_layer": False},
    ],
    ids=str,
)
def test_identical_experts_equal_dense_decoder(options: dict[str, Any], train: bool) -> None:
    dense, smoe = decoder_pair(**options)
    expected, expected_lengths = dense.train(train)(*inputs())
    actual, lengths = smoe.train(train)(*inputs())
    close(actual, expected)
    assert torch.equal(lengths, expected_lengths)
    same_gradients(backward(dense, expected), backward(smoe, actual))


def test_one_route_with_dropout_equals_dense_decoder() -> None:
    options = {
        "dropout_rate": 0.3,
        "positional_dropout_rate": 0.2,
        "self_attention_dropout_rate": 0.1,
        "src_attention_dropout_rate": 0.1,
    }
    dense, smoe = decoder_pair(**options)
    tokens, lengths = padded([ROWS[0], ROWS[3]], ID["<eos>"])
    batch = (memory(2), torch.tensor([6, 4]), tokens, lengths)
    expected = seeded(lambda: dense.train()(*batch)[0])
    actual = seeded(lambda: smoe.train()(*batch)[0])
    close(actual, expected)
    same_gradients(backward(dense, expected), backward(smoe, actual))


@pytest.mark.parametrize("option", ["return_hs", "return_all_hs"])
def test_hidden_states_equal_the_dense_decoders(option: str) -> None:
    dense, smoe = decoder_pair()
    (_, expected), _ = dense.eval()(*inputs(), **{option: True})
    (_, actual), _ = smoe.eval()(*inputs(), **{option: True})
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0.0)


def test_gradient_checkpointing_gives_the_same_gradients_of_distinct_experts() -> None:
    state = smoe_decoder().state_dict()
    grads = []
    for layers in ([], [1, 2]):
        decoder = smoe_decoder(gradient_checkpoint_layers=layers, dropout_rate=0.2)
        decoder.load_state_dict(state)
        output = seeded(partial(decoder.train(), *inputs()))[0]
        grads.append(backward(decoder, output))
    for name, gradient in grads[0].items():
        assert gradient is not None and grads[1][name] is not None, name
        close(grads[1][name], gradient)


def test_autocast_with_mixed_routes() -> None:
    dense, smoe = decoder_pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = dense(*inputs())[0]
        actual = smoe(*inputs())[0]
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, atol=0.1, rtol=0.0)
    for name, gradient in backward(smoe, actual).items():
        assert gradient is not None and torch.isfinite(gradient).all(), name


def test_mixed_batch_equals_one_at_a_time() -> None:
    """Unequal lengths too: each utterance alone, and without its padding."""
    smoe = smoe_decoder()
    hs, hlens, tokens, lengths = inputs()
    mixed = smoe(hs, hlens, tokens, lengths)[0]
    for row, length in enumerate(lengths.tolist()):
        frames = int(hlens[row])
        alone = smoe(
            hs[row : row + 1, :frames],
            hlens[row : row + 1],
            tokens[row : row + 1, :length],
            lengths[row : row + 1],
        )[0]
        close(mixed[row, :length], alone[0])


def test_each_row_equals_the_dense_decoder_with_its_experts_weights() -> None:
    smoe = smoe_decoder()
    mixed = smoe(*inputs())[0]
    for expert in ("asr", "st"):
        expected = dense_expert(smoe, expert)(*inputs())[0]
        for row, name in enumerate(ROUTES):
            if name == expert:
                close(mixed[row, : len(ROWS[row])], expected[row, : len(ROWS[row])])
            else:
                assert (mixed[row] - expected[row]).abs().max() > 0.01


def test_batch_score_of_mixed_prompts_equals_score() -> None:
    """Over several steps with ESPnet's cache; beams of several prompts in one batch."""
    smoe, xs = smoe_decoder(), memory(3)
    prompts = [ASR, ST, ("<sos>", "<spa>", "<st_deu>", "<0.00>")]
    more = [("hola", "house", "big"), ("<st_eng>", "<asr>", "<asr>"), ("perro", "dog", "<0.10>")]
    rows = [ids(*prompt) for prompt in prompts]
    states: list[Any] = [None] * 3
    alone: list[Any] = [None] * 3
    for step in range(len(more) + 1):
        ys = torch.tensor(rows)
        scores, states = smoe.batch_score(ys, states, xs)
        for b, expert in enumerate(("asr", "st", "st")):
            score, alone[b] = smoe.score(ys[b], alone[b], xs[b])
            close(scores[b], score)
            whole, _ = dense_expert(smoe, expert).score(ys[b], None, xs[b])
            close(score, whole)
        if step < len(more):
            rows = [row + ids(token) for row, token in zip(rows, more[step], strict=True)]


def test_return_hs_passes_through_the_scores() -> None:
    dense, smoe = decoder_pair()
    ys, xs = torch.tensor([ids(*ASR), ids(*ST)]), memory(2)
    (expected, expected_hs), _ = dense.eval().batch_score(ys, [None, None], xs, return_hs=True)
    (actual, hs), _ = smoe.eval().batch_score(ys, [None, None], xs, return_hs=True)
    close(actual, expected)
    close(hs, expected_hs)
    close(smoe.score(ys[0], None, xs[0], return_hs=True)[1][0], expected_hs[0])


@pytest.mark.parametrize("expert", ["asr", "st"])
@pytest.mark.parametrize(
    "hypothesis",
    [
        ("<st_eng>", "<asr>"),  # right after <notimestamps>
        ("hola", "<st_eng>", "<asr>"),  # after an ordinary token
        ("<sos>", "<st_eng>", "<asr>"),
        ("<sos>", "<asr>", "<st_eng>"),
    ],
    ids=" ".join,
)
def test_a_special_token_in_a_hypothesis_never_changes_its_expert(
    expert: str, hypothesis: tuple[str, ...]
) -> None:
    smoe = smoe_decoder()
    dense = dense_expert(smoe, expert)
    prompt = ids(*(ASR if expert == "asr" else ST))
    ys = torch.tensor(prompt + ids(*hypothesis))
    x = memory(1)
    lengths = torch.tensor([len(ys)])
    close(
        smoe(x, torch.tensor([6]), ys[None], lengths)[0],
        dense(x, torch.tensor([6]), ys[None], lengths)[0],
    )
    close(smoe.score(ys, None, x[0])[0], dense.score(ys, None, x[0])[0])
    state: Any = None
    states: list[Any] = [None]
    for end in range(len(prompt), len(ys) + 1):
        score, state = smoe.score(ys[:end], state, x[0])
        batched, states = smoe.batch_score(ys[None, :end], states, x)
        expected = dense.score(ys[:end], None, x[0])[0]
        close(score, expected)
        close(batched[0], expected)


def test_text_prev_never_changes_the_expert() -> None:
    smoe = smoe_decoder()
    for expert, prompt in (("asr", ASR), ("st", ST)):
        ys = torch.tensor(ids("<sop>", "<spa>", "<st_eng>", "<asr>", "dog", *prompt, "hola"))
        close(
            smoe.score(ys, None, memory()[0])[0],
            dense_expert(smoe, expert).score(ys, None, memory()[0])[0],
        )


def test_a_guiding_token_behind_an_open_prompt_never_changes_the_expert() -> None:
    """With timestamps the prompt has no end: the search tries every token right behind it."""
    smoe, x = smoe_decoder(), memory()[0]
    for expert, guide, other in (("asr", "<asr>", "<st_eng>"), ("st", "<st_eng>", "<asr>")):
        dense = dense_expert(smoe, expert)
        ys = torch.tensor(ids("<sos>", "<spa>", guide, other, other))
        state: Any = None
        for end in (3, 4, 5):
            score, state = smoe.score(ys[:end], state, x)
            close(score, dense.score(ys[:end], None, x)[0])


def test_an_open_prompt_without_a_guiding_token_has_no_default_expert() -> None:
    smoe = smoe_decoder(default_expert="st")
    with pytest.raises(RoutingError, match="default_expert serves prompts that end"):
        smoe.score(torch.tensor(ids("<sos>", "<spa>")), None, memory()[0])
    closed = torch.tensor(ids("<sos>", "<spa>", "<notimestamps>", "<asr>"))
    close(
        smoe.score(closed, None, memory()[0])[0],
        dense_expert(smoe, "st").score(closed, None, memory()[0])[0],
    )


def test_partially_autoregressive_decoding_equals_the_dense_decoders() -> None:
    smoe = smoe_decoder()
    rows = [ids(*ASR, "<st_eng>", "casa"), ids(*ST, "dog"), ids(*ST, "<asr>", "big", "dog")]
    ys, lengths = padded(rows, ID["<eos>"])
    xs = memory(1)  # one utterance; ESPnet expands its keys over masks and hypotheses
    actual, state = smoe.batch_score_partially_AR(ys, [None], xs, lengths)
    for row, expert in enumerate(("asr", "st", "st")):
        dense = dense_expert(smoe, expert)
        expected, _ = dense.batch_score_partially_AR(ys, [None], xs, lengths)
        close(actual[row], expected[row])
    appended, longer = torch.cat([ys, ys[:, -1:]], dim=1), lengths + 1
    for row, length in enumerate(lengths.tolist()):
        appended[row, length] = ID["<asr>"]
    cached, _ = smoe.batch_score_partially_AR(appended, state, xs, longer)
    for row, expert in enumerate(("asr", "st", "st")):
        dense = dense_expert(smoe, expert)
        _, dense_state = dense.batch_score_partially_AR(ys, [None], xs, lengths)
        expected, _ = dense.batch_score_partially_AR(appended, dense_state, xs, longer)
        close(cached[row], expected[row])


@pytest.mark.parametrize("search_class", [BeamSearch, BatchBeamSearch])
@pytest.mark.parametrize("expert", ["asr", "st"])
def test_espnets_beam_search_equals_the_dense_decoders(search_class: Any, expert: str) -> None:
    smoe = smoe_decoder()
    with torch.no_grad():  # special tokens of the other route everywhere in the hypotheses
        assert smoe.output_layer is not None
        smoe.output_layer.bias[ids("<asr>", "<st_eng>", "hola")] += 3.0
    found = []
    for decoder in (smoe, dense_expert(smoe, expert)):
        search = search_class(
            beam_size=4,
            vocab_size=len(TOKENS),
            weights={"decoder": 1.0, "length_bonus": 0.3},
            scorers={"decoder": decoder, "length_bonus": LengthBonus(len(TOKENS))},
            sos=ID["<sos>"],
            eos=ID["<eos>"],
            token_list=TOKENS,
            pre_beam_score_key="full",
        )
        search.set_hyp_primer(ids(*(ASR if expert == "asr" else ST)))
        with torch.no_grad():
            found.append(search(x=memory()[0], maxlenratio=-8.0))
    mine, expected = found
    assert [h.yseq.tolist() for h in mine] == [h.yseq.tolist() for h in expected]
    for a, b in zip(mine, expected, strict=True):
        assert abs(float(a.score) - float(b.score)) < 1e-4
    generated = {token for h in mine for token in h.yseq.tolist()[4:]}
    assert generated & set(ids("<asr>", "<st_eng>"))


def test_the_order_of_the_mapping_carries_no_meaning() -> None:
    one = smoe_decoder(experts={"st": ["<st_*>"], "asr": ["<asr>"]})
    other = smoe_decoder(experts={"asr": ["<asr>"], "st": ["<st_*>"]})
    assert list(one.state_dict()) == list(other.state_dict())
    other.load_state_dict(one.state_dict())
    close(one(*inputs())[0], other(*inputs())[0])


def test_state_dict_keys_differ_from_espnets_only_by_the_expert() -> None:
    dense, smoe = decoder_pair()
    experts = {k for k in smoe.state_dict() if ".experts." in k}
    assert {k.split(".")[4] for k in experts} == {"asr", "st"}
    assert all(k.split(".")[2:4] == ["feed_forward", "experts"] for k in experts)
    assert {expert_key(k) for k in smoe.state_dict()} == set(dense.state_dict())


def test_unused_expert_gets_no_gradient_and_no_update() -> None:
    smoe = smoe_decoder().train()
    before = {name: p.clone() for name, p in smoe.named_parameters()}
    optimizer = torch.optim.AdamW(smoe.parameters(), lr=0.1, weight_decay=0.5)
    tokens, lengths = padded([ROWS[0], ROWS[3]], ID["<eos>"])
    smoe(memory(2), torch.tensor([6, 6]), tokens, lengths)[0].square().sum().backward()
    optimizer.step()
    for name, parameter in smoe.named_parameters():
        if ".experts.st." in name:
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
        elif ".experts.asr.w_" in name:
            assert not torch.equal(parameter, before[name])


def test_errors_name_the_origin() -> None:
    smoe = smoe_decoder()
    hs, hlens, tokens, lengths = inputs()
    tokens[2, 2] = ID["<spa>"]
    with pytest.raises(RoutingError, match=r"prompt <spa><spa> has no guiding.*row 2 of text"):
        smoe(hs, hlens, tokens, lengths)
    with pytest.raises(RoutingError, match="it is row 0 of the search's prompt"):
        smoe.score(torch.tensor(ids("<sos>", "hola")), None, hs[0])
    with pytest.raises(RoutingError, match=r"is contradictory.*row 0 of the search's prompt"):
        smoe.score(torch.tensor(ids("<sos>", "<asr>", "<st_eng>")), None, hs[0])


def test_an_unbound_decoder_raises() -> None:
    smoe = SMoETransformerDecoder(**decoder_options(experts=EXPERTS))
    with pytest.raises(RoutingError, match=r"call bind_tokens\(token_list\) first"):
        smoe(*inputs())


def test_route_of_tells_the_experts() -> None:
    assert list(smoe_decoder().route_of(inputs()[2])) == ROUTES


def test_default_experts_are_the_papers_tasks() -> None:
    smoe = SMoETransformerDecoder(**decoder_options())
    assert smoe.expert_names == ("asr", "st")


def test_experts_by_language_and_expert_blocks() -> None:
    smoe = randomize(
        SMoETransformerDecoder(
            **decoder_options(
                experts={"spa": ["<spa>"], "deu": ["<st_deu>"]},
                expert_blocks=[1],
            )
        )
    )
    smoe.bind_tokens([t for t in TOKENS if t != "<st_eng>"])
    assert {k.split(".")[1] for k in smoe.state_dict() if ".experts." in k} == {"1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_layer": "linear"}, "only 'embed' is accepted"),
        ({"expert_blocks": [2]}, r"decoder_conf.expert_blocks: 2 is no block; accepted: 0 to 1"),
        ({"experts": {"pop": ["<asr>"]}}, "pop.*choose another name"),
        ({"default_expert": "mt"}, "default_expert 'mt' is no expert"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMoETransformerDecoder(**decoder_options(**options))
