"""Scoring: figures equal jiwer's and sacrebleu's, intervals, stage 13's table and errors."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from espnet_smoe import plots, scoring
from espnet_smoe.datadir import DataError, write_table

LOCAL = Path(__file__).parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
SENTENCE = "el perro come una manzana roja y la casa es grande no sé qué hora"
WORDS = SENTENCE.split()


def load_stage(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", LOCAL / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


stage13 = load_stage("score")


def sentences(n: int, seed: int, *, low: int = 1, high: int = 9) -> dict[str, str]:
    rng = random.Random(seed)
    return {f"u{i:03}": " ".join(rng.choices(WORDS, k=rng.randint(low, high))) for i in range(n)}


def corrupted(texts: dict[str, str], seed: int, share: float = 0.2) -> dict[str, str]:
    rng = random.Random(seed)
    noisy = {}
    for utt, text in texts.items():
        words = [rng.choice(WORDS) if rng.random() < share else w for w in text.split()]
        noisy[utt] = " ".join(words[: rng.randint(0, len(words))] if rng.random() < 0.1 else words)
    return noisy


REF = sentences(80, 0)
REF2 = corrupted(REF, 5, share=0.3)
REF2 = {utt: text or REF[utt] for utt, text in REF2.items()}
HYP = corrupted(REF, 1)


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

LOG = """\
[host] 2025-01-01 10:00:00,000 (trainer:1) INFO: 1epoch:train:1-9batch: acc_asr_nb=0.9, loss=9
[host] 2025-01-01 10:00:01,000 (trainer:2) INFO: 1epoch results: [train] iter_time=1.2e-04, \
acc=0.1, acc_asr_nb=0.100, acc_asr_wb=nan, loss_att_asr_nb=1.2e+03, time=1 hour, 2 minutes and 3.1 \
seconds, total_count=20, [valid] acc_asr_nb=0.200, acc_asr_wb=0.3, loss=55.5, [att_plot] time=2.5
[host] 2025-01-01 10:00:02,000 (trainer:3) INFO: 2epoch results: [train] acc_asr_nb=0.4, \
[valid] acc_asr_nb=0.5, total_count=4, gpu_max_cached_mem_GB=0
"""


def test_training_log_is_read_per_epoch_and_route():
    curves = plots.parse_training_log(LOG.splitlines())
    assert curves["train"]["acc_asr_nb"] == {1: 0.1, 2: 0.4}
    assert curves["valid"]["acc_asr_nb"] == {1: 0.2, 2: 0.5}
    assert "acc_asr_wb" not in curves["train"] and curves["valid"]["acc_asr_wb"] == {1: 0.3}
    assert curves["train"]["loss_att_asr_nb"] == {1: 1200.0}
    assert "time" not in curves["train"] and curves["train"]["total_count"] == {1: 20}
    assert plots.routes_of(curves, "acc") == {"asr_nb": "acc_asr_nb", "asr_wb": "acc_asr_wb"}
    assert plots.routes_of({"valid": {"acc": {1: 0.1}}}, "acc") == {"all": "acc"}


def test_a_fresh_start_replaces_old_epochs(tmp_path):
    (tmp_path / "train.1.log").write_text(LOG)
    (tmp_path / "train.log").write_text("1epoch results: [valid] acc_asr_nb=0.7\n")
    assert plots.read_training_logs(tmp_path) == {"valid": {"acc_asr_nb": {1: 0.7}}}
    (tmp_path / "train.log").write_text("3epoch results: [valid] acc_asr_nb=0.7\n")
    assert plots.read_training_logs(tmp_path)["valid"]["acc_asr_nb"] == {1: 0.2, 2: 0.5, 3: 0.7}


def test_a_log_without_epochs_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.log: no such file; stage 11"):
        plots.read_training_logs(tmp_path)
    (tmp_path / "train.log").write_text("Traceback\n")
    with pytest.raises(DataError, match=r"train\.log: holds no line '<n>epoch results"):
        plots.read_training_logs(tmp_path)


# --- stage 13


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """A decoded test set in both bandwidths, and one of mixed bandwidth."""
    monkeypatch.chdir(tmp_path)
    utts = list(REF)
    parts = {"test_wb": ("wb", utts), "test_nb": ("nb", utts), "mixed": ("", utts[:20])}
    for name, (bandwidth, chosen) in parts.items():
        bws = {u: bandwidth or ("wb" if i % 2 else "nb") for i, u in enumerate(chosen)}
        raw = Path("dump/s2t") / name
        write_table(raw / "text", {u: REF[u] for u in chosen})
        write_table(raw / "text.st_eng", {u: REF[u] for u in chosen})
        write_table(raw / "text.st_eng.ref2", {u: REF2[u] for u in chosen})
        write_table(raw / "utt2bw", bws)
        for task in ("asr", "st_eng"):
            out = Path("exp/s2t_x/decode_y") / name / task
            write_table(out / "text", {u: HYP[u] for u in chosen})
            write_table(out / "utt2route", bws)
    Path("exp/s2t_x/train.log").write_text(LOG)
    return Path("exp/s2t_x/decode_y")


def run_stage(*extra: str, test_sets: str = "test mixed") -> None:
    stage13.main(
        [
            *("--decode_dir", "exp/s2t_x/decode_y", "--test_sets", test_sets),
            *("--expdir", "exp/s2t_x", "--commit", "abc", *extra),
        ]
    )


def test_stage_scores_every_cell(decoded, capsys):
    run_stage()
    results = json.loads((decoded / "results.json").read_text())
    cells = [(r["test_set"], r["task"], r["bandwidth"], r["metric"]) for r in results]
    tasks = {"asr": ("wer", "cer"), "st_eng": ("bleu", "chrf")}
    assert cells == [
        (name, task, bandwidth, metric)
        for name in ("test", "mixed")
        for task, metrics in tasks.items()
        for bandwidth in ("wb", "nb", "all")
        for metric in metrics
    ]
    fields = "test_set task bandwidth metric value ci95 n_utts n_ref_words model commit"
    assert list(results[0]) == fields.split()
    wer = 100 * jiwer.wer(list(REF.values()), list(HYP.values()))
    both = [r for r in results if (r["test_set"], r["metric"]) == ("test", "wer")]
    assert [r["value"] for r in both] == pytest.approx([wer] * 3)
    assert [r["n_utts"] for r in both] == [80, 80, 160]
    bleu = BLEU().corpus_score(list(HYP.values()), [list(REF.values()), list(REF2.values())])
    assert results[6]["metric"] == "bleu" and results[6]["value"] == pytest.approx(bleu.score)
    shown = capsys.readouterr().out
    report = (decoded / "RESULTS.md").read_text()
    for text in (shown, report):
        assert f"WER {wer:.2f} % [" in text and "nrefs:2|case:mixed|eff:no|tok:13a" in text
        assert "nfc_ws = Unicode NFC" in text
    assert "python local/score.py --decode_dir exp/s2t_x/decode_y" in report and "`abc`" in report
    for name in ("score_matrix.png", "training_curves.png"):
        assert (decoded / name).read_bytes().startswith(b"\x89PNG")
    worst = (decoded / "worst.md").read_text()
    assert worst.count("## ") == 8 and worst.count("`test_nb/") == 10
    assert not list(decoded.glob("*.partial"))


def test_stage_gives_the_same_files_again(decoded):
    run_stage()
    before = {p.name: p.read_bytes() for p in decoded.glob("*.*")}
    run_stage()
    assert before == {p.name: p.read_bytes() for p in decoded.glob("*.*")}


def test_stage_counts_route_mismatches(decoded):
    routes = {u: "wb" if i < 3 else "nb" for i, u in enumerate(REF)}
    write_table(decoded / "test_nb" / "asr" / "utt2route", routes)
    run_stage(test_sets="test")
    rows = [line for line in (decoded / "RESULTS.md").read_text().splitlines() if "| asr" in line]
    assert [row.split("|")[-2].strip() for row in rows] == ["0", "3", "3"]


def test_stage_says_what_it_leaves_out(decoded, capsys):
    Path("exp/s2t_x/train.log").unlink()
    (decoded / "mixed" / "asr" / "utt2route").unlink()
    (decoded / "mixed" / "st_eng" / "text").unlink()
    references = {u: REF[u] for u in list(REF)[:19]}
    write_table("dump/s2t/mixed/text", references)
    run_stage(test_sets="mixed")
    shown = capsys.readouterr().out
    report = (decoded / "RESULTS.md").read_text()
    for text in (shown, report):
        assert "no training curves: exp/s2t_x/train.log: no such file" in text
        assert "mixed asr: no utt2route" in text
        assert "mixed: task st_eng has references but was not decoded" in text
        assert "mixed asr: 1 decoded utterance(s) have no reference" in text
    assert not (decoded / "training_curves.png").exists()


def test_another_task_is_scored_by_exact_match(decoded):
    labels = dict.fromkeys(list(REF)[:20], "yes")
    write_table("dump/s2t/mixed/text.intent", labels)
    write_table(decoded / "mixed" / "intent" / "text", {**labels, "u000": "no"})
    run_stage("--tasks", "intent", test_sets="mixed")
    results = json.loads((decoded / "results.json").read_text())
    assert {r["metric"] for r in results} == {"accuracy"}
    assert results[-1]["bandwidth"] == "all" and results[-1]["value"] == pytest.approx(95.0)


def test_a_pair_or_a_single_set_whichever_was_decoded(decoded):
    write_table("dump/s2t/test/text", REF)  # left by a run without the telephone simulation
    raw = Path("dump/s2t")
    assert stage13.find_sets(raw, decoded, "test") == ["test_wb", "test_nb"]
    assert stage13.find_sets(raw, decoded, "test_nb") == ["test_nb"]
    (decoded / "test").mkdir()
    with pytest.raises(DataError, match="holds test and test_wb, test_nb: name the ones"):
        stage13.find_sets(raw, decoded, "test")


def drop_hypotheses(decoded: Path) -> None:
    write_table(decoded / "mixed" / "asr" / "text", dict.fromkeys(list(REF)[2:20], "x"))


def add_hypothesis(decoded: Path) -> None:
    write_table(
        decoded / "mixed" / "asr" / "text", {**dict.fromkeys(list(REF)[:20], "x"), "v": "x"}
    )


def drop_bandwidth(decoded: Path) -> None:
    write_table("dump/s2t/mixed/utt2bw", dict.fromkeys(list(REF)[:19], "nb"))


def wrong_bandwidth(decoded: Path) -> None:
    write_table("dump/s2t/mixed/utt2bw", dict.fromkeys(list(REF)[:20], "8k"))


def drop_route(decoded: Path) -> None:
    write_table(decoded / "mixed" / "asr" / "utt2route", dict.fromkeys(list(REF)[1:20], "nb"))


def drop_second_reference(decoded: Path) -> None:
    write_table("dump/s2t/mixed/text.st_eng.ref2", dict.fromkeys(list(REF)[1:20], "x"))


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (drop_hypotheses, r"mixed/asr/text has no line for 2 .*: u000, u001"),
        (add_hypothesis, r"mixed/asr/text has 1 utterance.* lacks: v"),
        (drop_bandwidth, r"utt2bw lacks: u019"),
        (wrong_bandwidth, r"'u000' has bandwidth '8k' .accepted: wb, nb"),
        (drop_route, r"utt2route has no line .*: u000"),
        (drop_second_reference, r"text.st_eng.ref2 has no line .*: u000"),
    ],
)
def test_stage_errors_name_the_utterance(decoded, breakage, message):
    breakage(decoded)
    with pytest.raises(DataError, match=message):
        run_stage(test_sets="mixed")


@pytest.mark.parametrize(
    ("arguments", "test_sets", "message"),
    [
        ((), "nowhere", "holds neither nowhere nor nowhere_wb and nowhere_nb"),
        ((), " ", "--test_sets names no test set"),
        (("--tasks", "st_fra"), "test", "'st_fra' has no references .*known: asr, st_eng"),
        (("--decode_dir", "exp/other"), "test", "nothing is decoded; run stage 12"),
    ],
)
def test_stage_errors_name_the_option(decoded, arguments, test_sets, message):
    with pytest.raises(DataError, match=message):
        run_stage(*arguments, test_sets=test_sets)
