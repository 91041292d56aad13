"""preprocessor.py: speech narrowed on the fly, and the route that follows it."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import TIMES, TOKENS

from espnet_smoe import amr
from espnet_smoe.audio import resample
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.preprocessor import SMoEPreprocessor
from espnet_smoe.telephone import telephone

FS = 16000
WB, NB = (BANDWIDTHS.index(name) for name in ("wb", "nb"))
CODECS = ("ulaw", "alaw", "g721", "gsm")


def preprocessor(**options: Any) -> SMoEPreprocessor:
    defaults: dict[str, Any] = {
        "train": True,
        "token_type": "word",
        "token_list": TOKENS,
        "fs": FS,
        "speech_length": 2.0,
        "speech_init_silence": 0.0,
        "last_time_symbol": TIMES[-1],
        "narrowband_prob": 0.5,
        "narrowband_codecs": CODECS,
    }
    return SMoEPreprocessor(**{**defaults, **options})


def wide(seed: int, samples: int = 4801) -> np.ndarray:
    """White noise: as much above 4 kHz as below."""
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def data(bandwidth: int | None = WB, seed: int = 0) -> dict[str, Any]:
    tag = {} if bandwidth is None else {"bandwidth": np.array([bandwidth])}
    text = {
        "text": "_ <spa> <asr> <notimestamps> hola",
        "text_prev": "_ <na>",
        "text_ctc": "_ hola",
    }
    return {"speech": wide(seed), **text, **tag}


def share_above_4_khz(x: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(np.asarray(x, dtype=np.float64))) ** 2
    return float(power[len(power) // 2 :].sum() / power.sum())


def agrees(speech: np.ndarray, bandwidth: int) -> bool:
    """Does the tag say what the spectrum of (once white) noise shows?"""
    return (share_above_4_khz(speech) > 0.25) == (bandwidth == WB)


def test_route_and_audio_agree_whatever_the_seed() -> None:
    module = preprocessor()
    for seed in range(300):
        np.random.seed(seed)
        result = module("u1", data(seed=seed))
        assert result["speech"].shape == (4801,)
        assert agrees(result["speech"], int(result["bandwidth"][0])), seed


def test_both_happen_in_the_share_asked_for() -> None:
    module = preprocessor(narrowband_prob=0.3, narrowband_codecs="ulaw")
    np.random.seed(0)
    tags = [int(module("u1", data())["bandwidth"][0]) for _ in range(1000)]
    assert np.mean(np.array(tags) == NB) == pytest.approx(0.3, abs=0.05)


def test_narrowband_speech_is_never_narrowed_again() -> None:
    for seed in range(20):
        np.random.seed(seed)
        result = preprocessor(narrowband_prob=1.0)("u1", data(NB))
        np.testing.assert_array_equal(result["speech"], wide(0))
        assert result["bandwidth"].tolist() == [NB]


def test_the_data_is_not_changed_in_place() -> None:
    given = data()
    speech, tag = given["speech"], given["bandwidth"]
    preprocessor(narrowband_prob=1.0)("u1", given)
    np.testing.assert_array_equal(speech, wide(0))
    assert tag.tolist() == [WB]


def test_validation_and_inference_narrow_nothing() -> None:
    result = preprocessor(train=False, narrowband_prob=1.0)("u1", data())
    np.testing.assert_array_equal(result["speech"], wide(0))
    assert "bandwidth" not in preprocessor(train=False, narrowband_prob=1.0)("u1", data(None))


def test_a_model_is_used_without_the_codecs_that_it_was_trained_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amr, "_library", lambda: None)
    preprocessor(train=False, narrowband_codecs="amr_nb")
    with pytest.raises(ValueError, match="'amr_nb' needs libopencore-amrnb"):
        preprocessor(narrowband_codecs="amr_nb")


def test_without_tags_nobody_knows_what_to_narrow() -> None:
    with pytest.raises(ValueError, match="utterance u1: .*the data has no 'bandwidth'"):
        preprocessor()("u1", data(None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"narrowband_prob": 1.5}, "narrowband_prob is 1.5; accepted: 0 to 1"),
        ({"narrowband_noise_prob": -1}, "narrowband_noise_prob is -1"),
        ({"narrowband_codecs": ["ulaw", "mp3"]}, "'mp3' is unknown"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocessor(**options)


class Examples(torch.utils.data.Dataset):
    """What ESPnet's dataset does: read, then preprocess, in whatever process."""

    def __init__(self, module: SMoEPreprocessor, tags: list[int]) -> None:
        self.module, self.tags = module, tags

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        result = self.module(f"u{index}", data(self.tags[index], seed=index))
        return result["speech"], int(result["bandwidth"][0])


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_route_and_audio_agree_in_any_number_of_workers(workers: int, seed: int) -> None:

    from espnet2.iterators.sequence_iter_factory import worker_init_fn
    from espnet2.train.iterable_dataset import IterableESPnetDataset  # noqa: F401

    np.random.seed(seed)
    loader = torch.utils.data.DataLoader(
        Examples(preprocessor(narrowband_codecs=("ulaw", "gsm")), [WB] * 60),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=partial(worker_init_fn, base_seed=seed),
    )
    results = [(np.asarray(speech), tag) for speech, tag in loader]
    assert all(agrees(speech, tag) for speech, tag in results)
    assert {tag for _, tag in results} == {WB, NB}


