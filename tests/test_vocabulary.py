"""Languages, tasks, prompts and texts of a token list."""

from __future__ import annotations

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tiny import TOKENS, ids

from espnet_smoe import bbpe
from espnet_smoe.results import timed_texts
from espnet_smoe.vocabulary import Vocabulary, VocabularyError

OWSM = ["<blank>", "<unk>", "<na>", "<nolang>", "<deu>", "<eng>", "<asr>", "<st_deu>"]
OWSM += ["<notimestamps>", "<0.00>", "<0.02>", "a", "<sop>", "<sos>", "<eos>"]


def test_finds_languages_and_tasks() -> None:
    vocabulary = Vocabulary(TOKENS)
    assert vocabulary.languages == ("<spa>",)
    assert vocabulary.tasks == ("<asr>", "<st_eng>", "<st_deu>")
    assert Vocabulary(OWSM).languages == ("<nolang>", "<deu>", "<eng>")


def test_language_by_name_or_default() -> None:
    assert Vocabulary(TOKENS).language(None) == "<spa>"  # the only one
    assert Vocabulary(OWSM).language(None) == "<eng>"  # ESPnet's default
    assert Vocabulary(OWSM).language("deu") == Vocabulary(OWSM).language("<deu>") == "<deu>"
    two = [t for t in OWSM if t != "<eng>"]
    with pytest.raises(VocabularyError, match="knows nolang, deu; name the one"):
        Vocabulary(two).language(None)


@pytest.mark.parametrize("name", ["fra", "<0.00>", "sos", "na", "notimestamps", "", "a", "house"])
def test_refuses_what_is_no_task(name: str) -> None:
    with pytest.raises(VocabularyError, match=r"no task .*; accepted: asr, st_eng, st_deu"):
        Vocabulary(TOKENS).task(name)


def test_prompts() -> None:
    vocabulary = Vocabulary(TOKENS)
    plain = ids("<sos>", "<spa>", "<asr>", "<notimestamps>")
    assert vocabulary.prompt("<spa>", "<asr>") == plain
    assert vocabulary.prompt("<spa>", "<asr>", predict_time=True) == plain[:-1]
    before = ids("hola", "casa")
    assert vocabulary.prompt("<spa>", "<asr>", text_prev=before) == ids("<sop>") + before + plain
    assert vocabulary.prompt("<spa>", "<asr>", text_prev=ids("<na>")) == plain
    with pytest.raises(VocabularyError, match="has no tokenizer"):
        vocabulary.prompt("<spa>", "<asr>", text_prev="hola")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    from espnet2.text.build_tokenizer import build_tokenizer

    symbols = bbpe.special_symbols(["spa"], ["asr"], time_symbols=False)
    prefix = tmp_path_factory.mktemp("bbpe") / "bpe"
    size = bbpe.minimum_size(symbols) + 5
    model = bbpe.train(
        ["la niña come", "el año nuevo"],
        model_prefix=prefix,
        vocab_size=size,
        special_symbols=symbols,
    )
    return Vocabulary(bbpe.token_list(model), build_tokenizer("bpe", bpemodel=str(model)))


@given(st.text(alphabet="añeio ñ한👍", max_size=20))
def test_clean_text_gives_the_text_back(byte_level: Vocabulary, text: str) -> None:
    text = bbpe.normalize_text(text)
    sp = sentencepiece.SentencePieceProcessor(model_file=str(byte_level.tokenizer.model))
    tokens = ["<spa>", "<asr>", "<notimestamps>", *sp.encode(text, out_type=str)]
    assert byte_level.clean_text(tokens) == text
    assert (byte_level.text(tokens) or "").strip() == text


def test_broken_bytes_are_dropped(byte_level: Vocabulary) -> None:
    half = chr(bbpe.LETTERS + 0xC3)  # the first byte of two
    assert byte_level.clean_text(["▁", "a", half]) == "a"


TIMES = st.lists(st.integers(0, 100), max_size=6).map(sorted)


@given(TIMES, st.floats(0, 100))
def test_timed_texts_keep_every_word(times: list[int], start: float) -> None:
    tokens = []
    for n, time in enumerate(times):
        tokens.append(f"<{time / 50:.2f}>")
        if n % 2 == 0:
            tokens.append(f"w{n}")
    spans = timed_texts(tokens, start, start + 1.0)
    words = [t for t in tokens if not t.startswith("<")]
    assert [t for _, _, part in spans for t in part] == words
    assert all(start <= a <= b <= start + 1.0 for a, b, _ in spans)
    assert len(spans) == max(1, (len(times) + 1) // 2)
