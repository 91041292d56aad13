"""The comparison of the rules for ambiguous audio: its noise, its choice of texts, its pooling."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from saved_model import load_model
from scored_texts import HYP, REF, corrupted
from tiny import FS, speech

from espnet_smoe import Speech
from espnet_smoe.scoring import paired_difference

TASKS = ["asr", "st_eng"]


def load_benchmark(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ambiguous = load_benchmark("ambiguous")


def noise_of(x: np.ndarray, condition: str, utt: str = "u", seed: int = 1) -> np.ndarray:
    return ambiguous.noisy(x, condition, utt, seed) - x


def test_noise_has_the_asked_power_and_is_fixed_by_utterance_and_seed() -> None:
    x = speech(9000, seed=1).numpy()
    for colour in ambiguous.COLOURS:
        noises = {snr: noise_of(x, f"{colour}:{snr}") for snr in (15, 0, -5)}
        for snr, noise in noises.items():
            assert 10 * np.log10(np.mean(x**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.01)
        assert np.corrcoef(noises[0], noises[-5])[0, 1] == pytest.approx(1, abs=1e-5)
        for other in (noise_of(x, f"{colour}:0", "v"), noise_of(x, f"{colour}:0", seed=2)):
            assert abs(np.corrcoef(noises[0], other)[0, 1]) < 0.2
    assert (noise_of(x, "clean") == 0).all()


@pytest.mark.parametrize(("colour", "fall_db"), [("white", 0.0), ("pink", 6.0)])
def test_pink_noise_falls_by_three_decibels_an_octave(colour: str, fall_db: float) -> None:
    x = np.ones(64000, dtype=np.float32)
    power = np.abs(np.fft.rfft(noise_of(x, f"{colour}:0"))) ** 2
    hz = np.fft.rfftfreq(len(x), 1 / FS)
    low, high = (power[(hz > f) & (hz < 1.2 * f)].mean() for f in (1000, 4000))
    assert 10 * np.log10(low / high) == pytest.approx(fall_db, abs=1.0)


@pytest.mark.parametrize("condition", ["brown:5", "white", "white:loud"])
def test_an_unknown_condition_is_an_error(condition: str) -> None:
    with pytest.raises(
        ValueError, match=f"{condition}.*accepted: clean, or white or pink:<SNR in dB>"
    ):
        noise_of(np.ones(100, dtype=np.float32), condition)


def test_chosen_texts_are_what_each_rule_decodes() -> None:
    s2t = load_model()
    items = []
    for n, condition in enumerate(["clean", "pink:30", "pink:20"]):
        x = speech(8000 + 900 * n, wide=False, seed=n).numpy()
        items.append(Speech(ambiguous.noisy(x, condition, "u", 1), name=f"u{n}"))
    decoded = ambiguous.decode(s2t, items, "nb", TASKS)
    doubtful = {d.found.likelier for d in decoded if d.found.label == "ambiguous"}
    assert doubtful == {"wb", "nb"}, "the audio does not try all rules"
    for rule in ("measured", "wb", "blend"):
        for d, results in zip(decoded, s2t(items, tasks=TASKS, ambiguous=rule), strict=True):
            route = ambiguous.route_of(rule, d.found, d.truth)
            for task in TASKS:
                assert results[task].route == f"{route}/{task.split('_')[0]}"
                assert results[task].text == d.text(rule, task)


@pytest.mark.parametrize("metric", ["wer", "bleu"])
def test_pooling_counts_a_repeated_sentence_once(metric: str) -> None:
    other = corrupted(REF, 2)
    wanted = paired_difference(REF, HYP, other, metric)
    rows = [(utt, REF[utt], HYP[utt], other[utt]) for utt in sorted(REF)]
    assert ambiguous.pooled_difference(rows, metric) == pytest.approx(wanted)
    if metric == "wer":  # BLEU's smoothing knows the size of the corpus
        assert ambiguous.pooled_difference(rows * 3, metric) == pytest.approx(wanted)


def test_shares_count_routes() -> None:
    def decoded(label: str, wide: float, truth: str) -> object:
        found = ambiguous.BandwidthEstimate(label, 4000.0, max(wide, 1 - wide), wide)
        return ambiguous.Decoded("u", truth, found, {})

    rows = [
        decoded("wb", 0.9, "nb"),
        decoded("nb", 0.1, "nb"),
        decoded("ambiguous", 0.6, "nb"),
        decoded("ambiguous", 0.4, "nb"),
        decoded("ambiguous", 0.4, "wb"),
    ]
    assert ambiguous.shares(rows) == {
        "utts": 5,
        "ambiguous": 3,
        "ambiguous_likelier_wrong": 2,
        "decided_wrong": 1,
        "routed_wrong": {"measured": 3, "wb": 3, "blend": 1},
    }
