"""Bandwidth embeddings: a vector per bandwidth on the features, routed as S-MoE's encoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import espnet2.bin.s2t_inference as stock
import pytest
import torch
from saved_model import MAXLEN, same_entries, save_model
from tiny import (
    DENSE,
    FEATURES,
    close,
    encoder_options,
    features,
    model_batch,
    randomize,
    smoe_model,
    speech,
)

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.bandwidth_embedding import (
    BandwidthEmbeddingConformerEncoder,
    BandwidthEmbeddingTransformerEncoder,
)
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.dense_routes import every_route
from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.experts import param_counts
from espnet_smoe.precision import prepare
from espnet_smoe.routing import RoutingError

KINDS = {
    "conformer": BandwidthEmbeddingConformerEncoder,
    "transformer": BandwidthEmbeddingTransformerEncoder,
}
LENGTHS = torch.tensor([31, 12, 25, 19])
MIXED = ["wb", "nb", "nb", "wb"]
ENCODER = {"encoder": "bandwidth_embedding_conformer"}


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A dense encoder, and the one with vectors with its weights."""
    torch.manual_seed(1)
    dense = randomize(DENSE[kind](**encoder_options(kind))).eval()
    mine = KINDS[kind](**encoder_options(kind, **options)).eval()
    found = mine.load_state_dict(dense.state_dict(), strict=False)
    assert found.missing_keys == [f"bandwidth_vector_{name}" for name in mine.expert_names]
    assert not found.unexpected_keys
    return dense, mine


def give_vectors(encoder: Any) -> dict[str, torch.Tensor]:
    """Random vectors by name."""
    vectors = {name: torch.randn(FEATURES) for name in encoder.expert_names}
    with torch.no_grad():
        for name, vector in vectors.items():
            getattr(encoder, f"bandwidth_vector_{name}").copy_(vector)
    return vectors


def shifted(x: torch.Tensor, vectors: list[torch.Tensor]) -> torch.Tensor:
    """Features with a vector added up to each row's length."""
    x = x.clone()
    for row, (length, vector) in enumerate(zip(LENGTHS.tolist(), vectors, strict=True)):
        x[row, :length] += vector
    return x


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_starts_as_the_dense_encoder(kind: str) -> None:
    dense, mine = pair(kind)
    assert isinstance(mine, RoutedEncoder)
    mine.set_route(MIXED)
    actual, lengths, _ = mine(features(), LENGTHS)
    expected, expected_lengths, _ = dense(features(), LENGTHS)
    assert torch.equal(actual, expected) and torch.equal(lengths, expected_lengths)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_utterance_hears_its_bandwidths_vector_up_to_its_end(kind: str) -> None:
    dense, mine = pair(kind)
    vectors = give_vectors(mine)
    mine.set_route(MIXED)
    actual = mine(features(), LENGTHS)[0]
    close(actual, dense(shifted(features(), [vectors[name] for name in MIXED]), LENGTHS)[0])
    assert (actual - dense(features(), LENGTHS)[0]).abs().max() > 0.01


def test_shares_mix_the_vectors() -> None:
    dense, mine = pair("conformer")
    vectors = give_vectors(mine)
    names = mine.set_route(["wb", {"wb": 0.25, "nb": 0.75}, {"nb": 1.0}, {"wb": 0.5, "nb": 0.5}])
    assert names == ("wb", "blend", "nb", "blend")
    wb, nb = vectors["wb"], vectors["nb"]
    mixed = [wb, 0.25 * wb + 0.75 * nb, nb, 0.5 * wb + 0.5 * nb]
    close(mine(features(), LENGTHS)[0], dense(shifted(features(), mixed), LENGTHS)[0])


def test_autocast_rounds_no_vector() -> None:
    _, mine = pair("conformer")
    give_vectors(mine)
    x = features()
    exact = mine.take_tags(MIXED, x, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mine.take_tags(MIXED, x, LENGTHS), exact)


