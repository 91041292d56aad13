"""Programs written for ESPnet's `Speech2Text` read and set its attributes."""

from __future__ import annotations

import inspect
from typing import Any

import espnet2.bin.s2t_inference as stock
import pytest
from saved_model import MAXLEN, STOCK, load_model, model_directory, save_model
from tiny import FS, TOKENS, speech

from espnet_smoe import Speech2Text
from espnet_smoe.inference_options import OptionError
from espnet_smoe.pretrained import ModelError

X = speech(8000)


@pytest.fixture
def s2t() -> Speech2Text:
    return load_model(lang_sym="<spa>")


def files() -> dict[str, Any]:
    directory = model_directory()
    return {
        "s2t_train_config": directory / "config.yaml",
        "s2t_model_file": directory / "valid.acc.ave.pth",
    }


def test_has_what_espnets_class_has(s2t: Speech2Text) -> None:
    theirs = stock.Speech2Text(**files(), maxlenratio=MAXLEN, lang_sym="<spa>")
    for name, value in vars(theirs).items():
        mine = getattr(s2t, name)
        if isinstance(value, str | int | float | None):
            assert mine == value, name
    assert s2t.converter.tokens2ids(["<asr>"]) == [TOKENS.index("<asr>")]
    assert s2t.beam_search.beam_size == theirs.beam_search.beam_size


def test_setting_one_counts_from_now_on(s2t: Speech2Text) -> None:
    s2t.maxlenratio, s2t.nbest, s2t.task_sym = -3, 2, "<st_eng>"
    s2t.beam_search.beam_size = 3
    expected = load_model(lang_sym="<spa>")(
        X, maxlenratio=-3, nbest=2, task_sym="<st_eng>", beam_size=3
    )
    result = s2t(X)
    assert (result.task, len(result)) == ("st_eng", 2)
    assert [entry.token for entry in result] == [entry.token for entry in expected]
    with pytest.raises(OptionError, match="nbest is -1; accepted: 0"):
        s2t.nbest = -1
    with pytest.raises(AttributeError):
        s2t.device = "cuda"  # type: ignore[misc]


@pytest.mark.parametrize("method", ["__call__", "decode_long"])
def test_arguments_have_espnets_places(method: str) -> None:
    def places(cls: type) -> list[str]:
        parameters = inspect.signature(getattr(cls, method)).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert places(Speech2Text) == places(stock.Speech2Text)


def test_decode_long_takes_espnets_arguments(s2t: Speech2Text) -> None:
    plain = s2t.decode_long(X)
    assert plain == s2t.decode_long(X, False, None, "<29.00>", "<spa>", "<asr>", 0.2)
    with pytest.raises(OptionError, match="condition_on_prev_text is True; accepted: False"):
        s2t.decode_long(X, condition_on_prev_text=True)


def test_from_pretrained_without_a_tag() -> None:
    s2t = Speech2Text.from_pretrained(None, **files(), maxlenratio=MAXLEN, lang_sym="<spa>")
    assert s2t(X).text == load_model()(X).text
    with pytest.raises(ModelError, match=r"model_file is 'x\.pth', but no model directory"):
        Speech2Text.from_pretrained(None, model_file="x.pth", **files())


def test_a_bandwidth_for_a_model_without_experts_is_told(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    directory = save_model(tmp_path, encoder="conformer", **STOCK)
    s2t = Speech2Text.from_pretrained(directory, maxlenratio=MAXLEN, bandwidth="nb")
    assert [r.route for r in s2t([X, X])] == ["", ""]
    (record,) = caplog.records
    assert "bandwidth nb has no effect: the model's encoder has no experts" in record.getMessage()


def test_forced_and_overridden_routes_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPNET_SMOE_ROUTE", "wb")
    s2t = load_model(encoder_batch=2)
    y = speech(FS // 2, seed=1)
    found = s2t([X, y], bandwidth=["auto", "nb"]) + s2t([X, y], bandwidth=["nb", "auto"])
    assert [r.route for r in found] == ["wb/asr", "nb/asr", "nb/asr", "wb/asr"]


def test_the_language_is_no_task(s2t: Speech2Text) -> None:
    with pytest.raises(OptionError, match="'spa' is the language spoken and a task; accepted: asr"):
        s2t(X, tasks="spa")