def test_espnets_own_iterator_gives_agreeing_batches(tmp_path: Path) -> None:
    """Through ESPnet's parser, dataset, collate function and the batch plan, with workers."""
    from espnet2.tasks.s2t import S2TTask
    from espnet2.train.distributed_utils import DistributedOption

    import espnet_smoe  # noqa: F401
    from espnet_smoe.batching import PLAN_NAME, plan_batches, write_plan

    utts = [f"u{number:02d}" for number in range(24)]
    tags = {utt: NB if number % 4 == 0 else WB for number, utt in enumerate(utts)}
    tables: dict[str, dict[str, object]] = {
        "text": dict.fromkeys(utts, "_ <spa> <asr> <notimestamps> hola"),
        "text.prev": dict.fromkeys(utts, "_ <na>"),
        "text.ctc": dict.fromkeys(utts, "_ hola"),
        "bandwidth": dict(tags),
    }
    for number, utt in enumerate(utts):
        x = wide(number)
        if tags[utt] == NB:
            x = resample(telephone(x, FS), 8000, FS)
        soundfile.write(tmp_path / f"{utt}.wav", x, FS)
    tables["wav.scp"] = {utt: tmp_path / f"{utt}.wav" for utt in utts}
    for name, rows in tables.items():
        (tmp_path / name).write_text("".join(f"{u} {v}\n" for u, v in rows.items()))
    lengths = dict.fromkeys(utts, 4801)
    plan = plan_batches(lengths, dict.fromkeys(utts, "asr"), batch_bins=4 * 4801)
    write_plan(tmp_path / PLAN_NAME, plan)
    kinds = {"wav.scp": "speech,sound", "bandwidth": "bandwidth,text_int"}
    kinds |= {n: f"{n.replace('.', '_')},text" for n in ("text", "text.prev", "text.ctc")}
    data_options = [
        option
        for name, kind in kinds.items()
        for option in ("--train_data_path_and_name_and_type", f"{tmp_path / name},{kind}")
    ]
    (tmp_path / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    args: argparse.Namespace = S2TTask.get_parser().parse_args(
        [
            *("--output_dir", str(tmp_path), "--token_list", str(tmp_path / "tokens.txt")),
            *("--token_type", "word", "--preprocessor", "smoe", "--use_preprocessor", "true"),
            *("--preprocessor_conf", "narrowband_prob=0.5", "--preprocessor_conf", "fs=16000"),
            *("--preprocessor_conf", f"last_time_symbol={TIMES[-1]}"),
            *("--iterator_type", "task", "--num_workers", "2", *data_options),
        ]
    )
    args.token_list = TOKENS
    factory = S2TTask.build_iter_factory(args, distributed_option=DistributedOption(), mode="train")
    seen = []
    for epoch in range(1, 6):
        for names, batch in factory.build_iter(epoch):
            for utt, speech, tag in zip(names, batch["speech"], batch["bandwidth"], strict=True):
                assert agrees(speech.numpy(), int(tag[0])), utt
                assert tags[utt] == WB or int(tag[0]) == NB
                seen.append(tags[utt] == WB and int(tag[0]) == NB)
    assert len(seen) == 5 * len(utts)
    assert any(seen)
