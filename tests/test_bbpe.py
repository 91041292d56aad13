"""Facts about the byte-level BPE: every text comes back, nothing is <unk>, prompts stay whole."""

import importlib.util
import random
import sys
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer
from espnet2.text.token_id_converter import TokenIDConverter
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe import bbpe
from espnet_smoe.datadir import DataError, read_table, write_table

SYMBOLS = bbpe.special_symbols(["spa", "kor"], ["asr", "st_eng"], time_symbols=False)
TEXTS = [
    "hola , ¿ cómo estás ?",
    "el niño come pan",
    "the child eats bread",
    "한국어 문장 하나",
    "una casa más grande",
] * 4
PROMPT = "<spa><asr><notimestamps>"
SCRIPT = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1/local/train_bbpe.py"
FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # England

ASSIGNED = st.characters(exclude_categories=("Cn", "Cs"))
SEQUENCES = st.sampled_from(
    [FLAG, "❤\ufe0f", "葛\U000e0100", "👩\u200d👩\u200d👧", "e\u0301\u0323", "⢀⣿▁", "  ", "\t\0"]
)
STRINGS = st.lists(st.one_of(ASSIGNED, ASSIGNED, SEQUENCES), max_size=12).map("".join)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("bbpe") / "deep" / "bpe"
    return bbpe.train(TEXTS, model_prefix=prefix, vocab_size=320, special_symbols=SYMBOLS)


@pytest.fixture(scope="module")
def tokenizer(model):
    return SentencepiecesTokenizer(model)


@pytest.fixture(scope="module")
def converter(model):
    return TokenIDConverter(bbpe.token_list(model))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_bbpe", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_bbpe"] = module
    spec.loader.exec_module(module)
    return module


def folded_nfc(text):
    """White-space folding written independently of the module."""
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def round_trip(text, tokenizer, converter):
    """Text to tokens to ids and back, as ESPnet's preprocessor and inference do it."""
    ids = converter.tokens2ids(tokenizer.text2tokens(text))
    assert converter.unk_id not in ids
    return tokenizer.tokens2text(converter.ids2tokens(ids))


# ------------------------------------------------------------------- round trip


def test_random_strings_come_back_without_unk(tokenizer, converter):
    @settings(max_examples=2000, deadline=None, derandomize=True)
    @given(STRINGS)
    def check(text):
        normal = bbpe.normalize_text(text)
        assert normal == folded_nfc(text)
        assert round_trip(normal, tokenizer, converter) == normal
        assert bbpe.decode(tokenizer.text2tokens(normal)) == normal

    check()


def test_every_assigned_character_comes_back(tokenizer, converter):
    points = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    for start in range(0, len(points), 4096):
        text = bbpe.normalize_text(" ".join(points[start : start + 4096]))
        assert round_trip(text, tokenizer, converter) == text


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요 세계",
        "مرحبا بالعالم",
        "สวัสดีชาวโลก",
        "a\u0323\u0307 q\u0307\u0323",
        FLAG,
        "Ωραία かな 日本 𐍈 𒀀",
    ],
    ids=["korean", "arabic", "thai", "combining", "flag", "unseen"],
)
def test_scripts_unseen_in_training_come_back(text, tokenizer, converter):
    normal = bbpe.normalize_text(text)
    assert round_trip(f"{PROMPT} {normal}", tokenizer, converter) == f"{PROMPT} {normal}"


def test_stock_tokenizer_folds_white_space_by_itself(tokenizer):
    pieces = tokenizer.text2tokens(" el\tniño\u00a0\u3000come\x07 pan \n")
    assert tokenizer.tokens2text(pieces) == "el niño come pan"


def test_common_words_are_single_pieces(tokenizer):
    assert tokenizer.text2tokens("la casa")[-1] == "▁casa"
    assert len(tokenizer.text2tokens("한국어")) <= 9


# ------------------------------------------------------------------- prompts


def test_prompt_starts_with_a_lone_word_start(tokenizer):
    pieces = tokenizer.text2tokens(f"{PROMPT} casa")
    assert pieces == ["▁", "<spa>", "<asr>", "<notimestamps>", "▁casa"]
    assert tokenizer.text2tokens("<na>") == ["▁", "<na>"]
    assert tokenizer.text2tokens("casa") == ["▁casa"]


def test_text_without_special_symbols_has_its_spaces(tokenizer):
    pieces = tokenizer.text2tokens("<spa><asr><0.00> una casa<30.00><0.00> más<30.00>")
    assert [piece for piece in pieces if piece in SYMBOLS] == [
        *("<spa>", "<asr>", "<0.00>", "<30.00>", "<0.00>", "<30.00>")
    ]
    plain = [piece for piece in pieces[1:] if piece not in SYMBOLS]
    assert tokenizer.tokens2text(plain) == "una casa más"
    assert bbpe.decode(pieces, special=SYMBOLS) == "una casa más"


