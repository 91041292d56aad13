"""A cached step gives what the whole prefix gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from espnet2.asr.decoder.transformer_decoder import (
    DynamicConvolutionTransformerDecoder,
    TransformerDecoder,
)
from stock_search import PROMPTS, batch, memory
from tiny import ID, TOKENS, close, decoder_options, ids, randomize, smoe_decoder

from espnet_smoe import decoder_cache
from espnet_smoe.compat import ScaledPositionalEncoding
from espnet_smoe.decoder_cache import CachedDecoder, check_decoder, experts_of

FRAMES = [6, 9, 4, 9]
WORDS = ids("hola", "perro", "dog", "casa", "big", "the", "hello")
BEAMS = 3


@torch.no_grad()
def hidden(decoder: Any, prefix: list[int], x: torch.Tensor) -> torch.Tensor:
    """The state behind a prefix by the decoder's own forward: what its output layer reads."""
    (_, states), _ = decoder(
        x[None],
        torch.tensor([len(x)]),
        torch.tensor([prefix]),
        torch.tensor([len(prefix)]),
        return_hs=True,
    )
    return states[0, -1]


def follow(decoder: Any, steps: int, *, leave_at: int | None = None, seed: int = 0) -> None:
    """Decode random tokens with beams reordered at random, against the forward of each prefix."""
    generator = torch.Generator().manual_seed(seed)
    rows = memory(FRAMES)
    cached = CachedDecoder(decoder, *batch(rows), PROMPTS)
    states = cached.start()
    utts = list(range(len(rows)))
    prefixes = [list(prompt) for prompt in PROMPTS]
    beams = 1
    for step in range(steps + 1):
        expected = [hidden(decoder, p, rows[utts[i // beams]]) for i, p in enumerate(prefixes)]
        close(states, torch.stack(expected), atol=2e-5)
        stay = None
        parents = torch.randint(beams, (len(utts), BEAMS), generator=generator)
        following = parents + beams * torch.arange(len(utts))[:, None]
        if step == leave_at:
            stay = [0, 2]
            following, utts = following[stay], [utts[place] for place in stay]
        cached.select(following.flatten(), stay)
        beams = BEAMS
        picks = torch.randint(len(WORDS), (len(following) * beams,), generator=generator)
        tokens = torch.tensor(WORDS)[picks]
        parents_of = following.flatten().tolist()
        prefixes = [[*prefixes[p], t] for p, t in zip(parents_of, tokens.tolist(), strict=True)]
        states = cached.step(tokens)


@pytest.mark.parametrize("normalize_before", [True, False])
@pytest.mark.parametrize("concat_after", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_cached_step_equals_the_full_forward(
    normalize_before: bool, concat_after: bool, qk_norm: bool
) -> None:
    decoder = smoe_decoder(
        normalize_before=normalize_before, concat_after=concat_after, qk_norm=qk_norm
    )
    follow(decoder, 4)


def test_a_cached_step_equals_the_full_forward_of_a_dense_decoder() -> None:
    follow(randomize(TransformerDecoder(**decoder_options())).eval(), 4, leave_at=1)


@pytest.mark.parametrize("options", [{}, {"expert_blocks": [1]}, {"num_blocks": 3}], ids=str)
@pytest.mark.parametrize("leave_at", [0, 2])
def test_utterances_leave(options: dict[str, Any], leave_at: int) -> None:
    follow(smoe_decoder(**options), 4, leave_at=leave_at, seed=leave_at)


def test_the_cache_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_cache, "GROW", 2)
    follow(smoe_decoder(), 12)


def test_scaled_positions() -> None:
    decoder = smoe_decoder(pos_enc_class=ScaledPositionalEncoding)
    with torch.no_grad():
        decoder.embed[1].alpha.fill_(0.7)
    follow(decoder, 3)


def test_the_route_is_set_at_every_step() -> None:
    """Another use of the decoder in between does no harm."""
    decoder, rows = smoe_decoder(), memory(FRAMES)
    cached = CachedDecoder(decoder, *batch(rows), PROMPTS)
    cached.start()
    other = hidden(decoder, PROMPTS[1], rows[0])
    cached.select(torch.arange(4))
    states = cached.step(torch.tensor(WORDS[:4]))
    expected = [hidden(decoder, [*PROMPTS[i], WORDS[i]], rows[i]) for i in range(4)]
    close(states, torch.stack(expected), atol=2e-5)
    close(hidden(decoder, PROMPTS[1], rows[0]), other)


def test_experts_come_from_the_prompts() -> None:
    assert experts_of(smoe_decoder(), PROMPTS) == ("asr", "st", "st", "asr")
    assert experts_of(TransformerDecoder(**decoder_options()), PROMPTS) is None


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (torch.nn.Linear(2, 2), "the decoder is a Linear; accepted: ESPnet's 'transformer'"),
        (
            DynamicConvolutionTransformerDecoder(
                len(TOKENS), 8, num_blocks=1, conv_kernel_length=[3], attention_heads=2
            ),
            "the decoder is a DynamicConvolutionTransformerDecoder",
        ),
        (
            TransformerDecoder(**decoder_options(input_layer="linear")),
            "the decoder's input is Linear and PositionalEncoding",
        ),
        (TransformerDecoder(**decoder_options(use_output_layer=False)), "use_output_layer: false"),
        (smoe_decoder().train(), "training mode; call model.eval"),
    ],
    ids=["linear", "dynamic", "input", "output", "train"],
)
def test_other_decoders_raise(decoder: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_decoder(decoder)


def test_other_layers_raise() -> None:
    decoder = smoe_decoder()
    decoder.decoders[1].src_attn = torch.nn.Identity()
    with pytest.raises(ValueError, match="layer 1 is a DecoderLayer of .* and Identity"):
        check_decoder(decoder)


def test_a_later_token_cannot_change_the_expert() -> None:
    decoder, rows = smoe_decoder(), memory([5])
    prompt = ids("<sos>", "<spa>", "<asr>")
    cached = CachedDecoder(decoder, *batch(rows), [prompt])
    cached.start()
    cached.select(torch.tensor([0]))
    guide = ID["<st_eng>"]
    state = cached.step(torch.tensor([guide]))
    prefix = torch.tensor([[*prompt, guide]])
    mask = torch.ones(1, 4, 4).tril().bool()
    with torch.no_grad():
        _, cache = decoder.forward_one_step(prefix[:, :3], mask[:, :3, :3], rows[0][None])
        expected, _ = decoder.forward_one_step(prefix, mask, rows[0][None], cache=cache)
        close(decoder.output_layer(state).log_softmax(-1), expected)
