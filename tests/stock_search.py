"""ESPnet's own beam search, built as its `Speech2Text` builds it: the reference."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.bin.s2t_inference import BatchBeamSearch, BeamSearch, LengthBonus, ScoreFilter
from tiny import ID, TIMES, TOKENS, decoder_options, ids, randomize, smoe_decoder

from espnet_smoe.beam_search import Hypothesis, SearchOptions
from espnet_smoe.compat import CTCPrefixScorer
from espnet_smoe.ctc_scorer import follow_prompts

EOS = ID["<eos>"]
PROMPTS = [
    ids("<sos>", "<spa>", "<asr>", "<notimestamps>"),
    ids("<sos>", "<spa>", "<st_eng>", "<notimestamps>"),
    ids("<sop>", "dog", "<asr>", "big", "<sos>", "<spa>", "<st_deu>", "<notimestamps>"),
    ids("<sop>", "casa", "<sos>", "<spa>", "<asr>", "<notimestamps>"),
]
TRANSCRIBES = [True, False, False, True]


def model(
    *, dense: bool = False, behind_prompt: bool = True, end: float = 1.0, **options: Any
) -> Any:
    """What the search needs of a model: a random decoder and CTC; `end` favours ``<eos>``."""
    if dense:
        torch.manual_seed(4)
        decoder: Any = randomize(TransformerDecoder(**decoder_options(**options))).eval()
    else:
        decoder = smoe_decoder(**options)
    torch.manual_seed(6)
    ctc: Any = CTC(len(TOKENS), 8)
    with torch.no_grad():
        decoder.output_layer.bias[EOS] += end
        ctc.ctc_lo.weight.mul_(4.0)
        ctc.ctc_lo.bias[0] += 2.0  # as a trained one: mostly blank
    if behind_prompt:
        ctc.behind_prompt = True
    return SimpleNamespace(
        decoder=decoder, ctc=ctc.eval(), token_list=TOKENS, sos=ID["<sos>"], eos=EOS
    )


def memory(frames: Sequence[int], seed: int = 7) -> list[torch.Tensor]:
    """Encoder outputs (S, D)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 8, generator=generator) for n in frames]


def batch(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """Padded with what must not matter: (B, S, D) and the lengths."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=1e4)
    return padded, [len(row) for row in rows]


@torch.no_grad()
def stock_search(
    model: Any,
    options: SearchOptions,
    x: torch.Tensor,
    prompt: Sequence[int],
    transcribes: bool,
    search_class: Any = BatchBeamSearch,
) -> list[dict[str, Any]]:
    """All hypotheses of ESPnet's search for one utterance (S, D)."""
    ctc_weight = options.ctc_weight if transcribes else 0.0
    ctc = CTCPrefixScorer(ctc=model.ctc, eos=model.eos)
    follow_prompts(ctc)
    search = BeamSearch(
        beam_size=options.beam_size,
        weights={
            "decoder": 1.0 - ctc_weight,
            "ctc": ctc_weight,
            "length_bonus": options.penalty,
            "scorefilter": 1.0,
        },
        scorers={
            "decoder": model.decoder,
            "ctc": ctc,
            "length_bonus": LengthBonus(len(TOKENS)),
            "scorefilter": ScoreFilter(
                notimestamps=ID["<notimestamps>"],
                first_time=ID[TIMES[0]],
                last_time=ID[TIMES[-1]],
                sos=model.sos,
                eos=model.eos,
                vocab_size=len(TOKENS),
            ),
        },
        sos=model.sos,
        eos=model.eos,
        vocab_size=len(TOKENS),
        token_list=TOKENS,
        pre_beam_score_key="full",
        pre_beam_ratio=options.pre_beam_ratio,
        normalize_length=options.normalize_length,
        hyp_primer=list(prompt),
    )
    search.__class__ = search_class
    found = search(x=x, maxlenratio=options.maxlenratio, minlenratio=options.minlenratio)
    return [hypothesis.asdict() for hypothesis in found]


def same(found: Sequence[Hypothesis], expected: Sequence[dict[str, Any]], where: str = "") -> None:
    """Assert equal n-best lists, but for hypotheses that are impossible (scores below -1e8).

    Stock's batch holds impossible ones too, picked by rounding error; they come last.
    """
    expected = [h for h in expected if h["score"] > -1e8]
    found = [h for h in found if h.score > -1e8]
    assert [h.tokens for h in found] == [h["yseq"] for h in expected], where
    for mine, stock in zip(found, expected, strict=True):
        assert abs(mine.score - stock["score"]) < 1e-4, where
        assert mine.scores.keys() == stock["scores"].keys(), where
        for name, value in stock["scores"].items():
            assert abs(mine.scores[name] - value) < 1e-4, (where, name)
