"""The study's statistics: scores at a share of wrong labels, and what a gate's choices tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scored_texts import HYP, REF, corrupted

from espnet_smoe.mixing import first_significant, mixed_scores
from espnet_smoe.mutual_information import dependence, normalised, summed
from espnet_smoe.scoring import corpus_value, paired_difference, prepared, utterance_counts


def counts(metric: str, texts: dict[str, str]) -> np.ndarray:
    _, refs, hyps = prepared(REF, texts, "nfc_ws")
    return utterance_counts(metric, refs, hyps)


OTHER = corrupted(REF, 7, share=0.6)


@pytest.mark.parametrize(("metric", "tolerance"), [("wer", 0.15), ("bleu", 0.5), ("chrf", 0.3)])
def test_a_mixed_score_is_the_mean_over_which_utterances_are_wrong(
    metric: str, tolerance: float
) -> None:
    right, wrong = counts(metric, HYP), counts(metric, OTHER)
    rng = np.random.default_rng(1)
    for share in (0.05, 0.5):
        drawn = rng.random((4000, len(right), 1)) < share
        simulated = corpus_value(metric, np.where(drawn, wrong, right).sum(axis=1)).mean()
        found = mixed_scores(metric, right, wrong, [share], resamples=10)[0]
        assert found.value == pytest.approx(simulated, abs=tolerance)


def test_the_interval_is_that_of_drawing_utterances_and_then_which_are_wrong() -> None:
    right, wrong = counts("wer", HYP), counts("wer", OTHER)
    rng = np.random.default_rng(2)
    differences = []
    for _ in range(4000):
        rows = rng.integers(len(right), size=len(right))
        is_wrong = rng.random(len(right)) < 0.25
        mixed = np.where(is_wrong[:, None], wrong[rows], right[rows])
        values = corpus_value("wer", np.stack([mixed.sum(axis=0), right[rows].sum(axis=0)]))
        differences.append(values[0] - values[1])
    found = mixed_scores("wer", right, wrong, [0.25], resamples=4000)[0]
    expected = np.percentile(differences, [2.5, 97.5])
    assert found.difference_ci95 == pytest.approx(expected, abs=0.6)
    assert found.difference_ci95[0] < found.difference < found.difference_ci95[1]


def test_share_0_changes_nothing_and_share_1_is_the_paired_difference() -> None:
    none, all_ = mixed_scores("wer", counts("wer", HYP), counts("wer", OTHER), [0.0, 1.0])
    assert (none.difference, none.difference_ci95, none.significant) == (0.0, (0.0, 0.0), False)
    difference, low, high = paired_difference(REF, HYP, OTHER, "wer")
    assert all_.difference == pytest.approx(difference)
    assert all_.difference_ci95 == pytest.approx((low, high), abs=3.0)  # other draws
    with pytest.raises(ValueError, match="share 1.5; accepted: 0 to 1"):
        mixed_scores("wer", counts("wer", HYP), counts("wer", OTHER), [1.5])


def test_the_first_significant_share_is_smaller_for_a_larger_change() -> None:
    right = counts("wer", HYP)
    worse, much_worse = counts("wer", OTHER), counts("wer", dict.fromkeys(REF, "x y z"))
    little, much = (first_significant("wer", right, w, resamples=300) for w in (worse, much_worse))
    assert little is not None and much is not None and much < little
    assert first_significant("wer", right, right, resamples=50) is None


def test_mutual_information_equals_a_computation_by_hand() -> None:
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    tables = np.array([[[30, 10], [10, 30]], [[5, 5], [5, 5]], [[9, 0], [0, 9]], [[4, 0], [4, 0]]])
    assert normalised(tables) == pytest.approx([1 - entropy, 0.0, 1.0, 0.0])
    joint, rows, columns = [0.5, 0.2, 0.3], [0.5, 0.5], [0.7, 0.3]
    h_joint, h_rows, h_columns = (-sum(p * math.log2(p) for p in ps)
                                  for ps in (joint, rows, columns))  # fmt: skip
    expected = (h_rows + h_columns - h_joint) / ((h_rows + h_columns) / 2)
    assert normalised(np.array([[50, 0], [20, 30]])) == pytest.approx(expected)


def test_chance_is_measured_over_utterances() -> None:
    rng = np.random.default_rng(0)
    labels = ["wb", "nb"] * 40
    own = rng.random((80, 1)) < 0.5  # each utterance has one expert, whatever its label
    choices = np.where(own, [[100, 0]], [[0, 100]]).astype(float)
    found = dependence(choices, labels, permutations=200)
    assert found.p_value > 0.05 and found.nmi < found.null_95  # 8,000 frames prove nothing
    follows = np.array([[70, 30], [30, 70]] * 40, dtype=float)
    told = dependence(follows, labels, permutations=200)
    assert told.p_value == pytest.approx(1 / 201) and told.null_95 < told.nmi < 0.2
    assert (told.utterances, told.labels, told.choice_entropy) == (80, 2, 1.0)


def test_labels_are_exchanged_within_their_stratum() -> None:
    sentences = np.repeat(np.arange(20), 2)
    rng = np.random.default_rng(3)
    base = np.repeat(rng.integers(0, 90, (20, 2)), 2, axis=0).astype(float)  # twins alike ...
    base[::2, 0] += 5  # ... but for a little of the label
    labels = ["wb", "nb"] * 20
    free = dependence(base, labels, permutations=300)
    paired = dependence(base, labels, strata=sentences.tolist(), permutations=300)
    assert free.nmi == paired.nmi
    assert paired.p_value < 0.01 < free.p_value
    same = np.repeat(base[::2], 2, axis=0)
    assert dependence(same, labels, strata=sentences.tolist(), permutations=50).p_value == 1.0


def test_counts_are_summed_over_groups_and_errors_are_said() -> None:
    total, names = summed(np.array([[1.0, 0], [2, 1], [0, 4]]), ["b", "a", "b"])
    assert names == ["b", "a"] and total.tolist() == [[1, 4], [2, 1]]
    with pytest.raises(ValueError, match="accepted: one per utterance"):
        dependence(np.ones((2, 2)), ["wb"])
