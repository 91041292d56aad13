"""A packed model, unpacked elsewhere, gives the same hypotheses on every route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.main_funcs.pack_funcs import pack, unpack
from espnet2.tasks.s2t import S2TTask
from tiny import randomize

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)

GUIDES = ["<spa>", "<deu>", "<asr>", "<st_eng>"]
TOKENS = ["<blank>", "<unk>", "<na>", *GUIDES, "<notimestamps>", "<0.00>", "<30.00>"]
TOKENS += [*"abcdefgh", "<sop>", "<sos>", "<eos>"]
# In each mapping the order written is not the sorted one, which unpacking leaves in the YAML.
TABLES = {
    "task": {"st": ["<st_*>"], "asr": ["<asr>"]},
    "language": {"spa": ["<spa>"], "deu": ["<deu>"]},
}


def write_model(directory: Path, experts: dict[str, list[str]]) -> tuple[Path, Path]:
    """A tiny random model with its config, as ESPnet's training leaves them."""
    blocks = {"attention_heads": 2, "linear_units": 12, "num_blocks": 2}
    config: dict[str, Any] = {
        "encoder": "smoe_transformer",
        "encoder_conf": {"output_size": 8, "experts": ["wb", "nb"], **blocks},
        "decoder": "smoe_transformer",
        "decoder_conf": {"experts": experts, **blocks},
        "model": "smoe",
        "model_conf": {"ctc_weight": 0.3, "trim_padding": True, "speech_length": 2.0},
        "preprocessor": "smoe",
        "preprocessor_conf": {
            "speech_length": 2.0,
            "fs": 16000,
            "notime_symbol": "<notimestamps>",
            "first_time_symbol": "<0.00>",
            "last_time_symbol": "<30.00>",
        },
        "normalize": None,
        "frontend_conf": {"n_fft": 512, "hop_length": 160, "n_mels": 20},
    }
    directory.mkdir(parents=True)
    (directory / "options.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    args = S2TTask.get_parser().parse_args(["--config", str(directory / "options.yaml")])
    args.token_list = TOKENS
    torch.manual_seed(3)
    model = randomize(S2TTask.build_model(args))
    torch.save(model.state_dict(), directory / "model.pth")
    with (directory / "config.yaml").open("w", encoding="utf-8") as file:
        yaml.safe_dump(
            {**vars(args), "decoder_conf": config["decoder_conf"]}, file, sort_keys=False
        )
    return directory / "config.yaml", directory / "model.pth"


def hypotheses(config: str | Path, model: str | Path, noise: torch.Tensor) -> list[list[str]]:
    """The tokens of every prompt, on both encoder routes."""
    speech2text = Speech2Text(config, model, beam_size=2, maxlenratio=-8.0)
    found = []
    for route in ("wb", "nb"):
        speech2text.s2t_model.route_override = route
        for language in ("<spa>", "<deu>"):
            for task in ("<asr>", "<st_eng>"):
                found.append(speech2text(noise, lang_sym=language, task_sym=task)[0][1])
    return found


@pytest.mark.parametrize("axis", sorted(TABLES))
def test_packed_model_gives_the_same_texts(
    axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe").mkdir()
    monkeypatch.chdir(tmp_path / "recipe")
    config, model = write_model(Path("exp/m"), TABLES[axis])
    noise = torch.randn(12000, generator=torch.Generator().manual_seed(4)) * 0.1
    expected = hypotheses(config, model, noise)
    assert len({tuple(h[2:]) for h in expected}) > 2, "the routes give different texts"
    pack({"s2t_model_file": model}, {"s2t_train_config": config}, "m.zip")
    monkeypatch.chdir(tmp_path)
    unpacked = unpack("recipe/m.zip", "elsewhere")
    text = Path(unpacked["s2t_train_config"]).read_text(encoding="utf-8")
    written = list(yaml.safe_load(text)["decoder_conf"]["experts"])
    assert written == sorted(written) != list(TABLES[axis])
    actual = hypotheses(unpacked["s2t_train_config"], unpacked["s2t_model_file"], noise)
    assert actual == expected
