"""The experiments' JSONs, and what ``local/study_<name>.py`` make of them for STUDY.md.

Such a program may have ``section(results)``, the Markdown of one corpus; ``sentences(results)``,
what it means, for the beginning of the report; and ``plot(results, directory)``, pictures.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from study_results import read_json
from study_sections import picture

EXPERIMENTS = "experiments"
Experiments = dict[str, dict[str, list[dict[str, Any]]]]  # by experiment, by corpus


def read_experiments(results: Path) -> Experiments:
    """Read ``<corpus>/experiments/<name>_<system>_seed<k>.json``."""
    found: Experiments = {}
    for path in sorted(results.glob(f"*/{EXPERIMENTS}/*_seed*.json")):
        content = read_json(path)
        name = experiment_name(path, str(content.get("name", "")))
        found.setdefault(name, {}).setdefault(path.parents[1].name, []).append(content)
    return found


def experiment_name(path: Path, system: str) -> str:
    """Of ``<name>_<system>_seed<k>.json``."""
    whole, _, _ = path.stem.rpartition("_seed")
    return whole.removesuffix(f"_{system}")


def experiment_module(name: str) -> ModuleType | None:
    """``local/study_<name>.py``, if there is one."""
    try:
        return importlib.import_module(f"study_{name}")
    except ModuleNotFoundError as error:
        if error.name != f"study_{name}":
            raise
        return None


def experiment_sections(experiments: Experiments, plots: Path, report: Path) -> list[str]:
    """Lines of Markdown with links from `report`; the pictures are drawn under `plots`."""
    lines: list[str] = []
    for name, corpora in experiments.items():
        module = experiment_module(name)
        section = getattr(module, "section", None)
        for corpus, results in corpora.items():
            lines += [f"## Experiment {name}, {corpus}", ""]
            if section is None:
                lines += [f"{len(results)} result(s); local/study_{name}.py has no section().", ""]
                continue
            lines += [section(results).strip(), ""]
            draw = getattr(module, "plot", None)
            for path in draw(results, plots / corpus) if draw else ():
                lines += [picture(path, report), ""]
    return lines


def experiment_sentences(name: str, results: Sequence[dict[str, Any]]) -> list[str]:
    """What the results of one corpus mean; nothing where the program does not say."""
    sentences = getattr(experiment_module(name), "sentences", None)
    return list(sentences(results)) if sentences else []
