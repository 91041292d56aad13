"""The model: bandwidth routes, trimmed padding, figures per route."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from espnet.nets.pytorch_backend.nets_utils import th_accuracy
from espnet.nets.pytorch_backend.transformer.label_smoothing_loss import LabelSmoothingLoss
from espnet2.main_funcs.calculate_all_attentions import calculate_all_attentions
from espnet2.tasks.s2t import S2TTask
from tiny import FS, ID, TOKENS, close, ids, model_batch, padded, smoe_model, speech

from espnet_smoe.bandwidth import measure
from espnet_smoe.experts import param_counts
from espnet_smoe.model import ROUTE_LOG_VARIABLE, ROUTE_VARIABLE, SMoES2TModel
from espnet_smoe.route_stats import ObservedLoss, RouteStats
from espnet_smoe.routing import RoutingError

TASKS = ["<asr>", "<st_eng>", "<asr>", "<st_deu>"]
ROUTE_KEYS = [
    f"{figure}_{task}_{band}"
    for task in ("asr", "st")
    for band in ("wb", "nb")
    for figure in ("loss_att", "acc", "n")
]


@pytest.fixture(scope="module")
def shared_model() -> SMoES2TModel:
    model: SMoES2TModel = smoe_model()
    return model


@pytest.fixture
def model(shared_model: SMoES2TModel, monkeypatch: pytest.MonkeyPatch) -> SMoES2TModel:
    monkeypatch.delenv(ROUTE_VARIABLE, raising=False)
    monkeypatch.delenv(ROUTE_LOG_VARIABLE, raising=False)
    shared_model.eval().zero_grad()
    shared_model.route_override = None
    shared_model.trim_padding = False
    return shared_model


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_forward_and_backward_of_a_whole_model(kind: str) -> None:
    whole = smoe_model(kind).train()
    loss, stats, weight = whole(**model_batch(TASKS, [0, 1, 1, 0]))
    loss.sum().backward()
    assert weight.tolist() == [4]
    assert torch.isfinite(loss).all()
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    counts = param_counts(whole)
    assert counts.total == sum(p.numel() for p in whole.parameters())
    assert list(counts.active) == ["wb/asr", "wb/st", "nb/asr", "nb/st"]


def test_experts_that_the_batch_does_not_route_to_get_no_gradient(model: SMoES2TModel) -> None:
    model.train()
    model(**model_batch(["<asr>", "<asr>"], [1, 1]))[0].sum().backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None}
    assert idle == {n for n, _ in model.named_parameters() if ".wb." in n or ".st." in n}


def test_a_given_bandwidth_routes_the_encoder(model: SMoES2TModel) -> None:
    for given in ([0, 1, 1, 0], [1, 1, 0, 0]):
        model(**model_batch(TASKS, given))
        assert model.last_route == tuple(("wb", "nb")[i] for i in given)
    batch = model_batch(TASKS, [0, 1, 1, 0])
    batch["bandwidth"] = batch["bandwidth"][:, 0]  # (B,) as well as (B, 1)
    model(**batch)
    assert model.last_route == ("wb", "nb", "nb", "wb")


def test_without_a_given_bandwidth_it_is_measured(model: SMoES2TModel) -> None:
    wide, narrow = speech(8000), speech(8000, wide=False)
    assert (measure(wide.numpy(), FS).label, measure(narrow.numpy(), FS).label) == ("wb", "nb")
    model.encode(torch.stack([narrow, wide, narrow]), torch.tensor([8000, 8000, 6400]))
    assert model.last_route == ("nb", "wb", "nb")


def test_the_given_bandwidth_serves_one_batch_only(model: SMoES2TModel) -> None:
    batch = model_batch(["<asr>"], [1])
    model(**batch)
    assert model.last_route == ("nb",)
    model.encode(batch["speech"], batch["speech_lengths"])
    assert model.last_route == ("wb",)


def test_route_override_forces_the_expert(
    model: SMoES2TModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = model_batch(TASKS, [0, 1, 1, 0])
    model.route_override = "nb"
    forced = model(**batch)[0]
    assert model.last_route == ("nb",) * 4
    close(forced, model(**model_batch(TASKS, [1, 1, 1, 1]))[0])
    monkeypatch.setenv(ROUTE_VARIABLE, "wb")
    model(**batch)
    assert model.last_route == ("nb",) * 4  # the attribute goes before the environment
    model.route_override = None
    model(**batch)
    assert model.last_route == ("wb",) * 4


def test_an_override_that_is_no_expert_raises(
    model: SMoES2TModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROUTE_VARIABLE, "swb")
    with pytest.raises(RoutingError, match=r"ESPNET_SMOE_ROUTE\) is 'swb'; accepted: wb, nb"):
        model.encode(speech()[None], torch.tensor([6000]))


def test_inference_logs_its_routes(
    model: SMoES2TModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROUTE_LOG_VARIABLE, str(tmp_path / "routes"))
    model.encode(speech(8000, wide=False)[None], torch.tensor([8000]))
    model.encode(torch.stack([speech(8000), speech(8000, wide=False)]), torch.tensor([8000, 8000]))
    model.train()
    model.encode(speech()[None], torch.tensor([6000]))
    assert (tmp_path / "routes").read_text() == "nb\nwb\nnb\n"


def test_trim_padding_undoes_what_espnets_inference_adds(model: SMoES2TModel) -> None:
    full = model.padded_length
    assert full == 8000  # speech_length 0.5 s
    voice = speech(5000)
    padded_voice = torch.nn.functional.pad(voice, (0, full - 5000))[None]
    model.route_override = "wb"
    expected, expected_lengths = model.encode(voice[None], torch.tensor([5000]))
    model.trim_padding = True
    actual, lengths = model.encode(padded_voice, torch.tensor([full]))
    close(actual, expected)
    assert lengths.tolist() == expected_lengths.tolist()
    model.trim_padding = False
    assert model.encode(padded_voice, torch.tensor([full]))[0].shape[1] > actual.shape[1]


def seen_lengths(model: SMoES2TModel, x: torch.Tensor, lengths: list[int]) -> list[int]:
    """The lengths that reach the front end, and that the waveform is cut to the longest."""
    seen: list[Any] = []
    model.route_override = "wb"
    frontend: Any = model.frontend
    hook = frontend.register_forward_pre_hook(lambda _, args: seen.append(args))
    model.encode(x, torch.tensor(lengths))
    hook.remove()
    ((waveform, found),) = seen
    assert waveform.shape[1] == max(found)
    return list(found.tolist())


def test_trim_padding_only_at_exactly_the_padded_length(model: SMoES2TModel) -> None:
    model.trim_padding = True
    for total, expected in ((8000, 5000), (7999, 7999), (8001, 8001)):
        x = torch.nn.functional.pad(speech(5000), (0, total - 5000))[None]
        assert seen_lengths(model, x, [total]) == [expected]
    model.train()
    x = torch.nn.functional.pad(speech(5000), (0, 3000))[None]
    assert seen_lengths(model, x, [8000]) == [8000]  # training keeps its padding


def test_trim_padding_keeps_inner_zeros_silent_rows_and_shorter_rows(model: SMoES2TModel) -> None:
    model.trim_padding = True
    x = torch.zeros(4, 8000)
    x[0, :3000], x[0, 5999] = speech(3000), 0.1  # zeros inside
    x[2] = speech(8000)
    x[3, :4000] = speech(4000)
    assert seen_lengths(model, x, [8000, 8000, 8000, 3500]) == [6000, 8000, 8000, 3500]


def test_speech_with_a_channel_axis_is_routed_and_trimmed(model: SMoES2TModel) -> None:
    """ESPnet's own S2T preprocessor gives (samples, 1)."""
    narrow = torch.nn.functional.pad(speech(7000, wide=False), (0, 1000))
    model.trim_padding = True
    expected, _ = model.encode(narrow[None], torch.tensor([8000]))
    actual, lengths = model.encode(narrow[None, :, None], torch.tensor([8000]))
    assert model.last_route == ("nb",)
    close(actual, expected)


