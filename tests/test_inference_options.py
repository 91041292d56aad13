"""Options of `Speech2Text`: ESPnet's keywords, ours, and the ones that are refused."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from espnet2.bin.s2t_inference import Speech2Text as StockSpeech2Text
from saved_model import load_model

from espnet_smoe.inference_options import NOTHING_ASKED, OptionError, Options

ELSEWHERE = {"s2t_train_config", "s2t_model_file", "token_type", "bpemodel", "self"}


def test_takes_every_keyword_of_espnets_class() -> None:
    signature = inspect.signature(StockSpeech2Text.__init__)
    defaults = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in ELSEWHERE
    }
    assert defaults.keys() >= NOTHING_ASKED.keys() - {"word_lm_train_config", "word_lm_file"}
    options = Options.of(defaults)
    for name, value in defaults.items():
        if hasattr(options, name):
            given = getattr(options, name)
            assert given == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beam_sise": 3}, "unknown option 'beam_sise'; accepted: .*beam_size"),
        ({"beam_size": 0}, "beam_size is 0; accepted: 1 or more"),
        ({"beam_size": "five"}, "beam_size is 'five'; accepted: a whole number"),
        ({"beam_size": 2.5}, "beam_size is 2.5; accepted: a whole number"),
        ({"beam_size": None}, "beam_size is None; accepted: a whole number"),
        ({"nbest": True}, "nbest is True; accepted: a whole number"),
        ({"penalty": "1e-3"}, "penalty is '1e-3'; accepted: a number"),
        ({"predict_time": "no"}, "predict_time is 'no'; accepted: true or false"),
        ({"pad": 30}, "pad is 30; accepted: true, false, or None"),
        ({"lm_weight": 0.2}, "lm_weight is 0.2; this search has no language model"),
        ({"partial_ar": True}, "partial_ar is True"),
        ({"ctc_weight": 0.3, "predict_time": True}, "CTC cannot predict timestamps"),
        ({"bandwidth": "fm"}, "bandwidth is 'fm'; accepted: auto, wb, nb"),
        ({"ambiguous": "guess"}, "ambiguous is 'guess'; accepted: measured, wb, blend"),
        ({"channels": 0}, "channels is 0; accepted: a number from 1, each, mix, or None"),
        ({"channels": True}, "channels is True"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": 0.1}, "max_length is 0.1; accepted: 1 second or more"),
    ],
)
def test_refuses(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options.of(keywords)


def test_a_call_overrides() -> None:
    options = Options.of({"beam_size": 3, "nbest": 2})
    assert options.with_call({"nbest": 1, "bandwidth": None}) == Options(beam_size=3)
    assert options.with_call({}) is options
    with pytest.raises(OptionError, match="device is set once"):
        options.with_call({"device": "cuda"})
    with pytest.raises(OptionError, match="unknown option 'nbst'"):
        options.with_call({"nbst": 1})


def test_numbers_of_any_type_are_numbers() -> None:
    options = Options.of({"beam_size": np.int64(3), "penalty": np.float32(0.5), "compile": 0})
    assert options == Options(beam_size=3, penalty=0.5)


def test_modules_to_quantize_are_a_list() -> None:
    assert Options.of({"quantize_modules": ["Linear", "LSTM"]}).quantize_modules == (
        "Linear",
        "LSTM",
    )
    for wrong in ("Linear", None):
        with pytest.raises(ValueError, match=f"quantize_modules is {wrong!r}; accepted: a list"):
            load_model(quantize_modules=wrong)
