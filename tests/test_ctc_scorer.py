"""CTC scores of a prompted hypothesis are those of the spoken text alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from espnet2.bin import s2t_inference
from tiny import ID, TOKENS, close, ids, smoe_model

from espnet_smoe.compat import CTCPrefixScorer
from espnet_smoe.ctc_scorer import PromptCTCPrefixScorer

PROMPT = ids("<sos>", "<spa>", "<asr>", "<notimestamps>")
SPOKEN = ids("hola", "perro", "perro", "casa")
EOS = ID["<eos>"]


def fake_ctc(**attributes: Any) -> Any:
    """Gives its input's log-softmax."""
    return SimpleNamespace(log_softmax=lambda x: x.log_softmax(-1), **attributes)


def prompted_scorer() -> Any:
    return CTCPrefixScorer(fake_ctc(behind_prompt=True), EOS)


def audio(frames: int = 9) -> torch.Tensor:
    return 3 * torch.randn(frames, len(TOKENS), generator=torch.Generator().manual_seed(5))


def batch_scores(scorer: Any, prompt: list[int], x: torch.Tensor, text: list[int]) -> torch.Tensor:
    """Scores of every next token, at every step of `text` (L, V)."""
    state = scorer.batch_init_state(x)
    rows = []
    for step in range(len(text) + 1):
        y = torch.tensor([prompt + text[:step]])
        scores, states = scorer.batch_score_partial(y, None, [state], x)
        rows.append(scores[0])
        if step < len(text):
            state = scorer.select_state(states, 0, text[step])
    return torch.stack(rows)


def sequential_scores(scorer: Any, prompt: list[int], x: torch.Tensor, text: list[int]) -> Any:
    state = scorer.init_state(x)
    every = torch.arange(1, len(TOKENS))
    rows = []
    for step in range(len(text) + 1):
        y = torch.tensor(prompt + text[:step])
        scores, states = scorer.score_partial(y, every, state, x)
        rows.append(scores)
        if step < len(text):
            state = scorer.select_state(states, text[step] - 1)
    return torch.stack(rows)


@pytest.mark.parametrize("scores", [batch_scores, sequential_scores])
@pytest.mark.parametrize("frames", [4, 5, 9])
def test_the_prompt_costs_no_frames(scores: Any, frames: int) -> None:
    scorer = prompted_scorer()
    assert type(scorer) is PromptCTCPrefixScorer
    x, unprompted = audio(frames), CTCPrefixScorer(fake_ctc(), EOS)
    # ESPnet's scorer reads the last token as spoken, be it <sos>: no token repeats it here
    mine = scores(scorer, PROMPT, x, SPOKEN)
    expected = scores(unprompted, PROMPT[:1], x, SPOKEN)
    possible = expected > -1e8  # what the frames have room for
    assert possible[:, 1:].any(dim=1)[: frames - 1].all()
    assert torch.equal(mine > -1e8, possible)
    close(mine[possible], expected[possible], atol=1e-3)


def test_espnets_own_scorer_skips_the_first_frames() -> None:
    """What this module is for: if this fails, ESPnet has changed and the module can go."""
    x = audio()
    x[:2, ID["hola"]] += 20.0  # spoken within the first two frames
    stock, mine = CTCPrefixScorer(fake_ctc(), EOS), prompted_scorer()
    first = [batch_scores(s, PROMPT, x, [])[0, ID["hola"]] for s in (mine, stock)]
    assert first[0] > -0.1
    assert first[1] < -2.0


@pytest.mark.parametrize("scores", [batch_scores, sequential_scores])
def test_more_tokens_than_frames_are_impossible_and_no_error(scores: Any) -> None:
    text = ids("hola", "perro", "casa", "perro", "hola")
    found = scores(prompted_scorer(), PROMPT, audio(frames=3), text)
    assert torch.isfinite(found).all()
    assert (found[2] > -1e8).any()  # a third token fits
    assert (found[4:] < -1e8).all()


def test_only_the_scorers_of_smoe_models_follow_prompts() -> None:
    assert type(CTCPrefixScorer(fake_ctc(), EOS)) is CTCPrefixScorer
    assert s2t_inference.CTCPrefixScorer is CTCPrefixScorer
    model = smoe_model()
    assert type(CTCPrefixScorer(ctc=model.ctc, eos=model.eos)) is PromptCTCPrefixScorer
