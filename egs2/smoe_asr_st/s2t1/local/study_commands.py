"""The commands of STUDY.md: which of the studies under conf/study trains these systems."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from study_plan import RESULTS, SYSTEMS, load

RECIPE = Path(__file__).parent.parent


def commands(
    results: Path, corpus: str, systems: Collection[str], recipe: Path = RECIPE
) -> list[str]:
    """A line of Markdown with the commands that train systems; nothing where no study has them.

    Args:
        results: The studies that keep their results here are meant.
        corpus: As the study calls it.
        systems: Their names; a study with any of them is named.
        recipe: Its ``conf/study`` is searched.

    Raises:
        DataError: A YAML there cannot be read.
    """
    found = []
    for path in sorted((recipe / SYSTEMS.parent).glob("*.yaml")):
        study = load(path)
        runs = study.get("runs") if isinstance(study, dict) else None
        if not runs or (recipe / study.get("results", RESULTS)).resolve() != results.resolve():
            continue
        mine = [run for run in runs if isinstance(run, dict) and run.get("corpus") == corpus]
        if any({*(run.get("systems") or ())} & {*systems} for run in mine):
            found.append(f"`local/study.sh {path.relative_to(recipe)}`")
    if not found:
        return []
    return [f"Command{'s' if len(found) > 1 else ''}: {', '.join(found)}.", ""]
