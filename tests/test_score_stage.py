"""Stage 13: its table, its files, its errors; the training log that it draws."""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import pytest
from sacrebleu.metrics.bleu import BLEU
from scored_texts import HYP, REF, REF2, stage13

from espnet_smoe import plots
from espnet_smoe.datadir import DataError, write_table

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
