"""A dense model in onnxruntime gives what it gives in PyTorch: any lengths, batches and beams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved_model import STOCK, model_directory, save_model
from tiny import FEATURES, FRONTEND, speech

from espnet_smoe import Speech2Text, bbpe
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.cli import main
from espnet_smoe.onnx_decode import OnnxSpeech2Text, run_session
from espnet_smoe.onnx_export import export_onnx
from espnet_smoe.onnx_modules import LogMel, check_exportable
from espnet_smoe.pretrained import find_model, load

TOLERANCE = 1e-4  # largest absolute difference, float32
KINDS = ["e_branchformer", "transformer", "conformer"]
CONFS: dict[str, dict[str, Any]] = {
    "conformer": {
        "preprocessor": "smoe",  # decodes unpadded
        "normalize": "global_mvn",
        "frontend_conf": {**FRONTEND, "win_length": 200},
    },
    "transformer": {"token_type": "bpe", "decoder_conf": {"num_blocks": 2}},
    "e_branchformer": {
        "normalize": "utterance_mvn",
        "normalize_conf": {"norm_means": True, "norm_vars": True},
        "encoder_conf": {
            "attention_layer_type": "rel_selfattn",
            "pos_enc_layer_type": "rel_pos",
            "rel_pos_type": "latest",
            "input_layer": "conv2d6",
        },
        "decoder_conf": {"normalize_before": False, "concat_after": True},
    },
}


def dense_model(directory: Path, kind: str) -> Path:
    """A saved dense model with what the kinds of conf add."""
    options = {"encoder": kind, **STOCK, **CONFS[kind]}
    options["encoder_conf"] = {"num_blocks": 1, **options.get("encoder_conf", {})}  # quick to trace
    directory.mkdir()
    if options.get("normalize") == "global_mvn":
        path = directory / "stats.npz"
        np.savez(path, count=4, sum=-8 * np.ones(FEATURES), sum_square=25 * np.ones(FEATURES))
        options["normalize_conf"] = {"stats_file": str(path)}
    if options.get("token_type") == "bpe":
        symbols = bbpe.special_symbols(["spa"], ["asr", "st_eng"], last_time=1.0)
        texts = ["la casa blanca", "ñandú, 漢字 y más"] * 10
        bpe = bbpe.train(
            texts,
            model_prefix=directory / "bpe",
            vocab_size=bbpe.minimum_size(symbols) + 10,
            special_symbols=symbols,
        )
        options |= {"bpemodel": str(bpe), "token_list": bbpe.token_list(bpe)}
    return save_model(directory, kind, **options)


@pytest.fixture(scope="module", params=KINDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dense model's directory, its ONNX, and its kind."""
    directory = tmp_path_factory.mktemp(request.param)
    model = dense_model(directory / "model", request.param)
    assert main(["onnx", "--model", str(model), "--out", str(directory / "onnx")]) == 0
    return model, directory / "onnx", request.param


