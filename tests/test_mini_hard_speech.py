"""The built-in corpus mini_hard: its noise, its voices, its tables."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_copy import RECIPE

from espnet_smoe.datadir import read_table

sys.path.append(str(RECIPE / "local"))
corpus: Any = importlib.import_module("mini_corpus")
noise: Any = importlib.import_module("mini_noise")
speech: Any = importlib.import_module("mini_speech")
hard: Any = importlib.import_module("prepare_mini_hard")

TINY = {"train": 12, "valid": 3, "test": 6}
OPTIONS = hard.Options()
DEFAULT = {"train": 5000, "valid": 200, "test": 400}


@pytest.fixture(scope="module")
def speaker() -> Any:
    """espeak-ng."""
    return speech.Speaker()


@pytest.fixture(scope="module")
def items() -> list[Any]:
    """The default corpus's utterances."""
    return hard.plan(DEFAULT, OPTIONS)


@pytest.fixture(scope="module")
def crowds(speaker) -> dict[str, list[np.ndarray]]:
    """What the test set's babble is made of."""
    return {"test": hard.crowd(speaker, "test", 1902)}


@pytest.fixture(scope="module")
def heard(items) -> list[Any]:
    """A test utterance with each kind of noise."""
    tests = [item for item in items if item.split == "test"]
    return [next(item for item in tests if item.noise == kind) for kind in noise.KINDS]


def tone(size: int) -> np.ndarray:
    """Something to add noise to, int16."""
    return np.rint(6000 * np.sin(np.arange(size) * 0.07)).astype(np.int16)


def snr_of(x: np.ndarray, mixed: np.ndarray) -> float:
    """The signal-to-noise ratio of a mixture that was not made quieter, dB."""
    added = mixed.astype(np.float64) - x
    return 10 * np.log10(np.square(x, dtype=np.float64).sum() / np.square(added).sum())


@pytest.mark.parametrize("tenths", [50, 123, 250])
@pytest.mark.parametrize("kind", ["white", "pink"])
def test_noise_has_the_ratio_asked_for(kind, tenths):
    x = tone(30_000)
    mixed = noise.mix(x, getattr(noise, kind)("key", len(x)), tenths)
    assert mixed.dtype == np.int16
    assert snr_of(x, mixed) == pytest.approx(tenths / 10, abs=0.05)


def test_what_exceeds_full_scale_is_made_quieter_and_keeps_its_ratio():
    x = (tone(30_000).astype(int) * 5).astype(np.int16)
    mixed = noise.mix(x, noise.white("key", len(x)), 50)
    assert np.abs(mixed.astype(int)).max() in (noise.FULL_SCALE, noise.FULL_SCALE + 1)
    scale = (mixed.astype(float) @ x) / (x.astype(float) @ x)
    assert 0.5 < scale < 0.95
    assert snr_of(scale * x, mixed) == pytest.approx(5.0, abs=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(-200, 600))
def test_the_power_ratio_is_that_of_decibels(tenths):
    ratio = noise.power_ratio(tenths) / 2**noise.RATIO_BITS
    assert ratio == pytest.approx(10 ** (-tenths / 100), rel=1e-5)


def test_white_noise_is_flat_and_pink_noise_falls_by_3_db_an_octave():
    def octaves(x: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(x.astype(float))) ** 2
        edges = len(power) // 2 ** np.arange(7, 0, -1)
        means = [power[a:b].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)]
        return 10 * np.log10(np.array(means))

    for kind, slope in (("white", 0.0), ("pink", -3.0)):
        found = octaves(getattr(noise, kind)("key", 1 << 18))
        line = np.polyfit(np.arange(len(found)), found, 1)
        assert line[0] == pytest.approx(slope, abs=0.3), kind
        assert np.abs(np.polyval(line, np.arange(len(found))) - found).max() < 1.5


def test_noise_depends_on_its_key_only_and_is_the_same_everywhere():
    pool = [np.arange(700) - 350, np.arange(900) % 71 - 35]
    found = {
        "white": noise.white("u1", 1000),
        "pink": noise.pink("u1", 1000),
        "babble": noise.babble("u1", 1000, pool),
        "mix": noise.mix(tone(1000), noise.pink("u1", 1000), 97),
    }
    hashes = {
        n: hashlib.sha256(x.astype("<i8").tobytes()).hexdigest()[:12] for n, x in found.items()
    }
    assert hashes == HASHES
    assert not np.array_equal(found["white"], noise.white("u2", 1000))


HASHES = {
    "white": "23d7e6c98855",
    "pink": "1f136db8cc1d",
    "babble": "143f7766b274",
    "mix": "2f8d3dc6e1a8",
}


def test_babble_is_several_talkers_who_go_on_as_long_as_the_speech():
    pool = [noise.level(tone(500)), noise.level(np.arange(300) * 40)]
    for talk in pool:
        power = np.square(talk.astype(float)).mean()
        assert power**0.5 == pytest.approx(noise.TALKER_LEVEL, rel=0.01)
    x = noise.babble("key", 4000, pool)
    assert len(x) == 4000
    assert np.abs(x).max() > 2 * max(np.abs(talk).max() for talk in pool)


def test_speakers_of_valid_and_test_are_in_no_other_split(items):
    variants: dict[str, set[str]] = {split: set() for split in DEFAULT}
    for item in items:
        variants[item.split].add(item.variant)
    assert {split: len(found) for split, found in variants.items()} == {
        "train": 26,
        "valid": 5,
        "test": 8,
    }
    assert not variants["test"] & (variants["train"] | variants["valid"])
    assert not variants["valid"] & variants["train"]