@given(st.lists(st.sampled_from([*SYMBOLS, "a", "é", "<", ">", "한", " "]), max_size=12))
@settings(max_examples=200, deadline=None)
def test_special_symbols_are_never_split(tokenizer, parts):
    pieces = tokenizer.text2tokens("".join(parts))
    assert [p for p in pieces if p in SYMBOLS] == [p for p in parts if p in SYMBOLS]


def test_espnet_preprocessor_gives_prompt_and_text(model, tokenizer, converter):
    from espnet2.train.preprocessor import S2TPreprocessor

    preprocess = S2TPreprocessor(
        train=False, token_type="bpe", token_list=bbpe.token_list(model), bpemodel=str(model)
    )
    ids = preprocess("u1", {"text": f"{PROMPT} el niño"})["text"]
    tokens = converter.ids2tokens(ids)
    assert tokens[:3] == ["<spa>", "<asr>", "<notimestamps>"]
    assert tokenizer.tokens2text(tokens[3:]) == "el niño"


# ------------------------------------------------------------------- broken hypotheses


def test_hypothesis_cut_in_a_character_keeps_the_whole_characters(tokenizer):
    pieces = tokenizer.text2tokens("하나 둘")
    text = bbpe.normalize_text("하나 둘")
    for cut in range(len(pieces) + 1):
        left = tokenizer.tokens2text(pieces[:cut])
        assert text.startswith(bbpe.repair(left))
        assert bbpe.decode(pieces[:cut]) == bbpe.repair(left)
        assert text.endswith(bbpe.decode(pieces[cut:]))
    assert bbpe.repair("casa ⣬⢕ roja⢈") == "casa roja"
    assert bbpe.repair("⣭⢕⢘나") == "하나"  # letters that spell a character are decoded


def test_decode_keeps_real_braille_patterns(tokenizer):
    assert bbpe.decode([*tokenizer.text2tokens("a ⢀⣿"), "⣬"]) == "a ⢀⣿"


def test_any_sequence_of_pieces_decodes_to_valid_text(model, tokenizer):
    pieces = bbpe.token_list(model)[2:-2]
    generator = random.Random(0)
    for _ in range(300):
        tokens = generator.choices(pieces, k=20)
        text = bbpe.decode(tokens)
        assert bbpe.normalize_text(text) == text
        repaired = bbpe.repair(tokenizer.tokens2text(tokens))
        assert bbpe.normalize_text(repaired) == repaired


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_repair_gives_normal_text(text):
    repaired = bbpe.repair(text)
    assert bbpe.normalize_text(repaired) == repaired


# ------------------------------------------------------------------- text rules


@given(STRINGS)
@settings(max_examples=200, deadline=None)
def test_normalize_text_twice_changes_nothing(text):
    normal = bbpe.normalize_text(text)
    assert bbpe.normalize_text(normal) == normal


@pytest.mark.parametrize("char", ["\u0378", "\U000affff", "\ufffe", "\ud800"])
def test_unassigned_code_point_is_named(char):
    name = f"U+{ord(char):04X}"
    with pytest.raises(bbpe.BbpeError, match=rf"data/text: utterance 'u7': U\+{name[2:]} .* 3 of"):
        bbpe.normalize_text(f"a {char}", utt="u7", path="data/text")


def test_special_symbol_in_a_transcript_is_rejected():
    bbpe.reject_special_symbols("a < b > c", SYMBOLS, "u1", "text")
    with pytest.raises(bbpe.BbpeError, match="text: utterance 'u1': .* symbol '<asr>'"):
        bbpe.reject_special_symbols("say <asr> <spa>", SYMBOLS, "u1", "text")
    with pytest.raises(bbpe.BbpeError, match="'<sos>'"):
        bbpe.reject_special_symbols("a<sos>", SYMBOLS, "u1", "text")


# ------------------------------------------------------------------- symbols and token list


def test_time_symbols_are_contiguous():
    symbols = bbpe.special_symbols(["spa"], ["asr"])
    first, last = symbols.index("<0.00>"), symbols.index("<30.00>")
    assert last - first == 1500
    assert symbols[first + 1] == "<0.02>" and symbols[last - 1] == "<29.98>"
    assert symbols[:first] == ["<na>", "<spa>", "<asr>", "<notimestamps>"]
    assert symbols[-1] == "<sop>"


def test_token_list_has_espnets_layout(model):
    tokens = bbpe.token_list(model)
    assert len(tokens) == len(set(tokens)) == 320
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-2:] == ["<sos>", "<eos>"]
    assert tokens[2 : 2 + len(SYMBOLS)] == SYMBOLS
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert tokens[2:-2] == [processor.id_to_piece(i) for i in range(1, len(processor))]


@pytest.mark.parametrize(
    ("languages", "options", "message"),
    [
        (["spa", "spa"], {}, "'<spa>' is given twice"),
        (["unk"], {}, "'<unk>' is reserved"),
        (["sp a"], {}, "'<sp a>' is malformed"),
        (["spa"], {"last_time": 1.01}, "multiple"),
        (["spa"], {"resolution": 0.0}, "multiple"),
    ],
)
def test_bad_special_symbols(languages, options, message):
    with pytest.raises(bbpe.BbpeError, match=message):
        bbpe.special_symbols(languages, ["asr"], **options)


