"""Add an expert to a trained model: nothing old changes, by ESPnet's own trainer too."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import espnet2.bin.s2t_inference as stock
import numpy as np
import pytest
import soundfile
import torch
import yaml
from saved_model import MAXLEN, model_directory, save_model
from tiny import FS, TOKENS, WORDS, close, ids, speech

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.batching import PLAN_NAME, Batch, write_plan
from espnet_smoe.checkpoints import ModelError, read_weights
from espnet_smoe.cli import main
from espnet_smoe.datadir import write_table
from espnet_smoe.extend import DECODER, ENCODER, NewExpert, extend
from espnet_smoe.pretrained import Pretrained, find_model, load
from espnet_smoe.private_tokens import HIDDEN
from espnet_smoe.sameness import Sameness, compare

FRA = NewExpert(DECODER, "fra", "st", ("<st_fra>",), {"<st_fra>": "<st_eng>"}, True)
FAR = NewExpert(ENCODER, "far", "wb")
AUDIO = [(f"u{n}", speech(6000 + 900 * n, wide=n % 2 == 0, seed=n).numpy()) for n in range(3)]


@functools.cache
def extended(expert: str = "fra") -> Path:
    """The tiny model with one expert more, not trained yet."""
    out = Path(tempfile.mkdtemp()) / "new"
    extend(model_directory(), out, {"fra": FRA, "far": FAR}[expert])
    return out


def opened(directory: Path, model_file: str | None = None) -> Pretrained:
    return load(find_model(directory, model_file=model_file))


def config_of(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    return config


def compared(new: Pretrained) -> Sameness:
    return compare(opened(model_directory()), new, AUDIO, beam_size=2)


def test_the_config_names_the_new_expert_and_narrows_the_old_patterns() -> None:
    config = config_of(extended())
    assert config["decoder_conf"]["experts"] == {
        "asr": ["<asr>"],
        "st": ["<st_eng>", "<st_deu>"],  # was <st_*>, which would match the new token
        "fra": ["<st_fra>"],
    }
    assert config["token_list"] == [*TOKENS[:-3], "<st_fra>", *TOKENS[-3:]]
    assert config["model_conf"]["private_tokens"] == {"<st_fra>": ["fra"]}
    assert config["model_conf"]["train_only"] == ["decoder.*.experts.fra.*"]
    assert config["model_conf"]["train_rows"] == ["<st_fra>"]
    assert config["keep_nbest_models"] == 1
    model = opened(extended()).model  # to use it, nothing needs to be frozen
    assert all(p.requires_grad for p in model.parameters())


def test_old_weights_are_the_same_and_new_ones_copies() -> None:
    old = read_weights(model_directory() / "valid.acc.ave.pth")
    new = read_weights(extended() / "model.pth")
    place = len(TOKENS) - 3
    kept = [i for i in range(len(TOKENS) + 1) if i != place]
    for name, value in old.items():
        has_new_row = value.dim() > 0 and len(new[name]) > len(value)
        assert torch.equal(new[name][kept] if has_new_row else new[name], value), name
        if ".experts.st." in name:
            copied = new[name.replace(".experts.st.", ".experts.fra.")]
            assert torch.equal(copied, value)
    assert new["ctc.ctc_lo.bias"][place] == HIDDEN and not new["ctc.ctc_lo.weight"][place].any()
    row = old["decoder.embed.0.weight"][ids("<st_eng>")[0]]
    assert torch.equal(new["decoder.embed.0.weight"][place], row)


def test_old_routes_say_what_they_said() -> None:
    found = compared(opened(extended()))
    assert found.routes == [f"{b}/{t}" for b in ("wb", "nb") for t in ("asr", "st_eng", "st_deu")]
    texts = {kind: tally for kind, tally in found.tallies.items() if kind.startswith("text")}
    assert [(t.same, t.total) for t in texts.values()] == [(18, 18), (6, 6)]
    assert [found.tallies[kind].same for kind in ("encoder output", "CTC scores")] == [6, 6]
    assert found.tallies["CTC log-probabilities"].same == 6
    assert found.tallies["decoder log-probabilities"].same == 18
    assert max(tally.largest for tally in found.tallies.values()) < 1e-5
    files = [(d / "config.yaml", w) for d, w in (
        (model_directory(), model_directory() / "valid.acc.ave.pth"),
        (extended(), extended() / "model.pth"),
    )]  # fmt: skip
    for x in (x for _, x in AUDIO):
        old, new = (
            stock.Speech2Text(*pair, maxlenratio=MAXLEN, lang_sym="<spa>", task_sym="<st_deu>")(x)
            for pair in files
        )
        assert old[0][0] == new[0][0]


@torch.no_grad()
def test_the_new_expert_starts_as_its_source() -> None:
    model = opened(extended()).model
    token = {t: i for i, t in enumerate(model.token_list)}
    memory, lengths = model.encode(
        torch.from_numpy(AUDIO[0][1])[None], torch.tensor([6000]), route=["wb"]
    )
    scores = []
    for task in ("<st_eng>", "<st_fra>"):
        text = [token[t] for t in ("<sos>", "<spa>", task, "<notimestamps>", "hola")]
        scores.append(model.decoder(memory, lengths, torch.tensor([text]), torch.tensor([5]))[0])
    old = [i for t, i in token.items() if t != "<st_fra>"]
    close(scores[1][..., old], scores[0][..., old])
    assert Speech2Text.from_pretrained(extended(), maxlenratio=MAXLEN)(
        AUDIO[0][1], tasks="st_fra"
    ).text


class Data:
    """A tiny data directory of one task."""

    def __init__(self, path: Path, task: str, bandwidth: int) -> None:
        path.mkdir(parents=True)
        self.path, utts = path, [f"u{n}" for n in range(4)]
        for n, utt in enumerate(utts):
            x = speech(5000 + 320 * n, wide=n % 2 == 0, seed=n).numpy()
            soundfile.write(path / f"{utt}.wav", x, FS, subtype="FLOAT")
        texts = {utt: " ".join(WORDS[n : n + 3]) for n, utt in enumerate(utts)}
        write_table(path / "wav.scp", {utt: path / f"{utt}.wav" for utt in utts})
        prompt = f"_ <spa> {task} <notimestamps>"
        write_table(path / "text", {utt: f"{prompt} {text}" for utt, text in texts.items()})
        write_table(path / "text.prev", dict.fromkeys(utts, "<na>"))
        write_table(path / "text.ctc", texts)
        write_table(path / "bandwidth", dict.fromkeys(utts, bandwidth))
        batches = [Batch(task, 12000, tuple(utts[i : i + 2])) for i in (0, 2)]
        write_plan(path / PLAN_NAME, batches)

    def options(self) -> list[str]:
        kinds = [("wav.scp", "speech", "sound"), ("bandwidth", "bandwidth", "text_int")]
        names = [("text", "text"), ("text.prev", "text_prev"), ("text.ctc", "text_ctc")]
        kinds += [(file, name, "text") for file, name in names]
        return [
            word
            for part in ("train", "valid")
            for file, name, kind in kinds
            for word in (
                f"--{part}_data_path_and_name_and_type", f"{self.path / file},{name},{kind}"
            )
        ]  # fmt: skip


def train(model: Path, data: Data, out: Path, *, epochs: int = 2) -> Path:
    """ESPnet's own training program, a few updates of AdamW with weight decay and dropout."""
    from espnet2.tasks.s2t import S2TTask

    config = config_of(model) | {
        "init_param": [str(model / "model.pth")],
        "optim": "adamw", "optim_conf": {"lr": 0.01, "weight_decay": 0.5}, "ngpu": 0,
        "max_epoch": epochs, "num_iters_per_epoch": 2, "iterator_type": "task",
        "best_model_criterion": [["valid", "acc", "max"]], "use_tensorboard": False,
        "use_matplotlib": False, "num_att_plot": 0, "num_workers": 0, "resume": True,
        "output_dir": str(out), "use_preprocessor": True,
    }  # fmt: skip
    for part in ("encoder_conf", "decoder_conf"):
        config[part]["dropout_rate"] = 0.1
    path = data.path / "train.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    S2TTask.main(cmd=["--config", str(path), *data.options()])
    return out