@pytest.mark.parametrize(
    ("smoothing", "per_token"), [(0.0, False), (0.1, False), (0.1, True), (1.0, False)]
)
def test_route_figures_equal_espnets_criterion_on_the_rows(
    smoothing: float, per_token: bool
) -> None:
    options = {"lsm_weight": smoothing, "length_normalized_loss": per_token}
    model = smoe_model(model_conf=options).train()
    given = [0, 1, 1, 0, 0, 1]
    tasks = [*TASKS, "<asr>", "<asr>"]
    batch = model_batch(tasks, given)
    outputs: list[Any] = []
    hook = model.criterion_att.register_forward_pre_hook(lambda _, args: outputs.append(args))
    _, stats, _ = model(**batch)
    hook.remove()
    ((logits, targets),) = outputs
    criterion = LabelSmoothingLoss(len(TOKENS), -1, smoothing, normalize_length=per_token)
    routes = [
        f"{'asr' if task == '<asr>' else 'st'}_{('wb', 'nb')[band]}"
        for task, band in zip(tasks, given, strict=True)
    ]
    assert set(routes) == {"asr_wb", "asr_nb", "st_wb", "st_nb"}
    for route in set(routes):
        rows = [row for row, name in enumerate(routes) if name == route]
        x, y = logits[rows].contiguous(), targets[rows].contiguous()
        torch.testing.assert_close(stats[f"loss_att_{route}"][0], criterion(x, y).detach())
        assert stats[f"acc_{route}"].item() == pytest.approx(
            th_accuracy(x.view(-1, len(TOKENS)), y, ignore_label=-1)
        )
        assert stats[f"n_{route}"].tolist() == [len(rows)]
    n = torch.cat([stats[f"n_{route}"] for route in sorted(set(routes))])
    loss = torch.cat([stats[f"loss_att_{route}"] for route in sorted(set(routes))])
    if not per_token:
        torch.testing.assert_close((n * loss).sum() / n.sum(), stats["loss_att"][0])