# ------------------------------------------------------------------- training


def test_same_text_gives_the_same_bytes(model, tmp_path):
    again = bbpe.train(
        iter(TEXTS), model_prefix=tmp_path / "other", vocab_size=320, special_symbols=SYMBOLS
    )
    assert again.read_bytes() == model.read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["other.model"]


def test_too_large_vocabulary_names_the_largest_size(tmp_path):
    with pytest.raises(bbpe.BbpeError, match=r"5000 is too large .* at most \d+") as error:
        bbpe.train(
            ["una casa"], model_prefix=tmp_path / "m", vocab_size=5000, special_symbols=SYMBOLS
        )
    largest = int(str(error.value).split("at most ")[1].split(";")[0])
    assert bbpe.minimum_size(SYMBOLS) <= largest < 5000
    assert list(tmp_path.iterdir()) == []


def test_too_small_vocabulary_names_the_smallest_size(tmp_path):
    smallest = bbpe.minimum_size(SYMBOLS)
    with pytest.raises(bbpe.BbpeError, match=f"too small: .* at least {smallest}$"):
        bbpe.train(
            TEXTS, model_prefix=tmp_path / "m", vocab_size=smallest - 1, special_symbols=SYMBOLS
        )


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["  ", ""], {}, "no training text"),
        (["a\u0378"], {}, r"U\+0378"),
        (["a"], {"model_type": "word"}, "accepted is bpe or unigram"),
        (["a"], {"special_symbols": ["na"]}, "'na' is malformed"),
    ],
)
def test_training_errors(texts, options, message, tmp_path):
    settings_ = {"special_symbols": SYMBOLS, "vocab_size": 300, **options}
    with pytest.raises(bbpe.BbpeError, match=message):
        bbpe.train(texts, model_prefix=tmp_path / "m", **settings_)


def test_sample_of_a_large_corpus_is_seeded():
    lines = [str(number) for number in range(1000)]
    sample = bbpe._sample(iter(lines), 50)
    assert len(set(sample)) == 50 and set(sample) <= set(lines)
    assert sample == bbpe._sample(lines, 50) != lines[:50]


def test_unreadable_model(tmp_path):
    with pytest.raises(bbpe.BbpeError, match=r"absent\.model: not a readable"):
        bbpe.token_list(tmp_path / "absent.model")


def test_character_that_the_model_lacks_is_found(model):
    assert bbpe.unknown_characters(model, ["a\u0378b", "é"]) == ["\u0378"]


# ------------------------------------------------------------------- stage 5


def write_examples(folder):
    source, target = "una casa grande", "a big house"
    rows = {f"u{n}_asr": f"{PROMPT} {source}" for n in range(8)}
    rows |= {f"u{n}_st_eng": f"<spa><st_eng><notimestamps> {target}" for n in range(8)}
    write_table(folder / "text", rows)
    write_table(folder / "text.ctc", dict.fromkeys(rows, source) | {"u7_st_eng": "otra cosa"})


def test_stage_writes_model_and_tokens(script, tmp_path, capsys):
    write_examples(tmp_path / "train")
    arguments = ["--train_dir", f"{tmp_path / 'train'}", "--out", f"{tmp_path / 'out'}"]
    arguments += ["--vocab_size", "223", "--special", "<deu>", "--model_type", "unigram"]
    assert script.main(arguments) == 0
    tokens = (tmp_path / "out/tokens.txt").read_text(encoding="utf-8").splitlines()
    assert tokens == bbpe.token_list(tmp_path / "out/bpe.model")
    assert tokens[2:8] == ["<na>", "<spa>", "<asr>", "<st_eng>", "<deu>", "<notimestamps>"]
    assert "coverage 100 %" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "train"]


def test_training_lines_hold_each_text_once(script, tmp_path):
    write_examples(tmp_path)
    found = script.read_prompts(read_table(tmp_path / "text"), tmp_path / "text")
    lines = script.training_lines(found, read_table(tmp_path / "text.ctc"))
    assert len(lines) == 17 and lines[-1] == "otra cosa"
    assert not any("<" in line for line in lines)


def test_timestamps_in_the_text_are_found(script):
    found = script.read_prompts({"u": "<spa><asr><0.00> una<1.20><1.40> casa<2.00>"}, Path("text"))
    assert found.timestamps and found.extra == set()
    assert found.targets["u"].split() == ["una", "casa"]


@pytest.mark.parametrize("line", ["una casa", "<spa> una", "<spa><asr> una", "<spa><asr>"])
def test_example_without_prompt_is_named(script, line):
    with pytest.raises(DataError, match="d/text: utterance 'u1': .* has no prompt"):
        script.read_prompts({"u1": line}, Path("d/text"))


def test_stage_reports_a_wrong_size(script, tmp_path, capsys):
    write_examples(tmp_path / "train")
    arguments = ["--train_dir", f"{tmp_path / 'train'}", "--out", f"{tmp_path / 'out'}"]
    assert script.main([*arguments, "--vocab_size", "100"]) == 1
    assert "at least" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
