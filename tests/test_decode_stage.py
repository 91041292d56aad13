"""Stage 12 in one process: every task of every test set once, going on after a kill."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from fake_speech2text import FakeSpeech2Text, install
from stage_data import TEST_UTTS, edit, make_raw, make_s2t, run_main

from espnet_smoe.datadir import DataError, read_table, write_table
from espnet_smoe.journal import Journal

import decode  # isort: skip  (stage_data puts the recipe's local/ on the path)

TASKS = ("asr", "st_eng")
LONGEST_FIRST = TEST_UTTS[::-1]


class FakeDecoder(FakeSpeech2Text):
    """Hears what its stage reads: the samples, of which it remembers how many."""

    samples: list[int] = []
    languages: list[str] = []

    def _decode(self, waiting: list[Any], tasks: Any) -> Any:
        for item in waiting:
            x, rate = item.audio
            assert (x.dtype, rate) == (np.float32, 16000)
            self.samples.append(len(x))
            self.languages.append(item.language)
        yield from super()._decode(waiting, tasks)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """The options of stage 12, with something for a model, and what stands for it."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    assert make_s2t() == 0
    Path("model").mkdir()
    Path("model/m.pth").write_text("weights", encoding="utf-8")
    Path("model/config.yaml").write_text("model_conf: {ctc_weight: 0.3}", encoding="utf-8")
    Path("decode.yaml").write_text("{beam_size: 5, ctc_weight: 0.3}", encoding="utf-8")
    install(monkeypatch)
    monkeypatch.setattr(sys.modules["espnet_smoe.inference"], "Speech2Text", FakeDecoder)
    monkeypatch.setattr(FakeDecoder, "samples", [])
    monkeypatch.setattr(FakeDecoder, "languages", [])
    return argparse.Namespace(
        **{"out": Path("out"), "examples": Path("s2t"), "s2t_dir": Path("model"), "model": "m.pth"},
        **{"config": Path("decode.yaml"), "route_override": "", "ngpu": 0},
        **{"sets": "test", "tasks": ""},
    )


def heard_by(stage: argparse.Namespace, *options: str) -> list[str]:
    """Run it; the utterances that were decoded, in order."""
    FakeDecoder.heard.clear()
    decode.decode(stage, list(options))
    return [name.removeprefix("test: utterance ") for name in FakeDecoder.heard]


def tables(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).glob("test/*/*")}


def test_the_tasks_of_an_utterance_are_decoded_together(stage: argparse.Namespace) -> None:
    assert heard_by(stage) == LONGEST_FIRST
    assert FakeDecoder.samples == sorted(FakeDecoder.samples, reverse=True)
    for task in TASKS:
        folder = Path("out/test") / task
        text = {utt: f"{task} test: utterance {utt}" for utt in TEST_UTTS}
        assert read_table(folder / "text") == text
        assert read_table(folder / "score") == dict.fromkeys(TEST_UTTS, "-1.5000")
        assert read_table(folder / "utt2route") == dict.fromkeys(TEST_UTTS, "wb")
    assert len(FakeDecoder.loaded) == 1


def test_every_utterance_has_its_language(stage: argparse.Namespace) -> None:
    edit(Path("s2t/test/utt2lang"), "t3", "eus")
    decode.decode(stage, [])
    assert FakeDecoder.languages == ["eus", "spa", "spa", "spa"]


@pytest.mark.parametrize("after", range(4))
def test_a_killed_stage_goes_on_where_it_was(
    stage: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    heard_by(stage)
    whole = tables("out")
    stage.out = Path("killed")
    monkeypatch.setattr(FakeDecoder, "stop_after", after)
    with pytest.raises(KeyboardInterrupt):
        heard_by(stage)
    assert tables("killed") == {}
    with Path("killed/journal.jsonl").open("ab") as file:
        file.write(b'{"key": ["test", "t0", "sp')  # half an entry
    monkeypatch.setattr(FakeDecoder, "stop_after", 10**9)
    assert heard_by(stage) == LONGEST_FIRST[after:]
    assert tables("killed") == whole
    assert heard_by(stage) == []


def test_a_rerun_decodes_only_what_is_missing_or_changed(stage: argparse.Namespace) -> None:
    stage.tasks = "asr"
    assert heard_by(stage) == LONGEST_FIRST
    stage.tasks = ""
    assert heard_by(stage) == LONGEST_FIRST
    entries = Journal("out/journal.jsonl").entries
    assert [list(entry["tasks"]) for entry in entries] == [["asr"]] * 4 + [["asr", "st_eng"]] * 4
    soundfile.write("raw/test/audio/t2.flac", np.zeros(77), 16000)  # stages 2 to 4 again
    assert heard_by(stage) == ["t2"]
    assert heard_by(stage) == []
    assert heard_by(stage, "--beam_size", "2") == LONGEST_FIRST
    stage.route_override = "nb"
    assert heard_by(stage, "--beam_size", "2") == LONGEST_FIRST
    Path("model/m.pth").write_text("another model", encoding="utf-8")
    assert heard_by(stage, "--beam_size", "2") == LONGEST_FIRST


def test_what_cannot_be_decoded_is_named_and_the_rest_kept(stage: argparse.Namespace) -> None:
    edit(Path("s2t/test/utt2num_samples"), "t1", "99999999")
    Path("raw/test/audio/t1.flac").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"1 utterance\(s\) not decoded:\n  utterance 't1': .*t1"):
        decode.decode(stage, [])
    assert FakeDecoder.heard == [f"test: utterance {u}" for u in ("t3", "t2", "t0")]
    assert not Path("out/test").exists()
    write_table("s2t/test/wav.scp", dict.fromkeys(TEST_UTTS, "raw/test/audio/t0.flac"))
    assert len(heard_by(stage)) == 3  # t0's audio is what it was


