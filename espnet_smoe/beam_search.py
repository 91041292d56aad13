"""Beam search over a batch of utterances: the search of ESPnet's `BatchBeamSearch`, faster.

The same hypotheses with the same scores as `espnet2.bin.s2t_inference.Speech2Text` finds, one
utterance at a time: an optimisation, not another algorithm. What is faster: keys and values are
computed once (`espnet_smoe.decoder_cache`), the beams of all utterances share each matrix product,
the scores of the whole vocabulary are never in memory (`espnet_smoe.token_scores`), and CTC scores
the candidates alone (`espnet_smoe.ctc_batch`).

Shape letters: B utterances, K beams, R = B x K rows, C candidates of a row, L tokens so far, S
encoder frames, D model dimension, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from espnet_smoe.ctc_batch import CTCPrefixBatch, check_ctc
from espnet_smoe.decoder_cache import CachedDecoder, check_decoder
from espnet_smoe.token_scores import TimestampRule, top_tokens

# ESPnet's `end_detect`: stop when the best hypotheses of three lengths in a row are this much
# worse than the best of all.
END_LENGTHS = 3
END_MARGIN = -10.0
LEAVE_SHARE = 8  # finished utterances leave when they are an eighth of the batch: leaving copies


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search, by the names and defaults of ESPnet's ``Speech2Text``.

    Attributes:
        beam_size: Hypotheses kept; 1 is greedy search.
        ctc_weight: Weight of the CTC scores on rows that transcribe, from 0 to below 1; the
            decoder has the rest. Rows that do not transcribe have 0.
        penalty: Added to the score per token.
        normalize_length: Sort the hypotheses by score per token.
        maxlenratio: Longest hypothesis, as a share of the encoder's frames; 0.0: as many as
            frames, stopping when longer ones get worse; -n: n tokens.
        minlenratio: Shortest hypothesis, likewise.
        nbest: How many hypotheses are given; 0: all that ended.
        pre_beam_ratio: CTC scores this times `beam_size` tokens per hypothesis, the decoder's best.
        notime_symbol: The token of prompts without timestamps.
        first_time_symbol: The first timestamp; None: the token list's first of their look.
        last_time_symbol: The last; None likewise.
    """

    beam_size: int = 5
    ctc_weight: float = 0.0
    penalty: float = 0.0
    normalize_length: bool = False
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    pre_beam_ratio: float = 1.5
    notime_symbol: str = "<notimestamps>"
    first_time_symbol: str | None = None
    last_time_symbol: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a value that is not accepted."""
        for name, accepted in {
            "beam_size": (self.beam_size >= 1, "1 or more"),
            "ctc_weight": (0.0 <= self.ctc_weight < 1.0, "0.0 to below 1.0"),
            "penalty": (math.isfinite(self.penalty), "a finite number"),
            "maxlenratio": (
                self.maxlenratio >= 0.0 or self.maxlenratio <= -1.0,
                "0.0 or more, or -1 or less for an absolute length",
            ),
            "minlenratio": (math.isfinite(self.minlenratio), "a finite number"),
            "nbest": (self.nbest >= 0, "0 (all) or more"),
            "pre_beam_ratio": (self.pre_beam_ratio >= 1.0, "1.0 or more"),
        }.items():
            if not accepted[0]:
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: {accepted[1]}")

    def longest(self, frames: int) -> int:
        """The most tokens behind the prompt, ``<eos>`` aside."""
        if self.maxlenratio == 0.0:
            return frames
        if self.maxlenratio < 0.0:
            return -int(self.maxlenratio)
        return max(1, int(self.maxlenratio * frames))


def shortest(minlenratio: float, frames: int) -> int:
    """The fewest tokens behind the prompt, ``<eos>`` aside."""
    return -int(minlenratio) if minlenratio < 0 else int(minlenratio * frames)


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis that ended.

    Attributes:
        tokens: Prompt, text and ``<eos>``: ESPnet's ``yseq``. (ESPnet ends a hypothesis of the
            greatest length with ``<eos>`` even behind one that it chose, so there may be two.)
        prompt_length: How many of them are the prompt.
        score: The weighted sum of `scores`.
        scores: The sum of each scorer, by ESPnet's names: ``decoder``, and if they have a weight
            ``ctc``, ``length_bonus`` and ``scorefilter``.
    """

    tokens: list[int]
    prompt_length: int
    score: float
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> list[int]:
        """The tokens behind the prompt, without what ends them."""
        end = self.tokens[-1]
        text = self.tokens[self.prompt_length :]
        while text and text[-1] == end:
            text = text[:-1]
        return text


