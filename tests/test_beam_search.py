"""The batched search finds what ESPnet's own search finds, one utterance at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from espnet2.bin.s2t_inference import BeamSearch
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_search import EOS, PROMPTS, TRANSCRIBES, batch, memory, model, same, stock_search
from tiny import ID, TIMES, TOKENS, ids, model_batch, randomize, smoe_model, training_config

from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.decoder_cache import CachedDecoder
from espnet_smoe.routing import RoutingError

FRAMES = [12, 9, 10, 14]
STOCK: dict[Any, Any] = {}


def check(
    a_model: Any,
    options: SearchOptions,
    rows: Sequence[torch.Tensor],
    prompts: Sequence[Sequence[int]] = PROMPTS,
    transcribes: Sequence[bool] = TRANSCRIBES,
) -> list[Any]:
    """Assert that both searches agree on every utterance; returns ours."""
    search = BatchedBeamSearch(a_model, options)
    found = search.search(*batch(rows), prompts, transcribes)
    for index, x in enumerate(rows):
        expected = stock_search(a_model, options, x, prompts[index], transcribes[index])
        same(found[index], expected, f"utterance {index}")
    return found


@pytest.mark.parametrize("beam_size", [1, 3, 5])
@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"penalty": 0.7},
        {"normalize_length": True, "maxlenratio": 0.8},
        {"minlenratio": 0.5},
        {"minlenratio": 1.1},  # cannot be met: both try again with less
        {"maxlenratio": -4.0, "minlenratio": -2.0},
        {"pre_beam_ratio": 2.5, "penalty": -0.5},
    ],
    ids=str,
)
def test_equals_espnets_search(beam_size: int, ctc_weight: float, extra: dict[str, Any]) -> None:
    options = SearchOptions(beam_size=beam_size, ctc_weight=ctc_weight, nbest=0, **extra)
    found = check(model(), options, memory(FRAMES))
    assert all(found)


@pytest.mark.parametrize("dense", [False, True], ids=["smoe", "dense"])
@pytest.mark.parametrize(
    "options",
    [
        {"normalize_before": False},
        {"concat_after": True},
        {"normalize_before": False, "concat_after": True, "qk_norm": True},
        {"num_blocks": 1, "attention_heads": 4},
    ],
    ids=str,
)
def test_equals_espnets_search_for_every_kind_of_layer(
    dense: bool, options: dict[str, Any]
) -> None:
    check(model(dense=dense, **options), SearchOptions(ctc_weight=0.3, nbest=0), memory(FRAMES))


def test_equals_espnets_search_with_the_ctc_of_other_models() -> None:
    """Stock starts CTC at the frame behind the prompt's length, and fails past the last frame."""
    a_model = model(behind_prompt=False)
    options = SearchOptions(ctc_weight=0.5, nbest=0, maxlenratio=-5.0)
    check(a_model, options, memory(FRAMES))


