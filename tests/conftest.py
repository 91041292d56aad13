"""Settings of the whole test suite."""

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def spoken() -> list[np.ndarray]:
    """Ten spoken sentences, each float32 (N,) at 16 kHz."""
    from spoken import sentences

    return sentences()
