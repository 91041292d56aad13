"""CTC prefix scores of a batch are those of ESPnet's scorer, one utterance at a time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from espnet2.asr.ctc import CTC
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_search import batch, memory
from tiny import ID, TOKENS, ids

from espnet_smoe.compat import CTCPrefixScorer
from espnet_smoe.ctc_batch import CTCPrefixBatch, check_ctc
from espnet_smoe.ctc_scorer import follow_prompts

EOS = ID["<eos>"]
PROMPT = ids("<sos>", "<spa>", "<asr>", "<notimestamps>")
BEAMS = 3


def random_ctc(behind_prompt: bool = True) -> Any:
    torch.manual_seed(6)
    ctc: Any = CTC(len(TOKENS), 8).eval()
    with torch.no_grad():
        ctc.ctc_lo.weight.mul_(3.0)
    if behind_prompt:
        ctc.behind_prompt = True
    return ctc


@torch.no_grad()
def stock_scores(ctc: Any, x: torch.Tensor, prefix: list[int], start: int) -> torch.Tensor:
    """ESPnet's score of every next token (V,), from the tokens behind `start` on."""
    scorer = CTCPrefixScorer(ctc=ctc, eos=EOS)
    follow_prompts(scorer)
    state, total = scorer.batch_init_state(x), 0.0
    for length in range(start, len(prefix)):
        y = torch.tensor([prefix[:length]])
        scores, states = scorer.batch_score_partial(y, None, [state], x)
        state = scorer.select_state(states, 0, prefix[length])
        total = total + scores[0, prefix[length]]
    return total + scorer.batch_score_partial(torch.tensor([prefix]), None, [state], x)[0][0]


@settings(max_examples=15, deadline=None)
@given(
    frames=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    steps=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_scores_equal_espnets(frames: list[int], steps: int, seed: int) -> None:
    check(random_ctc(), frames, steps, seed)


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_espnets_for_the_ctc_of_other_models(seed: int) -> None:
    check(random_ctc(behind_prompt=False), [9, 12, 10], 4, seed)


@torch.no_grad()
def check(ctc: Any, frames: list[int], steps: int, seed: int) -> None:
    """Follow random candidates, repeated tokens among them, for some steps."""
    generator = torch.Generator().manual_seed(seed)
    rows = memory(frames, seed=seed)
    prefixes = [[list(PROMPT)] for _ in rows]
    scorer = CTCPrefixBatch(ctc, *batch(rows), [len(PROMPT)] * len(rows), eos=EOS)
    few = ids("hola", "perro", "casa", "<eos>", "<blank>")
    for step in range(steps + 1):
        beams = len(prefixes[0])
        previous = torch.tensor([[prefix[-1] for prefix in beam] for beam in prefixes])
        candidates = torch.tensor(few).expand(len(rows), beams, -1)
        candidates = torch.cat([candidates, previous[:, :, None]], dim=2)
        scores = scorer.score(candidates, previous)
        for index, beam in itertools.product(range(len(rows)), range(beams)):
            expected = stock_scores(ctc, rows[index], prefixes[index][beam], len(PROMPT))
            compare(scores[index, beam], expected[candidates[index, beam]])
        parents = torch.randint(beams, (len(rows), BEAMS), generator=generator)
        columns = torch.randint(3, (len(rows), BEAMS), generator=generator)
        columns[columns == 2] = 5 if step else 2  # the last token again, but for the prompt's
        scorer.advance(parents, columns)
        prefixes = [
            [
                [*prefixes[i][p], int(candidates[i, p, c])]
                for p, c in zip(parents[i].tolist(), columns[i].tolist(), strict=True)
            ]
            for i in range(len(rows))
        ]


def compare(mine: torch.Tensor, stock: torch.Tensor) -> None:
    """Equal where possible at all, and impossible (below -1e8) for both elsewhere."""
    possible = stock > -1e8
    assert torch.equal(mine > -1e8, possible)
    torch.testing.assert_close(mine[possible], stock[possible], atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_scores_are_sums_over_all_alignments() -> None:
    """Against every path of a short audio, with nothing of ESPnet's."""
    ctc, x = random_ctc(), memory([4], seed=2)[0]
    logp = ctc.ctc_lo(x).log_softmax(-1)
    one, two = ids("hola", "perro")
    text = [one, one, two]
    totals = {}
    for path in itertools.product([0, one, two], repeat=4):
        collapsed = [t for t, _ in itertools.groupby(path) if t]
        score = sum(float(logp[i, t]) for i, t in enumerate(path))
        key = tuple(collapsed)
        totals[key] = torch.logaddexp(totals.get(key, torch.tensor(-1e30)), torch.tensor(score))
    scorer = CTCPrefixBatch(ctc, x[None], [4], [len(PROMPT)], eos=EOS)
    previous = torch.tensor([[PROMPT[-1]]])
    for step in range(len(text) + 1):
        following = text[step] if step < len(text) else one
        scores = scorer.score(torch.tensor([[[following, EOS]]]), previous)
        whole = totals.get(tuple(text[:step]))
        assert whole is not None
        torch.testing.assert_close(scores[0, 0, 1], whole, atol=1e-4, rtol=0.0)
        scorer.advance(torch.tensor([[0]]), torch.tensor([[0]]))
        previous = torch.tensor([[following]])


@torch.no_grad()
def test_utterances_leave() -> None:
    ctc, rows = random_ctc(), memory([9, 5, 7])
    all_of, some = (CTCPrefixBatch(ctc, *batch(rows), [len(PROMPT)] * 3, eos=EOS) for _ in range(2))
    tokens = torch.tensor(ids("hola", "perro", "casa")).expand(3, 1, 3)
    previous = torch.full((3, 1), PROMPT[-1])
    for scorer in (all_of, some):
        scorer.score(tokens, previous)
        scorer.advance(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([[0, 1]] * 3))
    some.select([1, 2])
    previous = torch.tensor([ids("hola", "perro")] * 3)
    tokens = tokens.expand(3, 2, 3)
    expected = all_of.score(tokens, previous)[1:]
    torch.testing.assert_close(some.score(tokens[1:], previous[1:]), expected, atol=1e-5, rtol=0.0)


def test_a_model_without_ctc_raises() -> None:
    with pytest.raises(ValueError, match="no CTC layer; accepted: 0.0"):
        check_ctc(None)
    with pytest.raises(ValueError, match="SimpleNamespace has no linear ctc_lo"):
        check_ctc(SimpleNamespace())