def test_rates_pitches_and_noises_fill_their_ranges(items):
    tenths = tuple(10 * x for x in hard.SNR)
    for name, ends in (("rate", hard.RATES), ("pitch", hard.PITCHES), ("tenths", tenths)):
        values = np.array([getattr(item, name) for item in items])
        assert (values.min(), values.max()) == ends
        assert values.mean() == pytest.approx(sum(ends) / 2, rel=0.02)
    kinds = Counter(item.noise for item in items)
    assert set(kinds) == set(noise.KINDS)
    assert min(kinds.values()) > 0.3 * len(items)


def test_a_larger_training_set_leaves_the_test_utterances_as_they_are(items):
    small = hard.plan({"train": 10, "valid": 200, "test": 400}, OPTIONS)
    assert [i for i in small if i.split == "test"] == [i for i in items if i.split == "test"]


def test_noise_is_added_to_the_speech_itself(heard, speaker, crowds):
    for item in heard:
        x, mixed = hard.clean(speaker, item), hard.render(speaker, crowds, item)
        assert len(x) == len(mixed)
        scale = (mixed.astype(float) @ x) / (x.astype(float) @ x)
        assert snr_of(scale * x, mixed) == pytest.approx(item.tenths / 10, abs=0.5)
        assert hard.SNR[0] - 0.5 < snr_of(scale * x, mixed) < hard.SNR[1] + 0.5
        assert np.array_equal(mixed, hard.render(speaker, crowds, item))


def test_audio_does_not_depend_on_the_machine(heard, speaker, crowds):
    found = {
        item.utt: hashlib.sha256(hard.render(speaker, crowds, item).tobytes()).hexdigest()[:12]
        for item in heard
    }
    assert found == AUDIO


AUDIO = {
    "f2-es-test00003": "40ea13fbedf8",
    "michael-la-test00005": "195f60a6e785",
    "robert-la-test00000": "e127d5d5c4fe",
}


@pytest.fixture
def few_voices(monkeypatch) -> None:
    """Two voices a split: less to check before speaking."""
    for voices in (hard.FEMALE, hard.MALE):
        for split, names in voices.items():
            monkeypatch.setitem(voices, split, names[:1])
    monkeypatch.setattr(hard, "CROWD", 3)


@pytest.mark.usefixtures("few_voices")
def test_the_corpus_is_made_once_with_tables_for_further_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (TINY, OPTIONS, Path("data"), Path("audio"), 1)
    assert hard.prepare(*arguments)
    for split, size in TINY.items():
        tables = {path.name: read_table(path) for path in (Path("data") / split).iterdir()}
        assert set(tables) == {"wav.scp", *hard.COLUMNS}
        assert all(table.keys() == tables["text"].keys() for table in tables.values())
        assert len(tables["text"]) == size
        assert set(tables["utt2voice"].values()) <= {"female", "male"}
        assert set(tables["utt2lang"].values()) == {"spa"}
        assert set(tables["utt2bw"].values()) == {"wb"}
        for utt, voice in tables["utt2voice"].items():
            female = utt.split("-")[0] in {name.lower() for name in hard.FEMALE[split]}
            assert voice == ("female" if female else "male")
        rates = {i.utt: i.rate for i in hard.plan(TINY, OPTIONS) if i.split == split}
        for utt, noise in tables["utt2noise"].items():
            assert noise.split()[0] == tables["utt2background"][utt]
            slow, fast = rates[utt] < 130, rates[utt] > 150
            assert tables["utt2rate"][utt] == ("slow" if slow else "fast" if fast else "medium")
        assert all(Path(path).is_file() for path in tables["wav.scp"].values())
    assert not hard.prepare(*arguments)
    stamp = json.loads(Path("audio.stamp.json").read_text(encoding="utf-8"))
    assert (stamp["seed"], stamp["snr"]) == (1, list(hard.SNR))
    assert hard.prepare(TINY, OPTIONS._replace(snr=(10, 20)), *arguments[2:])


@pytest.mark.usefixtures("few_voices")
def test_a_share_of_the_sentences_can_be_english(tmp_path):
    options = OPTIONS._replace(english_share=0.5)
    assert hard.prepare(TINY, options, tmp_path / "data", tmp_path / "audio", 1)
    spanish = {i.utt: i.pair for i in hard.plan(TINY, options)}
    found = Counter()
    for split in TINY:
        folder = tmp_path / "data" / split
        tables = {path.name: read_table(path) for path in folder.iterdir()}
        for utt, language in tables["utt2lang"].items():
            found[language] += 1
            pair = spanish[utt]
            texts = (tables["text"][utt], tables["text.st_eng"].get(utt))
            if language == "eng":
                assert texts == (pair.en, None)
                assert tables["text.st_spa"][utt] == pair.es
                assert tables["utt2spk"][utt].split("-")[1] in speech.ENGLISH
            else:
                assert texts == (pair.es, pair.en)
                assert utt not in tables["text.st_spa"]
    assert min(found["eng"], found["spa"]) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size 0: must be at least 1"),
        (["--snr", "20", "10"], "--snr 20 10: accepted is LOW HIGH, from -20 to 60 dB"),
        (["--english_share", "1.5"], "--english_share 1.5: accepted is 0 to 1"),
    ],
)
def test_command_line_names_a_wrong_value(capsys, arguments, message):
    with pytest.raises(SystemExit):
        hard.main(arguments)
    assert message in capsys.readouterr().err
