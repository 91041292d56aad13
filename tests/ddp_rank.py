"""Run by test_ddp.py as ``python -m espnet_smoe.run -m ddp_rank OPTIONS``: one rank.

ESPnet's own training with ``OPTIONS``; the file RANK_DUMP gets the parameters that this rank's
process began and ended with. It imports the registry before ESPnet's task: that order works too.
"""

import argparse
import copy
import os
import sys
from typing import Any

import torch

import espnet_smoe.registry

registry_came_first = "espnet2.tasks.s2t" not in sys.modules

from espnet2.tasks.s2t import S2TTask  # noqa: E402

dump: dict[str, Any] = {"registry_came_first": registry_came_first}


class RecordingTask(S2TTask):  # type: ignore[misc]
    """`S2TTask` that remembers its model."""

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> Any:
        model = super().build_model(args)
        assert type(model) is espnet_smoe.registry.MODELS["smoe"]
        dump["model"] = model
        dump["initial"] = copy.deepcopy(model.state_dict())
        return model


RecordingTask.main(cmd=sys.argv[1:])
dump["final"] = dump.pop("model").state_dict()
torch.save(dump, os.environ["RANK_DUMP"])
