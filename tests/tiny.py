"""Tiny modules and helpers that several test files share."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import (
    SMoEConformerEncoder,
    SMoEEBranchformerEncoder,
    SMoETransformerEncoder,
)

TIMES = [f"<{i * 0.02:.2f}>" for i in range(51)]  # <0.00> to <1.00>
WORDS = ["hola", "casa", "perro", "grande", "house", "dog", "big", "hello", "the"]
TOKENS = [
    "<blank>",
    "<unk>",
    "<na>",
    "<spa>",
    "<asr>",
    "<st_eng>",
    "<st_deu>",
    "<notimestamps>",
    *TIMES,
    "_",  # ESPnet's preprocessor drops the first token of a text
    *WORDS,
    "<sop>",
    "<sos>",
    "<eos>",
]
ID = {token: i for i, token in enumerate(TOKENS)}
EXPERTS = {"asr": ["<asr>"], "st": ["<st_*>"]}
TOLERANCE = 1e-5  # largest absolute difference, float32
FEATURES = 12

DENSE = {
    "conformer": ConformerEncoder,
    "transformer": TransformerEncoder,
    "e_branchformer": EBranchformerEncoder,
}
SMOE = {
    "conformer": SMoEConformerEncoder,
    "transformer": SMoETransformerEncoder,
    "e_branchformer": SMoEEBranchformerEncoder,
}
SIZES: dict[str, dict[str, Any]] = {
    "conformer": {"macaron_style": True, "cnn_module_kernel": 3, "rel_pos_type": "latest"},
    "transformer": {},
    "e_branchformer": {
        "use_ffn": True,
        "macaron_ffn": True,
        "cgmlp_linear_units": 16,
        "cgmlp_conv_kernel": 3,
    },
}


def ids(*tokens: str) -> list[int]:
    """Token ids of `tokens`."""
    return [ID[token] for token in tokens]


def encoder_options(kind: str, **options: Any) -> dict[str, Any]:
    """Options of a tiny encoder without dropout."""
    return {
        "input_size": FEATURES,
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 10,
        "num_blocks": 3,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        **SIZES[kind],
        **options,
    }


def encoder_pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A dense ESPnet encoder with random weights and the S-MoE one with the same in each expert."""
    torch.manual_seed(1)
    dense = randomize(DENSE[kind](**encoder_options(kind, **options)))
    smoe = SMOE[kind](**encoder_options(kind, **options))
    smoe.load_state_dict(dense.state_dict())
    return dense, smoe


def decoder_options(**options: Any) -> dict[str, Any]:
    """Options of a tiny decoder without dropout."""
    return {
        "vocab_size": len(TOKENS),
        "encoder_output_size": 8,
        "attention_heads": 2,
        "linear_units": 10,
        "num_blocks": 2,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        **options,
    }


def smoe_decoder(**options: Any) -> SMoETransformerDecoder:
    """A tiny decoder with distinct random experts ``asr`` and ``st``, in eval mode."""
    torch.manual_seed(2)
    decoder = SMoETransformerDecoder(**decoder_options(**{"experts": EXPERTS, **options}))
    decoder.bind_tokens(TOKENS)
    return randomize(decoder).eval()


def decoder_pair(**options: Any) -> tuple[TransformerDecoder, SMoETransformerDecoder]:
    """A dense ESPnet decoder and the S-MoE one with the same weights in each expert."""
    torch.manual_seed(1)
    dense = randomize(TransformerDecoder(**decoder_options(**options)))
    smoe = SMoETransformerDecoder(**decoder_options(experts=EXPERTS, **options))
    smoe.bind_tokens(TOKENS)
    smoe.load_state_dict(dense.state_dict())
    return dense, smoe


def randomize(module: Any, scale: float = 0.3) -> Any:
    """Give every parameter its own random values: no zero biases, no equal experts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module


def expert_key(name: str) -> str:
    """A parameter's name in the dense module."""
    return re.sub(r"\.experts\.[^.]+", "", name)


def dense_of(smoe: Any, dense: Any, expert: str) -> Any:
    """The dense module `dense` with the weights of one expert of `smoe`, in eval mode."""
    other = re.compile(rf"\.experts\.(?!{expert}\.)")
    state = {expert_key(k): v for k, v in smoe.state_dict().items() if not other.search(k)}
    dense.load_state_dict(copy.deepcopy(state))
    return dense.eval()


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = TOLERANCE) -> None:
    """Assert equality up to `atol`, with no relative tolerance."""
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0.0)