def test_absent_routes_are_nan_and_keys_keep_their_order(model: SMoES2TModel) -> None:
    orders = []
    for tasks, given in ((TASKS, [0, 1, 1, 0]), (["<st_eng>"] * 2, [1, 1]), (["<asr>"], [0])):
        for train in (True, False):
            _, stats, _ = model.train(train)(**model_batch(tasks, given))
            orders.append([key for key in stats if key in ROUTE_KEYS])
            assert all(stats[key].shape == (1,) for key in ROUTE_KEYS)
    assert all(order == ROUTE_KEYS for order in orders)
    _, stats, _ = model(**model_batch(["<asr>"], [0]))
    for key in ROUTE_KEYS:
        if "asr_wb" in key:
            assert math.isfinite(stats[key].item())
        elif key.startswith("n_"):
            assert stats[key].item() == 0
        else:
            assert math.isnan(stats[key].item())


def test_the_keys_do_not_depend_on_the_batch(model: SMoES2TModel) -> None:
    """ESPnet's DDP average drops None and matches keys by position."""
    interctc = smoe_model(
        encoder_conf={"interctc_layer_idx": [1]}, model_conf={"interctc_weight": 0.3}
    )
    for whole in (model, interctc):
        for train in (True, False):
            kept = []
            for has_ctc in (True, False):
                batch = model_batch(["<asr>", "<st_eng>"], [0, 1])
                if not has_ctc:
                    batch["text_ctc"] = torch.full((2, 1), ID["<na>"])
                    batch["text_ctc_lengths"] = torch.ones(2, dtype=torch.int64)
                _, stats, _ = whole.train(train)(**batch)
                kept.append([key for key, value in stats.items() if value is not None])
            assert kept[0] == kept[1]


def test_text_prev_changes_no_route(model: SMoES2TModel) -> None:
    batch = model_batch(["<asr>", "<st_eng>"], [0, 1])
    prev, prev_lengths = padded([ids("<st_eng>", "dog"), ids("<asr>", "hola", "casa")], -1)
    batch["text_prev"], batch["text_prev_lengths"] = prev, prev_lengths
    _, stats, _ = model(**batch)
    assert stats["n_asr_wb"].item() == stats["n_st_nb"].item() == 1


def test_errors_name_the_utterance(model: SMoES2TModel) -> None:
    batch = model_batch(["<asr>", "<spa>"], [0, 1])
    with pytest.raises(RoutingError, match=r"utterance u2: prompt <spa><spa> has no guiding token"):
        model(**batch, utt_id=["u1", "u2"])
    batch = model_batch(["<asr>", "<asr>"], [2, 1])
    with pytest.raises(RoutingError, match=r"utterance u1: bandwidth is 2; accepted: 0 \(wb\), 1"):
        model(**batch, utt_id=["u1", "u2"])
    with pytest.raises(RoutingError, match="bandwidth is 2; accepted"):
        model(**batch)


def test_an_encoder_axis_that_is_no_bandwidth_raises() -> None:
    with pytest.raises(RoutingError, match=r"never picks noisy \(accepted: wb, nb\)"):
        smoe_model(encoder_conf={"experts": ["wb", "noisy"]})


def test_a_single_bandwidth_expert_rejects_the_other_bandwidth() -> None:
    model = smoe_model(encoder_conf={"experts": ["wb"]})
    with pytest.raises(RoutingError, match=r"utterance u2: tag 'nb' has no expert \(known: wb\)"):
        model(**model_batch(["<asr>", "<asr>"], [0, 1]), utt_id=["u1", "u2"])


def test_a_typo_in_a_token_pattern_stops_the_build() -> None:
    with pytest.raises(RoutingError, match=r"decoder_conf.experts.asr: '<arr>' match no token"):
        smoe_model(decoder_conf={"experts": {"asr": ["<arr>"], "st": ["<st_*>"]}})


