"""The hypotheses of a recording's stretches as one result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from espnet_smoe.compat import SearchHypothesis
from espnet_smoe.hypotheses import Hypothesis
from espnet_smoe.recordings import Piece
from espnet_smoe.results import Entry, Result, Segment, timed_texts
from espnet_smoe.vocabulary import Vocabulary

Found = tuple[Piece, str | None, Sequence[Hypothesis]]  # a stretch, who heard it, what was found


def stitch(
    name: str,
    task: str,
    language: str,
    found: Sequence[Found],
    decoder_expert: str,
    vocabulary: Vocabulary,
    sos: int,
) -> Result:
    """Put a recording's stretches together.

    Args:
        name: The recording's.
        task: The task's token.
        language: The language's token.
        found: Per stretch, in order, its audio, the encoder's expert and the hypotheses.
        decoder_expert: The decoder's expert; empty for a dense decoder.
        vocabulary: The model's.
        sos: The id of ``<sos>``.
    """
    segments: list[Segment] = []
    for piece, encoder_expert, hypotheses in found:
        route = "/".join(filter(None, [encoder_expert, decoder_expert]))
        best = hypotheses[0] if hypotheses else None
        tokens = vocabulary.tokens(best.text) if best is not None else []
        for start, end, part in timed_texts(tokens, piece.start, piece.end):
            segments.append(
                Segment(
                    start,
                    end,
                    vocabulary.clean_text(part),
                    best.score if best is not None else math.nan,
                    piece.channel,
                    route,
                    piece.bandwidth,
                )
            )
    scores = [hypotheses[0].score for _, _, hypotheses in found if hypotheses]
    if len(found) == 1:
        nbest = tuple(entry(h, vocabulary, sos) for h in found[0][2])
    elif scores:
        nbest = (_joined([h[0] for _, _, h in found if h], vocabulary, sos),)
    else:
        nbest = ()
    return Result(
        name=name,
        task=task.strip("<>"),
        language=language.strip("<>"),
        text=" ".join(s.text for s in segments if s.text),
        score=sum(scores) if scores else math.nan,
        nbest=nbest,
        duration=sum(piece.end - piece.start for piece, _, _ in found),
        segments=tuple(segments),
    )


def entry(hypothesis: Hypothesis, vocabulary: Vocabulary, sos: int) -> Entry:
    """A hypothesis as ESPnet's ``Speech2Text`` gives it."""
    ids = hypothesis.tokens[:-1]
    ids = ids[ids.index(sos) + 1 :]
    return _entry(ids, hypothesis, vocabulary)


def _entry(ids: Sequence[int], hypothesis: Hypothesis, vocabulary: Vocabulary) -> Entry:
    tokens = vocabulary.tokens(ids)
    stock = SearchHypothesis(
        yseq=torch.tensor(hypothesis.tokens), score=hypothesis.score, scores=hypothesis.scores
    )
    return Entry(
        vocabulary.text(tokens, special=True),
        tokens,
        [vocabulary.ids[token] for token in tokens],
        vocabulary.text(tokens),
        stock,
    )


def _joined(best: Sequence[Hypothesis], vocabulary: Vocabulary, sos: int) -> Entry:
    """The best hypotheses of several stretches behind the first's prompt."""
    first = best[0]
    text = [token for hypothesis in best for token in hypothesis.text]
    tokens = [*first.tokens[: first.prompt_length], *text, first.tokens[-1]]
    scores: dict[str, float] = {}
    for hypothesis in best:
        for name, value in hypothesis.scores.items():
            scores[name] = scores.get(name, 0.0) + value
    whole = Hypothesis(tokens, first.prompt_length, sum(h.score for h in best), scores)
    return entry(whole, vocabulary, sos)
