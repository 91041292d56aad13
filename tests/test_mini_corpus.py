"""The built-in corpus: its grammar, its speech, its splits."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe.datadir import read_table

LOCAL = Path(__file__).resolve().parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
sys.path.append(str(LOCAL))
words: Any = importlib.import_module("mini_words")
grammar: Any = importlib.import_module("mini_grammar")
splitting: Any = importlib.import_module("mini_splits")
speech: Any = importlib.import_module("mini_speech")
corpus: Any = importlib.import_module("mini_corpus")
prepare_mini: Any = importlib.import_module("prepare_mini")

DEFAULT = {"train": 1400, "valid": 100, "test": 220}
TINY = {"train": 20, "valid": 4, "test": 4}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Any]]:
    """The default corpus's sentences."""
    return splitting.make_splits(DEFAULT, 1)


@pytest.fixture(scope="module")
def speaker() -> Any:
    """espeak-ng."""
    return speech.Speaker()


@pytest.fixture
def few_voices(monkeypatch) -> None:
    """Four training voices and two test voices: less to check before speaking."""
    monkeypatch.setattr(prepare_mini, "TRAIN_VARIANTS", prepare_mini.TRAIN_VARIANTS[:4])
    monkeypatch.setattr(prepare_mini, "TEST_VARIANTS", prepare_mini.TEST_VARIANTS[:2])


def tree(root: Path) -> dict[str, str]:
    """Every file below a directory with the hash of its bytes."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def run_program(program: str, *arguments: str) -> bytes:
    """Run Python code in a process of its own; return what it prints."""
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(LOCAL), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, env=environment, check=True).stdout


def test_training_text_has_at_least_250_frequent_word_types(splits):
    counts = Counter(word for pair in splits["train"] for word in pair.es.split())
    assert len(counts) >= 250
    assert min(counts.values()) >= 10


def test_splits_are_disjoint_in_both_languages_and_have_the_sizes_asked_for(splits):
    assert {name: len(pairs) for name, pairs in splits.items()} == DEFAULT
    for field in ("es", "en"):
        texts = {name: {getattr(pair, field) for pair in pairs} for name, pairs in splits.items()}
        assert not texts["train"] & (texts["test"] | texts["valid"])
        assert not texts["valid"] & texts["test"]
    for pairs in splits.values():
        assert len({pair.es for pair in pairs}) == len(pairs)


def test_every_word_of_valid_and_test_occurs_in_training(splits):
    for field in ("es", "en"):
        seen = {word for pair in splits["train"] for word in getattr(pair, field).split()}
        later = splits["valid"] + splits["test"]
        assert {word for pair in later for word in getattr(pair, field).split()} <= seen


def test_text_is_plain_lower_case_words(splits):
    for pair in [pair for pairs in splits.values() for pair in pairs]:
        assert 3 <= len(pair.es.split()) <= grammar.MAX_WORDS
        for text in pair:
            assert text == " ".join(text.split())
            assert all(letter.isalpha() and letter.islower() for letter in text.replace(" ", ""))


def test_one_spanish_sentence_has_one_translation():
    chooser, seen = words.Chooser(5), {}
    for _ in range(30_000):
        pair = grammar.sentence(chooser)
        assert seen.setdefault(pair.es, pair.en) == pair.en
    assert len(seen) > 15_000


def test_articles_and_adjectives_agree_with_their_nouns():
    nouns = {}
    for noun in [*words.FOOD, *words.CLOTHES, *words.THINGS, *words.CLOSED, *words.ANIMALS]:
        nouns[noun.es], nouns[noun.es_pl] = (noun.gender, 0), (noun.gender, 1)
    articles = {"el": ("m", 0), "la": ("f", 0), "los": ("m", 1), "las": ("f", 1)}
    articles |= {"un": ("m", 0), "una": ("f", 0)}
    colors = {
        words.inflect("blanc*", gender, number): (gender, number)
        for gender in "mf"
        for number in (0, 1)
    }
    chooser, met = words.Chooser(6), Counter()
    for _ in range(10_000):
        tokens = grammar.sentence(chooser).es.split()
        for left, right in pairwise(tokens):
            for table, key, noun in ((articles, left, right), (colors, right, left)):
                if key in table and noun in nouns:
                    assert table[key] == nouns[noun], tokens
                    met[key] += 1
    assert set(met) == {*articles, *colors}


@pytest.mark.parametrize(
    ("template", "spanish", "english"),
    [
        ("transitive", "no compro pan", "i do not buy bread"),
        ("transitive", "ella siempre bebe leche", "she always drinks milk"),
        ("object_clitic", "mi madre la abre", "my mother opens it"),
        ("object_clitic", "no los quiero vender", "i do not want to sell them"),
        ("modal", "ayer compré pan", "yesterday i bought bread"),
        ("personal", "visito a mi abuela", "i visit my grandmother"),
        ("liking", "a mi madre le gusta el queso", "my mother likes cheese"),
        ("liking", "no me gustan las naranjas", "i do not like oranges"),
        ("hurting", "te duelen los pies", "your feet hurt"),
        ("property_of", "la casa es muy blanca", "the house is very white"),
        ("mood", "mis hermanas están cansadas", "my sisters are tired"),
        ("mood", "tengo sed", "i am thirsty"),
        ("location", "el gato está detrás del hotel", "the cat is behind the hotel"),
        ("doing", "vamos al mercado", "we go to the market"),
        ("clock", "son las dos y media", "it is half past two"),
        ("question", "cuántas sillas tienes", "how many chairs do you have"),
        ("question", "cuánto cuestan los huevos", "how much do the eggs cost"),
        ("giving", "te compramos una manzana", "we buy you an apple"),
        ("owning", "tengo ocho años", "i am eight years old"),
        ("owning", "tengo una casa blanca", "i have a white house"),
        ("material", "quiero zumo de naranja", "i want orange juice"),
        ("material", "compro una mesa de madera", "i buy a wooden table"),
    ],
)
def test_translation_is_more_than_word_replacement(template, spanish, english):
    chooser, draw = words.Chooser(7), getattr(grammar, template)
    pairs = (draw(chooser) for _ in range(60_000))
    assert next(pair.en for pair in pairs if pair.es == spanish) == english


def test_only_que_and_qué_sound_the_same_and_their_position_tells_them_apart(splits):
    vocabulary = {word for pair in splits["train"] for word in pair.es.split()}
    program = """
