"""Whole encoders, decoders and models with learned gates; both searches with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import espnet2.bin.s2t_inference as stock
import pytest
import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from saved_model import MAXLEN, same_entries, save_model
from stock_search import EOS, PROMPTS, TRANSCRIBES, batch, memory, same, stock_search
from tiny import (
    DENSE,
    ID,
    TOKENS,
    close,
    decoder_options,
    encoder_options,
    features,
    ids,
    model_batch,
    padded,
    randomize,
    seeded,
    smoe_model,
    speech,
)

from espnet_smoe import Speech2Text
from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.dense_routes import every_route
from espnet_smoe.experts import param_counts
from espnet_smoe.inspect_model import inspect_model
from espnet_smoe.learned_gate import balance_loss, gated_banks, record_gates
from espnet_smoe.learned_moe import (
    LearnedMoEConformerEncoder,
    LearnedMoETransformerDecoder,
    LearnedMoETransformerEncoder,
)
from espnet_smoe.onnx_modules import check_exportable
from espnet_smoe.precision import prepare

LEARNED = {"conformer": LearnedMoEConformerEncoder, "transformer": LearnedMoETransformerEncoder}
LENGTHS = torch.tensor([31, 31, 27, 30])
EXACT = 1e-6
TASKS = ["<asr>", "<st_eng>", "<asr>", "<st_deu>"]
BOTH: dict[str, Any] = {
    "encoder": "learned_moe_conformer",
    "decoder": "learned_moe_transformer",
}


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A dense encoder, and the one with learned gates with its weights in each expert."""
    torch.manual_seed(1)
    dense = randomize(DENSE[kind](**encoder_options(kind, **options)))
    learned = LEARNED[kind](**encoder_options(kind, experts=3, **options))
    learned.load_state_dict(dense.state_dict(), strict=True)
    for bank in gated_banks(learned).values():
        torch.nn.init.normal_(bank.gate_weight)
    return dense, learned


def decoder(dense: bool = False, **options: Any) -> Any:
    """A random decoder in eval mode."""
    torch.manual_seed(2)
    cls = TransformerDecoder if dense else LearnedMoETransformerDecoder
    return randomize(cls(**decoder_options(**options))).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = [[*PROMPTS[0], *ids("hola", "perro", "casa")], [*PROMPTS[1], *ids("dog")]]
    tokens, lengths = padded(rows, ID["<eos>"])
    hs = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(7))
    return hs, torch.tensor([6, 4]), tokens, lengths


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", sorted(LEARNED))
def test_equal_experts_equal_the_dense_encoder(kind: str, train: bool) -> None:
    dense, learned = pair(kind)
    expected, expected_lengths, _ = dense.train(train)(features(), LENGTHS)
    actual, lengths, _ = learned.train(train)(features(), LENGTHS)
    close(actual, expected, atol=2 * EXACT)
    assert torch.equal(lengths, expected_lengths)
    for name, value in dense.state_dict().items():  # BatchNorm's statistics too
        if "norm.running" in name:
            close(learned.state_dict()[name], value)
    used = {int(c) for rows in used_by(learned).values() for row in rows for c in row}
    assert used == {0, 1, 2}


def used_by(encoder: Any) -> dict[str, list[torch.Tensor]]:
    with record_gates(encoder) as record, torch.no_grad():
        encoder(features(), LENGTHS)
    return record.choices


def test_gates_are_where_smoe_has_experts() -> None:
    macaron = gated_banks(LEARNED["conformer"](**encoder_options("conformer")))
    layers = ("feed_forward", "feed_forward_macaron")
    assert set(macaron) == {f"encoders.{n}.{layer}" for n in range(3) for layer in layers}
    some = LEARNED["conformer"](
        **encoder_options("conformer", macaron_experts=False, expert_blocks=[0, 2])
    )
    assert set(gated_banks(some)) == {"encoders.0.feed_forward", "encoders.2.feed_forward"}
    assert set(gated_banks(decoder(expert_blocks=[1]))) == {"decoders.1.feed_forward"}


def test_padding_changes_neither_an_encoders_choices_nor_its_loss() -> None:
    """No convolution before the blocks, whose edges would hear the padding."""
    encoder = randomize(
        LEARNED["transformer"](**encoder_options("transformer", input_layer="linear"))
    ).train()
    x, lengths = features(), torch.tensor([31, 12, 25, 19])
    found = []
    for garbage in (0.0, 7.0, -50.0):
        for row, length in enumerate(lengths.tolist()):
            x[row, length:] = garbage
        with record_gates(encoder) as record:
            y = encoder(x, lengths)[0]
        found.append((record.choices, balance_loss(encoder), y))
    choices, loss, y = found[0]
    assert {name: [len(c) for c in rows] for name, rows in choices.items()} == dict.fromkeys(
        gated_banks(encoder), lengths.tolist()
    )
    for others, other, output in found[1:]:
        assert other.item() == pytest.approx(loss.item(), abs=EXACT)
        for row, length in enumerate(lengths.tolist()):
            close(output[row, :length], y[row, :length], atol=EXACT)
            assert all(torch.equal(others[name][row], choices[name][row]) for name in choices)
    for row, length in enumerate(lengths.tolist()):  # each alone
        with record_gates(encoder) as record:
            encoder(x[row : row + 1, :length], lengths[row : row + 1])
        assert all(torch.equal(record.choices[name][0], choices[name][row]) for name in choices)