def test_the_vectors_learn_each_from_its_utterances() -> None:
    _, mine = pair("transformer")
    mine.set_route(["nb"] * 4)
    mine(features(), LENGTHS)[0].square().sum().backward()
    assert mine.bandwidth_vector_nb.grad.any()
    assert not mine.bandwidth_vector_wb.grad.any()


def test_a_route_is_needed_and_an_unknown_one_raises() -> None:
    _, mine = pair("conformer")
    with pytest.raises(RoutingError, match=r"BandwidthEmbeddingConformerEncoder has no route"):
        mine(features(), LENGTHS)
    with pytest.raises(RoutingError, match=r"tag 'fb' has no expert \(known: wb, nb\); it is row"):
        mine.set_route(["wb", "fb"])
    mine.set_route(["wb"])
    with pytest.raises(RoutingError, match="the route is for 1 utterances, the batch holds 4"):
        mine(features(), LENGTHS)
    with pytest.raises(RoutingError, match="encoder_conf.bandwidths names wb more than once"):
        pair("conformer", bandwidths=["wb", "wb"])
    with pytest.raises(RoutingError, match="encoder_conf.bandwidths: model 'smoe' routes by band"):
        smoe_model(**ENCODER, encoder_conf={"bandwidths": ["wb", "loud"]})


@pytest.fixture(scope="module")
def model() -> Any:
    return smoe_model(**ENCODER)


def test_the_model_routes_it(model: Any) -> None:
    batch = model_batch(["<asr>", "<st_eng>", "<asr>"], [0, 1, 1])
    loss, stats, _ = model.train()(**batch)
    loss.sum().backward()
    assert model.last_route == ("wb", "nb", "nb")
    assert stats["n_asr_nb"].item() == stats["n_st_nb"].item() == stats["n_asr_wb"].item() == 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    model.eval()
    model.encode(torch.stack([speech(8000), speech(8000, wide=False)]), torch.tensor([8000, 8000]))
    assert model.last_route == ("wb", "nb")
    model.route_override = "nb"
    memory, _ = model.encode(speech()[None], torch.tensor([6000]))
    model.route_override = None
    close(memory, model.encode(speech()[None], torch.tensor([6000]), route=["nb"])[0])
    with pytest.raises(RoutingError, match=r"tag 'fb' has no expert"):
        model.encode(speech()[None], torch.tensor([6000]), route=["fb"])


def test_its_size(model: Any) -> None:
    dense = smoe_model(encoder="conformer")
    counts, expected = param_counts(model), param_counts(dense)
    assert counts.total == expected.total + 2 * FEATURES
    assert counts.active.keys() == {"asr", "st"}


def test_it_is_no_stock_model(model: Any) -> None:
    with pytest.raises(ModelError, match="does with a bandwidth what ESPnet's own encoders cannot"):
        every_route(model)


def test_speech2text_equals_espnets_in_batches_of_both_bandwidths(tmp_path: Path) -> None:
    directory = save_model(tmp_path, **ENCODER)
    files = directory / "config.yaml", directory / "valid.acc.ave.pth"
    keywords = {"maxlenratio": MAXLEN, "lang_sym": "<spa>", "beam_size": 3}
    mine, theirs = Speech2Text(*files, **keywords), stock.Speech2Text(*files, **keywords)
    sounds = [speech(6000 + 1700 * n, wide=n % 2 == 0, seed=n) for n in range(4)]
    together = mine(sounds, task_sym="<asr>")
    for n, x in enumerate(sounds):
        expected = theirs(x, task_sym="<asr>")
        same_entries(mine(x, task_sym="<asr>"), expected)
        assert together[n].text == expected[0][3]
        assert together[n].route == f"{'wb' if n % 2 == 0 else 'nb'}/asr"
    forced = mine([Speech(sounds[0], bandwidth="nb")], task_sym="<asr>")[0]
    assert forced.route == "nb/asr" and forced.score != together[0].score


def test_it_runs_in_bfloat16() -> None:
    prepared = prepare(smoe_model(**ENCODER), dtype="bfloat16")
    with torch.no_grad():
        memory, _ = prepared.encode(speech()[None], torch.tensor([6000]))
    assert memory.dtype == torch.bfloat16 and torch.isfinite(memory).all()