import ctypes, sys, mini_speech
lib = mini_speech.Speaker()._lib
lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
lib.espeak_SetVoiceByName(b"es-419")  # has fewer distinctions than "es"
for word in sys.argv[1:]:
    text = ctypes.c_char_p(word.encode())
    print(word, lib.espeak_TextToPhonemes(ctypes.byref(text), 1, 0).decode())
"""
    heard: dict[str, list[str]] = {}
    for line in run_program(program, *sorted(vocabulary)).decode().splitlines():
        word, sounds = line.split(" ", 1)
        heard.setdefault(sounds, []).append(word)
    assert sum(map(len, heard.values())) == len(vocabulary)
    assert [same for same in heard.values() if len(same) > 1] == [["que", "qué"]]
    before: dict[str, set[str]] = {"que": set(), "qué": set()}
    for pair in splits["train"]:
        for left, right in pairwise(["", *pair.es.split()]):
            if right in before:
                before[right].add(left)
    assert before["qué"] == {"", "por"}
    assert not before["que"] & before["qué"]


def test_sentences_beyond_the_grammar_are_refused():
    with pytest.raises(splitting.SplitError, match=r"only \d+ of 500 sentences found"):
        splitting.make_splits({"train": 3, "test": 500}, 1)


def test_same_seed_same_plan_and_another_seed_another():
    plan = prepare_mini.plan(TINY, 1)
    assert plan == prepare_mini.plan(TINY, 1)
    assert [item.pair for item in plan] != [item.pair for item in prepare_mini.plan(TINY, 2)]


def test_test_speakers_are_in_no_other_split():
    variants = {"train": set(), "valid": set(), "test": set()}
    for item in prepare_mini.plan(DEFAULT, 1):
        variants[item.split].add(item.variant)
    assert not variants["test"] & (variants["train"] | variants["valid"])
    assert len(variants["test"]) >= 5
    assert len(variants["train"]) >= 24


def test_audio_does_not_depend_on_what_was_spoken_before(speaker):
    first, second = prepare_mini.plan(TINY, 1)[:2]
    forward = [prepare_mini.render(speaker, item).tobytes() for item in (first, second)]
    backward = [prepare_mini.render(speaker, item).tobytes() for item in (second, first)]
    assert forward == backward[::-1]


def test_every_variant_changes_the_voice(speaker):
    speaker.check_variants(prepare_mini.TRAIN_VARIANTS + prepare_mini.TEST_VARIANTS)
    with pytest.raises(speech.SpeechError, match="'fast' sounds exactly like the plain voice"):
        speaker.check_variants(["fast"])


def test_unknown_voices_are_refused(speaker):
    with pytest.raises(speech.SpeechError, match="no voice variant 'nobody'"):
        speaker.speak("hola", "es", "nobody")
    with pytest.raises(
        speech.SpeechError, match=r"accent 'fr' is unknown \(known: es, la, gb, us\)"
    ):
        speaker.speak("hola", "fr")


def test_espeak_starts_from_a_long_path(tmp_path, speaker):
    # in a process of its own: the library has one data path per process
    program = """