def test_a_mixed_batch_equals_its_utterances_one_at_a_time(model: SMoES2TModel) -> None:
    batch = model_batch(TASKS, [0, 1, 1, 0])
    batch["speech_lengths"][:] = 6000
    _, stats, _ = model(**batch)
    losses = []
    for row in range(4):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        one["text"] = one["text"][:, : int(one["text_lengths"][0])]
        one["text_ctc"] = one["text_ctc"][:, : int(one["text_ctc_lengths"][0])]
        losses.append(model(**one)[1]["loss"])
    torch.testing.assert_close(torch.cat(losses).mean(), stats["loss"][0], atol=1e-5, rtol=1e-6)


def test_observed_loss_is_taken_once() -> None:
    observed = ObservedLoss(LabelSmoothingLoss(5, -1, 0.1))
    with pytest.raises(RuntimeError, match="after a forward pass, once"):
        observed.take()
    observed(torch.randn(2, 3, 5), torch.tensor([[1, 2, -1], [0, 4, 3]]))
    assert observed.take().shape == (2, 4)
    with pytest.raises(RuntimeError, match="after a forward pass, once"):
        observed.take()


def test_route_stats_of_one_dense_side_or_two() -> None:
    scores = torch.tensor([[2.0, 1, 4, 1], [4.0, 2, 2, 1]])
    encoder_only = RouteStats((), ("wb", "nb"))(scores, None, ("nb", "nb"), False)
    assert list(encoder_only)[:3] == ["loss_att_wb", "acc_wb", "n_wb"]
    assert encoder_only["loss_att_nb"].item() == 3 and encoder_only["acc_nb"].item() == 0.5
    decoder_only = RouteStats(("asr", "st"), ())(scores, ("asr", "st"), None, False)
    assert decoder_only["acc_asr"].item() == 0.25 and decoder_only["acc_st"].item() == 1
    assert RouteStats((), ())(scores, None, None, False) == {}


def test_only_training_steps_are_summed_over_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPnet plots attention on rank 0 alone: a sum over the ranks would wait there for ever."""
    calls = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: calls.append(sums.mul_(2)))
    scores = torch.tensor([[2.0, 1, 4, 1]])
    stats = RouteStats(("asr",), ())
    assert stats(scores, ("asr",), None, False)["n_asr"].item() == 1
    assert calls == []
    summed = stats(scores, ("asr",), None, True)
    assert summed["n_asr"].item() == 2 and summed["loss_att_asr"].item() == 2
    assert len(calls) == 1


def test_espnets_attention_plots_run(model: SMoES2TModel) -> None:
    batch = model_batch(["<asr>", "<st_eng>"], [0, 1])
    attention = calculate_all_attentions(model, {**batch, "utt_id": ["u1", "u2"]})
    assert any(name.startswith("decoder.") for name in attention)
    assert all(len(per_utterance) == 2 for per_utterance in attention.values())


def test_autocast_of_a_whole_model_with_mixed_routes(model: SMoES2TModel) -> None:
    batch = model_batch(TASKS, [0, 1, 1, 0])
    _, expected, _ = model(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, stats, _ = model.train()(**batch)
    loss.sum().backward()
    for key in ROUTE_KEYS:
        if key.startswith("loss"):
            torch.testing.assert_close(stats[key], expected[key], atol=0.0, rtol=0.02)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_a_model_without_decoder_has_no_figures_per_route() -> None:
    model = smoe_model(model_conf={"ctc_weight": 1.0}).train()
    loss, stats, _ = model(**model_batch(["<asr>", "<asr>"], [0, 1]))
    loss.sum().backward()
    assert model.last_route == ("wb", "nb")
    assert not [key for key in stats if key in ROUTE_KEYS]


def test_dense_parts_work_in_the_smoe_model() -> None:
    """``model: smoe`` with ESPnet's own encoder, decoder, or both: for the dense baselines."""
    args = S2TTask.get_parser().parse_args([])
    assert args.model == "espnet"
    for encoder, decoder, figure in (
        ("conformer", "smoe_transformer", "acc_asr"),
        ("smoe_conformer", "transformer", "acc_nb"),
        ("conformer", "transformer", None),
    ):
        model = smoe_model(encoder=encoder, decoder=decoder)
        _, stats, _ = model(**model_batch(["<asr>", "<st_eng>"], [0, 1]))
        extra = [key for key in stats if key.startswith("n_")]
        if figure is None:
            assert extra == []
            assert model.last_route is None
        else:
            assert math.isfinite(stats[figure].item())
            assert len(extra) == 2
