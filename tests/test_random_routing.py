"""Random routes mean nothing, are an utterance's own, and reach both searches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import espnet2.bin.s2t_inference as stock
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_model import MAXLEN, same_entries, save_model
from stock_search import PROMPTS, same, stock_search
from tiny import close, decoder_options, model_batch, smoe_decoder, smoe_model, speech

from espnet_smoe import Speech2Text
from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.dense_routes import every_route
from espnet_smoe.experts import param_counts
from espnet_smoe.model import ROUTE_LOG_VARIABLE, ROUTE_VARIABLE
from espnet_smoe.random_routing import (
    DECODER,
    ENCODER,
    RandomTransformerDecoder,
    random_expert,
    sound_lengths,
)
from espnet_smoe.routing import RoutingError

E, D = ("e0", "e1"), ("d0", "d1")
RANDOM: dict[str, Any] = {
    "model": "smoe_random",
    "encoder_conf": {"experts": list(E)},
    "decoder": "smoe_transformer_random",
    "decoder_conf": {"experts": list(D)},
}
SIZES = [6000, 6400, 5111, 7300, 4640, 6800]
SOUNDS = [speech(n, wide=i % 2 == 0, seed=i) for i, n in enumerate(SIZES)]


def routes(sounds: list[torch.Tensor]) -> tuple[list[str], list[str]]:
    """The experts of each side by the definition."""
    lengths = sound_lengths(*collated(sounds))
    encoder = [random_expert(n, E, ENCODER) for n in lengths]
    return encoder, [random_expert(n, D, DECODER) for n in lengths]


def collated(sounds: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)
    return batch, torch.tensor([len(x) for x in sounds])


def test_the_chosen_sounds_have_all_routes() -> None:
    assert len(set(zip(*routes(SOUNDS), strict=True))) == 4


@given(st.integers(0, 10**6), st.permutations(["a", "b", "c"]))
def test_a_route_is_a_function_of_the_length(samples: int, names: list[str]) -> None:
    expert = random_expert(samples, names, ENCODER)
    assert expert == random_expert(samples, ["a", "b", "c"], ENCODER)


@pytest.mark.parametrize("step", [1, 2, 160], ids=["any", "resampled from 8 kHz", "10 ms"])
def test_lengths_of_any_kind_are_shared_out_evenly(step: int) -> None:
    """Binomial: 4 standard deviations of 2000 lengths; both sides together are independent."""
    lengths = range(16000, 16000 + 2000 * step, step)
    pairs = [(random_expert(n, E, ENCODER), random_expert(n, D, DECODER)) for n in lengths]
    for expert in E:
        for other in D:
            share = pairs.count((expert, other)) / len(pairs)
            assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(pairs))


@settings(max_examples=30, deadline=None)
@given(
    before=st.integers(0, 50), after=st.integers(0, 50), beyond=st.integers(0, 50), n=st.integers(1)
)
def test_zeros_at_the_ends_do_not_count(before: int, after: int, beyond: int, n: int) -> None:
    n = n % 40 + 1
    x = torch.zeros(2, before + n + after + beyond)
    x[0, before : before + n] = 0.1
    x[0, before + n // 2 + 1 : before + n - 1] = 0.0  # a pause inside does
    length = before + n + after
    assert sound_lengths(x, torch.tensor([length, length])) == [n, 0]
    x[:, length:] = 9.0  # not part of the utterance
    assert sound_lengths(x[..., None], torch.tensor([length, length])) == [n, 0]


@pytest.fixture(scope="module")
def shared_model() -> Any:
    return smoe_model(**RANDOM)


@pytest.fixture
def model(shared_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(ROUTE_VARIABLE, raising=False)
    monkeypatch.delenv(ROUTE_LOG_VARIABLE, raising=False)
    shared_model.eval().zero_grad()
    shared_model.route_override = None
    return shared_model


def batch_of(tasks: list[str], sounds: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    batch = model_batch(tasks, [0] * len(tasks))
    batch["speech"], batch["speech_lengths"] = collated(sounds)
    return batch


def test_the_route_is_the_utterances_own(model: Any) -> None:
    """In training and inference, for every task, padded or not, whatever the bandwidth says."""
    encoder, decoder = routes(SOUNDS)
    for tasks in (["<asr>"] * 6, ["<st_eng>", "<asr>", "<st_deu>"] * 2):
        for given_bandwidth in (0, 1):
            for train in (True, False):
                batch = batch_of(tasks, SOUNDS)
                batch["bandwidth"][:] = given_bandwidth
                model.train(train)(**batch)
                assert list(model.last_route) == encoder
                assert list(model.decoder.last_route) == decoder
    model.train()
    quiet = [torch.nn.functional.pad(x, (37, 1000)) for x in SOUNDS]
    model(**batch_of(["<asr>"] * 6, quiet))
    assert (list(model.last_route), list(model.decoder.last_route)) == (encoder, decoder)


def test_every_parameter_learns_and_figures_are_per_random_route(model: Any) -> None:
    loss, stats, _ = model.train()(**batch_of(["<asr>", "<st_eng>"] * 3, SOUNDS))
    loss.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    figures = {key: value.item() for key, value in stats.items() if key.startswith("n_")}
    assert figures.keys() == {f"n_{d}_{e}" for d in D for e in E}
    pairs = list(zip(*routes(SOUNDS), strict=True))
    for (e, d), n in {pair: pairs.count(pair) for pair in pairs}.items():
        assert figures[f"n_{d}_{e}"] == n


def test_its_parameters_are_smoes(model: Any) -> None:
    smoe, counts = param_counts(smoe_model()), param_counts(model)
    assert counts.total == smoe.total
    assert counts.active == {f"{e}/{d}": smoe.active["wb/asr"] for e in E for d in D}


def test_overrides_still_force_the_encoder(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = SOUNDS[0][None], torch.tensor([len(SOUNDS[0])])
    outputs = {}
    for name in E:
        model.route_override = name
        outputs[name] = model.encode(*x)[0]
        assert model.last_route == (name,)
    model.route_override = None
    assert (outputs["e0"] - outputs["e1"]).abs().max() > 0.001
    close(model.encode(*x, route=["e1"])[0], outputs["e1"])
    monkeypatch.setenv(ROUTE_VARIABLE, "e0")
    close(model.encode(*x)[0], outputs["e0"])
    monkeypatch.setenv(ROUTE_VARIABLE, "wb")
    with pytest.raises(RoutingError, match=r"is 'wb'; accepted: e0, e1"):
        model.encode(*x)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_batched_search_equals_espnets(model: Any, ctc_weight: float) -> None:
    """One batch of padded utterances and all tasks, against one at a time, encoded alone too."""
    options = SearchOptions(beam_size=3, ctc_weight=ctc_weight, nbest=0, maxlenratio=-4.0)
    prompts, transcribes = [PROMPTS[0], PROMPTS[1]], [True, False]
    with torch.no_grad():
        memory, frames = model.encode(*collated(SOUNDS))
        rows = [(n, task) for n in range(len(SOUNDS)) for task in (0, 1)]
        found = BatchedBeamSearch(model, options).search(
            memory[[n for n, _ in rows]],
            [int(frames[n]) for n, _ in rows],
            [prompts[task] for _, task in rows],
            [transcribes[task] for _, task in rows],
        )
        encoder, decoder = routes(SOUNDS)
        for (n, task), hypotheses in zip(rows, found, strict=True):
            x = memory[n, : int(frames[n])]
            expected = stock_search(model, options, x, prompts[task], transcribes[task])
            same(hypotheses, expected, f"utterance {n}, task {task}")
            assert set(model.decoder.last_route) == {decoder[n]}
        for n, x in enumerate(SOUNDS):
            model.encode(x[None], torch.tensor([len(x)]))
            assert model.last_route == (encoder[n],)
            (alone,) = model.decoder.experts_of_memory(model.encode(*collated([x]))[0])
            assert alone == decoder[n]


def test_speech2text_equals_espnets(tmp_path: Path) -> None:
    """ESPnet's pads to a second; what it adds is zero, and does not count."""
    directory = save_model(
        tmp_path, **RANDOM, model_conf={"speech_length": 1.0, "trim_padding": True}
    )
    files = directory / "config.yaml", directory / "valid.acc.ave.pth"
    keywords = {"maxlenratio": MAXLEN, "lang_sym": "<spa>", "beam_size": 3}
    mine, theirs = Speech2Text(*files, **keywords), stock.Speech2Text(*files, **keywords)
    tasks = ["asr", "st_eng"]
    together = mine(SOUNDS, tasks=[tasks] * len(SOUNDS), batch_size=5)
    encoder, _ = routes(SOUNDS)
    for n, x in enumerate(SOUNDS):
        for task in tasks:
            expected = theirs(x, task_sym=f"<{task}>")
            same_entries(mine(x, task_sym=f"<{task}>"), expected)
            assert together[n][task].text == expected[0][3]
            assert together[n][task].route == encoder[n]