def batch(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [speech(n, seed=row) for row, n in enumerate(lengths)]
    x_BN = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return x_BN, torch.tensor(lengths)


@pytest.mark.parametrize("lengths", [(7000,), (16000, 5001, 9999), (3000, 3000)])
@torch.no_grad()
def test_both_files_equal_pytorch(written: Any, lengths: tuple[int, ...]) -> None:
    model = load(find_model(written[0])).model
    decoder = OnnxSpeech2Text(written[1], threads=1)
    x_BN, lengths_B = batch(*lengths)
    memory, memory_lengths = model.encode(x_BN, lengths_B)
    heard = run_session(decoder.encoder, speech=x_BN.numpy(), lengths=lengths_B.numpy())
    assert heard["memory_lengths"].tolist() == memory_lengths.tolist()
    np.testing.assert_allclose(heard["memory"], memory.numpy(), rtol=0, atol=TOLERANCE)

    beams, prompt = 2, decoder.prompt("asr")
    tokens = torch.tensor(prompt).expand(len(lengths), beams, -1)
    cache = np.zeros((heard["memory_cache"].shape[0], 2, len(lengths), beams, 2, 0, 4), np.float32)
    step = tokens
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        found = run_session(
            decoder.decoder,
            tokens=step.numpy(),
            cache=cache,
            memory_cache=heard["memory_cache"],
            memory_lengths=heard["memory_lengths"],
        )
        cache = found["next_cache"]
        rows, length = len(lengths) * beams, tokens.shape[2]
        scores, _ = model.decoder(
            memory.repeat_interleave(beams, 0),
            memory_lengths.repeat_interleave(beams),
            tokens.reshape(rows, length),
            torch.full((rows,), length),
        )
        expected = scores[:, -1].log_softmax(-1).reshape(len(lengths), beams, -1)
        np.testing.assert_allclose(found["log_probs"], expected.numpy(), rtol=0, atol=TOLERANCE)
        step = torch.randint(3, 40, (len(lengths), beams, 1), generator=generator)
        tokens = torch.cat([tokens, step], dim=2)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_texts_are_those_of_speech2text(written: Any, beam_size: int) -> None:
    ours = OnnxSpeech2Text(written[1], threads=1)
    s2t = Speech2Text.from_pretrained(written[0], beam_size=beam_size)
    texts = set()
    for seed, task in enumerate(["asr", "st_eng", "asr"]):
        x_N = speech(5000 + 1500 * seed, seed=seed)
        expected, found = s2t(x_N, tasks=task), ours(x_N.numpy(), task=task, beam_size=beam_size)
        assert found.text == expected.text
        assert found.score == pytest.approx(expected.score, abs=1e-3)
        texts.add(found.text)
    assert all(texts)


def test_the_longest_of_a_batch_is_heard_as_alone(written: Any) -> None:
    ours = OnnxSpeech2Text(written[1], threads=1)
    sounds = [speech(n, seed=n).numpy() for n in (17000, 6000)]
    longest, other = ours.encode(sounds)
    (alone,) = ours.encode(sounds[:1])
    assert alone.frames == longest.frames >= other.frames
    name = "memory_cache"
    np.testing.assert_allclose(longest.outputs[name], alone.outputs[name], rtol=0, atol=TOLERANCE)
    assert other.outputs[name].shape[4] == other.outputs["memory_lengths"] == other.frames


def test_the_directory_and_its_description(written: Any) -> None:
    about = json.loads((written[1] / "model.json").read_text(encoding="utf-8"))
    names = {"encoder.onnx", "decoder.onnx", "tokens.txt", "model.json"}
    names |= {"bpe.model"} if about["token_type"] == "bpe" else set()
    assert {p.name for p in written[1].iterdir()} == names
    assert about["sampling_rate"] == 16000 and about["languages"].keys() == {"spa"}
    assert {"asr", "st_eng"} <= about["tasks"].keys()
    assert about["pad_to_samples"] == (None if written[2] == "conformer" else 16000)
    ours = OnnxSpeech2Text(written[1], threads=1)
    least = about["min_samples"]
    assert ours.encode([speech(least).numpy()])[0].frames >= 1
    for wrong in (speech(least - 1).numpy(), np.zeros((least, 1), np.float32), np.zeros(9000, int)):
        with pytest.raises(ValueError, match=rf"speech 0 is .*; accepted: floats \(N,\), {least}"):
            ours.encode([wrong])
    with pytest.raises(ValueError, match="task is 'st_fra'; accepted: asr, st_eng"):
        ours.prompt("st_fra")
    with pytest.raises(ValueError, match="language is 'deu'; accepted: spa"):
        ours.prompt("asr", "deu")


def test_decoding_needs_no_pytorch(written: Any) -> None:
    code = (
        "import sys, numpy\n"
        "from espnet_smoe.onnx_decode import OnnxSpeech2Text\n"
        "decoder = OnnxSpeech2Text(sys.argv[1], threads=1)\n"
        "print(len(decoder(numpy.ones(8000, numpy.float32), beam_size=2).tokens) > 0)\n"
        "print([m for m in ('torch', 'espnet', 'espnet2') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(written[1])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[1] == "[]"


def noise(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all frequencies, so that rounding errors matter in none."""
    generator = torch.Generator().manual_seed(2)
    rows = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("norm_vars", [False, True])
@pytest.mark.parametrize("norm_means", [False, True])
@pytest.mark.parametrize("kind", ["global_mvn", "utterance_mvn"])
@torch.no_grad()
def test_features_are_espnets(kind: str, norm_means: bool, norm_vars: bool, tmp_path: Path) -> None:
    from espnet2.asr.frontend.default import DefaultFrontend
    from espnet2.layers.global_mvn import GlobalMVN
    from espnet2.layers.utterance_mvn import UtteranceMVN

    options = {"norm_means": norm_means, "norm_vars": norm_vars}
    if kind == "global_mvn":
        stats = {"count": 4, "sum": -8 * np.ones(20), "sum_square": 25 * np.ones(20)}
        np.savez(tmp_path / "stats.npz", **stats)
        normalize: Any = GlobalMVN(tmp_path / "stats.npz", **options)
    else:
        normalize = UtteranceMVN(**options)
    frontend = DefaultFrontend(n_fft=512, win_length=400, hop_length=160, n_mels=20)
    x_BN, lengths_B = noise(8000, 3333)
    expected, frames_B = normalize(*frontend(x_BN, lengths_B))
    found, inside_BF = LogMel(frontend, normalize)(x_BN, lengths_B)
    assert inside_BF.sum(1).tolist() == frames_B.tolist()
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_features_are_nearer_to_exact_ones_than_espnets() -> None:
    from espnet2.asr.frontend.default import DefaultFrontend

    frontend = DefaultFrontend(n_fft=512, win_length=400, hop_length=160, n_mels=40)
    x_BN, lengths_B = batch(16000)  # next to nothing in some bands: there rounding tells
    exact = LogMel(frontend, None).double()
    window = torch.hann_window(400, dtype=torch.float64)
    spectrum = torch.stft(x_BN.double(), 512, 160, 400, window, return_complex=True)
    power_BTF = spectrum.abs().square().transpose(1, 2)
    expected = torch.matmul(power_BTF, exact.melmat).clamp(min=1e-10).log()
    ours = (LogMel(frontend, None)(x_BN, lengths_B)[0] - expected).abs().max()
    espnets = (frontend(x_BN, lengths_B)[0] - expected).abs().max()
    assert ours < espnets < 0.05


def test_what_cannot_be_written_is_named(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "onnx"
    assert main(["onnx", "--model", str(model_directory()), "--out", str(out)]) == 1
    assert "the model has experts; accepted are dense models" in capsys.readouterr().err
    assert not out.exists()
    loaded = load(find_model(dense_model(tmp_path / "model", "transformer")))
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(ModelError, match="exists and holds something; nothing is overwritten"):
        export_onnx(loaded, out)
    model = loaded.model
    for part, name, message in (
        (model, "preencoder", "the preencoder is a Linear; accepted: none"),
        (model, "encoder", "the encoder is a Linear; accepted: conformer, transformer, e_branch"),
        (
            model,
            "normalize",
            "the normalize is a Linear; accepted: global_mvn, utterance_mvn, none",
        ),
        (model, "frontend", "the frontend is a Linear; accepted: default"),
        (model, "decoder", "the decoder is a Linear; accepted: ESPnet's 'transformer'"),
    ):
        before = getattr(part, name)
        setattr(part, name, torch.nn.Linear(1, 1))
        with pytest.raises(ModelError, match=message):
            check_exportable(model)
        setattr(part, name, before)
    loaded.args.token_type = "hugging_face"
    with pytest.raises(ModelError, match="token_type is 'hugging_face'; accepted: bpe, word, char"):
        export_onnx(loaded, tmp_path / "other")


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format": 9}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"model.json: format is 9; accepted: 1"):
        OnnxSpeech2Text(tmp_path)
