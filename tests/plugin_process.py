"""Run by test_registry.py as ``python -m espnet_smoe.run -m plugin_process``.

Starts a child process the way ESPnet starts its GPU workers. Prints one JSON object.
"""

import json
import multiprocessing
import sys
from typing import Any


def report() -> dict[str, Any]:
    """What this process knows of the plugin, asked for through ESPnet's task alone."""
    from espnet2.tasks.s2t import S2TTask, encoder_choices

    encoder = encoder_choices.get_class("smoe_conformer")(input_size=8, num_blocks=1)
    return {
        "encoder": type(encoder).__name__,
        "keys": [key for key in encoder.state_dict() if key.endswith("w_1.bias")],
        "data_names": list(S2TTask.optional_data_names()),
        "iterator": hasattr(S2TTask, "build_task_iter_factory"),
    }


def child(queue: Any) -> None:
    """The child's whole work; it imports nothing of the plugin by itself."""
    queue.put(report())


if __name__ == "__main__":
    import plugin_process  # by its own name: a spawned child cannot find functions of __main__

    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=plugin_process.child, args=(queue,))
    process.start()
    main = sys.modules["__main__"].__spec__
    answer = queue.get(timeout=240)
    print(json.dumps({"main": main and main.name, "argv": sys.argv, "child": answer}))
    process.join()
