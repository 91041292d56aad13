"""DESIGN section 2: a file of the package imports only to its left."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import espnet_smoe

PACKAGE = Path(espnet_smoe.__file__).parent
LAYERS = [  # left to right; within a layer too
    ["__init__"],
    ["datadir", "signatures"],
    ["faults", "tables"],
    ["locator", "audio", "audio_blocks", "audio_reader", "amr", "telephone"],
    ["bandwidth_features", "bandwidth", "bandwidth_segments", "bbpe"],
    ["bandwidth_stream", "speech_frames", "pauses", "long_channel", "recordings"],
    ["audio_formats", "pool", "cluster", "workers", "compat"],
    ["slots", "soundness"],
    ["ctc_scorer"],
    ["blends", "routing"],
    ["experts", "private_tokens", "train_only"],
    ["encoder", "decoder", "learned_gate", "learned_moe", "bandwidth_embedding"],
    ["balance", "planner", "route_stats", "model", "random_routing", "preprocessor", "batching"],
    ["validation", "crosschecks"],
    ["registry", "run"],
    ["hypotheses", "token_scores", "decoder_cache", "ctc_batch", "beams", "beam_search"],
    ["vocabulary", "inference_options", "allocator", "checkpoints"],
    ["expert_subset", "pretrained", "model_files", "precision"],
    ["averaging", "inspect_model", "model_diff"],
    ["dense_routes", "stock_config", "export"],
    ["new_tokens", "route_differences", "upcycle_config", "upcycle"],
    ["onnx_decode", "onnx_modules", "onnx_export"],
    ["results", "stitching", "decoding", "items", "stock_attributes", "inference"],
    ["transcripts", "journal", "inputs", "outputs", "transcribe"],
    ["convert", "scoring", "plots", "inspect_report", "sameness", "extend"],
    ["paired", "power"],
    ["padding_cost"],
    ["swaps", "teacher_forcing", "failures", "mixing", "mutual_information", "gradient_cosines"],
    ["cli_export", "cli_extend", "cli_inspect", "cli_onnx", "cli_upcycle"],
    ["cli"],
]
LEFTMOST = {"datadir", "signatures"}
LAZY = {
    "__init__": {"registry", "inference"}
}  # the registration hook; `Speech2Text` when asked for
PLACE = {name: place for place, name in enumerate(sum(LAYERS, []))}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from runtime_nodes(child)


def imports(module: str) -> set[str]:
    """Full names of the modules that a module imports, anywhere in it."""
    found = set()
    for node in runtime_nodes(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    parts = (name.split(".") for name in imports(module))
    return {p[1] for p in parts if p[0] == "espnet_smoe" and len(p) > 1 and p[1] in MODULES}


def test_every_module_has_its_place() -> None:
    assert set(MODULES) - {"__main__"} <= PLACE.keys()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_to_its_left(module: str) -> None:
    allowed = {other for other, place in PLACE.items() if place < PLACE[module]}
    assert own_imports(module) <= allowed | LAZY.get(module, set())


@pytest.mark.parametrize("module", sorted(LEFTMOST))
def test_the_leftmost_modules_import_nothing_of_the_package(module: str) -> None:
    assert own_imports(module) == set()


@pytest.mark.parametrize("module", MODULES)
def test_espnets_tasks_are_imported_by_the_registry_and_to_its_right_only(module: str) -> None:
    uses = {name for name in imports(module) if name.startswith("espnet2.tasks")}
    assert not uses or PLACE[module] >= PLACE["registry"]


@pytest.mark.parametrize("module", MODULES)
def test_espnets_programs_are_not_imported(module: str) -> None:
    uses = {name for name in imports(module) if name.startswith("espnet2.bin")}
    assert not uses or PLACE[module] >= PLACE["beam_search"]


def test_files_are_short() -> None:
    """80 to 250 lines are wanted; 400 is too long."""
    lengths = {
        p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.glob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_package_imports_without_torch_and_without_espnet() -> None:
    code = (
        "import sys, espnet_smoe, espnet_smoe.audio, espnet_smoe.bandwidth_segments, "
        "espnet_smoe.bbpe, espnet_smoe.datadir, espnet_smoe.recordings, "
        "espnet_smoe.scoring, espnet_smoe.transcribe, espnet_smoe.onnx_decode, espnet_smoe.cli; "
        "print([m for m in ('torch', 'espnet', 'espnet2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[], ["-m"], ["-x", "y"], ["espnet2.bin.s2t_train"]])
def test_run_says_how_it_is_used(arguments: list[str]) -> None:
    from espnet_smoe.run import main

    with pytest.raises(SystemExit, match=r"usage: python -m espnet_smoe.run -m MODULE"):
        main(arguments)
