"""CTC prefix scores behind a prompt: ESPnet's, started at the first frame of the audio.

ESPnet's scorer takes a hypothesis of n tokens to need n frames, and an S2T hypothesis starts with
its prompt (``<spa><asr><notimestamps>``), which nobody spoke. So it never scores the first 3
frames, which loses the first word of a tightly cut utterance, and runs past the last frame when a
hypothesis has as many tokens as the audio has frames.

Shape letters: K hypotheses, T frames, V vocabulary, L tokens so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet_smoe.compat import CTCPrefixScore, CTCPrefixScorer, CTCPrefixScoreTH

BLANK = 0  # ESPnet's id of <blank>
LOG_ZERO = -1e10  # as in ESPnet's prefix scores


def with_lead_in(logp_TV: torch.Tensor, frames: int) -> torch.Tensor:
    """Put frames of certain blank before the log-probabilities (T, V).

    They hold no token and cost nothing, so the score of every text is that of the audio alone.
    """
    lead = logp_TV.new_full((frames, logp_TV.shape[1]), LOG_ZERO)
    lead[:, BLANK] = 0.0
    return torch.cat([lead, logp_TV])


class PromptCTCPrefixScorer(CTCPrefixScorer):  # type: ignore[misc, valid-type]
    """`CTCPrefixScorer` for hypotheses that start with a prompt.

    How long the prompt is shows at the first score asked for; the audio then gets a lead-in of as
    many blank frames. For a prompt of ``<sos>`` alone it is ESPnet's scorer.
    """

    def init_state(self, x: torch.Tensor) -> Any:
        """Encoder output (T, D) to the state before the prompt is known."""
        self._logp_TV = self.ctc.log_softmax(x.unsqueeze(0)).detach()[0]
        return 0, None

    def score_partial(
        self, y: torch.Tensor, ids: torch.Tensor, state: Any, x: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        """As ESPnet's, for one hypothesis ``y`` (L,)."""
        score, inner = state
        if inner is None:
            logp = with_lead_in(self._logp_TV, len(y) - 1).cpu().numpy()
            self._frames = len(logp)
            self.impl = CTCPrefixScore(logp, BLANK, self.eos, np)
            state = score, self.impl.initial_state()
        if len(y) - 1 > self._frames:  # more tokens than frames: impossible
            kept = [state[0]] * len(ids), [state[1]] * len(ids)
            return torch.full((len(ids),), LOG_ZERO, dtype=x.dtype, device=x.device), kept
        return super().score_partial(y, ids, state, x)

    def batch_init_state(self, x: torch.Tensor) -> Any:
        """Encoder output (T, D) to the state before the prompt is known."""
        self._logp_TV = self.ctc.log_softmax(x.unsqueeze(0)).detach()[0]
        return None

    def batch_score_partial(
        self, y: torch.Tensor, ids: torch.Tensor, state: Any, x: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        """As ESPnet's, for hypotheses ``y`` (K, L) of one utterance."""
        if state[0] is None:
            logp = with_lead_in(self._logp_TV, y.shape[1] - 1)[None]
            self._frames = logp.shape[1]
            self.impl = CTCPrefixScoreTH(logp, torch.tensor([logp.shape[1]]), BLANK, self.eos)
        if y.shape[1] - 1 > self._frames:  # more tokens than frames: impossible
            return x.new_full((len(y), self._logp_TV.shape[1]), LOG_ZERO), state
        return super().batch_score_partial(y, ids, state, x)


def follow_prompts(scorer: CTCPrefixScorer) -> None:
    """Make ESPnet's scorer a `PromptCTCPrefixScorer`, if its CTC is that of a ``smoe`` model.

    Other models' scorers stay ESPnet's. (ESPnet's inference makes its own `BeamSearch` a
    `BatchBeamSearch` in the same way.)
    """
    if type(scorer) is CTCPrefixScorer and getattr(scorer.ctc, "behind_prompt", False):
        scorer.__class__ = PromptCTCPrefixScorer
