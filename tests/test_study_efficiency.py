"""Times in STUDY.md: compared within a machine and a number of runs at a time only."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipe_copy import RECIPE

sys.path.insert(0, str(RECIPE / "local"))

from study_collect import machine  # noqa: E402
from study_efficiency_section import commonest_place, efficiency_section  # noqa: E402
from study_results import Result, read_results  # noqa: E402
from study_results_files import write_study  # noqa: E402

GPU = "NVIDIA X; x86_64, 16 cores"


def on(result: Result, machine: str, training: float, decoding: float | None = 60.0) -> Result:
    """The result, made elsewhere."""
    seconds = {"training": training, "decoding": decoding}
    return replace(result, content={**result.content, "machine": machine, "seconds": seconds})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Base on both machines, a system on both, and one on the second only."""
    directory = tmp_path_factory.mktemp("study")
    write_study(directory, "x", {"base": 0.3, "big": 0.3}, seeds=[1, 2, 3])
    write_study(directory, "x", {"late": 0.3}, seeds=[2])
    found = {(r.system, r.seed): r for r in read_results(directory)}
    return [
        on(found["base", 1], "here", 600.0),
        on(found["big", 1], "here", 900.0, None),
        on(found["base", 2], GPU, 120.0),
        on(found["base", 3], GPU, 180.0),
        on(found["big", 2], GPU, 300.0),
        on(found["big", 3], GPU, 300.0),
        on(found["late", 2], GPU, 75.0),
    ]


def cells(results: list[Result], system: str) -> list[list[str]]:
    lines = efficiency_section({"x": results}, "base")
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| x ")]
    return [row[5:] for row in rows if row[1] == system]


def test_a_row_for_each_machine_compared_with_base_there(results: list[Result]) -> None:
    (gpu, here) = sorted(cells(results, "big"), key=lambda row: "here" in row[-1])
    assert gpu[:3] == ["5.0 min [5.0, 5.0]", "1.0 min [1.0, 1.0]", "2.00"]
    assert gpu[3].endswith(f"; {GPU}")
    assert here[:3] == ["15.0 min", "interrupted", "1.50"]


def test_a_machine_without_base_has_no_ratio(results: list[Result]) -> None:
    alone = [r for r in results if r.system != "base" or r.seed == 1]
    assert [row[2] for row in cells(alone, "late")] == [""]
    assert [row[2] for row in cells(results, "late")] == ["0.50"]


def test_the_picture_shows_the_machine_of_most_systems(results: list[Result]) -> None:
    assert commonest_place(results).endswith(GPU)
    assert commonest_place([r for r in results if r.seed == 1]).endswith("here")


def test_a_result_names_the_gpu_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    (tmp_path / "config.yaml").write_text("ngpu: 0\n")
    here = machine(tmp_path)
    assert here.endswith(" cores") and "NVIDIA" not in here
    (tmp_path / "config.yaml").write_text("ngpu: 1\n")
    assert machine(tmp_path) == f"NVIDIA X; {here}"
