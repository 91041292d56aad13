"""Dense models become S-MoE models whose every route computes what they did."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from saved_model import MAXLEN, STOCK, save_model
from tiny import FEATURES, TOKENS, close, speech

from espnet_smoe import Speech2Text
from espnet_smoe.cli import main
from espnet_smoe.pretrained import Pretrained, find_model, load
from espnet_smoe.upcycle import Upcycled, upcycle

EXACT = 1e-6  # largest absolute difference, float32
KINDS = ("conformer", "transformer", "e_branchformer")
TASKS = ("<asr>", "<st_eng>", "<st_deu>")
PROMPT = ["<sos>", "<spa>", "<asr>", "<notimestamps>", "hola", "casa", "big"]
NEW = {"<st_fra>": "<st_deu>"}


def dense_model(directory: Path, kind: str = "conformer", **options: Any) -> Path:
    """A dense model with random weights, of ESPnet's own classes, trained padded."""
    return save_model(directory, kind, encoder=kind, **{**STOCK, **options})


def outputs(loaded: Pretrained, task: str, bandwidth: str | None = None) -> list[torch.Tensor]:
    """Encoder output, decoder logits and CTC logits of two utterances."""
    model, tokens = loaded.model, loaded.args.token_list
    route = {} if bandwidth is None else {"route": [bandwidth] * 2}
    batch = torch.stack([speech(8000, seed=1), speech(8000, wide=False, seed=2)])
    ys = torch.tensor([[tokens.index(task if t == "<asr>" else t) for t in PROMPT]] * 2)
    with torch.no_grad():
        hidden, lengths = model.encode(batch, torch.tensor([8000, 8000]), **route)
        logits = model.decoder(hidden, lengths, ys, torch.tensor([len(PROMPT)] * 2))[0]
        return [hidden, logits, model.ctc.ctc_lo(hidden)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("upcycle")


@pytest.fixture(scope="module")
def padded(places: Path) -> tuple[Path, Upcycled]:
    """A dense conformer and what became of it."""
    dense = dense_model(places / "dense")
    return dense, upcycle(dense, places / "smoe")


@pytest.mark.parametrize("kind", KINDS)
def test_every_route_computes_what_the_dense_model_did(kind: str, tmp_path: Path) -> None:
    dense = load(find_model(dense_model(tmp_path / "dense", kind)))
    done = upcycle(tmp_path / "dense", tmp_path / "smoe")
    smoe = load(find_model(tmp_path / "smoe"))
    assert smoe.model.encoder.expert_names == ("wb", "nb")
    for bandwidth, task in itertools.product(("wb", "nb"), TASKS):
        expected = outputs(dense, task)
        for actual, value in zip(outputs(smoe, task, bandwidth), expected, strict=True):
            close(actual, value, EXACT)
    assert done.differences.keys() == {"wb/asr", "wb/st", "nb/asr", "nb/st"}
    assert max(d.absolute for d in done.differences.values()) <= EXACT
    values = sum(v.numel() for v in dense.model.state_dict().values())
    assert sum(share.dense_values for share in done.shares) == values
    values = sum(v.numel() for v in smoe.model.state_dict().values())
    assert sum(share.smoe_values for share in done.shares) == values


def test_one_side_may_stay_dense(places: Path, padded: Any, tmp_path: Path) -> None:
    (tmp_path / "smoe.yaml").write_text("decoder: smoe_transformer", encoding="utf-8")
    done = upcycle(padded[0], tmp_path / "smoe", config=tmp_path / "smoe.yaml")
    assert done.differences.keys() == {"asr", "st"}
    assert max(d.absolute for d in done.differences.values()) <= EXACT
    config = yaml.safe_load(done.files.config.read_text(encoding="utf-8"))
    assert (config["encoder"], config["decoder"]) == ("conformer", "smoe_transformer")


def test_ctc_is_left_out_where_the_yaml_says_so(padded: Any, tmp_path: Path) -> None:
    text = "{encoder: smoe_conformer, model_conf: {ctc_weight: 0.0}}"
    (tmp_path / "smoe.yaml").write_text(text, encoding="utf-8")
    done = upcycle(padded[0], tmp_path / "smoe", config=tmp_path / "smoe.yaml")
    assert (done.shares[-1].what, done.shares[-1].dense_tensors) == ("dropped", 2)
    assert done.differences.keys() == {"wb", "nb"}
    assert max(d.absolute for d in done.differences.values()) <= EXACT
    assert not [name for name in load(done.files).model.state_dict() if name.startswith("ctc.")]


def stock_texts(directory: Path, weights: str, routes: list[str | None]) -> Iterator[list[Any]]:
    """Texts of ESPnet's own class, padding and all, per route."""
    from espnet2.bin.s2t_inference import Speech2Text as Stock

    stock = Stock(directory / "config.yaml", directory / weights, maxlenratio=MAXLEN, beam_size=2)
    for route in routes:
        if route is not None:
            stock.s2t_model.route_override = route
        yield [
            stock(speech(6000, wide=wide, seed=seed), lang_sym="<spa>", task_sym=task)[0][:4]
            for (seed, wide), task in itertools.product(enumerate((True, False)), TASKS)
        ]


def test_a_model_trained_padded_keeps_its_texts_in_espnets_own_class(padded: Any) -> None:
    dense, done = padded
    (expected,) = stock_texts(dense, "valid.acc.ave.pth", [None])
    assert len({text for text, *_ in expected}) > 2
    directory = done.files.config.parent
    for texts in stock_texts(directory, "model.pth", ["wb", "nb"]):
        assert texts == expected
    config = yaml.safe_load(done.files.config.read_text(encoding="utf-8"))
    assert config["model_conf"]["trim_padding"] is False
    assert (
        config["model_conf"]["speech_length"] == config["preprocessor_conf"]["speech_length"] == 1
    )
    ours = Speech2Text.from_pretrained(directory, maxlenratio=MAXLEN, beam_size=2)
    assert ours.trained_padded
    assert [str(ours(speech(6000), bandwidth=b).text) for b in ("wb", "nb")] == [
        str(Speech2Text.from_pretrained(dense, maxlenratio=MAXLEN, beam_size=2)(speech(6000)).text)
    ] * 2


def test_options_of_the_dense_model_are_kept(tmp_path: Path) -> None:
    mine = {"ctc_weight": 0.25, "lsm_weight": 0.07, "length_normalized_loss": True}
    dense_model(tmp_path / "dense", "transformer", model_conf=mine)
    (tmp_path / "smoe.yaml").write_text(
        "{encoder: smoe_transformer, encoder_conf: {expert_blocks: [1], dropout_rate: 0.2}, "
        "model_conf: {lsm_weight: 0.0}, optim: sgd, max_epoch: 3}",
        encoding="utf-8",
    )
    done = upcycle(tmp_path / "dense", tmp_path / "smoe", config=tmp_path / "smoe.yaml")
    config = yaml.safe_load(done.files.config.read_text(encoding="utf-8"))
    assert config["model_conf"] == mine | {
        **{"lsm_weight": 0.0, "trim_padding": False, "speech_length": 1.0, "fs": 16000}
    }
    assert config["encoder_conf"]["dropout_rate"] == 0.2
    assert (config["optim"], config["max_epoch"]) == ("sgd", 3)
    replicated = next(share for share in done.shares if share.what == "replicated x2")
    assert replicated.dense_tensors == 4  # of one block


def test_a_dense_rung_of_this_package_keeps_its_padding_rule(tmp_path: Path) -> None:
    options = {"model": "smoe", "preprocessor": "smoe", "decoder": "transformer"}
    save_model(tmp_path / "dense", "transformer", encoder="transformer", **options)
    done = upcycle(tmp_path / "dense", tmp_path / "smoe")
    config = yaml.safe_load(done.files.config.read_text(encoding="utf-8"))
    assert config["model_conf"]["trim_padding"] is True
    texts = [
        str(Speech2Text.from_pretrained(tmp_path / name, maxlenratio=MAXLEN)(speech(8000)).text)
        for name in ("dense", "smoe")
    ]
    assert texts[0] == texts[1] != ""


def test_new_tokens_leave_the_logits_of_old_ones(padded: Any, tmp_path: Path) -> None:
    done = upcycle(padded[0], tmp_path / "smoe", new_tokens=NEW)
    dense, smoe = load(find_model(padded[0])), load(find_model(tmp_path / "smoe"))
    tokens = smoe.args.token_list
    old = [tokens.index(token) for token in TOKENS]
    new = tokens.index("<st_fra>")
    for bandwidth, (task, twin) in itertools.product(
        ("wb", "nb"), (("<asr>", "<asr>"), ("<st_deu>", "<st_deu>"), ("<st_fra>", "<st_deu>"))
    ):
        hidden, logits, ctc = outputs(smoe, task, bandwidth)
        expected = outputs(dense, twin)
        close(hidden, expected[0], EXACT)
        for actual, value in ((logits, expected[1]), (ctc, expected[2])):
            scale = float(value.abs().max())
            close(actual[..., old] / scale, value / scale, EXACT)
            assert torch.equal(actual[..., new], actual[..., tokens.index("<st_deu>")])
    lines = (tmp_path / "smoe/tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines == tokens == list(done.tokens.token_list)
    speech2text = Speech2Text.from_pretrained(tmp_path / "smoe", maxlenratio=MAXLEN)
    assert str(speech2text(speech(8000), task_sym="<st_fra>").text) == str(
        speech2text(speech(8000), task_sym="<st_deu>").text
    )


def test_the_command_prints_what_became_of_every_parameter(
    padded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["upcycle", "--model", str(padded[0]), "--out", str(tmp_path / "out")]
    assert main([*command, "--new_token", "<st_fra>=<st_eng>", "--safetensors"]) == 0
    out = capsys.readouterr().out
    for words in ("copied", "replicated x2", "new rows", "all"):
        assert any(line.strip("│ ").startswith(words) for line in out.splitlines()), words
    assert "route nb/st: largest difference from the dense model" in out
    assert f"new token <st_fra>: number {TOKENS.index('<sop>')}, initialised from <st_eng>" in out
    names = {"config.yaml", "model.pth", "model.safetensors", "tokens.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert f"--init_param {tmp_path / 'out/model.pth'}" in out


def write_data(directory: Path) -> list[str]:
    """A tiny training set with the new task; the options that name it."""
    directory.mkdir()
    texts = {
        "u1": "_ <spa> <st_fra> <notimestamps> hola",
        "u2": "_ <spa> <asr> <notimestamps> perro grande",
    }
    tables = {"text": texts, "text.ctc": dict.fromkeys(texts, "hola casa")}
    tables |= {"bandwidth": {"u1": "0", "u2": "1"}, "text.prev": dict.fromkeys(texts, "<na>")}
    tables["wav.scp"] = {utt: str(directory / f"{utt}.wav") for utt in texts}
    for utt, path in tables["wav.scp"].items():
        soundfile.write(path, speech(8000, wide=utt == "u1").numpy(), 16000)
    for name, table in tables.items():
        lines = "".join(f"{utt} {value}\n" for utt, value in table.items())
        (directory / name).write_text(lines, encoding="utf-8")
    (directory / "shape").write_text("u1 8000\nu2 8000\n", encoding="utf-8")
    options = []
    for part in ("train", "valid"):
        for entry in ("wav.scp,speech,sound", "text,text,text", "text.prev,text_prev,text"):
            options += [f"--{part}_data_path_and_name_and_type", f"{directory}/{entry}"]
        for entry in ("text.ctc,text_ctc,text", "bandwidth,bandwidth,text_int"):
            options += [f"--{part}_data_path_and_name_and_type", f"{directory}/{entry}"]
        options += [f"--{part}_shape_file", f"{directory}/shape"]
    return options


def test_training_goes_on_in_espnets_trainer(padded: Any, tmp_path: Path) -> None:
    """``--config`` takes the written config, ``--init_param`` the weights: all, so rate 0 keeps."""
    from espnet2.tasks.s2t import S2TTask

    config = {"encoder": "smoe_conformer", "use_tensorboard": False, "use_matplotlib": False}
    config |= {"decoder": "smoe_transformer", "num_workers": 0, "num_att_plot": 0}
    (tmp_path / "smoe.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    given = {"config": tmp_path / "smoe.yaml", "new_tokens": NEW}
    directory = upcycle(padded[0], tmp_path / "smoe", **given).files.config.parent
    options = ["--config", f"{directory}/config.yaml", "--init_param", f"{directory}/model.pth"]
    options += ["--output_dir", str(tmp_path / "exp"), "--max_epoch", "1", "--ngpu", "0"]
    options += ["--optim_conf", "lr=0.0", "--batch_type", "unsorted"]
    options += ["--batch_size", "2"]
    S2TTask.main(cmd=[*options, *write_data(tmp_path / "data")])
    before = torch.load(directory / "model.pth", weights_only=True)
    after = torch.load(tmp_path / "exp/1epoch.pth", weights_only=True)
    assert before.keys() == after.keys()
    for name, value in before.items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, after[name]), name
    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text(encoding="utf-8"))
    assert config["token_list"][config["token_list"].index("<sop>") - 1] == "<st_fra>"


def test_files_of_the_dense_model_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BPE model (with the new token) and statistics; from a packed model too."""
    from espnet2.main_funcs.pack_funcs import pack

    from espnet_smoe import bbpe

    monkeypatch.chdir(tmp_path)  # the config names its files relative to it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    symbols = bbpe.special_symbols(["spa"], ["asr", "st_eng"], time_symbols=False)
    size = bbpe.minimum_size(symbols)
    text = ["hola casa", "perro"] * 3
    model = bbpe.train(text, model_prefix="bpe", vocab_size=size, special_symbols=symbols)
    np.savez("stats.npz", count=2, sum=np.ones(FEATURES), sum_square=2 * np.ones(FEATURES))
    dense_model(
        Path("dense"),
        "transformer",
        **{"token_list": bbpe.token_list(model), "token_type": "bpe", "bpemodel": "bpe.model"},
        **{"normalize": "global_mvn", "normalize_conf": {"stats_file": "stats.npz"}},
        preprocessor_conf={"last_time_symbol": "<30.00>"},
    )
    files = {"s2t_model_file": "dense/valid.acc.ave.pth"}
    yaml_files = {"s2t_train_config": "dense/config.yaml"}
    pack(files=files, yaml_files=yaml_files, outpath="d.zip", option=["bpe.model", "stats.npz"])
    done = upcycle("./d.zip", "smoe", new_tokens={"<st_fra>": "<st_eng>"})
    names = {path.name for path in Path("smoe").iterdir()}
    assert names == {"config.yaml", "model.pth", "tokens.txt", "bpe.model", "feats_stats.npz"}
    written = bbpe.token_list("smoe/bpe.model")
    assert written == list(done.tokens.token_list)
    loaded, smoe = load(find_model("dense")), load(find_model("smoe"))
    close(smoe.model.normalize.std, loaded.model.normalize.std, 0.0)
    assert "<st_fra>" in smoe.tokenizer.text2tokens("<spa><st_fra><notimestamps> casa")
