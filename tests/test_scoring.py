"""Scoring: figures equal jiwer's and sacrebleu's, intervals, errors."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from scored_texts import HYP, REF, REF2, sentences

from espnet_smoe import scoring
from espnet_smoe.datadir import DataError


def test_wer_and_cer_equal_jiwer():
    refs, hyps = list(REF.values()), list(HYP.values())
    assert scoring.score(REF, HYP, "wer").value == pytest.approx(100 * jiwer.wer(refs, hyps))
    assert scoring.score(REF, HYP, "cer").value == pytest.approx(100 * jiwer.cer(refs, hyps))


@pytest.mark.parametrize("n_refs", [1, 2])
@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_bleu_and_chrf_equal_sacrebleu(metric, n_refs):
    streams = [list(REF.values()), list(REF2.values())][:n_refs]
    scorer = BLEU() if metric == "bleu" else CHRF()
    expected = scorer.corpus_score(list(HYP.values()), streams).score
    references = {utt: (REF[utt], REF2[utt])[:n_refs] for utt in REF}
    assert scoring.score(references, HYP, metric).value == pytest.approx(expected)
    assert str(scorer.get_signature()) in scoring.signature(metric, n_refs)


def test_references_may_differ_in_number():
    references = {utt: (REF[utt], REF2[utt])[: 1 + i % 2] for i, utt in enumerate(REF)}
    streams = [list(REF.values()), [r[1] if len(r) > 1 else None for r in references.values()]]
    expected = BLEU().corpus_score(list(HYP.values()), streams).score
    assert scoring.score(references, HYP, "bleu").value == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab .,", min_size=1).filter(str.strip), st.text(alphabet="ab .,")
        ),
        min_size=1,
        max_size=6,
    )
)
def test_vectorised_figures_equal_sacrebleu_on_any_text(pairs):
    refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
    for metric, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
        counts = scoring.utterance_counts(metric, [[r] for r in refs], hyps)
        value = scoring.corpus_value(metric, counts.sum(axis=0, keepdims=True))[0]
        assert value == pytest.approx(scorer.corpus_score(hyps, [refs]).score, abs=1e-9)


@pytest.mark.parametrize("metric", scoring.METRICS)
def test_interval_contains_the_value_and_is_deterministic(metric):
    result = scoring.score(REF, HYP, metric)
    assert result.ci95[0] <= result.value <= result.ci95[1]
    assert result.ci95[0] < result.ci95[1]
    assert result == scoring.score(REF, HYP, metric)
    assert result.ci95 != scoring.score(REF, HYP, metric, seed=7).ci95


def test_interval_is_the_percentile_bootstrap():
    counts = scoring.utterance_counts("wer", [[t] for t in REF.values()], list(HYP.values()))
    rng = np.random.default_rng(3)
    drawn = [counts[rng.integers(80, size=80)].sum(axis=0) for _ in range(1000)]
    rates = [100 * errors / words for errors, words in drawn]
    expected = np.percentile(rates, [2.5, 97.5])
    assert scoring.score(REF, HYP, "wer").ci95 == pytest.approx(expected, abs=1.0)


def test_perfect_hypotheses():
    assert scoring.score(REF, REF, "wer").ci95 == (0.0, 0.0)
    long = sentences(20, 4, low=5)
    assert scoring.score(long, long, "bleu").value == pytest.approx(100)
    assert scoring.score(REF, REF, "accuracy").value == 100


def test_empty_hypothesis_is_all_deletions():
    result = scoring.score({"a": "uno dos", "b": "tres"}, {"a": "", "b": "tres"}, "wer")
    assert result.value == pytest.approx(100 * 2 / 3)
    assert (result.n_utts, result.n_ref_words) == (2, 3)
    for metric in ("bleu", "chrf"):
        assert scoring.score({"a": "uno"}, {"a": ""}, metric).value == 0


def test_grouped_copies_widen_the_interval():
    doubled = {f"{bw}/{u}": t for bw in ("wb", "nb") for u, t in REF.items()}
    hyps = {f"{bw}/{u}": t for bw in ("wb", "nb") for u, t in HYP.items()}
    groups = {key: key.partition("/")[2] for key in doubled}
    one = scoring.score(REF, HYP, "wer")
    both = scoring.score(doubled, hyps, "wer", groups=groups)
    assert both.value == pytest.approx(one.value) and both.ci95 == pytest.approx(one.ci95)
    apart = scoring.score(doubled, hyps, "wer")
    assert apart.ci95[1] - apart.ci95[0] < both.ci95[1] - both.ci95[0]


def test_paired_difference_is_sharper_than_two_intervals():
    worse = {utt: text.replace("perro", "gato") for utt, text in HYP.items()}
    diff, low, high = scoring.paired_difference(REF, HYP, worse, "wer")
    a, b = scoring.score(REF, HYP, "wer"), scoring.score(REF, worse, "wer")
    assert diff == pytest.approx(b.value - a.value)
    assert 0 < low <= diff <= high
    assert b.ci95[0] < a.ci95[1]  # the separate intervals overlap
    assert scoring.paired_difference(REF, HYP, HYP, "bleu") == (0.0, 0.0, 0.0)


def test_route_mismatches_are_counted():
    utt2bw = {"a": "nb", "b": "wb", "c": "wb"}
    assert scoring.count_route_mismatches({"a": "nb", "b": "nb", "c": "wb"}, utt2bw) == 1
    with pytest.raises(DataError, match=r"utt2route has no line .*: c"):
        scoring.count_route_mismatches({"a": "nb", "b": "nb"}, utt2bw)


def test_normalisations_by_name():
    text = '\u00a1Hola,  L\u2019AMI!  s\' e\u0301l peut-\u00eatre - "no" 3.5'
    assert scoring.normalise(text, "nfc_ws") == (
        '\u00a1Hola, L\u2019AMI! s\' \u00e9l peut-\u00eatre - "no" 3.5'
    )
    assert scoring.normalise(text, "lower_nopunct") == "hola l'ami s' \u00e9l peut-\u00eatre no 3 5"
    assert scoring.normalise(text, "none") == text
    with pytest.raises(DataError, match=r"'loud' is unknown .known: none, nfc_ws, lower_nopunct"):
        scoring.normalise(text, "loud")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.sampled_from(sorted(scoring.NORMALISATIONS)))
def test_normalising_twice_changes_nothing(text, name):
    once = scoring.normalise(text, name)
    assert scoring.normalise(once, name) == once


def test_normalisation_is_applied_to_both_sides():
    ref, hyp = {"a": "Hola, Ana."}, {"a": "hola ana"}
    assert scoring.score(ref, hyp, "wer").value == 100
    assert scoring.score(ref, hyp, "wer", normalisation="lower_nopunct").value == 0


@pytest.mark.parametrize(
    ("refs", "hyps", "metric", "message"),
    [
        ({"a": "x", "b": "y"}, {"a": "x"}, "wer", r"hypotheses has no line for 1 .*: b"),
        ({"a": "x"}, {"a": "x", "z": "y"}, "wer", r"references has no line for 1 .*: z"),
        ({}, {}, "wer", "no utterance to score"),
        ({"a": " "}, {"a": "x"}, "wer", "empty after text normalisation 'nfc_ws': a"),
        ({"a": ("x", "y")}, {"a": "x"}, "cer", "one reference per utterance"),
        ({"a": "x"}, {"a": "x"}, "ter", "'ter' is unknown .known: wer, cer, bleu"),
    ],
)
def test_scoring_errors(refs, hyps, metric, message):
    with pytest.raises(DataError, match=message):
        scoring.score(refs, hyps, metric)


# --- training log and pictures
