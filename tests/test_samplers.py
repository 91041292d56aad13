"""ESPnet's own samplers find what they need in our example directories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from espnet2.samplers.build_batch_sampler import build_batch_sampler, build_category_batch_sampler
from stage_data import make_plan, make_raw, make_s2t

from espnet_smoe.datadir import read_table, write_table

import options  # isort: skip  (stage_data puts the recipe's local/ on the path)
import train  # isort: skip


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training set after stage 4, with the shapes of stage 10."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    assert make_s2t() == 0
    for name in ("train", "valid"):
        samples = read_table(f"s2t/{name}/utt2num_samples")
        write_table(f"stats/{name}/speech_shape", samples)
    return Path("s2t/train")


def espnet_options(config: str) -> list[str]:
    """As run.sh gives them to stage 11."""
    Path("train.yaml").write_text(config, encoding="utf-8")
    found = ["--config", "train.yaml"]
    found += ["--normalize_conf", "stats_file=stats/train/feats_stats.npz"]
    for part in ("train", "valid"):
        found += [f"--{part}_data_path_and_name_and_type", f"s2t/{part}/wav.scp,speech,sound"]
        found += [f"--{part}_data_path_and_name_and_type", f"s2t/{part}/text,text,text"]
    return found


def test_folded_batches_are_of_one_task(examples: Path) -> None:
    given = espnet_options("iterator_type: sequence\nbatch_type: folded\nfold_length: [16000]")
    further = train.for_espnets_samplers(given)
    assert further == [
        *("--train_shape_file", "stats/train/speech_shape"),
        *("--valid_shape_file", "stats/valid/speech_shape"),
    ]
    sampler = build_batch_sampler(
        type="folded",
        batch_size=4,
        batch_bins=0,
        shape_files=[further[1]],
        fold_lengths=[16000],
        utt2category_file=str(examples / "utt2category"),
    )
    tasks = read_table(examples / "utt2task")
    batches = list(sampler)
    assert sorted(utt for batch in batches for utt in batch) == sorted(tasks)
    assert all(len({tasks[utt] for utt in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("temperature_like", [0.0, 1.0])
def test_catpow_samples_the_routes(examples: Path, temperature_like: float) -> None:
    config = "iterator_type: category\nbatch_type: catpow\nbatch_bins: 64000"
    assert make_plan(config) == 0
    lines = (examples / "category2utt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["asr_nb", "asr_wb", "st_eng_nb", "st_eng_wb"]
    further = train.for_espnets_samplers(espnet_options(config))
    sampler, _ = build_category_batch_sampler(
        type="catpow",
        batch_size=4,
        batch_bins=64000,
        shape_files=[further[1]],
        max_batch_size=8,
        upsampling_factor=temperature_like,
        category_upsampling_factor=1.0,
        dataset_upsampling_factor=1.0,
        dataset_scaling_factor=1.2,
        min_batch_size=1,
        drop_last=False,
        category2utt_file=str(examples / "category2utt"),
        dataset2utt_parent_dir=str(examples),
        epoch=1,
        num_batches=None,
        distributed=False,
    )
    seen = Counter(utt for batch in sampler for utt in batch)
    assert seen.keys() <= read_table(examples / "text").keys()


def test_the_plan_needs_no_categories(examples: Path) -> None:
    (examples / "utt2category").write_text("left from another config\n", encoding="utf-8")
    given = espnet_options("iterator_type: task\nvalid_iterator_type: sequence")
    further = train.for_espnets_samplers(given)
    assert further == ["--valid_shape_file", "stats/valid/speech_shape"]
    assert not (examples / "utt2category").exists()
    assert read_table("s2t/valid/utt2category") == read_table("s2t/valid/utt2task")


def test_shapes_that_are_given_are_kept(examples: Path) -> None:
    given = espnet_options("iterator_type: sequence")
    given += ["--train_shape_file", "mine", "--valid_shape_file", "mine"]
    assert train.for_espnets_samplers(given) == []


def test_a_conf_is_read_as_espnet_reads_it(examples: Path) -> None:
    given = espnet_options("preprocessor_conf: {narrowband_prob: 0.2, fs: 8}")
    assert options.conf_value(given, "preprocessor_conf", "narrowband_prob") == 0.2
    given += ["--preprocessor_conf", "fs=16", "--preprocessor_conf", "narrowband_prob=0.5"]
    assert options.conf_value(given, "preprocessor_conf", "narrowband_prob") == 0.5
    assert options.conf_value(given, "preprocessor_conf", "fs") == 16
    assert options.conf_value(given, "preprocessor_conf", "pad_prob", 0.0) == 0.0
    given += ["--preprocessor_conf={fs: 7}"]
    assert options.conf_value(given, "preprocessor_conf", "fs") == 7
