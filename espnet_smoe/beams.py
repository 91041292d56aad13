"""The running hypotheses of a batch of utterances, one token longer at each step.

Shape letters: B utterances, K beams, R = B x K rows, C candidates of a row, N the utterances that
CTC scores, L tokens so far, S encoder frames, D model dimension, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from espnet_smoe.ctc_batch import CTCPrefixBatch
from espnet_smoe.decoder_cache import CachedDecoder
from espnet_smoe.hypotheses import Hypothesis, SearchOptions, Utterance
from espnet_smoe.token_scores import TimestampRule, top_tokens

LEAVE_SHARE = 8  # finished utterances leave when they are an eighth of the batch: leaving copies


class Beams:
    """The running hypotheses of a batch; a dead one has score -inf.

    Args:
        model: The S2T model.
        options: The search's.
        rule: The timestamp rule; None for a vocabulary without timestamps.
        memory_BSD: Encoder output of the caller's whole batch.
        utts: The utterances to search.
    """

    def __init__(
        self,
        model: Any,
        options: SearchOptions,
        rule: TimestampRule | None,
        memory_BSD: torch.Tensor,
        utts: Sequence[Utterance],
    ) -> None:
        self.model, self.options, self.rule, self.utts = model, options, rule, list(utts)
        rows = [utt.index for utt in utts]
        if rows != list(range(len(memory_BSD))):
            memory_BSD = memory_BSD[rows]
        frames, prompts = [utt.frames for utt in utts], [utt.prompt for utt in utts]
        memory_BSD = memory_BSD[:, : max(frames)]
        self.device = memory_BSD.device
        self.decoder = CachedDecoder(model.decoder, memory_BSD, frames, prompts)
        self.hidden_RD = self.decoder.start()
        longest = max(3, *map(len, prompts))  # the timestamp rule looks back 3 tokens
        padded = [[-1] * (longest - len(prompt)) + prompt for prompt in prompts]
        self.history_BKL = torch.tensor(padded, device=self.device)[:, None]
        # double: sums of many tokens, whose differences decide
        self.score_BK = memory_BSD.new_zeros(len(utts), 1, dtype=torch.float64)
        self.decoder_BK = torch.zeros_like(self.score_BK)  # sums of each scorer
        self.ctc_BK = torch.zeros_like(self.score_BK)
        self.ctc: CTCPrefixBatch | None = None
        self.count = options.beam_size
        scored = [row for row, utt in enumerate(utts) if utt.transcribes]
        if scored:
            self.count = int(options.pre_beam_ratio * options.beam_size)
            self.ctc = CTCPrefixBatch(
                model.ctc,
                memory_BSD if len(scored) == len(utts) else memory_BSD[scored],
                [frames[row] for row in scored],
                [len(prompts[row]) for row in scored],
                eos=model.eos,
            )
        self.count = min(self.count, len(model.token_list))
        self._note_utterances()

    def _note_utterances(self) -> None:
        """What depends on which utterances there are."""
        scored = [row for row, utt in enumerate(self.utts) if utt.transcribes]
        self.scored_N = torch.tensor(scored, device=self.device, dtype=torch.int64)
        self.ctc_weight_B11 = self.score_BK.new_zeros(len(self.utts), 1, 1)
        self.ctc_weight_B11[self.scored_N] = self.options.ctc_weight
        self.timed = any(utt.timed for utt in self.utts)

    def extend(self) -> None:
        """Choose each utterance's best K extensions of its beams by one token."""
        logp_BKC, token_BKC = self._candidates()
        score_BKC = (1.0 - self.ctc_weight_B11) * logp_BKC + self.options.penalty
        ctc_BKC = torch.zeros_like(score_BKC)
        if self.ctc is not None:
            ctc_NKC = self.ctc.score(
                token_BKC[self.scored_N], self.history_BKL[self.scored_N, :, -1]
            )
            ctc_BKC[self.scored_N] = ctc_NKC.to(ctc_BKC)
            score_BKC = score_BKC + self.ctc_weight_B11 * (ctc_BKC - self.ctc_BK[:, :, None])
        score_BKC = score_BKC + self.score_BK[:, :, None]
        self.score_BK, chosen_BK = score_BKC.flatten(1).topk(self.options.beam_size, dim=1)
        self.parent_BK = chosen_BK // score_BKC.shape[2]
        logp_BK = logp_BKC.flatten(1).gather(1, chosen_BK)
        self.decoder_BK = self.decoder_BK.gather(1, self.parent_BK) + logp_BK
        self.ctc_BK = ctc_BKC.flatten(1).gather(1, chosen_BK)
        if self.ctc is not None:
            column_BK = chosen_BK % score_BKC.shape[2]
            self.ctc.advance(self.parent_BK[self.scored_N], column_BK[self.scored_N])
        token_BK = token_BKC.flatten(1).gather(1, chosen_BK)
        index_BKL = self.parent_BK[:, :, None].expand(-1, -1, self.history_BKL.shape[2])
        history_BKL = self.history_BKL.gather(1, index_BKL)
        self.history_BKL = torch.cat([history_BKL, token_BK[:, :, None]], dim=2)

    def _candidates(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The decoder's best tokens of each beam: log-probabilities and tokens (B, K, C)."""
        forbid, eos = None, self.model.eos
        if self.rule is not None:
            forbidden_RV = None
            if self.timed:
                history_RL = self.history_BKL.flatten(0, 1)
                forbidden_RV = self.rule.forbidden(history_RL, len(self.model.token_list))
            forbid = self.rule.forbid(forbidden_RV)
        layer = self.model.decoder.output_layer
        logp_RC, token_RC, eos_R = top_tokens(
            layer, self.hidden_RD, self.count, eos=eos, forbid=forbid
        )
        if self.ctc is not None:
            # CTC scores <eos> in any case; where it stands already, or without CTC, not twice
            scored_R = (
                (self.ctc_weight_B11 > 0.0).flatten().repeat_interleave(self.score_BK.shape[1])
            )
            eos_R = eos_R.masked_fill((token_RC == eos).any(dim=1) | ~scored_R, -torch.inf)
            logp_RC = torch.cat([logp_RC, eos_R[:, None]], dim=1)
            token_RC = torch.cat([token_RC, torch.full_like(token_RC[:, :1], eos)], dim=1)
        shape = (-1, self.score_BK.shape[1])
        return logp_RC.unflatten(0, shape), token_RC.unflatten(0, shape)

    def finish(self, step: int) -> None:
        """Collect the hypotheses that end at this step, and the utterances that are done."""
        options, eos = self.options, self.model.eos
        token_BK = self.history_BKL[:, :, -1]
        numbers = torch.stack(
            [t.double() for t in (token_BK, self.score_BK, self.decoder_BK, self.ctc_BK)]
        ).cpu()  # the one wait for the device of a step
        last_B1 = torch.tensor([[step >= utt.longest - 1] for utt in self.utts])
        ends_BK = (numbers[0] == eos) | last_B1
        histories = None
        for row, beam in (ends_BK & (numbers[1] > -torch.inf)).nonzero().tolist():
            utt = self.utts[row]
            if utt.done or step < utt.shortest:
                continue
            if histories is None:
                histories = self.history_BKL.cpu()
            tokens = histories[row, beam, -(len(utt.prompt) + step + 1) :].tolist()
            score, decoder, ctc = numbers[1:, row, beam].tolist()
            scores = {"decoder": decoder}
            if utt.transcribes:
                scores["ctc"] = ctc
            if options.penalty:
                scores["length_bonus"] = float(step + 1)
            if self.rule is not None:
                scores["scorefilter"] = 0.0
            if last_B1[row]:
                tokens.append(eos)
            utt.end(Hypothesis(tokens, len(utt.prompt), score, scores))
        alive_BK = ~ends_BK & (numbers[1] > -torch.inf)
        if ends_BK.any():
            self.score_BK = self.score_BK.masked_fill(ends_BK.to(self.device), -torch.inf)
        for utt, alive in zip(self.utts, alive_BK.any(dim=1).tolist(), strict=True):
            detected = options.maxlenratio == 0.0 and utt.gets_worse(step)
            utt.done = utt.done or detected or not alive

    def leave(self) -> None:
        """Drop utterances that are done, if they are many, and decode the next token."""
        rows = [row for row, utt in enumerate(self.utts) if not utt.done]
        present = len(self.utts)
        if not rows:
            self.utts = []
            return
        # the decoder's rows so far: one per utterance behind the prompts, then K
        first_row_B1 = torch.arange(present, device=self.device)[:, None]
        next_row_BK = first_row_B1 * (len(self.hidden_RD) // present) + self.parent_BK
        left = None
        if (present - len(rows)) * LEAVE_SHARE >= present:
            left = rows
            next_row_BK = next_row_BK[rows]
            self._keep(rows)
        self.decoder.select(next_row_BK.flatten(), left)
        self.hidden_RD = self.decoder.step(self.history_BKL[:, :, -1].flatten())

    def _keep(self, rows: list[int]) -> None:
        """Keep these utterances."""
        if self.ctc is not None:
            scored = [row for row, utt in enumerate(self.utts) if utt.transcribes]
            places = [place for place, row in enumerate(scored) if row in rows]
            if places:
                self.ctc.select(places)
            else:
                self.ctc = None
        self.utts = [self.utts[row] for row in rows]
        for name in ("history_BKL", "score_BK", "decoder_BK", "ctc_BK"):
            setattr(self, name, getattr(self, name)[rows])
        self._note_utterances()