def test_ends_long_before_the_frames_end_as_espnet_does() -> None:
    rows = memory([40, 30, 45, 35])
    for options in (SearchOptions(nbest=0), SearchOptions(ctc_weight=0.3, nbest=0, penalty=0.2)):
        found = check(model(end=3.0), options, rows)
        longest = [max(len(h.text) for h in hypotheses) for hypotheses in found]
        early = [n < len(row) // 2 for n, row in zip(longest, rows, strict=True)]
        assert sum(early) >= 2, longest


@pytest.mark.parametrize("extra", [{}, {"penalty": 0.4, "minlenratio": 0.3}], ids=str)
def test_equals_espnets_search_of_single_hypotheses(extra: dict[str, Any]) -> None:
    """`BeamSearch`, which ESPnet falls back to. (With CTC it never ends where CTC alone would.)"""
    a_model, rows = model(), memory(FRAMES)
    options = SearchOptions(nbest=0, **extra)
    found = BatchedBeamSearch(a_model, options).search(*batch(rows), PROMPTS)
    for index, x in enumerate(rows):
        expected = stock_search(a_model, options, x, PROMPTS[index], False, BeamSearch)
        same(found[index], expected)


def test_finished_utterances_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    step = CachedDecoder.step

    def counted(self: CachedDecoder, tokens_R: torch.Tensor) -> torch.Tensor:
        rows.append(len(tokens_R))
        return step(self, tokens_R)

    monkeypatch.setattr(CachedDecoder, "step", counted)
    options = SearchOptions(beam_size=2, maxlenratio=1.0)
    BatchedBeamSearch(model(end=-9.0), options).search(*batch(memory([3, 5, 5, 8])), PROMPTS)
    assert rows == [8, 8, 6, 6, 2, 2, 2]


def test_timestamps_follow_espnets_rule() -> None:
    a_model = model(end=2.0)
    with torch.no_grad():
        a_model.decoder.output_layer.bias[ID[TIMES[0]] : ID[TIMES[-1]] + 1] += 1.0
    prompts = [
        ids("<sos>", "<spa>", "<asr>"),
        ids("<sop>", "<0.10>", "hola", "<0.20>", "<sos>", "<spa>", "<st_eng>"),
        PROMPTS[0],
        ids("<sos>", "<spa>", "<st_eng>"),
    ]
    options = SearchOptions(nbest=0, beam_size=4)
    found = check(a_model, options, memory([16] * 4), prompts, [False] * 4)
    times = range(ID[TIMES[0]], ID[TIMES[-1]] + 1)
    assert all(h.text[0] in times for h in found[0] + found[3] if h.text)
    assert not any(token in times for h in found[2] for token in h.text)


def test_greedy_search_takes_the_likeliest_token() -> None:
    a_model, x = model(), memory([10])[0]
    options = SearchOptions(beam_size=1, maxlenratio=-6.0)
    best = BatchedBeamSearch(a_model, options).search(x[None], [10], PROMPTS[:1])[0][0]
    tokens = list(PROMPTS[0])
    while len(tokens) < len(best.tokens) - 1:
        logp = a_model.decoder.score(torch.tensor(tokens), None, x)[0]
        logp[ID[TIMES[0]] : ID[TIMES[-1]] + 1] = -torch.inf
        tokens.append(int(logp.argmax()))
    assert best.tokens[:-1] == tokens
    assert best.text == [t for t in tokens[len(PROMPTS[0]) :] if t != EOS]


ROW = st.tuples(st.integers(0, 3), st.integers(3, 18), st.booleans())


@settings(max_examples=20, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=9),
    beam_size=st.integers(1, 4),
    ctc_weight=st.sampled_from([0.0, 0.4]),
    maxlenratio=st.sampled_from([0.0, 0.5, -3.0]),
)
def test_a_mixed_batch_equals_one_at_a_time(
    rows: list[tuple[int, int, bool]], beam_size: int, ctc_weight: float, maxlenratio: float
) -> None:
    if "model" not in STOCK:
        STOCK["model"] = model(end=2.0)
    options = SearchOptions(
        beam_size=beam_size, ctc_weight=ctc_weight, maxlenratio=maxlenratio, nbest=0
    )
    search = BatchedBeamSearch(STOCK["model"], options)
    prompts = [PROMPTS[prompt] for prompt, _, _ in rows]
    transcribes = [scored for _, _, scored in rows]
    x = memory([frames for _, frames, _ in rows], seed=3)
    together = search.search(*batch(x), prompts, transcribes)
    for index, row in enumerate(x):
        (alone,) = search.search(row[None], [len(row)], [prompts[index]], [transcribes[index]])
        same(
            together[index],
            [{"yseq": h.tokens, "score": h.score, "scores": h.scores} for h in alone],
        )


def stock_model(kind: str) -> Any:
    """A tiny model of ESPnet's own classes."""
    from espnet2.tasks.s2t import S2TTask  # slow, so only where it is needed

    args = S2TTask.get_parser().parse_args([])
    for name, value in training_config(kind, encoder=kind, decoder="transformer").items():
        setattr(args, name, value)
    args.model, args.model_conf = "espnet", {"ctc_weight": 0.3}
    torch.manual_seed(3)
    return randomize(S2TTask.build_model(args), 0.1).eval()


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
@pytest.mark.parametrize("dense", [False, True], ids=["smoe", "dense"])
def test_whole_models_of_both_bandwidths_and_tasks(kind: str, dense: bool) -> None:
    """Encoder routes and decoder routes mix in one batch; a dense model of ESPnet's works too."""
    a_model = stock_model(kind) if dense else smoe_model(kind)
    data = model_batch(["<asr>", "<st_eng>", "<asr>", "<st_eng>"], [0, 1, 1, 0])
    with torch.no_grad():
        if not dense:
            a_model._given_bandwidth = data["bandwidth"]
        memory_BSD, lengths_B = a_model.encode(data["speech"], data["speech_lengths"])
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[1]]
    options_ = SearchOptions(beam_size=3, ctc_weight=0.3, nbest=0, maxlenratio=-4.0)
    search = BatchedBeamSearch(a_model, options_)
    transcribes = torch.tensor([True, False, True, False])
    found = search.search(memory_BSD, lengths_B, prompts, transcribes)
    for index, frames in enumerate(lengths_B.tolist()):
        x = memory_BSD[index, :frames]
        expected = stock_search(a_model, options_, x, prompts[index], bool(transcribes[index]))
        same(found[index], expected, f"utterance {index}")


