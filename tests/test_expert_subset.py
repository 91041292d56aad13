"""Loading the experts of some routes only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_model import MAXLEN, STOCK, model_directory, save_model
from tiny import ids, speech

from espnet_smoe import Speech2Text
from espnet_smoe.checkpoints import ModelError, read_weights, write_weights
from espnet_smoe.dense_routes import expert_names
from espnet_smoe.experts import param_counts
from espnet_smoe.pretrained import find_model, load
from espnet_smoe.routing import RoutingError

X = speech(8000)


def test_what_is_left_computes_the_same_in_less_room() -> None:
    whole = Speech2Text.from_pretrained(model_directory(), maxlenratio=MAXLEN)
    some = Speech2Text.from_pretrained(model_directory(), experts=["nb", "st"], maxlenratio=MAXLEN)
    assert expert_names(some.s2t_model) == (("nb",), ("st",))
    for task in ("st_eng", "st_deu"):
        mine, all_of_them = (s2t(X, tasks=task, bandwidth="nb") for s2t in (some, whole))
        assert (mine.text, mine.score) == (all_of_them.text, all_of_them.score)
    counts = param_counts(whole.s2t_model)
    assert sum(p.numel() for p in some.s2t_model.parameters()) == counts.active["nb/st"]
    with pytest.raises(RoutingError, match="serves bandwidth 'wb'; accepted: nb"):
        some(X, bandwidth="wb", tasks="st_eng")
    with pytest.raises(RoutingError, match="serves task 'asr' .*accepted: st_eng, st_deu"):
        some(X, bandwidth="nb", tasks="asr")


def test_a_side_that_is_not_named_keeps_its_experts(tmp_path: Path) -> None:
    files = find_model(model_directory())
    assert expert_names(load(files, experts=["wb"]).model) == (("wb",), ("asr", "st"))
    assert expert_names(load(files, experts=["asr"]).model) == (("wb", "nb"), ("asr",))
    default = save_model(tmp_path / "m", decoder_conf={"default_expert": "st"})
    table = load(find_model(default), experts=["asr"]).model.decoder.guide_table
    assert table.default_expert is None
    table = load(find_model(default), experts=["st"]).model.decoder.guide_table
    assert table.default_expert == "st"


def test_tokens_of_experts_that_are_left_out_stay_hidden(tmp_path: Path) -> None:
    private = {"<st_deu>": ["st"], "house": ["st"], "hola": ["asr"]}
    files = find_model(save_model(tmp_path / "m", model_conf={"private_tokens": private}))
    whole, some = load(files).model, load(files, experts=["asr"]).model
    assert some.decoder.output_layer.hidden["asr"] == tuple(ids("<st_deu>", "house"))
    ys = torch.tensor([ids("<sos>", "<spa>", "<asr>", "<notimestamps>", "hola")])
    memory = torch.randn(1, 5, some.encoder.output_size())
    scores = [model.decoder.batch_score(ys, [None], memory)[0] for model in (whole, some)]
    assert torch.equal(*scores)


def test_experts_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the model has no 'uwb'; accepted: wb, nb, asr, st"):
        Speech2Text.from_pretrained(model_directory(), experts=["nb", "uwb"])
    with pytest.raises(ModelError, match="experts is the string 'nb'; accepted: a list of names"):
        Speech2Text.from_pretrained(model_directory(), experts="nb")
    dense = save_model(tmp_path / "dense", "transformer", encoder="transformer", **STOCK)
    with pytest.raises(ModelError, match="no 'nb'; accepted: none, for it has no experts"):
        load(find_model(dense), experts=["nb"])


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "old.pth"])
def test_mapped_weights_are_the_same(name: str, tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    if name == "old.pth":  # the form before PyTorch 1.6
        torch.save(weights, tmp_path / name, _use_new_zipfile_serialization=False)
    else:
        write_weights(weights, tmp_path / name)
    read = read_weights(tmp_path / name, mapped=True)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], value) for key, value in weights.items())