def backward(module: Any, output: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Gradients of a fixed random projection of `output`, by parameter name."""
    module.zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(output.shape, generator=generator) / output[0].numel() ** 0.5
    (output.float() * weight).sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


def same_gradients(
    dense: dict[str, torch.Tensor | None], smoe: dict[str, torch.Tensor | None]
) -> None:
    """Shared parameters' gradients are equal; those of all experts add up to the dense one's."""
    total: dict[str, torch.Tensor] = {}
    for name, gradient in smoe.items():
        if gradient is not None:
            key = expert_key(name)
            total[key] = total[key] + gradient if key in total else gradient
    assert total.keys() == {name for name, gradient in dense.items() if gradient is not None}
    for name, gradient in dense.items():
        if gradient is not None:
            close(total[name], gradient)


def features(batch: int = 4, frames: int = 31, seed: int = 3) -> torch.Tensor:
    """Random features (B, T, FEATURES)."""
    return torch.randn(batch, frames, FEATURES, generator=torch.Generator().manual_seed(seed))


def seeded(call: Callable[[], Any], seed: int = 11) -> Any:
    """Call with a fixed random state."""
    torch.manual_seed(seed)
    return call()


def padded(rows: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded int64 batch (B, T) and its lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.full((len(rows), int(lengths.max())), value)
    for row, values in enumerate(rows):
        batch[row, : len(values)] = torch.tensor(values)
    return batch, lengths


FS = 16000
FRONTEND = {"fs": FS, "n_fft": 256, "win_length": 256, "hop_length": 128, "n_mels": FEATURES}


def training_config(kind: str = "conformer", **options: Any) -> dict[str, Any]:
    """ESPnet's training options (a YAML's content) of a tiny S-MoE model without dropout."""
    encoder = encoder_options(kind, num_blocks=2, experts=["wb", "nb"])
    del encoder["input_size"]
    decoder = decoder_options(num_blocks=1, experts=EXPERTS)
    del decoder["vocab_size"], decoder["encoder_output_size"]
    config: dict[str, Any] = {
        "token_list": TOKENS,
        "token_type": "word",
        "frontend_conf": FRONTEND,
        "normalize": None,
        "encoder": f"smoe_{kind}",
        "encoder_conf": encoder,
        "decoder": "smoe_transformer",
        "decoder_conf": decoder,
        "model": "smoe",
        "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1, "speech_length": 0.5},
        "preprocessor": "smoe",
        "preprocessor_conf": {
            "speech_length": 1.0,
            "last_time_symbol": TIMES[-1],
            "speech_init_silence": 0.0,
            "time_apply_prob": 1.0,
        },
    }
    for name, value in options.items():
        stock = config.get(name)
        config[name] = {**stock, **value} if isinstance(stock, dict) else value
    for part in ("encoder", "decoder"):
        if not config[part].startswith("smoe_"):
            del config[f"{part}_conf"]["experts"]
    return config


def smoe_model(kind: str = "conformer", **options: Any) -> Any:
    """A tiny whole model, built by ESPnet's own `S2TTask.build_model`; random, in eval mode."""
    from espnet2.tasks.s2t import S2TTask  # slow, so only where it is needed

    import espnet_smoe  # noqa: F401

    args = S2TTask.get_parser().parse_args([])
    for name, value in copy.deepcopy(training_config(kind, **options)).items():
        setattr(args, name, value)
    torch.manual_seed(3)
    return randomize(S2TTask.build_model(args), 0.1).eval()


def speech(samples: int = 6000, *, wide: bool = True, seed: int = 0) -> torch.Tensor:
    """Speech-like noise (N,): low "vowels" and high "fricatives" in turn, up to 8 or 3.4 kHz."""
    generator = torch.Generator().manual_seed(seed)
    hz = torch.fft.rfftfreq(samples, 1 / FS)
    bands = []
    for low, high in ((200, 2500), (4500, 7500)):
        spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
        spectrum[(hz < low) | (hz > high)] = 0
        bands.append(torch.fft.irfft(spectrum, n=samples))
    gate = 0.5 - 0.5 * torch.cos(torch.arange(samples) * 2 * torch.pi / 2400)
    spectrum = torch.fft.rfft(0.1 * (bands[0] * (1 - gate) + bands[1] * gate**4))
    spectrum[hz > (8000 if wide else 3400)] = 0
    return torch.fft.irfft(spectrum, n=samples)


def model_batch(
    routes: Sequence[str], bandwidths: Sequence[int] | None = None, samples: int = 6000
) -> dict[str, torch.Tensor]:
    """A batch as ESPnet's collate function gives it; a route is a task token."""
    texts = [
        ids("<spa>", task, "<notimestamps>", *WORDS[row % 3 : row % 3 + 2 + row % 2])
        for row, task in enumerate(routes)
    ]
    text, text_lengths = padded(texts, -1)
    ctc, ctc_lengths = padded([t[3:] for t in texts], -1)
    n = len(routes)
    batch = {
        "speech": torch.stack([speech(samples, seed=row) for row in range(n)]),
        "speech_lengths": torch.tensor([samples - 640 * (row % 3) for row in range(n)]),
        "text": text,
        "text_lengths": text_lengths,
        "text_prev": torch.full((n, 1), ID["<na>"]),
        "text_prev_lengths": torch.ones(n, dtype=torch.int64),
        "text_ctc": ctc,
        "text_ctc_lengths": ctc_lengths,
    }
    for row, length in enumerate(batch["speech_lengths"].tolist()):
        batch["speech"][row, length:] = 0
    if bandwidths is not None:
        batch["bandwidth"] = torch.tensor(bandwidths)[:, None]
        batch["bandwidth_lengths"] = torch.ones(n, dtype=torch.int64)
    return batch
