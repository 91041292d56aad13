"""Decoding in bfloat16 and int8, and compiled: the hypotheses' scores against float32's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import ID, TOKENS, close, ids, randomize, smoe_model, speech, training_config

from espnet_smoe import token_scores
from espnet_smoe.beam_search import BatchedBeamSearch, SearchOptions
from espnet_smoe.experts import ExpertFeedForward
from espnet_smoe.precision import prepare
from espnet_smoe.token_scores import QuantizedOutput, top_tokens

PROMPTS = [ids("<sos>", "<spa>", task, "<notimestamps>") for task in ("<asr>", "<st_eng>")]
LONGEST = 5
NATS_PER_TOKEN = 0.05  # by which a token's log-probability may differ from float32's
CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": True},
    "float16 weights": {"quantize": True, "quantize_dtype": "float16"},
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One model per encoder."""
    return {kind: smoe_model(kind) for kind in ("conformer", "transformer", "e_branchformer")}


@torch.inference_mode()
def encode(model: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.stack([speech(seed=row, wide=row == 0) for row in range(2)])
    memory, lengths = model.encode(speech=x, speech_lengths=torch.tensor([6000, 5000]), **options)
    return memory, lengths


def decode(model: Any, **options: Any) -> list[Any]:
    search = BatchedBeamSearch(model, SearchOptions(beam_size=3, maxlenratio=-LONGEST, **options))
    found = search.search(*encode(model), PROMPTS, [True, False])
    return [hypotheses[0] for hypotheses in found]


@torch.inference_mode()
def float32_score(model: Any, tokens: list[int], row: int) -> float:
    """The decoder's log-probability of a hypothesis, by ESPnet's own forward."""
    memory, lengths = encode(model)
    logits, _ = model.decoder(
        memory[row : row + 1],
        lengths[row : row + 1],
        torch.tensor([tokens[:-1]]),
        torch.tensor([len(tokens) - 1]),
    )
    start = len(PROMPTS[row])
    logp = logits[0].log_softmax(-1)[start - 1 :]
    each = logp.gather(1, torch.tensor(tokens[start:])[:, None])[:, 0]
    return float(each[:LONGEST].sum())  # at the greatest length <eos> follows without a score


def close_to_float32(model: Any, reference: Any, **options: Any) -> None:
    for row, best in enumerate(decode(model, **options)):
        expected = float32_score(reference, best.tokens, row)
        written = len(best.tokens) - len(PROMPTS[row])
        assert abs(best.scores["decoder"] - expected) < NATS_PER_TOKEN * written


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_scores_are_close_to_those_of_float32(
    models: dict[str, Any], kind: str, case: str, ctc_weight: float
) -> None:
    model = prepare(copy.deepcopy(models[kind]), **CASES[case])
    close_to_float32(model, models[kind], ctc_weight=ctc_weight)


@pytest.mark.parametrize("case", CASES)
def test_espnets_own_model_decodes_too(case: str) -> None:
    dense = espnet_model()
    close_to_float32(prepare(copy.deepcopy(dense), **CASES[case]), dense, ctc_weight=0.3)


def espnet_model() -> Any:
    """A tiny ``model: espnet`` of dense parts."""
    from espnet2.tasks.s2t import S2TTask

    args = S2TTask.get_parser().parse_args([])
    config = training_config(encoder="conformer", decoder="transformer", model="espnet")
    config["model_conf"] = {"ctc_weight": 0.3}
    for name, value in config.items():
        setattr(args, name, value)
    torch.manual_seed(3)
    return randomize(S2TTask.build_model(args), 0.1).eval()


def test_a_compiled_encoder_gives_what_it_gave(models: dict[str, Any]) -> None:
    """By the `eager` backend: tracing, guards and routes are those of the default one."""
    plain = models["transformer"]
    compiled = prepare(copy.deepcopy(plain), compile=True, backend="eager")
    for routes in (["wb", "wb"], ["nb", "wb"], [{"nb": 0.4, "wb": 0.6}, "nb"]):
        close(encode(compiled, route=routes)[0], encode(plain, route=routes)[0])
    assert [h.tokens for h in decode(compiled)] == [h.tokens for h in decode(plain)]


def test_a_compiler_that_fails_is_no_secret(models: dict[str, Any]) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("no compiler here")

    message = r"torch.compile of the encoder failed .*no compiler here.*needs a C\+\+ compiler"
    with pytest.raises(RuntimeError, match=message):
        prepare(copy.deepcopy(models["transformer"]), compile=True, backend=broken)


def test_experts_are_quantized_and_the_ctc_layer_is_not(models: dict[str, Any]) -> None:
    model = prepare(copy.deepcopy(models["conformer"]), quantize=True)
    banks = [m for m in model.modules() if isinstance(m, ExpertFeedForward)]
    assert len(banks) == 5
    for bank in banks:
        for expert in bank.experts.values():
            kinds = {type(layer) for layer in (expert.w_1, expert.w_2)}
            assert kinds == {torch.ao.nn.quantized.dynamic.Linear}
            assert expert.w_1.weight().dtype == torch.qint8
    left = [name for name, m in model.named_modules() if type(m) is torch.nn.Linear]
    assert left == ["ctc.ctc_lo"]
    assert isinstance(model.decoder.output_layer, QuantizedOutput)


def test_features_are_computed_in_float32(models: dict[str, Any]) -> None:
    plain = models["conformer"]
    model = prepare(copy.deepcopy(plain), dtype="bfloat16")
    x, lengths = speech()[None], torch.tensor([6000])
    assert torch.equal(model._extract_feats(x, lengths)[0], plain._extract_feats(x, lengths)[0])
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.decoder.parameters()} == {torch.bfloat16}
    assert encode(model)[0].dtype == torch.bfloat16