def test_an_output_that_the_model_did_not_give_is_not_known(model: Any) -> None:
    memory, _ = model.encode(*collated(SOUNDS[:2]))
    model.decoder.experts_of_memory(memory)
    memory[1, 0, 0] += 1e-3
    with pytest.raises(RoutingError, match="row 1 of the encoder output is not known: random rou"):
        model.decoder.experts_of_memory(memory)


def test_the_last_utterances_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espnet_smoe.random_routing.REMEMBERED", 3)
    decoder = RandomTransformerDecoder(**decoder_options()).eval()
    rows = torch.randn(5, 4, 8)
    for row in rows:
        decoder.remember(row[None], [1])
    assert len(decoder.experts_of_memory(rows[2:])) == 3
    with pytest.raises(RoutingError, match="row 1 of the encoder output is not known"):
        decoder.experts_of_memory(rows[[4, 1]])
    decoder.train().remember(rows[:1], [1])
    with pytest.raises(RoutingError, match="row 0 of the encoder output is not known"):
        decoder.experts_of_memory(rows[4:])


def test_partially_autoregressive_decoding_has_one_utterance() -> None:
    decoder = RandomTransformerDecoder(**decoder_options()).eval()
    memory = torch.randn(1, 6, 8)
    decoder.remember(memory, [1])
    decoder.batch_score_partially_AR(
        torch.tensor([PROMPTS[0], PROMPTS[1]]), [None], memory, torch.tensor([4, 4])
    )
    assert decoder.last_route == decoder.experts_of_memory(memory) * 2


