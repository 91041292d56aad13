"""Text, prompt and audio to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from espnet2.train.preprocessor import S2TPreprocessor
from tiny import ID, TIMES, TOKENS, ids

from espnet_smoe.preprocessor import SMoEPreprocessor

FS = 1000  # Hz; the times stay small
TIMED = "_ <spa> <asr> <0.00> hola casa <0.10> perro <0.20>"
UNTIMED = "_ <spa> <asr> <notimestamps> hola casa"


def preprocessor(cls: Any = SMoEPreprocessor, **options: Any) -> Any:
    defaults = {
        "train": True,
        "token_type": "word",
        "token_list": TOKENS,
        "fs": FS,
        "speech_length": 1.0,
        "last_time_symbol": TIMES[-1],
        "speech_init_silence": 0.2,
    }
    return cls(**{**defaults, **options})


def data(text: str = UNTIMED, samples: int = 300, **more: str) -> dict[str, Any]:
    speech = np.arange(1, samples + 1, dtype=np.float32)
    return {
        "speech": speech,
        "text": text,
        "text_prev": "_ <na>",
        "text_ctc": "_ hola casa",
        **more,
    }


def seeded(module: Any, seed: int, **options: Any) -> dict[str, np.ndarray]:
    np.random.seed(seed)
    result: dict[str, np.ndarray] = module("u1", data(**options))
    return result


def test_inference_changes_no_sample() -> None:
    module = preprocessor(train=False, pad_prob=1.0)
    for samples in (1, 300, 1000, 1700):  # longer than speech_length as well
        result = module("u1", data(samples=samples))
        assert result["speech"].tolist() == list(range(1, samples + 1))
        assert result["text"].tolist() == ids("<spa>", "<asr>", "<notimestamps>", "hola", "casa")


def test_training_keeps_the_length_but_for_the_silence_before() -> None:
    befores = set()
    for seed in range(40):
        speech = seeded(preprocessor(), seed)["speech"]
        before = len(speech) - 300
        assert 0 <= before <= 200  # speech_init_silence
        assert not speech[:before].any()
        assert speech[before:].tolist() == list(range(1, 301))
        assert speech.dtype == np.float32 and speech.ndim == 1
        befores.add(before)
    assert len(befores) > 20


def test_pad_prob_is_the_share_of_padded_utterances() -> None:
    for pad_prob, low, high in ((0.0, 0, 0), (0.5, 70, 130), (1.0, 195, 200)):
        module = preprocessor(pad_prob=pad_prob)
        padded = 0
        for seed in range(200):
            speech = seeded(module, seed)["speech"]
            last = int(np.flatnonzero(speech)[-1])
            assert len(speech) <= 1000  # speech_length
            padded += len(speech) > last + 1
        assert low <= padded <= high


def test_padding_reaches_up_to_speech_length() -> None:
    module = preprocessor(pad_prob=1.0, speech_init_silence=0.0)
    lengths = {len(seeded(module, seed, samples=997)["speech"]) for seed in range(60)}
    assert lengths == {997, 998, 999, 1000}


def test_an_utterance_of_exactly_speech_length_stays() -> None:
    speech = preprocessor(pad_prob=1.0)("u1", data(samples=1000))["speech"]
    assert speech.tolist() == list(range(1, 1001))


def test_a_training_utterance_that_is_too_long_raises() -> None:
    message = r"utterance u7: 1001 samples of speech; accepted: up to .*speech_length \(1000"
    with pytest.raises(ValueError, match=message):
        preprocessor()("u7", data(samples=1001))


@pytest.mark.parametrize("pad_prob", [-0.1, 1.1])
def test_a_pad_prob_that_is_no_probability_raises(pad_prob: float) -> None:
    with pytest.raises(ValueError, match=f"pad_prob is {pad_prob}; accepted: 0 to 1"):
        preprocessor(pad_prob=pad_prob)


def test_timestamps_shift_with_the_silence_before_the_speech() -> None:
    shifts = set()
    for seed in range(30):
        result = seeded(preprocessor(time_apply_prob=1.0), seed, text=TIMED)
        shift = round((len(result["speech"]) - 300) / 20)  # 0.02 s per time symbol
        expected = ids("<spa>", "<asr>", TIMES[0], "hola", "casa", TIMES[5], "perro", TIMES[10])
        for position in (2, 5, 7):
            expected[position] += shift
        assert result["text"].tolist() == expected
        shifts.add(shift)
    assert len(shifts) > 5


def test_dropped_timestamps_leave_one_notimestamps() -> None:
    result = preprocessor(time_apply_prob=0.0)("u1", data(TIMED))
    expected = ids("<spa>", "<asr>", "<notimestamps>", "hola", "casa", "perro")
    assert result["text"].tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UNTIMED, ["<spa>", "<asr>", "<notimestamps>", "hola", "casa"]),
        ("_ <asr> <notimestamps> hola", ["<asr>", "<notimestamps>", "hola"]),
        (
            "_ <spa> <asr> <st_deu> <notimestamps> hola",
            ["<spa>", "<asr>", "<st_deu>", "<notimestamps>", "hola"],
        ),
    ],
)
def test_there_is_never_a_second_notimestamps(text: str, expected: list[str]) -> None:
    """Wherever ESPnet inserts its own, the prompt stays as the data has it."""
    for probability in (0.0, 1.0):
        for train in (True, False):
            module = preprocessor(time_apply_prob=probability, train=train)
            assert module("u1", data(text))["text"].tolist() == ids(*expected)


@pytest.mark.parametrize("text", [TIMED, UNTIMED])
@pytest.mark.parametrize("train", [True, False])
def test_all_else_is_the_stock_preprocessors(text: str, train: bool) -> None:
    """Same random draws: the same texts, and the same speech before ESPnet's padding."""
    stock = preprocessor(S2TPreprocessor, train=train)
    mine = preprocessor(train=train)
    used_prev = set()
    for seed in range(30):
        options = {"text": text, "text_prev": "_ perro <asr> hola"}
        expected, actual = seeded(stock, seed, **options), seeded(mine, seed, **options)
        assert actual.keys() == expected.keys()
        assert actual["text_prev"].tolist() == expected["text_prev"].tolist()
        assert actual["text_ctc"].tolist() == expected["text_ctc"].tolist()
        used_prev.add(ID["<na>"] not in actual["text_prev"])
        once = [
            token
            for i, token in enumerate(expected["text"].tolist())
            if token != ID["<notimestamps>"] or token not in expected["text"][:i]
        ]
        assert actual["text"].tolist() == once
        samples = len(actual["speech"])
        assert expected["speech"][:samples, 0].tolist() == actual["speech"].tolist()
        assert not expected["speech"][samples:].any()
    assert used_prev == ({True, False} if train else {True})


def test_data_without_text_or_with_other_names_passes() -> None:
    result = preprocessor(train=False)("u1", {"speech": np.ones(5, np.float32)})
    assert list(result) == ["speech"]
    result = preprocessor()("u1", {**data(), "bandwidth": np.array([1])})
    assert result["bandwidth"].tolist() == [1]


def test_errors_of_the_stock_preprocessor_name_the_utterance() -> None:
    with pytest.raises(ValueError, match="utterance u9: "):
        preprocessor(pad_prob=0.0)("u9", data(samples=2000))