def test_nbest_cuts_and_orders() -> None:
    rows = memory(FRAMES)
    everything = BatchedBeamSearch(model(), SearchOptions(nbest=0)).search(*batch(rows), PROMPTS)
    two = BatchedBeamSearch(model(), SearchOptions(nbest=2)).search(*batch(rows), PROMPTS)
    assert two == [hypotheses[:2] for hypotheses in everything]
    scores = [h.score for h in everything[0]]
    assert scores == sorted(scores, reverse=True) and len(scores) > 2


def test_double_precision_agrees_and_half_precision_runs() -> None:
    rows, options = memory(FRAMES), SearchOptions(ctc_weight=0.3, beam_size=3)
    best = {}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        a_model = model()
        a_model.decoder.to(dtype)
        a_model.ctc.to(dtype)
        x, lengths = batch(rows)
        search = BatchedBeamSearch(a_model, options)
        found = search.search(x.clamp(-9, 9).to(dtype), lengths, PROMPTS, TRANSCRIBES)
        best[dtype] = [hypotheses[0].score for hypotheses in found]
    assert best[torch.float64] == pytest.approx(best[torch.float32], abs=1e-4)
    assert all(-100 < score < 0 for score in best[torch.bfloat16])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0; accepted: 1 or more"),
        ({"ctc_weight": 1.0}, "ctc_weight is 1.0; accepted: 0.0 to below 1.0"),
        ({"maxlenratio": -0.5}, "maxlenratio is -0.5; accepted: 0.0 or more, or -1"),
        ({"pre_beam_ratio": 0.5}, "pre_beam_ratio is 0.5; accepted: 1.0 or more"),
        ({"nbest": -1}, "nbest is -1; accepted: 0"),
        ({"penalty": float("nan")}, "penalty is nan; accepted: a finite number"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchOptions(**options)


def test_bad_models_raise() -> None:
    a_model = model()
    with pytest.raises(ValueError, match=r"beam_size is 999; accepted: up to the \d+ tokens"):
        BatchedBeamSearch(a_model, SearchOptions(beam_size=999))
    a_model.ctc = None
    with pytest.raises(ValueError, match=r"has no CTC layer; accepted: 0.0"):
        BatchedBeamSearch(a_model, SearchOptions(ctc_weight=0.3))
    with pytest.raises(ValueError, match=r"first_time_symbol '<9.99>' is not in the token list"):
        BatchedBeamSearch(a_model, SearchOptions(first_time_symbol="<9.99>"))
    a_model.decoder.train()
    with pytest.raises(ValueError, match="in training mode"):
        BatchedBeamSearch(a_model)


@pytest.mark.parametrize(
    ("prompts", "lengths", "transcribes", "message"),
    [
        (PROMPTS[:2], [12, 9, 10], [True] * 3, "3 lengths, 2 prompts and 3 values"),
        (PROMPTS[:3], [12, 0, 10], [True] * 3, "utterance 1 has 0 frames; accepted: 1 to 12"),
        ([[ID["<asr>"]]] * 3, [12, 9, 10], [True] * 3, "prompt of utterance 0 has no <sos>"),
        ([[ID["<sos>"], 999]] * 3, [12, 9, 10], [True] * 3, "accepted: 0 to"),
        (PROMPTS[:3], [12, 9, 10], None, "transcribes_B must say"),
        ([ids("<sos>", "<spa>", "<asr>")] * 3, [9] * 3, [True] * 3, "timestamps, which CTC cannot"),
        ([ids("<sos>", "<asr>")] * 3, [9] * 3, [False] * 3, "<sos> and two tokens"),
    ],
)
def test_bad_batches_raise(prompts: Any, lengths: Any, transcribes: Any, message: str) -> None:
    search = BatchedBeamSearch(model(), SearchOptions(ctc_weight=0.3))
    with pytest.raises(ValueError, match=message):
        search.search(batch(memory([12, 9, 10]))[0], lengths, prompts, transcribes)


def test_a_prompt_without_expert_names_its_utterance() -> None:
    prompts = [PROMPTS[0], ids("<sos>", "<spa>", "<notimestamps>")]
    with pytest.raises(RoutingError, match="utterance 1 of the batch: .*has no guiding token") as e:
        BatchedBeamSearch(model()).search(*batch(memory([5, 5])), prompts)
    assert e.value.row == 1


def test_a_vocabulary_without_timestamps_has_no_rule() -> None:
    a_model = model(dense=True)
    a_model.token_list = [f"t{i}" for i in range(len(TOKENS))]
    (found,) = BatchedBeamSearch(a_model).search(memory([6])[0][None], [6], [[a_model.sos]])
    assert found[0].scores.keys() == {"decoder"}
