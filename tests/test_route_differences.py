"""A route that computes something else is found, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from saved_model import STOCK, save_model
from tiny import TOKENS

from espnet_smoe import upcycle as upcycling
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.new_tokens import extend_tokens
from espnet_smoe.pretrained import find_model, load
from espnet_smoe.route_differences import Difference, route_differences

PLAN = extend_tokens(TOKENS, {})
ROUTES = {"wb/asr", "wb/st", "nb/asr", "nb/st"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("differences")
    dense = save_model(directory / "dense", "transformer", encoder="transformer", **STOCK)
    upcycling.upcycle(dense, directory / "smoe")
    return dense, directory / "smoe"


@pytest.mark.parametrize(
    ("parameter", "routes"),
    [
        ("encoder.encoders.1.feed_forward.experts.nb.w_2.bias", {"nb/asr", "nb/st"}),
        ("decoder.decoders.0.feed_forward.experts.st.w_2.bias", {"wb/st", "nb/st"}),
        ("decoder.output_layer.bias", ROUTES),
        ("ctc.ctc_lo.weight", ROUTES),
        ("decoder.decoders.0.norm1.bias", ROUTES),
    ],
)
@pytest.mark.parametrize("value", [0.01, float("nan")])
def test_the_routes_that_a_parameter_serves_differ(
    parameter: str, routes: set[str], value: float, pair: tuple[Path, Path]
) -> None:
    dense, smoe = (load(find_model(path)).model for path in pair)
    before = route_differences(dense, smoe, PLAN)
    assert {route: d.absolute for route, d in before.items()} == dict.fromkeys(ROUTES, 0.0)
    with torch.no_grad():
        smoe.get_parameter(parameter)[0] += value
    after = route_differences(dense, smoe, PLAN)
    assert {route for route, d in after.items() if not d.relative <= 1e-6} == routes


def test_upcycling_stops_at_a_route_that_differs(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differences(*args: Any, **options: Any) -> dict[str, Difference]:
        return {"wb/asr": Difference(0.0, 1.0), "nb/st": Difference(0.5, 2.0)}

    monkeypatch.setattr(upcycling, "route_differences", differences)
    with pytest.raises(ModelError, match=r"route nb/st computes something else.* 2\.5e-01"):
        upcycling.upcycle(pair[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
