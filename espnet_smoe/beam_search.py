"""Beam search over a batch of utterances: the search of ESPnet's `BatchBeamSearch`, faster.

The same hypotheses with the same scores as `espnet2.bin.s2t_inference.Speech2Text` finds, one
utterance at a time: an optimisation, not another algorithm. What is faster: keys and values are
computed once (`espnet_smoe.decoder_cache`), the beams of all utterances share each matrix product,
the scores of the whole vocabulary are never in memory (`espnet_smoe.token_scores`), and CTC scores
the candidates alone (`espnet_smoe.ctc_batch`).

Where it departs from ESPnet's: hypotheses that the timestamp rule forbids (score -inf) are not
kept. Of hypotheses that CTC finds impossible (scores about -1e9, at the end of the list) both keep
some, ordered by rounding error. Two hypotheses whose scores differ by a rounding error (1e-4) may
change places, and so may what follows from the one that the beam keeps. No language model,
``partial_ar``, or ``ctc_weight`` of 1.

Shape letters: B utterances, S encoder frames, D model dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from espnet_smoe.beams import Beams
from espnet_smoe.ctc_batch import check_ctc
from espnet_smoe.decoder_cache import check_decoder
from espnet_smoe.hypotheses import Hypothesis, SearchOptions, Utterance, shortest
from espnet_smoe.token_scores import TimestampRule

__all__ = ["BatchedBeamSearch", "Hypothesis", "SearchOptions"]


class BatchedBeamSearch:
    """Beam search for a model of ESPnet's S2T task: ours, or ESPnet's own.

    Args:
        model: With a ``transformer`` or ``smoe_transformer`` decoder and any encoder.
        options: See `SearchOptions`.

    Raises:
        ValueError: A decoder of another kind, a model in training mode, CTC wanted of a model
            without, a beam larger than the vocabulary.
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
            memory_BSD: Encoder output, float (B, S, D), padded with anything finite.
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
        check_decoder(self.model.decoder)  # training may have gone on since
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
    ) -> list[Utterance]:
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
            utts.append(Utterance(index, frames, prompt, scored, timed, options.longest(frames)))
        return utts

    def _sorted(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        def key(hypothesis: Hypothesis) -> float:
            if self.options.normalize_length:
                return hypothesis.score / (len(hypothesis.tokens) - 1)
            return hypothesis.score

        best = sorted(hypotheses, key=key, reverse=True)
        return best[: self.options.nbest] if self.options.nbest else best

    def _search(self, memory_BSD: torch.Tensor, utts: list[Utterance]) -> None:
        """Search once; the hypotheses gather in the utterances."""
        state = Beams(self.model, self.options, self.rule, memory_BSD, utts)
        step = 0
        while state.utts:
            state.extend()
            state.finish(step)
            state.leave()
            step += 1