@dataclass
class _Utterance:
    """Where the search of one utterance stands."""

    index: int  # in the caller's batch
    frames: int
    prompt: list[int]
    transcribes: bool
    longest: int
    shortest: int
    ended: list[Hypothesis] = field(default_factory=list)
    best_of_length: dict[int, float] = field(default_factory=dict)
    done: bool = False

    def end(self, hypothesis: Hypothesis) -> None:
        self.ended.append(hypothesis)
        length = len(hypothesis.tokens)
        best = self.best_of_length.get(length, -math.inf)
        self.best_of_length[length] = max(best, hypothesis.score)

    def gets_worse(self, step: int) -> bool:
        """ESPnet's `end_detect`; like it, with the prompt counted as part of the length."""
        best = max(self.best_of_length.values(), default=0.0)
        lengths = range(step - END_LENGTHS + 1, step + 1)
        return all(
            n in self.best_of_length and self.best_of_length[n] - best < END_MARGIN for n in lengths
        )


class BatchedBeamSearch:
    """Beam search for a model of ESPnet's S2T task: ours, or ESPnet's own.

    Args:
        model: With a ``transformer`` or ``smoe_transformer`` decoder and any encoder.
        options: See `SearchOptions`.

    Raises:
        ValueError: A decoder of another kind, a model in training mode, CTC wanted of a model
            without, a beam as large as the vocabulary.
    """

    def __init__(self, model: Any, options: SearchOptions | None = None) -> None:
        self.options = options or SearchOptions()
        check_decoder(model.decoder)
        if self.options.ctc_weight > 0.0:
            check_ctc(model.ctc)
        self.model = model
        self.vocabulary = len(model.token_list)
        if self.options.beam_size > self.vocabulary:
            raise ValueError(
                f"beam_size is {self.options.beam_size}; accepted: up to the "
                f"{self.vocabulary} tokens of the vocabulary"
            )
        self.rule = TimestampRule.of(model.token_list, self.options, model.sos, model.eos)

    @torch.inference_mode()
    def search(
        self,
        memory_BSD: torch.Tensor,
        memory_lengths_B: torch.Tensor | Sequence[int],
        prompts: Sequence[Sequence[int]],
        transcribes_B: torch.Tensor | Sequence[bool] | None = None,
    ) -> list[list[Hypothesis]]:
        """Find the best hypotheses of every utterance.

        Args:
            memory_BSD: Encoder output, float (B, S, D), padded with anything.
            memory_lengths_B: Its frames, (B,).
            prompts: Token ids per utterance, such as those of ``<sos><spa><asr><notimestamps>``,
                of any lengths and tasks.
            transcribes_B: Which utterances CTC scores, bool (B,); needed if ``ctc_weight`` > 0.

        Returns:
            Per utterance its hypotheses, best first; none if none ended (ESPnet's search gives up
            likewise when `minlenratio` cannot be met).

        Raises:
            ValueError: Sizes that do not fit, a prompt without ``<sos>``, CTC for timestamps.
            RoutingError: A prompt that no expert, or more than one, serves.
        """
        utts = self._utterances(memory_BSD, memory_lengths_B, prompts, transcribes_B)
        results: list[list[Hypothesis]] = [[] for _ in utts]
        minlenratio = self.options.minlenratio
        while utts:
            for utt in utts:
                utt.shortest = shortest(minlenratio, utt.frames)
            self._search(memory_BSD, utts)
            for utt in utts:
                results[utt.index] = self._sorted(utt.ended)
            if minlenratio < 0.1:
                break
            # as ESPnet: once more, allowing shorter ones
            minlenratio = max(0.0, minlenratio - 0.1)
            utts = [utt for utt in utts if not utt.ended]
            for utt in utts:
                utt.done = False
        return results

    def _utterances(
        self, memory_BSD: torch.Tensor, lengths: Any, prompts: Any, transcribes: Any
    ) -> list[_Utterance]:
        lengths = torch.as_tensor(lengths).tolist()
        options = self.options
        if transcribes is None:
            if options.ctc_weight > 0.0:
                raise ValueError(
                    f"ctc_weight is {options.ctc_weight}: transcribes_B must say for which "
                    "utterances (CTC is trained on transcripts)"
                )
            transcribes = [False] * len(lengths)
        transcribes = torch.as_tensor(transcribes).tolist()
        sizes = [len(memory_BSD), len(lengths), len(prompts), len(transcribes)]
        if memory_BSD.dim() != 3 or len(set(sizes)) > 1:
            raise ValueError(
                f"memory is of shape {tuple(memory_BSD.shape)}, with {sizes[1]} lengths, "
                f"{sizes[2]} prompts and {sizes[3]} values of transcribes_B; one each is needed"
            )
        utts = []
        for index, (frames, prompt, scored) in enumerate(
            zip(lengths, prompts, transcribes, strict=True)
        ):
            where = f"the prompt of utterance {index}"
            prompt = [int(token) for token in prompt]
            if not 1 <= frames <= memory_BSD.shape[1]:
                raise ValueError(
                    f"utterance {index} has {frames} frames; accepted: 1 to {memory_BSD.shape[1]}"
                )
            if self.model.sos not in prompt:
                raise ValueError(f"{where} has no <sos> ({self.model.sos}); it is {prompt}")
            if not all(0 <= token < self.vocabulary for token in prompt):
                raise ValueError(f"{where} is {prompt}; accepted: 0 to {self.vocabulary - 1}")
            scored = bool(scored) and options.ctc_weight > 0.0
            timed = self.rule is not None and self.rule.check_prompt(prompt, where)
            if scored and timed:
                raise ValueError(f"{where} predicts timestamps, which CTC cannot; use ctc_weight 0")
            utts.append(_Utterance(index, frames, prompt, scored, options.longest(frames), 0))
        return utts

    def _sorted(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        def key(hypothesis: Hypothesis) -> float:
            if self.options.normalize_length:
                return hypothesis.score / (len(hypothesis.tokens) - 1)
            return hypothesis.score

        best = sorted(hypotheses, key=key, reverse=True)
        return best[: self.options.nbest] if self.options.nbest else best

    def _search(self, memory_BSD: torch.Tensor, utts: list[_Utterance]) -> None:
        """Search once; the hypotheses gather in the utterances."""
        state = _Beams(self, memory_BSD, utts)
        step = 0
        while state.utts:
            state.extend()
            state.finish(step)
            state.leave()
            step += 1


class _Beams:
    """The running hypotheses of a batch; a dead one has score -inf."""

    def __init__(
        self, search: BatchedBeamSearch, memory_BSD: torch.Tensor, utts: list[_Utterance]
    ) -> None:
        self.search, self.utts, options = search, list(utts), search.options
        model = search.model
        rows = [utt.index for utt in utts]
        if rows != list(range(len(memory_BSD))):
            memory_BSD = memory_BSD[rows]
        frames = [utt.frames for utt in utts]
        memory_BSD = memory_BSD[:, : max(frames)]
        prompts = [utt.prompt for utt in utts]
        self.device = memory_BSD.device
        self.decoder = CachedDecoder(model.decoder, memory_BSD, frames, prompts)
        longest = max(3, *(len(prompt) for prompt in prompts))  # the timestamp rule looks back 3
        padded = [[-1] * (longest - len(prompt)) + prompt for prompt in prompts]
        self.history_BKL = torch.tensor(padded, device=self.device)[:, None]
        self.score_BK = torch.zeros(len(utts), 1, device=self.device)
        self.decoder_BK = torch.zeros_like(self.score_BK)
        self.ctc_BK = torch.zeros_like(self.score_BK)
        scored = [row for row, utt in enumerate(utts) if utt.transcribes]
        self.ctc: CTCPrefixBatch | None = None
        if scored:
            self.ctc = CTCPrefixBatch(
                model.ctc,
                memory_BSD if len(scored) == len(utts) else memory_BSD[scored],
                [frames[row] for row in scored],
                [len(prompts[row]) for row in scored],
                eos=model.eos,
            )
        rule = search.rule
        self.timed = rule is not None and any(rule.check_prompt(p, "") for p in prompts)
        self.hidden_RD = self.decoder.start()
        self.count = options.beam_size
        if scored:
            self.count = int(options.pre_beam_ratio * options.beam_size)
        self.count = min(self.count, search.vocabulary)
        self._note_utterances()

    def _note_utterances(self) -> None:
        """What depends on which utterances there are."""
        scored = [row for row, utt in enumerate(self.utts) if utt.transcribes]
        self.scored_N = torch.tensor(scored, device=self.device, dtype=torch.int64)
        weight_B11 = torch.zeros(len(self.utts), 1, 1, device=self.device)
        weight_B11[self.scored_N] = self.search.options.ctc_weight
        self.ctc_weight_B11 = weight_B11

    def extend(self) -> None:
        """Choose each utterance's best K extensions of its beams by one token."""
        options, model, rule = self.search.options, self.search.model, self.search.rule
        forbid = None
        if rule is not None:
            forbidden_RV = None
            if self.timed:
                history_RL = self.history_BKL.flatten(0, 1)
                forbidden_RV = rule.forbidden(history_RL, self.search.vocabulary)
            forbid = rule.forbid(forbidden_RV)
        layer = model.decoder.output_layer
        logp_RC, token_RC, eos_R = top_tokens(
            layer, self.hidden_RD, self.count, eos=model.eos, forbid=forbid
        )
        if self.ctc is not None:  # CTC scores <eos> in any case
            logp_RC = torch.cat([logp_RC, eos_R[:, None]], dim=1)
            token_RC = torch.cat([token_RC, torch.full_like(token_RC[:, :1], model.eos)], dim=1)
        beams = self.score_BK.shape[1]
        logp_BKC, token_BKC = (x.unflatten(0, (-1, beams)) for x in (logp_RC, token_RC))
        score_BKC = (1.0 - self.ctc_weight_B11) * logp_BKC + options.penalty
        ctc_BKC = None
        if self.ctc is not None:
            ctc_BKC = torch.zeros_like(score_BKC)
            ctc_BKC[self.scored_N] = self.ctc.score(
                token_BKC[self.scored_N], self.history_BKL[self.scored_N, :, -1]
            )
            score_BKC = score_BKC + self.ctc_weight_B11 * (ctc_BKC - self.ctc_BK[:, :, None])
            score_BKC[:, :, -1] = score_BKC[:, :, -1].masked_fill(
                (token_BKC[:, :, :-1] == model.eos).any(dim=2)
                | (self.ctc_weight_B11[:, :, 0] == 0),
                -torch.inf,
            )
        score_BKC = score_BKC + self.score_BK[:, :, None]
        self.score_BK, chosen_BK = score_BKC.flatten(1).topk(options.beam_size, dim=1)
        self.parent_BK = chosen_BK // score_BKC.shape[2]
        self.decoder_BK = self.decoder_BK.gather(1, self.parent_BK) + logp_BKC.flatten(1).gather(
            1, chosen_BK
        )
        if self.ctc is None or ctc_BKC is None:
            self.ctc_BK = torch.zeros_like(self.score_BK)
        else:
            self.ctc_BK = ctc_BKC.flatten(1).gather(1, chosen_BK)
            column_BK = chosen_BK % score_BKC.shape[2]
            self.ctc.advance(self.parent_BK[self.scored_N], column_BK[self.scored_N])
        token_BK = token_BKC.flatten(1).gather(1, chosen_BK)
        index_BKL = self.parent_BK[:, :, None].expand(-1, -1, self.history_BKL.shape[2])
        history_BKL = self.history_BKL.gather(1, index_BKL)
        self.history_BKL = torch.cat([history_BKL, token_BK[:, :, None]], dim=2)

    def finish(self, step: int) -> None:
        """Collect the hypotheses that end at this step, and the utterances that are done."""
        options, eos = self.search.options, self.search.model.eos
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
            if self.search.rule is not None:
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
        """Drop utterances that are done, if enough are, and decode the next token."""
        rows = [row for row, utt in enumerate(self.utts) if not utt.done]
        if not rows:
            self.utts = []
            return
        beams, present = self.parent_BK.shape[1], len(self.utts)
        utts = None
        first_row_B1 = torch.arange(present, device=self.device)[:, None]
        # the decoder's rows so far: one per utterance behind the prompts, then K
        parent_row_BK = first_row_B1 * (len(self.hidden_RD) // present) + self.parent_BK
        if (present - len(rows)) * LEAVE_SHARE >= present:
            utts = rows
            if self.ctc is not None:
                scored = [row for row, utt in enumerate(self.utts) if utt.transcribes]
                left = [place for place, row in enumerate(scored) if not self.utts[row].done]
                self.ctc = self._without(self.ctc, left)
            self.utts = [self.utts[row] for row in rows]
            keep_B = torch.tensor(rows, device=self.device)
            parent_row_BK = parent_row_BK[keep_B]
            for name in ("history_BKL", "score_BK", "decoder_BK", "ctc_BK"):
                setattr(self, name, getattr(self, name)[keep_B])
            self._note_utterances()
        assert parent_row_BK.shape[1] == beams
        self.decoder.select(parent_row_BK.flatten(), utts)
        self.hidden_RD = self.decoder.step(self.history_BKL[:, :, -1].flatten())

    @staticmethod
    def _without(ctc: CTCPrefixBatch, left: list[int]) -> CTCPrefixBatch | None:
        if not left:
            return None
        ctc.select(left)
        return ctc
