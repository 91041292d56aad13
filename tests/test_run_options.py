"""run.sh's options: a mistake stops at once and says what is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipe_copy import copy_recipe, run


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recipe in which nothing was run."""
    return copy_recipe(tmp_path_factory.mktemp("egs2") / "s2t1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nbep", "300"], r"unknown option --nbep; the options are: stage stop_stage .* nbpe "),
        (["--stage"], "option --stage needs a value"),
        (["7"], "unexpected argument '7'"),
        (["--stage", "seven"], "--stage seven: accepted is a whole number"),
        (["--nj", "0"], "--nj 0: accepted is 1 or more"),
        (["--audio_format", "mp3"], "--audio_format mp3: accepted: flac, flac.ark, wav.ark, none"),
        (["--stock_decode", "yes"], "--stock_decode yes: accepted: true, false"),
        (
            ["--corpus", "minni"],
            "--corpus minni: unknown; accepted: mini, mini_hard, mboshi_fr, own",
        ),
        (
            ["--test_sets", "valid test", "--telephone_share", "0"],
            "--train_set, --valid_set, --test_sets: valid is named more than once",
        ),
    ],
)
def test_a_mistaken_option_stops_at_once(recipe: Path, options: list[str], message: str) -> None:
    done = run(recipe, *options)
    assert done.returncode == 2
    assert re.search(message, done.stdout)
    assert "Stage" not in done.stdout


def test_a_route_forced_from_the_shell_is_not_taken_along(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPNET_SMOE_ROUTE", "nb")
    done = run(recipe, "--stage", "12")
    assert done.returncode == 2
    assert "ESPNET_SMOE_ROUTE is set: unset it; the recipe takes --route_override" in done.stdout


def test_a_missing_training_config_names_the_shipped_ones(recipe: Path) -> None:
    done = run(recipe, "--corpus", "own", "--stage", "8")
    assert done.returncode == 1
    assert "conf/train_own.yaml: no such training config; choose one of:" in done.stdout
    assert "conf/train_mini.yaml" in done.stdout


def test_help_shows_usage_and_every_option_from_any_directory(recipe: Path, tmp_path: Path) -> None:
    done = run(recipe, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ./run.sh [--option value ...]")
    assert '--stop_stage "13"' in done.stdout
    assert "sed:" not in done.stdout
