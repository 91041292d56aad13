"""CTC prefix scores of the beams of many utterances at once.

The scores are those of ESPnet's `CTCPrefixScoreTH` (Algorithm 2 of Watanabe et al., "Hybrid
CTC/Attention Architecture for End-to-End Speech Recognition", 2017), computed in another order:

- A candidate's score needs the forward probabilities of the prefix only, so one pass over the
  frames scores all candidates; the forward recursion then runs for the chosen ones alone.
- The recursion ``r[t] = logaddexp(r[t-1], p[t]) + x[t]`` is a running logsumexp of
  ``p[t] - X[t-1]`` with ``X`` the running sum of ``x``; in double precision, since ``X`` grows.
- The log-probabilities of all frames and tokens are never kept: the candidates' are computed
  when they are scored.

Shape letters: B utterances, K beams, C candidates, S frames, D model dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from espnet_smoe.ctc_scorer import BLANK, LOG_ZERO
from espnet_smoe.token_scores import at_least_float32, log_normalizer


def check_ctc(ctc: Any) -> None:
    """Raises ValueError for a CTC module that is none, or no linear layer."""
    if ctc is None:
        raise ValueError("ctc_weight is above 0 but the model has no CTC layer; accepted: 0.0")
    if not isinstance(getattr(ctc, "ctc_lo", None), torch.nn.Linear):
        raise ValueError(
            f"the CTC module {type(ctc).__name__} has no linear ctc_lo; accepted: ESPnet's CTC"
        )


class CTCPrefixBatch:
    """The CTC side of one search.

    Args:
        ctc: ESPnet's CTC module.
        memory_BSD: Encoder output, float (B, S, D), padded with anything finite.
        lengths: The frames of each utterance.
        prompt_lengths: The tokens of each prompt. Behind them the scores start at the first
            frame if ``ctc.behind_prompt`` (`espnet_smoe.ctc_scorer`); else, as in stock ESPnet,
            at the frame whose number is the prompt's length less ``<sos>``.
        eos: The id of ``<eos>``.
    """

    def __init__(
        self,
        ctc: Any,
        memory_BSD: torch.Tensor,
        lengths: Sequence[int],
        prompt_lengths: Sequence[int],
        *,
        eos: int,
    ) -> None:
        self.layer, self.eos, device = ctc.ctc_lo, eos, memory_BSD.device
        lengths_B = torch.tensor(lengths, device=device)
        self._memory_BDS = at_least_float32(memory_BSD).transpose(1, 2)
        self._inside_BS = torch.arange(memory_BSD.shape[1], device=device) < lengths_B[:, None]
        frames_ND = memory_BSD[self._inside_BS]
        norm_N = log_normalizer(self.layer, frames_ND)
        self._norm_BS = norm_N.new_zeros(self._inside_BS.shape)
        self._norm_BS[self._inside_BS] = norm_N
        blank_D = at_least_float32(self.layer.weight[BLANK])
        blank_BS = at_least_float32(memory_BSD).matmul(blank_D) - self._norm_BS
        if self.layer.bias is not None:
            blank_BS = blank_BS + self.layer.bias[BLANK]
        self._blank_sum_BS = blank_BS.double().cumsum(dim=1)
        self._last_B = lengths_B - 1
        if getattr(ctc, "behind_prompt", False):
            skipped = [0] * len(prompt_lengths)
        else:
            skipped = [length - 1 for length in prompt_lengths]
        skipped_B1 = torch.tensor(skipped, device=device)[:, None]
        # Forward probabilities of the prefix, ending in its last token or in a blank
        position_S = torch.arange(memory_BSD.shape[1], device=device)
        unheard_BS = position_S < skipped_B1 - 1
        blank_BKS = self._blank_sum_BS.masked_fill(unheard_BS, LOG_ZERO)[:, None].to(norm_N.dtype)
        self._ending_BKS = (torch.full_like(blank_BKS, LOG_ZERO), blank_BKS)
        # ... and before the first frame: certain, of an empty prefix; impossible later on
        start_B11 = torch.where(skipped_B1 == 0, 0.0, LOG_ZERO)[:, None]
        self._before_BK1 = start_B11.to(blank_BKS)

    def score(self, tokens_BKC: torch.Tensor, previous_BK: torch.Tensor) -> torch.Tensor:
        """Log-probability that the audio starts with a prefix and a candidate.

        Args:
            tokens_BKC: Candidates, int64 (B, K, C). For ``<eos>``: that the audio *is* the prefix.
            previous_BK: The last token of each prefix, int64 (B, K).

        Returns:
            float (B, K, C), of the whole prefix, not of the last token alone.
        """
        shape = tokens_BKC.shape
        flat_BJ = tokens_BKC.flatten(1)
        x_BJS = at_least_float32(self.layer.weight[flat_BJ]) @ self._memory_BDS
        if self.layer.bias is not None:
            x_BJS = x_BJS + self.layer.bias[flat_BJ][:, :, None]
        x_BJS = x_BJS - self._norm_BS[:, None]
        self._x_BKCS = x_BJS.unflatten(1, shape[1:])
        nonblank_BKS, blank_BKS = self._ending_BKS
        total_BKS = torch.logaddexp(nonblank_BKS, blank_BKS)
        # A token that repeats the last one needs a blank in between.
        self._repeats_BKC = tokens_BKC == previous_BK[:, :, None]
        self._enter_BK2S = torch.stack([self._delayed(total_BKS), self._delayed(blank_BKS)], dim=2)
        enter_BKCS = torch.where(
            self._repeats_BKC[..., None], self._enter_BK2S[:, :, 1:], self._enter_BK2S[:, :, :1]
        )
        score_BKC = (enter_BKCS + self._x_BKCS).logsumexp(dim=3)
        last_BK1 = self._last_B[:, None, None].expand(-1, shape[1], 1)
        score_BKC = torch.where(tokens_BKC == self.eos, total_BKS.gather(2, last_BK1), score_BKC)
        return score_BKC.masked_fill(tokens_BKC == BLANK, LOG_ZERO)

    def _delayed(self, score_BKS: torch.Tensor) -> torch.Tensor:
        """The score one frame earlier, and impossible behind the last frame."""
        earlier_BKS = torch.cat([self._before_BK1, score_BKS[:, :, :-1]], dim=2)
        return earlier_BKS.masked_fill(~self._inside_BS[:, None], LOG_ZERO)

    def advance(self, parents_BK: torch.Tensor, columns_BK: torch.Tensor) -> None:
        """Continue with these prefixes.

        Args:
            parents_BK: The beam of each next prefix, int64 (B, K).
            columns_BK: Which of that beam's candidates (of the last `score`) follows, int64 (B, K).
        """
        utts_B1 = torch.arange(len(parents_BK), device=parents_BK.device)[:, None]
        x_BKS = self._x_BKCS[utts_B1, parents_BK, columns_BK].double()
        repeats_BK = self._repeats_BKC[utts_B1, parents_BK, columns_BK].long()
        enter_BKS = self._enter_BK2S[utts_B1, parents_BK, repeats_BK].double()
        sum_BKS = x_BKS.cumsum(dim=2)
        nonblank_BKS = sum_BKS + (enter_BKS - (sum_BKS - x_BKS)).logcumsumexp(dim=2)
        blank_sum_BKS = self._blank_sum_BS[:, None]
        left_BKS = (nonblank_BKS - blank_sum_BKS).logcumsumexp(dim=2) + blank_sum_BKS
        # left[t] = the token's last frame is t or before; a blank ending at t had it before t
        blank_step_BKS = blank_sum_BKS.diff(dim=2)
        blank_BKS = torch.cat(
            [torch.full_like(left_BKS[:, :, :1], LOG_ZERO), left_BKS[:, :, :-1] + blank_step_BKS],
            dim=2,
        )
        dtype = self._norm_BS.dtype
        self._ending_BKS = nonblank_BKS.to(dtype), blank_BKS.to(dtype)
        self._before_BK1 = torch.full_like(self._ending_BKS[0][:, :, :1], LOG_ZERO)

    def select(self, utts: Sequence[int]) -> None:
        """Keep these utterances."""
        utts_B = torch.tensor(utts, device=self._norm_BS.device, dtype=torch.int64)
        self._last_B = self._last_B[utts_B]
        frames = int(self._last_B.max()) + 1
        self._memory_BDS = self._memory_BDS[utts_B, :, :frames]
        self._inside_BS = self._inside_BS[utts_B, :frames]
        self._norm_BS = self._norm_BS[utts_B, :frames]
        self._blank_sum_BS = self._blank_sum_BS[utts_B, :frames]
        nonblank_BKS, blank_BKS = self._ending_BKS
        self._ending_BKS = nonblank_BKS[utts_B, :, :frames], blank_BKS[utts_B, :, :frames]
        self._before_BK1 = self._before_BK1[utts_B]