@pytest.mark.parametrize("expert", ["fra", "far"])
def test_espnets_trainer_changes_the_new_expert_alone(expert: str, tmp_path: Path) -> None:
    task, bandwidth = ("<st_fra>", 0) if expert == "fra" else ("<asr>", 2)
    data = Data(tmp_path / "data", task, bandwidth)
    start = extended(expert)
    out = train(start, data, tmp_path / "exp")
    train(start, data, tmp_path / "exp", epochs=3)  # resumed
    before = read_weights(start / "model.pth")
    for name in ("1epoch.pth", "3epoch.pth", "valid.acc.ave.pth"):
        if not (out / name).exists():  # ESPnet keeps the best and the last
            continue
        after = read_weights(out / name)
        assert after.keys() == before.keys()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert {key for key in before if f".experts.{expert}." in key} <= moved
        for key in (key for key in moved if f".experts.{expert}." not in key):
            same = [torch.equal(a, b) for a, b in zip(before[key], after[key], strict=True)]
            assert expert == "fra" and [i for i, s in enumerate(same) if not s] == [
                len(TOKENS) - 3
            ], key
    assert (out / "3epoch.pth").exists() and (out / "valid.acc.ave.pth").exists()
    same = compare(opened(start), opened(out, "3epoch.pth"), AUDIO, beam_size=2)
    old_tasks = [r for r in same.routes if "fra" not in r and "far" not in r]
    assert len(old_tasks) == 6
    assert not [line for line in same.different if "fra" not in line and "far" not in line]
    assert same.different  # the new route does differ
    trained = out / "config.yaml", out / "3epoch.pth"
    theirs, mine = (c(*trained, maxlenratio=MAXLEN) for c in (stock.Speech2Text, Speech2Text))
    for task_sym in ("<asr>", task):
        words = {"lang_sym": "<spa>", "task_sym": task_sym}
        assert theirs(AUDIO[0][1], **words)[0][0] == mine(AUDIO[0][1], **words)[0][0]


