"""Run any ESPnet program with the plugin loaded.

``python -m espnet_smoe.run -m espnet2.bin.s2t_train --config ...`` is ``python -m
espnet2.bin.s2t_train --config ...`` after ``import espnet_smoe``. Processes that ESPnet spawns
import this module as their main module, and so load the plugin as well.
"""

from __future__ import annotations

import runpy
import sys

import espnet_smoe  # noqa: F401  (the import is what makes ESPnet know the names)

USAGE = "usage: python -m espnet_smoe.run -m MODULE [ARGUMENT ...]"


def main(argv: list[str]) -> None:
    """Run ``-m MODULE ARGUMENT ...`` as Python's own ``-m`` does."""
    if len(argv) < 2 or argv[0] != "-m":
        raise SystemExit(USAGE)
    sys.argv = argv[1:]
    # alter_sys=True would replace sys.modules["__main__"], which spawned workers import.
    runpy.run_module(argv[1], run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main(sys.argv[1:])