def test_padding_changes_neither_a_decoders_choices_nor_its_loss() -> None:
    learned = decoder().train()
    hs, hlens, tokens, lengths = inputs()
    found = []
    for filler in ("<eos>", "dog"):
        tokens[1, int(lengths[1]) :] = ID[filler]
        with record_gates(learned) as record:
            learned(hs, hlens, tokens, lengths)
        found.append((record.choices, balance_loss(learned)))
    choices, loss = found[0]
    assert all([len(c) for c in rows] == lengths.tolist() for rows in choices.values())
    for others, other in found[1:]:
        assert other.item() == pytest.approx(loss.item(), abs=EXACT)
        for name, rows in choices.items():
            assert all(map(torch.equal, rows, others[name]))
    with record_gates(learned) as record:
        learned(hs[1:, :4], hlens[1:], tokens[1:, : int(lengths[1])], lengths[1:])
    assert all(torch.equal(record.choices[name][0], rows[1]) for name, rows in choices.items())


@pytest.mark.parametrize("options", [{}, {"normalize_before": False}, {"concat_after": True}])
def test_equal_experts_equal_the_dense_decoder(options: dict[str, Any]) -> None:
    dense, learned = decoder(dense=True, **options), decoder(experts=3, **options)
    learned.load_state_dict(dense.state_dict(), strict=True)
    close(learned(*inputs())[0], dense(*inputs())[0], atol=2 * EXACT)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads, state = [], decoder().state_dict()
    for layers in ([], [1, 2]):
        learned = decoder(gradient_checkpoint_layers=layers, dropout_rate=0.2, gate_jitter=0.1)
        learned.load_state_dict(state)
        output = seeded(lambda learned=learned: learned.train()(*inputs())[0])
        loss = balance_loss(learned)
        learned.zero_grad(set_to_none=True)
        (output.square().mean() + 100 * loss).backward()
        grads.append({name: p.grad for name, p in learned.named_parameters()})
    for name, gradient in grads[0].items():
        assert (gradient is None) == (grads[1][name] is None), name
        if gradient is not None:
            close(grads[1][name], gradient)
    assert any(name.endswith("gate_weight") and g.any() for name, g in grads[0].items())


@pytest.fixture(scope="module")
def shared_model() -> Any:
    return smoe_model(**BOTH)


@pytest.fixture
def model(shared_model: Any) -> Any:
    shared_model.eval().zero_grad()
    return shared_model


def test_the_models_loss_has_the_balance_loss_in_training_only(model: Any) -> None:
    losses: dict[Any, Any] = {}
    for train in (False, True):  # training changes BatchNorm's statistics
        for weight in (0.0, 0.5):
            for bank in gated_banks(model).values():
                bank.balance_weight = weight
            loss, stats, _ = model.train(train)(**model_batch(TASKS, [0, 1, 1, 0]))
            losses[weight, train] = (loss.item(), stats)
            assert stats["loss"].item() == loss.item()
    plain, balanced = losses[0.0, True], losses[0.5, True]
    balance = balanced[1]["balance_loss"]
    assert balance.shape == (1,) and not balance.requires_grad
    assert 0.5 <= balance.item() <= 1.0  # 0.5 times 1 (even) to 2 (all to one)
    assert balanced[0] - plain[0] == pytest.approx(balance.item(), abs=1e-4)
    assert losses[0.0, False][0] == losses[0.5, False][0]
    assert "balance_loss" not in losses[0.5, False][1]


def test_the_keys_do_not_depend_on_the_batch(model: Any) -> None:
    orders = []
    for tasks, given in ((TASKS, [0, 1, 1, 0]), (["<st_eng>"] * 2, [1, 1]), (["<asr>"], [0])):
        _, stats, _ = model.train()(**model_batch(tasks, given))
        orders.append([key for key, value in stats.items() if value is not None])
    assert all(order == orders[0] for order in orders) and orders[0].count("balance_loss") == 1


