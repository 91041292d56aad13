"""Every corpus, in its published layout, through stages 1 to 7; several of them at once."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import corpus_layouts
import pytest
from corpus_layouts import BUILDERS
from recipe_copy import call, copy_recipe, run
from stage_data import run_main

from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import DataError, read_table
from espnet_smoe.locator import parse_locator

import check_data  # isort: skip  (stage_data puts the recipe's local/ on the path)
import plan_batches  # isort: skip
import train_bbpe  # isort: skip

TASKS = {  # of training
    "librispeech": {"asr"},
    "mboshi_fr": {"asr", "st_fra"},
    "mustc": {"asr", "st_deu"},
    "manifest": {"asr", "st_eng", "st_fra"},
}
SETS = {  # with run.sh's own test sets
    "librispeech": "train valid test_clean test_other",
    "mboshi_fr": "train valid dev",
    "mustc": "train valid tst-COMMON tst-HE",
    "fisher_callhome": "train valid fisher_test callhome_evltest",
}
SHARED_SPEAKERS = ("mboshi_fr", "europarl_st")  # in the published splits, as run.sh knows
TINY = ("--nj", "1", "--s2t_config", "conf/train_tiny.yaml", "--nbpe", "260")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_recipe(tmp_path_factory.mktemp("egs2") / "smoe" / "s2t1")


@pytest.mark.parametrize("name", BUILDERS)
def test_a_corpus_passes_stages_1_to_7(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    corpus = BUILDERS[name](tmp_path)
    few = ["--corpus_args", "--n_valid 2"] if name == "mboshi_fr" else []
    options = ["--corpus", corpus, "--corpus_dir", str(tmp_path), "--telephone_share", "0"]
    done = run(recipe, *options, *TINY, *few, "--stop_stage", "4")
    assert done.returncode == 0, done.stdout[-4000:]
    monkeypatch.chdir(recipe)
    data, dump = Path("data") / corpus, Path("dump") / corpus
    sets = SETS.get(name, "train valid test")
    for set_name in sets.split():
        located = read_table(data / set_name / "wav.scp")
        samples = read_table(dump / "raw" / set_name / "utt2num_samples")
        assert samples.keys() == located.keys()
        for utt, audio in located.items():
            x, rate = read_audio(audio)
            assert int(samples[utt]) == pytest.approx(len(x) * 16000 / rate, abs=1)
            where = parse_locator(audio)
            if where.start is not None:
                assert len(x) / rate == pytest.approx(where.end - where.start, abs=1e-3)
    tasks = set(read_table(dump / "s2t" / "train" / "utt2task").values())
    assert tasks == TASKS.get(name, {"asr", "st_eng"})
    # Stages 5 to 7 as run.sh calls them, in this process: each program's imports take seconds.
    tokens = data / "token_list_bpe260"
    train = ("--train_dir", dump / "s2t" / "train", "--out", tokens, "--vocab_size", "260")
    assert run_main(train_bbpe.main, *train, "--model_type", "bpe", "--timestamps", "auto") == 0
    examples = ("--examples", dump / "s2t")
    plan = (*examples, "--sets", "train valid", "--min_batch_size", "1", "--mixed", "false")
    config = ("--fs", "16000", "--", "--config", "conf/train_tiny.yaml")
    assert run_main(plan_batches.main, *plan, *config) == 0
    check = (*examples, "--sets", sets, "--token_list", tokens / "tokens.txt")
    check += ("--allow_speaker_overlap", "true" if name in SHARED_SPEAKERS else "false")
    assert run_main(check_data.main, *check, "--fs", "16000", "--nj", "1") == 0


def test_several_corpora_pass_stages_1_to_7(recipe: Path, tmp_path: Path) -> None:
    names = ("fisher_callhome", "covost2", "librispeech", "kaldi", "manifest")
    corpora = [BUILDERS[name](tmp_path / name) for name in names]
    directories = " ".join(str(tmp_path / name) for name in names)
    many = ["--corpus", " ".join(corpora), "--corpus_dir", directories]
    short = ("--s2t_args", "--encoder_conf input_layer=conv2d")  # frames enough for short words
    done = run(recipe, *many, *TINY, *short, "--stop_stage", "7")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "no problem found" in done.stdout
    merged = recipe / "data" / "+".join(corpora)
    train = read_table(merged / "train" / "wav.scp")
    parts = {c: read_table(merged / "corpora" / c / "train" / "wav.scp") for c in corpora}
    assert len(train) == sum(map(len, parts.values()))
    assert set(parts["fisher_callhome"]) < set(train)
    words = " ".join(read_table(merged / "train" / "text.st_eng").values())
    assert words == words.lower() and "," not in words
    assert set(read_table(merged / "train" / "utt2lang").values()) == {"spa", "eng"}
    stated = read_table(merged / "train" / "utt2bw")  # by some of the corpora only
    assert set(stated) < set(train) and set(parts["manifest"]) <= set(stated)
    for name in ("fisher_callhome_fisher_test", "covost2_es_en_test", "manifest_test"):
        assert (merged / name / "text").is_file()
    assert len(list((merged / "fisher_callhome_fisher_test").glob("text.st_eng*"))) == 4


@pytest.mark.parametrize(
    ("corpora", "directories", "message"),
    [
        (
            "covost3_es_en",
            "",
            "--corpus covost3_es_en: unknown; accepted: mini, mini_hard, mboshi_fr, own, ",
        ),
        ("covost2_es", "", "--corpus covost2_es: unknown; accepted: mini"),
        ("", "", "--corpus : unknown; accepted: mini"),
        ("own kaldi", "", "--corpus own kaldi: accepted are several different corpora"),
        ("kaldi kaldi", "a b", "--corpus kaldi kaldi: accepted are several different corpora"),
        ("kaldi manifest", "a", "--corpus_dir a: 1 for 2 corpora; accepted is one for each"),
    ],
)
def test_a_mistaken_corpus_stops_at_once(
    recipe: Path, corpora: str, directories: str, message: str
) -> None:
    done = run(recipe, "--corpus", corpora, "--corpus_dir", directories)
    assert done.returncode == 2
    assert message in done.stdout


@pytest.mark.parametrize(
    ("corpus", "source"),
    [
        ("covost2_es_en", r"(or COVOST2 in db.sh): Common Voice release 4"),
        ("mustc_en_de", "(or MUSTC in db.sh): en-<target>/data"),
        ("europarl_st_es_en", "(or EUROPARL_ST in db.sh): v1.1/<source>"),
        ("librispeech", "(or LIBRISPEECH in db.sh): LibriSpeech/{train-*"),
        ("fisher_callhome", "(or FISHER_CALLHOME in db.sh): folders or links named LDC2010S01"),
        ("mboshi_fr", "(or MBOSHI_FR in db.sh): the public repository besacier/mboshi"),
        ("manifest", "--corpus manifest needs --corpus_dir: a folder with <set>.tsv"),
        ("kaldi", "--corpus kaldi needs --corpus_dir: a folder with a Kaldi data directory"),
    ],
)
def test_a_missing_directory_says_what_is_expected_there(
    recipe: Path, tmp_path: Path, corpus: str, source: str
) -> None:
    rest = ("downloads", "1", sys.executable)
    done = call(["local/data.sh", corpus, "", "data/missing", *rest], cwd=recipe)
    assert done.returncode == 1
    assert f"--corpus {corpus} needs --corpus_dir" in done.stdout
    assert source in done.stdout
    assert "Traceback" not in done.stdout
    main = importlib.import_module(
        "prepare_" + (corpus.removesuffix("_es_en").removesuffix("_en_de"))
    ).main
    options = ["--corpus", corpus, "--out", str(tmp_path / "data")]
    nowhere = re.escape(f"--corpus_dir {tmp_path / 'no'}: no such directory; expected ")
    with pytest.raises(DataError, match=nowhere):
        main(["--corpus_dir", str(tmp_path / "no"), *options])
    with pytest.raises(DataError, match=re.escape(f"--corpus_dir {tmp_path}: ") + ".*expected "):
        main(["--corpus_dir", str(tmp_path), *options])
    assert not (tmp_path / "data").exists()


def test_corpus_dir_comes_from_db_sh_unless_given(recipe: Path, tmp_path: Path) -> None:
    corpus = corpus_layouts.mustc(tmp_path)
    (recipe / "db.sh").write_text(
        (recipe / "db.sh").read_text().replace("MUSTC= ", f"MUSTC={tmp_path} ")
    )
    done = run(recipe, "--corpus", corpus, "--datadir", "data/db", "--stop_stage", "1")
    assert done.returncode == 0, done.stdout
    assert "data/db/tst-HE: 3 utterances" in done.stdout
