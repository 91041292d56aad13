"""The best tokens by slices of the vocabulary, and the timestamp rule, against their references."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from espnet2.bin.s2t_inference import ScoreFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ID, TIMES, TOKENS, close, ids

from espnet_smoe import token_scores
from espnet_smoe.token_scores import TimestampRule, log_normalizer, top_tokens

FIRST, LAST = ID[TIMES[0]], ID[TIMES[-1]]
SOS, EOS, NOTIME = ID["<sos>"], ID["<eos>"], ID["<notimestamps>"]
RULE = TimestampRule(NOTIME, FIRST, LAST, SOS, EOS)


def options(**changes: Any) -> Any:
    names = {"notime_symbol": "<notimestamps>", "first_time_symbol": None, "last_time_symbol": None}
    return SimpleNamespace(**{**names, **changes})


@pytest.mark.parametrize("width", [1, 3, 7, 23, 24, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_slices_give_what_the_whole_vocabulary_gives(
    width: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_scores, "SLICE", width)
    monkeypatch.setattr(token_scores, "ROWS", 4)
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 23, bias=bias), torch.randn(11, 5) * 4
    with torch.no_grad():
        logp = layer(x).log_softmax(-1)
        best, tokens, eos = top_tokens(layer, x, 6, eos=20)
        expected, expected_tokens = logp.topk(6)
        close(best, expected)
        assert torch.equal(tokens, expected_tokens)
        close(eos, logp[:, 20])
        close(log_normalizer(layer, x), layer(x).logsumexp(-1))


def test_forbidden_tokens_count_in_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_scores, "SLICE", 9)
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, len(TOKENS)), torch.randn(3, 5) * 4
    with torch.no_grad():
        logp = layer(x).log_softmax(-1)
        best, tokens, _ = top_tokens(layer, x, 4, eos=EOS, forbid=RULE.forbid(None))
    logp[:, FIRST : LAST + 1] = -torch.inf
    close(best, logp.topk(4)[0])
    assert torch.equal(tokens, logp.topk(4)[1])


WORD = st.sampled_from([*range(FIRST, FIRST + 6), LAST, ID["hola"], ID["dog"], EOS])
HISTORY = st.tuples(
    st.sampled_from(
        [
            ids("<sos>", "<spa>", "<asr>"),
            ids("<sop>", "<0.10>", "hola", "<sos>", "<spa>", "<st_eng>"),
            ids("<sos>", "<spa>", "<asr>", "<notimestamps>"),
        ]
    ),
    st.lists(WORD, max_size=6),
)


@settings(max_examples=60, deadline=None)
@given(histories=st.lists(HISTORY, min_size=1, max_size=5))
def test_the_rule_is_espnets(histories: list[tuple[list[int], list[int]]]) -> None:
    stock = ScoreFilter(NOTIME, FIRST, LAST, SOS, EOS, len(TOKENS))
    rows = [prompt + text for prompt, text in histories]
    longest = max(map(len, rows))
    padded = torch.tensor([[-1] * (longest - len(row)) + row for row in rows])
    forbidden = RULE.forbidden(padded, len(TOKENS))
    scores = torch.zeros(len(rows), len(TOKENS))
    for start in range(0, len(TOKENS), 10):  # by slices, as the search has it
        RULE.forbid(forbidden)(scores[:, start : start + 10], start)
    for index, row in enumerate(rows):
        expected = stock.score(torch.tensor(row), None, None)[0].detach()
        assert torch.equal(scores[index], expected), row


def test_the_rule_finds_its_tokens() -> None:
    assert TimestampRule.of(TOKENS, options(), SOS, EOS) == RULE
    assert TimestampRule.of(["<blank>", "a"], options(), 1, 1) is None
    named = TimestampRule.of(TOKENS, options(last_time_symbol="<0.10>"), SOS, EOS)
    assert named is not None and named.last == ID["<0.10>"]


def test_a_vocabulary_with_half_of_the_tokens_raises() -> None:
    with pytest.raises(ValueError, match=r"notime_symbol '<nt>' is not .*: <0.00> to <1.00>"):
        TimestampRule.of(TOKENS, options(notime_symbol="<nt>"), SOS, EOS)
    with pytest.raises(ValueError, match="first_time_symbol None is not .*timestamps: none"):
        TimestampRule.of(["<notimestamps>"], options(), 0, 0)


def test_prompts_that_the_rule_cannot_follow_raise() -> None:
    assert not RULE.check_prompt(ids("<sos>", "<asr>", "<notimestamps>"), "p")
    assert RULE.check_prompt(ids("<sos>", "<spa>", "<asr>"), "p")
    assert RULE.check_prompt(ids("<sos>", "<asr>", "<0.10>"), "p")
    with pytest.raises(ValueError, match="p has no <notimestamps>, .*must end with <sos> and two"):
        RULE.check_prompt(ids("<sos>", "<spa>", "<asr>", "hola"), "p")
