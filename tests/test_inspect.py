"""What a model is made of, how far its experts have drifted, and what differs from another."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from saved_model import STOCK, model_directory, save_model
from tiny import EXPERTS, SMOE, encoder_options, encoder_pair, expert_key, smoe_decoder, smoe_model

from espnet_smoe.checkpoints import ModelError, read_weights, write_weights
from espnet_smoe.cli import main
from espnet_smoe.inspect_model import Place, cosine, inspect_model, relative_distance
from espnet_smoe.model_diff import ModuleChange, diff_weights, module_of


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_a_models_parts_add_up_to_its_parameters(kind: str) -> None:
    model = smoe_model(kind)
    found = inspect_model(model)
    total = sum(p.numel() for p in model.parameters())
    assert found.parameters.total == total == sum(part.parameters for part in found.parts)
    shared = sum(part.parameters for part in found.parts if part.expert is None)
    active = found.parameters.active["nb/st"] - shared
    assert active == sum(p.parameters for p in found.parts if p.expert in ("nb", "st"))
    encoder, decoder = found.sides
    assert (encoder.name, encoder.blocks, encoder.experts) == ("encoder", 2, ("wb", "nb"))
    assert (decoder.name, decoder.blocks, decoder.experts) == ("decoder", 1, ("asr", "st"))
    assert encoder.expert_blocks == (0, 1) and decoder.kind == "SMoETransformerDecoder"


def test_distance_and_cosine_are_those_of_all_of_an_experts_parameters() -> None:
    options = encoder_options("conformer", expert_blocks=[1], experts=["wb", "nb", "am"])
    encoder = SMOE["conformer"](**options)
    bank = encoder.encoders[1].feed_forward
    with torch.no_grad():
        for parameter in bank.experts["nb"].parameters():
            parameter.mul_(3.0)
        for parameter in bank.experts["am"].parameters():
            parameter.neg_()
    pairs = {(p.place.part, p.first, p.second): p for p in inspect_model(encoder).pairs}
    assert len(pairs) == 6  # two banks of three
    assert {p.place.block for p in pairs.values()} == {1}
    layers = {part.split()[-1] for part, _, _ in pairs}
    assert layers == {"feed_forward", "feed_forward_macaron"}
    assert {part.split()[0] for part, _, _ in pairs} == {"encoder"}
    for (part, first, second), pair in pairs.items():
        expected = (0.0, 1.0)
        if not part.endswith("macaron"):
            # 3a and a: 2 over the mean of 3 and 1; a and -a: 2 over 1; 3a and -a: 4 over 2
            expected = {"wbnb": (1.0, 1.0), "wbam": (2.0, -1.0), "nbam": (2.0, -1.0)}[
                first + second
            ]
        assert (pair.distance, pair.cosine) == pytest.approx(expected, abs=1e-6)


def test_banks_alone_have_places_too() -> None:
    pairs = inspect_model(smoe_decoder(expert_blocks=[1]).decoders[1]).pairs
    assert [pair.place for pair in pairs] == [Place("feed_forward", 0)]


def test_changes_are_relative_to_the_dense_origin_and_to_equal_experts() -> None:
    dense, encoder = encoder_pair("transformer", num_blocks=1)
    copies = {name: value.clone() for name, value in encoder.state_dict().items()}
    experts = encoder.encoders[0].feed_forward.experts
    with torch.no_grad():  # wb learns in one direction, nb in it and as far in another
        experts["wb"].w_1.bias[0] += 2.0
        experts["nb"].w_1.bias[0] += 2.0
        experts["nb"].w_1.bias[1] += 2.0
    for origin in (copies, dense.state_dict()):
        found = inspect_model(encoder, origin)
        (pair,) = found.pairs
        assert pair.change_cosine == pytest.approx(1 / math.sqrt(2))
        assert {drift.expert for drift in found.origins} == {"wb", "nb"}
        for drift in found.origins:
            stem = f"encoders.0.feed_forward.experts.{drift.expert}."
            keys = [key for key in copies if key.startswith(stem)]
            a, b = (
                torch.cat([w[k].flatten() for k in keys]) for w in (encoder.state_dict(), copies)
            )
            assert drift.distance == pytest.approx(relative_distance(a, b))
    copies["encoders.0.feed_forward.experts.nb.w_1.bias"] += 1.0  # no common origin
    assert [p.change_cosine for p in inspect_model(encoder, copies).pairs] == [None]


def test_an_origin_without_the_expert_or_of_another_size_is_named() -> None:
    _, encoder = encoder_pair("transformer", num_blocks=1)
    with pytest.raises(ModelError, match=r"neither encoders\.0\.feed_forward\.experts\.wb\.w_1\."):
        inspect_model(encoder, {})
    small = {expert_key(k): v[:2] for k, v in encoder.state_dict().items() if v.dim()}
    with pytest.raises(ModelError, match=r"is of shape \(10, 8\), and of \(2, 8\) in the model to"):
        inspect_model(encoder, small)


def test_zeros_have_no_angle() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert relative_distance(zero, zero) == 0.0 and relative_distance(zero, one) == 2.0
    assert math.isnan(cosine(zero, one))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("encoder.encoders.3.self_attn.linear_q.weight", "encoder.encoders.3.self_attn"),
        (
            "encoder.encoders.0.feed_forward.experts.nb.w_1.bias",
            "encoder.encoders.0.feed_forward.experts.nb",
        ),
        ("encoder.encoders.11.norm_ff.weight", "encoder.encoders.11.norm_ff"),
        ("encoder.embed.conv.0.weight", "encoder.embed.conv.0"),
        ("ctc.ctc_lo.weight", "ctc.ctc_lo"),
        ("normalize.mean", "normalize"),
        ("alone", "alone"),
    ],
)
def test_tensors_are_counted_under_their_layer(name: str, module: str) -> None:
    assert module_of(name) == module


def test_every_tensor_of_two_checkpoints_is_accounted_for() -> None:
    first = {
        "encoder.encoders.0.self_attn.linear_q.weight": torch.tensor([3.0, 0.0]),
        "encoder.encoders.0.self_attn.linear_k.weight": torch.tensor([0.0, 4.0]),
        "ctc.weight": torch.ones(2),
        "norm.num_batches_tracked": torch.tensor(3),
        "steps": torch.tensor([1, 2]),
        "fixed": torch.tensor(1),
        "wide": torch.ones(2, 2),
        "kind": torch.ones(1),
        "old": torch.ones(1),
    }
    second = {
        **first,
        "encoder.encoders.0.self_attn.linear_k.weight": torch.tensor([0.0, 5.0]),
        "norm.num_batches_tracked": torch.tensor(7),
        "steps": torch.tensor([1, 3]),
        "wide": torch.ones(2, 3),
        "kind": torch.ones(1, dtype=torch.int64),
        "new": torch.ones(1),
    }
    del second["old"]
    diff = diff_weights(first, second)
    attention, ctc = diff.modules
    distance = pytest.approx(1 / ((5 + math.sqrt(34)) / 2))
    assert attention == ModuleChange("encoder.encoders.0.self_attn", 2, 1, distance, 1.0)
    assert ctc == ModuleChange("ctc", 1, 1, 0.0, 0.0)
    assert diff.counters == (
        ("norm.num_batches_tracked", "3", "7"),
        ("steps", "2 values", "2 values"),
    )
    assert diff.equal_counters == 1
    assert [(s.name, s.first, s.second) for s in diff.shapes] == [
        ("wide", "(2, 2) float32", "(2, 3) float32"),
        ("kind", "(1,) float32", "(1,) int64"),
    ]
    assert (diff.only_first, diff.only_second) == (("old",), ("new",))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A model whose `nb` experts alone differ from those of `model_directory`."""
    directory = save_model(tmp_path / "trained", decoder_conf={"experts": EXPERTS})
    weights = read_weights(directory / "valid.acc.ave.pth")
    for name, value in weights.items():
        if ".experts.nb." in name:
            value += 0.1
    write_weights(weights, directory / "valid.acc.ave.pth")
    return directory


