"""The study's programs on tiny random models: JSON, section and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from saved_model import model_directory, save_model
from study_files import command, program, write_sets

from espnet_smoe.scoring import paired_difference

study_routes, study_labels = program("study_routes"), program("study_labels")
study_gate, study_gradients = program("study_gate"), program("study_gradients")
study_testsets, study_sections = program("study_testsets"), program("study_sections")
load_speech2text = program("study_program").load_speech2text

DENSE = {"encoder": "conformer", "decoder": "transformer"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("study") / "s2t")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("dense") / "base", **DENSE)


def run(module: Any, model: Path, sets: Path, out: Path, *more: str) -> dict[str, Any]:
    """Run a program; its JSON as the harness completes it."""
    assert module.main(command(model, sets, out, *more)) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    return {**found, "corpus": "mini", "name": "smoe", "seed": 1, "commit": "abc1234"}


def told(module: Any, results: list[dict[str, Any]], directory: Path) -> str:
    """The section; every picture must be there."""
    text = module.section(results)
    assert "Command: `python local/study_" in text and "Commit: abc1234." in text
    assert str(directory) not in text
    paths = module.plot(results, directory)
    assert paths and all(path.stat().st_size > 1000 for path in paths)
    return text


def test_wrong_routes_change_texts_and_are_counted(sets: Path, tmp_path: Path) -> None:
    found = run(study_routes, model_directory(), sets, tmp_path / "r.json", "--also_without_ctc")
    assert found["conditions"] == ["right", "encoder", "decoder", "both"]
    rows = found["rows"]
    assert len(rows) == 2 * 4 * 3  # sets, conditions; asr, st_eng, and asr without CTC
    for row in rows:
        assert row["n"] == 4
        right = row["condition"] == "right"
        assert (row["texts_changed"] == 0) >= right
        for metric in row["metrics"].values():
            assert (metric["difference"] == 0.0) >= right
        for failure in row["failures"].values():
            assert failure["ci95"][0] <= failure["share"] <= failure["ci95"][1]
    assert sum(row["texts_changed"] for row in rows if row["condition"] == "decoder") > 0
    text = told(study_routes, [found], tmp_path)
    assert "asr (no CTC)" in text and "With the wrong expert of the decoder" in text


def test_routes_of_a_dense_model_are_an_error(
    sets: Path, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study_routes.main(command(dense, sets, tmp_path / "r.json")) == 1
    assert "study_routes.py: neither side of the model follows" in capsys.readouterr().err


def test_labels_mix_the_texts_of_right_and_wrong_labels(sets: Path, tmp_path: Path) -> None:
    found = run(
        study_labels, model_directory(), sets, tmp_path / "l.json", "--shares", "0", "0.5", "1"
    )
    kinds = {(row["label"], row["noise"]) for row in found["rows"]}
    assert kinds == {(a, b) for a in ("bandwidth", "task") for b in ("wrong", "missing")}
    utterances, tasks = study_testsets.read_sets(sets, ["test_wb", "test_nb"])
    args = study_labels.get_options().parse_args(command(model_directory(), sets, tmp_path / "x"))
    texts = study_labels.decode_all(load_speech2text(args), utterances, tasks, "asr")
    for row in found["rows"]:
        if row["metric"] not in ("wer", "bleu"):
            continue
        place = (row["set"], row["bandwidth"])
        members = [u for u in utterances if (u.test_set, u.bandwidth) == place]
        keys = [u.key for u in members]
        kind = f"{row['label']} {row['noise']}"
        wrong = {u.key: texts.corrupted(u, row["task"], tasks)[kind] for u in members}
        right = {key: texts.right.texts[row["task"]][key] for key in keys}
        references = {u.key: u.references[row["task"]] for u in members}
        expected = paired_difference(references, right, wrong, row["metric"])[0]
        assert row["shares"][-1]["difference"] == pytest.approx(expected)
        assert row["shares"][0]["difference"] == 0.0
        if kind == "bandwidth missing" and row["bandwidth"] == "wb":
            assert right == wrong and row["significant_from"] is None
        if kind == "task wrong":
            other = {"asr": "st_eng", "st_eng": "asr"}[row["task"]]
            assert wrong == {key: texts.right.texts[other][key] for key in keys}
    assert all(entry["wrong"]["n"] == 4 for entry in found["meter"])
    text = told(study_labels, [found, {**found, "seed": 2}], tmp_path)
    assert "Seeds 1, 2: figures are means" in text and "The bandwidth meter takes" in text


def test_a_dense_model_has_no_bandwidth_labels_and_may_lack_the_task_token(
    sets: Path, dense: Path, tmp_path: Path
) -> None:
    more = ("--missing_task", "no_token", "--limit", "2")
    found = run(study_labels, dense, sets, tmp_path / "l.json", *more)
    assert {row["label"] for row in found["rows"]} == {"task"}
    assert "no task token, no CTC" in study_labels.section([found])


def test_prompts_have_their_task_token_again(sets: Path) -> None:
    args = study_labels.get_options().parse_args(command(model_directory(), sets, Path("x")))
    s2t = load_speech2text(args)
    whole = s2t.vocabulary.prompt("<spa>", "<asr>")
    with study_labels.without_task_token(s2t):
        without = s2t.vocabulary.prompt("<spa>", "<asr>")
    assert without == [i for i in whole if i != s2t.vocabulary.ids["<asr>"]]
    assert s2t.vocabulary.prompt("<spa>", "<asr>") == whole != without


@contextmanager
def louder_or_not(model: Any) -> Iterator[SimpleNamespace]:
    """Stands in for learned gates: a dense model's frames take an expert by their first number."""
    names = {"encoder.encoders.0.feed_forward": 2, "decoder.decoders.0.feed_forward": 2}
    record = SimpleNamespace(experts=names, choices={name: [] for name in names})
    hooks = []
    for name, module in model.named_modules():
        if name in names:

            def note(_: Any, inputs: Any, output: Any, name: str = name) -> None:
                record.choices[name] += list((inputs[0][..., 0] > 0).long())

            hooks.append(module.register_forward_hook(note))
    yield record
    for hook in hooks:
        hook.remove()