def test_random_routes_cannot_be_exported(model: Any) -> None:
    with pytest.raises(ModelError, match=r"RandomTransformerDecoder\) has experts that no tag"):
        every_route(model)


def test_token_patterns_and_repeated_names_raise() -> None:
    patterns = {"asr": ["<asr>"], "st": ["<st_*>"]}
    with pytest.raises(RoutingError, match="no token picks an expert here: accepted is a list"):
        RandomTransformerDecoder(**decoder_options(experts=patterns))
    with pytest.raises(RoutingError, match=r"decoder_conf.experts names d0 more than once"):
        RandomTransformerDecoder(**decoder_options(experts=["d0", "d0"]))
    with pytest.raises(RoutingError, match="no experts that tokens pick"):
        smoe_model(**{**RANDOM, "model_conf": {"private_tokens": {"<asr>": ["d0"]}}})


def test_other_decoders_work_in_the_random_model() -> None:
    whole = smoe_model(model="smoe_random", encoder_conf={"experts": list(E)})
    whole(**batch_of(["<asr>", "<st_eng>"], SOUNDS[:2]))
    assert list(whole.last_route) == routes(SOUNDS[:2])[0]
    assert whole.decoder.last_route == ("asr", "st")
    assert type(whole.decoder) is type(smoe_decoder())