def test_every_parameter_of_a_chosen_expert_and_every_gate_learns(model: Any) -> None:
    for bank in gated_banks(model).values():
        bank.balance_weight = 0.01
    model.train()(**model_batch(TASKS, [0, 1, 1, 0]))[0].sum().backward()
    for name, parameter in model.named_parameters():
        if ".experts." not in name:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert all(bank.gate_weight.grad.any() for bank in gated_banks(model).values())


def test_gates_are_recorded_per_utterance_of_a_whole_model(model: Any) -> None:
    data = model_batch(TASKS, [0, 1, 1, 0])
    with record_gates(model) as record, torch.no_grad():
        model(**data)
        _, frames = model.encode(data["speech"], data["speech_lengths"])
    encoder = record.choices["encoder.encoders.0.feed_forward_macaron"]
    assert [len(c) for c in encoder] == 2 * frames.tolist()
    assert all(map(torch.equal, encoder[:4], encoder[4:]))
    tokens = record.choices["decoder.decoders.0.feed_forward"]
    assert [len(c) for c in tokens] == [n + 1 for n in data["text_lengths"].tolist()]  # <sos>
    assert set(record.shares()) == set(gated_banks(model))


def test_parameters_are_smoes_and_a_gate_per_bank(model: Any) -> None:
    smoe = param_counts(smoe_model())
    gates = sum(bank.gate_weight.numel() for bank in gated_banks(model).values())
    counts = param_counts(model)
    assert counts.total == smoe.total + gates
    assert counts.active == {"learned": smoe.active["wb/asr"] + gates}
    mixed = smoe_model(encoder="learned_moe_conformer")
    assert list(param_counts(mixed).active) == ["learned/asr", "learned/st"]
    sides = inspect_model(model).sides
    assert [side.experts for side in sides] == [("e0", "e1")] * 2


def test_what_has_no_routes_has_none_to_export_or_to_ask_for(model: Any) -> None:
    with pytest.raises(ModelError, match=r"LearnedMoEConformerEncoder\) has experts that no tag"):
        every_route(model)
    with pytest.raises(ModelError, match="the model has experts; accepted are dense models"):
        check_exportable(model)
    with pytest.raises(ValueError, match="has no experts; accepted: None"):
        model.encode(speech()[None], torch.tensor([6000]), route=["wb"])


@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
@pytest.mark.parametrize("options", [{}, {"normalize_before": False, "gate_scale": "switch"}])
def test_the_batched_search_equals_espnets(options: dict[str, Any], ctc_weight: float) -> None:
    from espnet2.asr.ctc import CTC

    learned = decoder(**options)
    torch.manual_seed(6)
    ctc: Any = CTC(len(TOKENS), 8)
    ctc.behind_prompt = True
    with torch.no_grad():
        learned.output_layer.bias[EOS] += 1.0
    whole = SimpleNamespace(
        decoder=learned, ctc=ctc.eval(), token_list=TOKENS, sos=ID["<sos>"], eos=EOS
    )
    search_options = SearchOptions(beam_size=3, ctc_weight=ctc_weight, nbest=0)
    rows = memory([12, 9, 10, 14])
    search = BatchedBeamSearch(whole, search_options)
    found = search.search(*batch(rows), PROMPTS, TRANSCRIBES)
    for index, x in enumerate(rows):
        expected = stock_search(whole, search_options, x, PROMPTS[index], TRANSCRIBES[index])
        same(found[index], expected, f"utterance {index}")


def test_speech2text_equals_espnets(tmp_path: Path) -> None:
    directory = save_model(tmp_path, **BOTH)
    files = directory / "config.yaml", directory / "valid.acc.ave.pth"
    keywords = {"maxlenratio": MAXLEN, "lang_sym": "<spa>", "beam_size": 3}
    mine, theirs = Speech2Text(*files, **keywords), stock.Speech2Text(*files, **keywords)
    sounds = [speech(6000 + 1700 * n, seed=n) for n in range(3)]
    together = mine(sounds, task_sym="<st_eng>")
    for x, result in zip(sounds, together, strict=True):
        same_entries(mine(x, task_sym="<asr>"), theirs(x, task_sym="<asr>"))
        alone = theirs(x, task_sym="<st_eng>")
        assert (result.text, result.route) == (alone[0][3], "")


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantize": True}], ids=str)
def test_gates_keep_full_precision_in_prepared_models(options: dict[str, Any]) -> None:
    prepared = prepare(smoe_model(**BOTH), **options)
    with torch.no_grad():
        memory_BSD, _ = prepared.encode(speech()[None], torch.tensor([6000]))
    assert torch.isfinite(memory_BSD.float()).all()
    assert len(gated_banks(prepared)) == 5


def test_a_convolution_over_frames_raises() -> None:
    with pytest.raises(ValueError, match="feed_forward is a MultiLayeredConv1d"):
        LEARNED["conformer"](**encoder_options("conformer", positionwise_layer_type="conv1d"))