def test_gates_are_held_against_labels(
    sets: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_gate, "recorded", louder_or_not)
    found = run(study_gate, dense, sets, tmp_path / "g.json", "--permutations", "50")
    assert [bank["side"] for bank in found["banks"]] == ["encoder", "decoder"]
    for bank in found["banks"]:
        assert sum(bank["shares"]) == pytest.approx(1.0)
        assert set(bank["labels"]) == {"bandwidth", "task", "speaker"}
        assert bank["labels"]["bandwidth"]["within_sentences"]
    text = told(study_gate, [found], tmp_path)
    assert "in the encoder" in text and "In the decoder" in text


def test_units_of_labels_hold_what_is_not_independent_of_them() -> None:
    u = study_testsets.Utterance
    twins = [u(f"test_{b}/s{i}", b, "spa", "a", f"spk{i}") for b in ("wb", "nb") for i in (0, 1)]
    rows = [study_gate.Row(t, task) for t in twins for task in ("asr", "st_eng")]
    counts = np.eye(8)
    sizes = {}
    for label in ("bandwidth", "task", "speaker"):
        units = study_gate.units_of(counts, rows, label)
        assert units.counts_UE.sum() == 8
        sizes[label] = (len(units.labels), units.within_sentences)
    assert sizes == {"bandwidth": (4, True), "task": (4, True), "speaker": (2, False)}
    assert study_gate.units_of(counts[:4], rows[:4], "bandwidth") is None


def test_gradients_are_compared_at_every_checkpoint(
    sets: Path, dense: Path, tmp_path: Path
) -> None:
    weights = torch.load(dense / "valid.acc.ave.pth", weights_only=True)
    torch.save({k: v * 1.1 if v.is_floating_point() else v for k, v in weights.items()},
               dense / "2epoch.pth")  # fmt: skip
    files = ("--model_files", "valid.acc.ave.pth", "2epoch.pth")
    more = (*files, "--rounds", "2", "--seconds", "0.3")
    found = run(study_gradients, dense, sets, tmp_path / "g.json", *more)
    assert [c["checkpoint"] for c in found["checkpoints"]] == ["valid.acc.ave.pth", "2epoch.pth"]
    rows = found["checkpoints"][0]["rows"]
    assert {(r["comparison"], r["loss"]) for r in rows} == {
        (a, b) for a in ("task", "bandwidth") for b in ("total", "attention")
    }
    assert not [r for r in rows if r["module"] == "CTC" and r["loss"] == "attention"]
    for row in rows:
        assert row["rounds"] == 2
        assert row["difference"]["value"] == pytest.approx(
            row["across"]["value"] - row["within"]["value"]
        )
    text = told(study_gradients, [found], tmp_path)
    assert "| whole model |" in text and "Between ASR and ST" in text


def test_combinations_compare_one_label_over_the_same_values_of_the_other() -> None:
    cells = [study_gradients.Cell(t, b, c) for t in ("asr", "st") for b in ("wb", "nb")
             for c in (0, 1)]  # fmt: skip
    found = study_gradients.combinations(cells)
    for name, field in (("task", "task"), ("bandwidth", "bandwidth")):
        a1, a2, b1, b2 = np.array(found[name])
        assert [w.sum() for w in (a1, a2, b1, b2)] == pytest.approx([1.0] * 4)
        assert {getattr(cells[i], field) for i in np.flatnonzero(a1 + a2)} == {
            getattr(cells[0], field)
        }
        assert not (np.array([a1 * a2, b1 * b2, (a1 + a2) * (b1 + b2)]) > 0).any()


def test_batches_of_a_round_share_no_recording(sets: Path) -> None:
    training = study_gradients.Training.read(sets / "train")
    cells = [study_gradients.Cell("asr", "wb", 0), study_gradients.Cell("st_eng", "wb", 0)]
    drawn = dict(training.draw(cells, 0.7, np.random.default_rng(0)))
    names = [training.utterance(e.utt) for examples in drawn.values() for e in examples]
    assert len(names) == len(set(names)) == 4
    with pytest.raises(ValueError, match="left in a round .*accepted: a smaller --seconds"):
        dict(training.draw(cells, 2.0, np.random.default_rng(0)))


def test_figures_of_seeds_are_their_mean_and_hull() -> None:
    figure = study_sections.Figure.of([(1.0, (0.5, 1.5)), (2.0, (-0.5, 2.5))])
    assert (figure.value, figure.low, figure.high, figure.significant) == (1.5, -0.5, 2.5, False)
    assert figure.signed() == "+1.50 [-0.50, +2.50]"
    wilson = study_sections.proportion(0, 440)
    assert wilson["ci95"] == pytest.approx([0.0, 0.00866], abs=1e-4)