def test_data_and_calls_reach_a_channels_expert() -> None:
    config = config_of(extended("far"))
    assert config["encoder_conf"]["experts"] == ["wb", "nb", "far"]
    assert config["model_conf"]["channels"] == ["far"]
    new = opened(extended("far"))
    assert compared(new).all_same
    x = torch.from_numpy(AUDIO[0][1])[None]
    tag = torch.tensor([[2]])
    assert new.model.encoder_route(x, torch.tensor([6000]), tag) == ("far",)
    s2t = Speech2Text.from_pretrained(extended("far"), maxlenratio=MAXLEN)
    result = s2t(Speech(AUDIO[0][1], bandwidth="far"))
    assert result.route.startswith("far")
    assert result.text == s2t(AUDIO[0][1], bandwidth="wb").text  # a copy, as yet
    with pytest.raises(ValueError, match="bandwidth is 'near'; accepted: auto, wb, nb, far"):
        s2t(Speech(AUDIO[0][1], bandwidth="near"))


def test_a_second_expert_neither_writes_nor_disturbs_the_first_ones_token(tmp_path: Path) -> None:
    expert = NewExpert(DECODER, "ita", "fra", ("<st_ita>", "<ita_*>"), {"<st_ita>": "<st_fra>"})
    extend(extended(), tmp_path / "m", expert, safe=True)
    assert (tmp_path / "m/model.safetensors").exists()
    new = opened(tmp_path / "m")
    fra, ita = (new.model.token_list.index(t) for t in ("<st_fra>", "<st_ita>"))
    hidden = new.model.decoder.output_layer.hidden
    assert hidden == {"asr": (fra, ita), "st": (fra, ita), "fra": (ita,), "ita": (fra,)}
    found = compare(opened(extended()), new, AUDIO[:1], beam_size=2)
    assert not [line for line in found.different if "text" in line]
    assert "train_rows" not in config_of(tmp_path / "m")["model_conf"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "st"}, "has an expert 'st' already \\(its experts: asr, st\\)"),
        ({"name": "a b"}, "'a b' is no expert name"),
        ({"source": "xx"}, "no expert 'xx' to copy; accepted: asr, st"),
        ({"patterns": ("<st_*>",)}, "match <st_eng>, <st_deu>, which expert 'st' serves"),
        ({"patterns": ("<nothing>",)}, "'<nothing>' match no token"),
        ({"patterns": ()}, r"decoder_conf.experts.fra is \[\]"),
        ({"new_tokens": {"<asr>": "<asr>"}}, "'<asr>' is in the token list already"),
        ({"new_tokens": {}}, "train_embedding trains the rows of new tokens"),
        ({"side": ENCODER, "source": "wb"}, "patterns of an encoder's expert"),
        ({"side": ENCODER, "source": "wb", "patterns": ()}, "new_tokens of an encoder's expert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_cannot_be_added_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        extend(model_directory(), tmp_path / "new", NewExpert(**{**vars(FRA), **changes}))
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten_and_a_dense_side_is_named(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").touch()
    with pytest.raises(ModelError, match="exists and holds something"):
        extend(model_directory(), tmp_path / "new", FRA)
    dense = save_model(tmp_path / "dense", decoder="transformer")
    with pytest.raises(ModelError, match=r"decoder \(TransformerDecoder\) has no experts"):
        extend(dense, tmp_path / "other", FRA)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, new, wav = str(model_directory()), str(tmp_path / "new"), str(tmp_path / "a.wav")
    soundfile.write(wav, np.asarray(AUDIO[0][1]), FS, subtype="FLOAT")
    command = ["extend", "--model", model, "--out", new, "--from", "st"]
    assert main([*command, "--decoder_expert", "fra"]) == 1
    assert "accepted is 'name=<token>'" in capsys.readouterr().err
    token = ["--new_token", "<st_fra>=<st_eng>", "--train_embedding"]
    assert main([*command, "--decoder_expert", "fra=<st_fra>,<fra_*>", *token]) == 0
    assert f"--init_param {new}/model.pth" in capsys.readouterr().out
    assert main(["same", model, model, wav]) == 0
    out = capsys.readouterr().out
    assert "encoder output: 2 of 2 identical" in out and "text, CTC weight 0.3: 2 of 2" in out
    other = save_model(tmp_path / "other", model_conf={"ctc_weight": 0.3})
    weights = read_weights(other / "valid.acc.ave.pth")
    weights["decoder.output_layer.bias"][ids("casa")] += 1.0
    torch.save(weights, other / "valid.acc.ave.pth")
    assert main(["same", model, str(other), wav]) == 1
    assert "not the same:" in (error := capsys.readouterr().err) and "decoder scores" in error
