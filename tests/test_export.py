"""Routes of S-MoE models as stock ESPnet models: the same numbers, without this package."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from saved_model import MAXLEN, save_model
from tiny import FEATURES, SIZES, TOKENS, close, ids, speech, training_config

from espnet_smoe import Speech2Text
from espnet_smoe.dense_routes import Experts, every_route, expert_names
from espnet_smoe.export import Exporter, encoded
from espnet_smoe.pretrained import Pretrained, find_model, load
from espnet_smoe.stock_config import no_padding

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import stock_process  # isort: skip

BEAM = 2
X = speech(9000, wide=False, seed=4)
YS = torch.tensor(
    [
        ids("<sos>", "<spa>", task, "<notimestamps>", *words)
        for task in ("<asr>", "<st_eng>", "<st_deu>")
        for words in (("hola", "casa"), ("dog", "big"))
    ]
)
SERVED = {"asr": ["<asr>"], "st": ["<st_eng>", "<st_deu>"]}
DENSE = {"model": "espnet", "preprocessor": "s2t", "decoder": "transformer"}
STATISTICS = Path(tempfile.mkdtemp()) / "stats.npz"
np.savez(
    STATISTICS,
    count=4,
    sum=np.linspace(-20.0, -10.0, FEATURES),
    sum_square=np.linspace(150.0, 200.0, FEATURES),
)
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in SIZES},
    "statistics": (
        "transformer",
        {"normalize": "global_mvn", "normalize_conf": {"stats_file": str(STATISTICS)}},
    ),
    "decoder only": ("conformer", {"encoder": "conformer"}),
    "encoder only": ("transformer", {"decoder": "transformer"}),
    "private tokens": (
        "transformer",
        {"model_conf": {"private_tokens": {"<st_deu>": ["st"], "house": ["st"], "perro": ["asr"]}}},
    ),
    "some blocks": (
        "conformer",
        {"encoder_conf": {"expert_blocks": [1], "macaron_experts": False}},
    ),
}


@functools.cache
def smoe(case: str) -> Pretrained:
    kind, options = SIDES[case]
    return load(find_model(save_model(Path(tempfile.mkdtemp()) / "smoe", kind, **options)))


def rows_of(experts: Experts) -> torch.Tensor:
    """The prefixes that a route serves."""
    tasks = [t for t in ("<asr>", "<st_eng>", "<st_deu>") if t in SERVED.get(experts.decoder, [t])]
    return torch.stack([y for y in YS if TOKENS[y[2]] in tasks])


@functools.cache
def answers() -> dict[tuple[str, str], dict[str, Any]]:
    """What stock ESPnet computes with every route of every model, without this package."""
    directory = Path(tempfile.mkdtemp())
    names, requests = [], []
    for case in SIDES:
        exporter = Exporter(smoe(case))
        for experts in every_route(smoe(case).model):
            out = exporter.write(experts, directory / case / experts.name)
            ys = rows_of(experts)
            names.append((case, experts.name))
            options = {"beam_size": BEAM, "maxlenratio": MAXLEN, "lang_sym": "<spa>"}
            tasks = sorted({TOKENS[y[2]] for y in ys})
            requests.append(
                {
                    **{"config": str(out / "config.yaml"), "weights": str(out / "model.pth")},
                    **{"speech": [X], "ys": ys},
                    "decode": [{**options, "task_sym": task} for task in tasks],
                }
            )
    found = stock_process.ask(requests)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("case", sorted(SIDES))
@torch.inference_mode()
def test_each_route_computes_the_same_in_stock_espnet(case: str) -> None:
    model = smoe(case).model
    outputs = []
    for experts in every_route(model):
        answer = answers()[case, experts.name]
        batch = {"speech": X[None], "speech_lengths": torch.tensor([len(X)])}
        memory = encoded(model, experts, batch)
        ys = rows_of(experts)
        scores, _ = model.decoder.batch_score(
            ys, [None] * len(ys), memory.expand(len(ys), *memory.shape[1:])
        )
        close(answer["memory"][0], memory, atol=1e-6)
        close(answer["scores"][0], scores, atol=1e-6)
        assert "SMoE" not in "".join(answer["classes"])
        outputs.append((experts.encoder, memory))
    for expert, memory in outputs:  # experts differ, so a wrong one would show
        assert all(torch.equal(memory, m) == (expert == e) for e, m in outputs)


@pytest.mark.parametrize("case", sorted(SIDES))
def test_a_route_has_the_parameters_of_the_dense_model(case: str) -> None:
    from espnet2.tasks.s2t import S2TTask

    kind, _ = SIDES[case]
    config = training_config(kind, encoder=kind, **DENSE)
    config["model_conf"] = {"ctc_weight": 0.3, "lsm_weight": 0.1}
    args = argparse.Namespace(**{**vars(S2TTask.get_parser().parse_args([])), **config})
    expected = sum(p.numel() for p in S2TTask.build_model(args).parameters())
    found = {answer["parameters"] for (name, _), answer in answers().items() if name == case}
    assert found == {expected}


def test_stock_speech2text_writes_the_routes_tokens() -> None:
    """Padding and all: what it pads, the S-MoE model drops; an exported route is not padded."""
    from espnet2.bin.s2t_inference import Speech2Text as Stock

    files = smoe("conformer").files
    stock = Stock(files.config, files.weights, beam_size=BEAM, maxlenratio=MAXLEN, lang_sym="<spa>")
    for experts in every_route(smoe("conformer").model):
        stock.s2t_model.route_override = experts.encoder
        tasks = sorted(SERVED[str(experts.decoder)])
        expected = [stock(X[:-1], task_sym=task)[0][2] for task in tasks]
        decoded = answers()["conformer", experts.name]["decoded"]
        assert [tokens for ((tokens, _),) in decoded] == expected


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_no_padding_cuts_one_sample(rate: int) -> None:
    assert int(rate * no_padding(rate)) == int(no_padding(rate) * rate) == -1


def test_padding_is_kept_for_a_model_that_computes_with_it(tmp_path: Path) -> None:
    options = {"model_conf": {"trim_padding": False}}
    loaded = load(find_model(save_model(tmp_path / "smoe", "transformer", **options)))
    exporter = Exporter(loaded)
    assert exporter.config["preprocessor_conf"]["speech_length"] == 1.0
    assert "pads or cuts to 1 s, as in training" in exporter.padding
    assert Exporter(loaded, speech_length=-3.0).speech_length == no_padding(16000)
    trimming = Exporter(smoe("transformer"))
    assert trimming.speech_length == no_padding(16000)
    assert "trained on unpadded audio, and zeros up to 1 s" in trimming.padding
    chosen = Exporter(smoe("transformer"), speech_length=2.0)
    assert chosen.speech_length == 2.0
    assert "cuts to 2 s, but the model was trained on unpadded" in chosen.padding


def test_the_config_names_only_what_stock_espnet_has(tmp_path: Path) -> None:
    options = {
        "preprocessor_conf": {"pad_prob": 0.1, "narrowband_prob": 0.5, "speech_resolution": 0.04},
        "model_conf": {"route_floor": 0.1, "fs": 16000},
        "decoder_conf": {"default_expert": "asr", "expert_blocks": [0]},
        "iterator_type": "task",
    }
    loaded = load(find_model(save_model(tmp_path / "smoe", **options)))
    out = Exporter(loaded).write(Experts("nb", "st"), tmp_path / "out")
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    parts = ("encoder", "decoder", "model", "preprocessor")
    assert [config[part] for part in parts] == ["conformer", "transformer", "espnet", "s2t"]
    own = {"experts", "expert_blocks", "macaron_experts", "default_expert", "trim_padding"}
    own |= {"route_floor", "pad_prob", "narrowband_prob"}
    assert not own & {key for part in parts for key in config[f"{part}_conf"]}
    assert config["preprocessor_conf"]["speech_resolution"] == 0.04
    assert config["preprocessor_conf"]["last_time_symbol"] == TOKENS[TOKENS.index("_") - 1]
    assert config["model_conf"]["ctc_weight"] == 0.3
    assert "iterator_type" not in config


def test_our_speech2text_reads_an_exported_route(tmp_path: Path) -> None:
    out = Exporter(smoe("conformer")).write(Experts("nb", "asr"), tmp_path / "out", safe=True)
    assert {p.name for p in out.iterdir()} == {
        *("config.yaml", "model.pth", "model.safetensors", "README.md")
    }
    exported = Speech2Text.from_pretrained(out, maxlenratio=MAXLEN)
    whole = Speech2Text.from_pretrained(smoe("conformer").files.config.parent, maxlenratio=MAXLEN)
    assert exported(X).text == whole(X, bandwidth="nb").text
    assert exported(X).score == pytest.approx(whole(X, bandwidth="nb").score, abs=1e-4)


def test_a_packed_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Exporter(smoe("conformer")).write(Experts("wb", "st"), tmp_path / "m.zip")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = load(find_model(archive))
    notes = packed.files.config.with_name("README.md").read_text(encoding="utf-8")
    assert "expert is `st`. Its prompts have `<st_eng>`, `<st_deu>`" in notes
    assert "trained on unpadded audio" in notes and "ctc_weight 0" in notes
    exporter = Exporter(smoe("conformer"))
    weights = exporter.weights(Experts("wb", "st"))
    assert packed.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(packed.model.state_dict()[k], v) for k, v in weights.items())
    for path in packed.files.config.parent.rglob("*.yaml"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_notes_are_silent_on_what_a_model_has_not(tmp_path: Path) -> None:
    options = {"encoder": "conformer", "model_conf": {"ctc_weight": 0.0}}
    loaded = load(find_model(save_model(tmp_path / "smoe", **options)))
    assert expert_names(loaded.model) == ((), ("asr", "st"))
    notes = Exporter(loaded).notes(Experts(None, "asr"))
    assert "encoder's expert" not in notes and "CTC" not in notes
    assert notes.startswith("# asr: one route")