def coarse_layers() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, len(TOKENS))
    with torch.no_grad():
        layer.weight.mul_(4.0)
    return {"bfloat16": copy.deepcopy(layer).bfloat16(), "int8": QuantizedOutput(layer)}


@pytest.mark.parametrize("width", [9, 100])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_candidates_of_a_coarse_layer_are_scored_in_float32(
    kind: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_scores, "SLICE", width)
    layer: Any = coarse_layers()[kind]
    x = (torch.randn(40, 16) * 2).to(layer.weight.dtype)
    with torch.no_grad():
        logits = x.float() @ layer.weight.float().T + layer.bias.float()
        logp = logits.log_softmax(-1)
        best, tokens, eos = top_tokens(layer, x, 3, eos=ID["<eos>"])
        rounded = layer(x).float().log_softmax(-1)
    close(best, logp.topk(3)[0], atol=0.02)
    assert torch.equal(tokens, logp.topk(3)[1])
    close(eos, logp[:, ID["<eos>"]], atol=0.02)
    error = (best - logp.gather(1, tokens)).abs().mean()
    assert error < 0.5 * (rounded - logp).gather(1, tokens).abs().mean()


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_coarse_layer_leaves_forbidden_tokens_out(kind: str) -> None:
    layer: Any = coarse_layers()[kind]
    x = torch.randn(6, 16).to(layer.weight.dtype)
    forbidden = [i for i in range(len(TOKENS)) if i not in (3, 7, 12)]

    def forbid(score_NW: torch.Tensor, start: int) -> None:
        assert start == 0
        score_NW[:, forbidden] = -torch.inf

    with torch.no_grad():
        best, tokens, eos = top_tokens(layer, x, 5, eos=ID["<eos>"], forbid=forbid)
        logp = (x.float() @ layer.weight.float().T + layer.bias.float()).log_softmax(-1)
    assert (best[:, 3:] == -torch.inf).all() and (eos == -torch.inf).all()
    assert {int(token) for token in tokens[:, :3].flatten()} == {3, 7, 12}
    close(best[:, :3], logp.gather(1, tokens[:, :3]), atol=0.02)


def test_float32_is_the_model_as_it_was(models: dict[str, Any]) -> None:
    model = copy.deepcopy(models["conformer"])
    assert prepare(model) is model
    assert torch.equal(encode(model)[0], encode(models["conformer"])[0])
    prepare(model, dtype="bfloat16")  # not prepared before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype 'float64'; accepted: float32, bfloat16, float16"),
        ({"dtype": "float16"}, "dtype 'float16' on a CPU .*accepted there: float32, bfloat16"),
        ({"quantize_dtype": "quint8"}, "quantize_dtype 'quint8'; accepted: qint8, float16"),
        ({"quantize_modules": ["Conv2d"]}, "quantize_modules 'Conv2d'; accepted: Linear, "),
        ({"quantize_modules": "Linear"}, "quantize_modules is 'Linear'; accepted: a list of names"),
        ({"quantize": True, "dtype": "bfloat16"}, "quantize with dtype 'bfloat16'; accepted"),
    ],
)
def test_bad_values_raise(models: dict[str, Any], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(models["conformer"], **options)


def test_a_model_in_training_or_prepared_raises(models: dict[str, Any]) -> None:
    model = copy.deepcopy(models["transformer"])
    with pytest.raises(ValueError, match="in training mode"):
        prepare(model.train())
    prepare(model.eval(), dtype="bfloat16")
    with pytest.raises(ValueError, match="prepared already"):
        prepare(model, quantize=True)
