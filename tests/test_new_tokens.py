"""New special tokens: their place, their rows, and that training text keeps them whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from espnet2.train.preprocessor import S2TPreprocessor
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ID, TIMES, TOKENS

from espnet_smoe import bbpe
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.new_tokens import (
    VOCABULARY_TENSORS,
    extend_bpe,
    extend_rows,
    extend_tokens,
    parse_new_tokens,
    vocabulary_tensors,
)

NEW = {"<st_fra>": "<st_eng>", "<fra>": "<spa>"}
SYMBOLS = bbpe.special_symbols(["spa"], ["asr", "st_eng"], time_symbols=False)
TEXTS = ["hola , ¿ cómo estás ?", "el niño come pan", "the child eats bread"] * 4
NAMES = st.text("abcdefgh", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def bpe_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("bpe") / "bpe"
    return bbpe.train(TEXTS, model_prefix=prefix, vocab_size=310, special_symbols=SYMBOLS)


def test_new_tokens_stand_before_the_closing_ones() -> None:
    plan = extend_tokens(TOKENS, NEW)
    place = TOKENS.index("<sop>")
    assert plan.token_list == (*TOKENS[:place], "<st_fra>", "<fra>", "<sop>", "<sos>", "<eos>")
    assert plan.new_ids == (place, place + 1) and plan.old_size == len(TOKENS)
    assert plan.token_list[: ID["<1.00>"] + 1] == tuple(TOKENS[: ID["<1.00>"] + 1])


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["<blank>", "<sop>", "a", "<sos>", "<eos>"], ["<blank>", "<sop>", "a", "<n>"]),
        (["<sos>", "<eos>", "<sop>", "<blank>", "a"], ["<sos>", "<eos>", "<sop>", "<blank>", "a"]),
        (["<sop>", "<sos>", "<eos>"], ["<n>"]),
    ],
    ids=["sop early", "nothing closes", "only closing ones"],
)
def test_the_place_in_other_lists(tokens: list[str], expected: list[str]) -> None:
    plan = extend_tokens(tokens, {"<n>": "<sos>"})
    assert list(plan.token_list)[: len(expected)] == expected
    assert set(plan.token_list) == {*tokens, "<n>"}


def test_no_new_token_changes_nothing() -> None:
    plan = extend_tokens(TOKENS, {})
    assert list(plan.token_list) == TOKENS and plan.new_ids == ()
    assert list(plan.source_row_of_each) == list(range(len(TOKENS)))


@settings(max_examples=50, deadline=None)
@given(st.lists(NAMES, min_size=1, unique=True), st.data())
def test_every_row_follows_its_token(names: list[str], data: st.DataObject) -> None:
    closing = [t for t in ("<sop>", "<sos>", "<eos>") if data.draw(st.booleans(), label=t)]
    old = [*names, *closing]
    added = data.draw(st.lists(NAMES, unique=True), label="new")
    new = {f"<{name}>": data.draw(st.sampled_from(old), label="source") for name in added}
    plan = extend_tokens(old, new)
    values = {token: float(i) for i, token in enumerate(old)}
    weights = {"x": torch.tensor(list(values.values())), "other": torch.zeros(2)}
    extended = extend_rows(weights, ["x"], plan)
    found = dict(zip(plan.token_list, extended["x"].tolist(), strict=True))
    assert found == values | {token: values[source] for token, source in new.items()}
    assert [t for t in plan.token_list if t not in new] == old
    assert [plan.token_list[i] for i in plan.new_ids] == list(new)
    assert extended["other"] is weights["other"]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"<asr>": "<st_eng>"}, "'<asr>' is in the token list already"),
        ({"<st_fra>": "<st_ita>"}, "initialised from '<st_ita>', which is no token of the model"),
        ({"st_fra": "<st_eng>"}, "'st_fra' is no special token: accepted is '<name>'"),
        ({"<st fra>": "<st_eng>"}, "'<st fra>' is no special token"),
        ({"<a><b>": "<st_eng>"}, "'<a><b>' is no special token"),
        ({"<2.00>": "<1.00>"}, "'<2.00>' is a timestamp: the model's are contiguous"),
    ],
)
def test_tokens_that_cannot_be_added(new: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        extend_tokens(TOKENS, new)


def test_options() -> None:
    assert parse_new_tokens(["<st_fra>=<st_eng>", "<fra>=<spa>"]) == NEW
    for option in ("<st_fra>", "=<spa>", "<fra>="):
        with pytest.raises(ModelError, match="accepted is '<new>=<old>'"):
            parse_new_tokens([option])
    with pytest.raises(ModelError, match="'<fra>' is given twice"):
        parse_new_tokens(["<fra>=<spa>", "<fra>=<asr>"])


def test_rows_of_tensors_that_are_not_as_expected() -> None:
    plan = extend_tokens(TOKENS, NEW)
    with pytest.raises(ModelError, match=r"have no ctc\.ctc_lo\.bias"):
        extend_rows({}, ["ctc.ctc_lo.bias"], plan)
    for shape in ((3, 2), ()):
        with pytest.raises(ModelError, match=rf"x is of shape .*row for each of {len(TOKENS)}"):
            extend_rows({"x": torch.zeros(shape)}, ["x"], plan)
    assert vocabulary_tensors([VOCABULARY_TENSORS[1], "encoder.x"]) == (VOCABULARY_TENSORS[1],)


def test_the_bpe_model_keeps_new_tokens_whole_and_all_else_as_it_was(
    bpe_model: Path, tmp_path: Path
) -> None:
    """Its token list is the extended one: what stage 5 writes and what upcycling writes agree."""
    import sentencepiece

    plan = extend_tokens(bbpe.token_list(bpe_model), NEW)
    target = tmp_path / "new.model"
    extend_bpe(bpe_model, plan.new, target)
    assert bbpe.token_list(target) == list(plan.token_list)
    old, new = (
        sentencepiece.SentencePieceProcessor(model_file=str(path)) for path in (bpe_model, target)
    )
    text = "<fra><st_fra><notimestamps> la niña come"
    assert "<st_fra>" not in old.EncodeAsPieces(text)
    pieces = new.EncodeAsPieces(text)
    assert [p for p in pieces if p.startswith("<")] == ["<fra>", "<st_fra>", "<notimestamps>"]
    assert new.DecodePieces(pieces) == text
    for line in [*TEXTS, "<spa><asr><notimestamps> ¡ áé 한국 😀 !", "a <b> st_fra"]:
        assert new.EncodeAsPieces(line) == old.EncodeAsPieces(line)
    extend_bpe(target, plan.new, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == target.read_bytes()


def test_espnets_preprocessor_gives_the_new_ids_in_training(
    bpe_model: Path, tmp_path: Path
) -> None:
    plan = extend_tokens(bbpe.token_list(bpe_model), NEW)
    extend_bpe(bpe_model, plan.new, tmp_path / "new.model")
    process = S2TPreprocessor(
        train=True,
        token_type="bpe",
        token_list=list(plan.token_list),
        bpemodel=str(tmp_path / "new.model"),
        time_apply_prob=1.0,
    )
    text = process._text_process({"text": "<fra><st_fra><notimestamps> pan"}, 0)["text"].tolist()
    prompt = [plan.token_list[i] for i in text[:3]]
    assert prompt == ["<fra>", "<st_fra>", "<notimestamps>"]
    assert plan.token_list.index("<unk>") not in text


def test_bpe_models_that_cannot_be_extended(bpe_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.model").write_bytes(b"\xff\xff\xffno model")
    for path in (tmp_path / "gone.model", tmp_path / "broken.model"):
        with pytest.raises(ModelError, match=rf"BPE model '.*{path.name}' cannot be read"):
            extend_bpe(path, ["<fra>"], tmp_path / "out.model")
    with pytest.raises(ModelError, match="cannot be written"):
        extend_bpe(bpe_model, ["<fra>"], tmp_path / "gone" / "out.model")
    with pytest.raises(ModelError, match="has a piece 'a' that it makes of ordinary text"):
        extend_bpe(bpe_model, ["a"], tmp_path / "out.model")
    assert not (tmp_path / "out.model").exists()


def test_the_timestamps_stay_contiguous() -> None:
    plan = extend_tokens(TOKENS, NEW)
    ids = [plan.token_list.index(time) for time in TIMES]
    assert ids == list(range(ids[0], ids[0] + len(TIMES)))