def test_the_command_prints_writes_and_draws(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, numbers = tmp_path / "drift.png", tmp_path / "drift.json"
    files = ["--picture", str(picture), "--json", str(numbers)]
    assert main(["inspect", str(trained), "--against", str(model_directory()), *files]) == 0
    out = capsys.readouterr().out
    for words in (
        "active on nb/asr",
        "encoder, expert wb",
        "encoder feed_forward_macaron",
        "wb - nb",
    ):
        assert words in out
    assert (
        "tensors of unequal shapes: none" in out and "tensors of integers: 2 equal, 0 that" in out
    )
    found: dict[str, Any] = json.loads(numbers.read_text(encoding="utf-8"))
    assert len(found["pairs"]) == 5  # two blocks of two banks in the encoder, one in the decoder
    moved = {o["expert"]: o["distance"] > 0 for o in found["origins"]}
    assert moved == {"wb": False, "nb": True, "asr": False, "st": False}
    changed = {m["module"] for m in found["diff"]["modules"] if m["distance"] > 0}
    assert len(changed) == 4 and all(module.endswith("experts.nb") for module in changed)
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[0] > 300 and pixels[:, :, :3].std() > 0.05  # something is drawn
    for option in ("--picture", "--json"):
        path = picture if option == "--picture" else numbers
        assert main(["inspect", str(trained), option, str(path)]) == 1
        assert "exists; nothing is overwritten" in capsys.readouterr().err
    assert main(["inspect", str(trained), "--picture", str(tmp_path / "a.jpg")]) == 1
    assert "accepted are names that end in .png" in capsys.readouterr().err
    assert main(["inspect", str(trained), "--against_file", "a.pth"]) == 1
    assert "names a checkpoint of --against, which is not given" in capsys.readouterr().err


def test_a_dense_model_and_another_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = save_model(tmp_path / "dense", "transformer", encoder="transformer", **STOCK)
    picture = tmp_path / "a.png"
    command = ["inspect", str(dense), "--against", str(model_directory())]
    assert main([*command, "--picture", str(picture)]) == 1
    printed = capsys.readouterr()
    assert "no expert banks: a dense model" in printed.out and "active on dense" in printed.out
    only = printed.out.split("only in ")[-1]
    assert "decoder.decoders.0.feed_forward.experts.asr.w_1.weight" in only
    assert "has no bank of several experts, so there is nothing to draw" in printed.err
    assert not picture.exists()
    assert main(["inspect", str(model_directory()), "--against", str(dense)]) == 0
    assert "no distances from --against: the model to compare with has neither" in " ".join(
        capsys.readouterr().out.split()
    )