import sys, espeakng_loader, mini_speech
espeakng_loader.get_data_path = lambda: sys.argv[1]
sys.stdout.buffer.write(mini_speech.Speaker().speak("hola", "es", "f2").tobytes())
"""
    folder = tmp_path / ("x" * 90) / ("y" * 90)
    folder.mkdir(parents=True)
    (folder / "espeak-ng-data").symlink_to(speaker.data)
    output = run_program(program, str(folder / "espeak-ng-data"))
    assert output == speaker.speak("hola", "es", "f2").tobytes()


@pytest.mark.parametrize("variant", prepare_mini.TEST_VARIANTS)
@pytest.mark.parametrize("accent", speech.ACCENTS)
def test_test_voices_have_energy_above_4_khz(speaker, variant, accent):
    x = speaker.speak("siete zapatos rojos están en la estación", accent, variant)
    power = np.abs(np.fft.rfft(speech.to_16k(x).astype(float))) ** 2
    upper = power[len(power) // 2 :].sum()  # 4 to 8 kHz
    assert upper > 1e-3 * power.sum()
    assert power[len(power) * 3 // 4 :].sum() > 1e-4 * power.sum()  # 6 to 8 kHz


def test_utterances_are_short_and_loud_enough(speaker):
    for item in prepare_mini.plan(TINY, 1)[::4]:
        x = prepare_mini.render(speaker, item)
        assert 0.5 < len(x) / speech.RATE < 4.0
        assert 0.05 < np.abs(x / 32768).max() <= 1.0


def test_resampling_keeps_tones_below_7_khz_and_removes_those_above_8_khz():
    time = np.arange(speech.NATIVE_RATE) / speech.NATIVE_RATE

    def out(hz: float) -> np.ndarray:
        x = speech.to_16k(np.rint(10_000 * np.sin(2 * np.pi * hz * time)).astype(np.int16))
        assert len(x) == speech.RATE
        return x[200:-200].astype(float)

    for hz in (200, 1000, 4000, 6900):
        wanted = 10_000 * np.sin(2 * np.pi * hz * np.arange(speech.RATE) / speech.RATE)
        assert np.abs(out(hz) - wanted[200:-200]).max() < 60
    for hz in (8500, 10_000):
        assert np.abs(out(hz)).max() < 60


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300))
def test_resampling_is_exact_integer_arithmetic(samples):
    x = np.array(samples, np.int16)
    h, up, down = speech.resampler().astype(np.int64), speech.UP, speech.DOWN
    padded = np.zeros(2 * down + speech.TAPS, np.int64)
    padded[speech.TAPS // 2 - 1 :][: len(x)] = x
    expected = []
    for n in range(-(-len(x) * up // down)):
        total = sum(int(a) * int(b) for a, b in zip(padded, h[:, n], strict=False))
        expected.append(max(-32768, min(32767, (total + 2**19) >> 20)))
    assert speech.to_16k(x).tolist() == expected


def test_trimming_leaves_a_tenth_of_a_second_and_refuses_silence():
    x = np.zeros(48_000, np.int16)
    x[16_000:32_000] = 1000
    assert len(speech.trim(x)) == 16_000 + 2 * 1600
    with pytest.raises(speech.SpeechError, match="silence"):
        speech.trim(np.zeros(100, np.int16))


@pytest.mark.usefixtures("few_voices")
def test_corpus_is_the_same_for_any_number_of_processes_and_made_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for nj, name in ((1, "one"), (3, "three")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert prepare_mini.prepare(TINY, 1, Path("data"), Path("audio"), nj)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    for split, size in TINY.items():
        scp = read_table(Path("data") / split / "wav.scp")
        assert len(scp) == size
        for table in ("wav.scp", *prepare_mini.COLUMNS):
            assert list(read_table(Path("data") / split / table)) == list(scp)
        for utt, path in scp.items():
            assert Path(path).is_file() and Path(path).stem == utt
    again = (TINY, 1, Path("data"), Path("audio"), 2)
    assert not prepare_mini.prepare(*again)
    next(Path("audio/test").iterdir()).unlink()
    assert prepare_mini.prepare(*again)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")


@pytest.mark.usefixtures("few_voices")
def test_an_interrupted_run_is_completed_by_the_next(tmp_path, monkeypatch):
    arguments = (TINY, 1, tmp_path / "data", tmp_path / "audio", 1)
    assert prepare_mini.prepare(*arguments)
    whole = tree(tmp_path)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("speak_all", "write_table"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            (tmp_path / "data/valid/text").unlink(missing_ok=True)
            patch.setattr(corpus, name, stop)
            prepare_mini.prepare(*arguments)
    assert prepare_mini.prepare(*arguments)
    assert tree(tmp_path) == whole


def test_failures_name_the_utterance_or_the_process(tmp_path, speaker):
    items = prepare_mini.plan(TINY, 1)[:2]
    (tmp_path / "train").mkdir()
    bad = items[0]._replace(variant="nobody")
    with pytest.raises(prepare_mini.MiniError, match=f"utterance {bad.utt}: .*'nobody'"):
        list(corpus.speak_all(partial(prepare_mini.render, speaker), [bad], tmp_path, 1))
    with pytest.raises(prepare_mini.MiniError, match="a worker process died: 0 of 2"):
        list(corpus.speak_all(lambda _: os._exit(9), items, tmp_path, 1))


def test_command_line_names_a_wrong_size(capsys):
    with pytest.raises(SystemExit):
        prepare_mini.main(["--size", "0"])
    assert "--size 0: must be at least 1" in capsys.readouterr().err