def test_options_come_from_the_config_and_the_command_line(stage: argparse.Namespace) -> None:
    assert decode.search_options(stage, []) == {"beam_size": 5, "ctc_weight": 0.3}
    words = "--beam_size 2 --maxlenratio -5 --minlenratio=0.1 --penalty 1e-3"
    words += " --quantize_modules Linear LSTM"
    assert decode.search_options(stage, [*words.split(), "--first_time_symbol", "none"]) == {
        **{"beam_size": 2, "ctc_weight": 0.3, "maxlenratio": -5, "minlenratio": 0.1},
        **{"penalty": 0.001, "quantize_modules": ["Linear", "LSTM"], "first_time_symbol": None},
    }
    for words, message in (("5", "inference option '5'"), ("--beam_size", "has no value")):
        with pytest.raises(DataError, match=message):
            decode.search_options(stage, [words])


def test_a_model_trained_without_ctc_is_decoded_without(stage: argparse.Namespace) -> None:
    Path("model/config.yaml").write_text("model_conf: {ctc_weight: 0.0}", encoding="utf-8")
    assert decode.search_options(stage, []) == {"beam_size": 5}


@pytest.mark.parametrize(
    ("ngpu", "route", "expected"),
    [(0, "", {}), (1, "", {"device": "cuda"}), (4, "nb", {"device": "cuda", "bandwidth": "nb"})],
)
def test_the_model_is_loaded_for_the_gpu_and_the_route(
    stage: argparse.Namespace, ngpu: int, route: str, expected: dict[str, str]
) -> None:
    stage.ngpu, stage.route_override = ngpu, route
    decode.decode(stage, [])
    assert FakeDecoder.loaded == [{"beam_size": 5, "ctc_weight": 0.3, **expected}]


def test_an_option_that_is_not_known_is_named(
    stage: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {f"--{n}": v for n, v in vars(stage).items() if v != ""}
    arguments = [str(word) for pair in given.items() for word in pair]
    run = decode.decode_dir.run
    status = run_main(
        lambda: run(decode.decode, "decode.py", ""), *arguments, "--", "--beam_sise", "2"
    )
    assert status == 1
    error = capsys.readouterr().err
    assert "decode.py: decode.yaml and --inference_args: unknown option 'beam_sise'" in error


@pytest.mark.parametrize(
    ("route", "expert"),
    [
        ("nb/asr", "nb"),
        ("wb", "wb"),
        ("blend/st", "blend"),
        ("asr", ""),
        ("", ""),
        ("spa/x", "spa"),
    ],
)
def test_the_route_of_the_encoder(route: str, expert: str) -> None:
    assert decode.encoder_expert(route) == expert
    assert decode.encoder_expert(route, ["e0", "e1"]) == expert


def test_a_route_of_an_encoder_whose_experts_are_no_bandwidths() -> None:
    assert decode.encoder_expert("e1", ["e0", "e1"]) == "e1"
    assert decode.encoder_expert("e1/asr", ["e0", "e1"]) == "e1"


def test_a_model_without_routes_has_no_table_of_them(
    stage: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "encoder_expert", lambda route, known: "")
    decode.decode(stage, [])
    assert sorted(p.name for p in Path("out/test/asr").iterdir()) == ["score", "text"]


def test_the_shipped_config_has_only_options_that_are_known() -> None:
    from espnet_smoe.inference_options import Options

    config = Path(decode.__file__).parents[1] / "conf" / "decode.yaml"
    Options.of(yaml.safe_load(config.read_text(encoding="utf-8")))


def test_a_directory_that_is_not_its_own_is_left_alone(stage: argparse.Namespace) -> None:
    stage.out = stage.s2t_dir
    with pytest.raises(DataError, match="model holds files but no fingerprint, so it is not stage"):
        decode.decode(stage, [])
    assert sorted(p.name for p in Path("model").iterdir()) == ["config.yaml", "m.pth"]


def test_a_directory_that_is_being_emptied_is_emptied_to_the_end(tmp_path: Path) -> None:
    prepare = decode.decode_dir.prepare
    (tmp_path / "fingerprint.partial").write_text("killed", encoding="utf-8")
    prepare(tmp_path, "one")
    (tmp_path / "test" / "asr").mkdir(parents=True)
    (tmp_path / "journal.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "test")
    prepare(tmp_path, "one")
    assert (tmp_path / "journal.jsonl").exists()
    (tmp_path / "fingerprint").write_text("", encoding="utf-8")  # as a kill leaves it
    prepare(tmp_path, "one")
    assert [p.name for p in tmp_path.iterdir()] == ["fingerprint"]
