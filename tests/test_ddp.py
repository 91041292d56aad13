"""Two ranks of ESPnet's own trainer on CPU: 20 steps of single-task batches.

Rank 0 sees wideband utterances only and rank 1 narrowband ones only, so that in each step one
encoder expert is unused on each rank, and one decoder expert on both. An "epoch" is one step, so
that ESPnet keeps the parameters and the logged figures of each.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.s2t.espnet_model import ESPnetS2TModel
from tiny import FS, ID, TOKENS, WORDS, ids, padded, smoe_model, speech, training_config

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.batching import PLAN_NAME, Batch, interleave, write_plan
from espnet_smoe.datadir import write_table

STEPS = 20
SEED = 5
SMOOTHING = 0.1
SIZES = {"train": [("asr", 4), ("asr", 3), ("asr", 4), ("st", 4), ("st", 3)]}
SIZES["valid"] = [("asr", 4), ("st", 4)]
PROMPTS = {"asr": "<spa> <asr> <notimestamps>", "st": "<spa> <st_eng> <notimestamps>"}


class Data:
    """A tiny data directory: utterances of a batch alternate between wb and nb."""

    def __init__(self, path: Path, batches: list[tuple[str, int]]) -> None:
        self.path = path
        self.batches: list[Batch] = []
        self.texts: dict[str, str] = {}
        self.bands: dict[str, int] = {}
        self.audio: dict[str, np.ndarray] = {}
        for number, (task, size) in enumerate(batches):
            utts = tuple(f"u{number}{i}_{task}" for i in range(size))
            for i, utt in enumerate(utts):
                self.audio[utt] = speech(4000 + 320 * (i + number), seed=10 * number + i).numpy()
                self.bands[utt] = i % 2
                words = WORDS[(number + i) % 5 :][: 2 + i % 3]
                self.texts[utt] = f"{PROMPTS[task]} {' '.join(words)}"
            longest = max(len(self.audio[utt]) for utt in utts)
            self.batches.append(Batch(task, size * longest, utts))
        self.write()

    def write(self) -> None:
        self.path.mkdir(parents=True)
        for utt, samples in self.audio.items():
            soundfile.write(self.path / f"{utt}.wav", samples, FS, subtype="FLOAT")
        write_table(self.path / "wav.scp", {u: self.path / f"{u}.wav" for u in self.audio})
        write_table(self.path / "text", {u: f"_ {text}" for u, text in self.texts.items()})
        write_table(self.path / "text.prev", dict.fromkeys(self.texts, "<na>"))
        ctc = {utt: " ".join(text.split()[3:]) for utt, text in self.texts.items()}
        write_table(self.path / "text.ctc", ctc)
        write_table(self.path / "bandwidth", self.bands)
        write_plan(self.path / PLAN_NAME, self.batches)

    def columns(self) -> list[list[str]]:
        """ESPnet's ``data_path_and_name_and_type``."""
        kinds = [
            ("wav.scp", "speech", "sound"),
            ("text", "text", "text"),
            ("text.prev", "text_prev", "text"),
            ("text.ctc", "text_ctc", "text"),
            ("bandwidth", "bandwidth", "text_int"),
        ]
        return [[str(self.path / file), name, kind] for file, name, kind in kinds]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


class Run:
    """What the two ranks left behind."""

    def __init__(self, path: Path) -> None:
        self.exp = path / "exp"
        self.data = {part: Data(path / part, sizes) for part, sizes in SIZES.items()}
        config = training_config("transformer", model_conf={"lsm_weight": SMOOTHING})
        config |= {
            "output_dir": str(self.exp),
            "train_data_path_and_name_and_type": self.data["train"].columns(),
            "valid_data_path_and_name_and_type": self.data["valid"].columns(),
            "iterator_type": "task",
            "num_iters_per_epoch": 1,
            "max_epoch": STEPS,
            "keep_nbest_models": STEPS,
            "best_model_criterion": [["valid", "loss", "min"]],
            "seed": SEED,
            "optim": "adamw",
            "optim_conf": {"lr": 0.003, "weight_decay": 0.1},
            "unused_parameters": True,
            "use_tensorboard": False,
            "use_matplotlib": False,
            "num_att_plot": 0,
            "num_workers": 0,
            "ngpu": 0,
            "multiprocessing_distributed": False,
            "dist_world_size": 2,
            "dist_backend": "gloo",
            "dist_master_addr": "127.0.0.1",
            "dist_master_port": free_port(),
        }
        with (path / "train.yaml").open("w", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
        self.dumps = self.train(path)
        checkpoint = torch.load(self.exp / "checkpoint.pth", weights_only=False)
        self.logged = checkpoint["reporter"]["stats"]

    @staticmethod
    def train(path: Path) -> list[dict[str, Any]]:
        running = []
        for rank in (0, 1):
            environment = {
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parent),
                "OMP_NUM_THREADS": "1",
                "RANK_DUMP": str(path / f"rank{rank}.pth"),
            }
            command = [sys.executable, "-m", "espnet_smoe.run", "-m", "ddp_rank"]
            command += ["--config", str(path / "train.yaml"), "--dist_rank", str(rank)]
            with (path / f"rank{rank}.log").open("w", encoding="utf-8") as log:
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        try:
            codes = [process.wait(timeout=400) for process in running]
        finally:
            for process in running:
                process.kill()
        logs = [(path / f"rank{rank}.log").read_text(encoding="utf-8") for rank in (0, 1)]
        assert codes == [0, 0], "\n".join(logs)[-6000:]
        return [torch.load(path / f"rank{rank}.pth", weights_only=False) for rank in (0, 1)]

    def state_before(self, step: int) -> dict[str, torch.Tensor]:
        """Parameters before the step (from 1)."""
        if step == 1:
            initial: dict[str, torch.Tensor] = self.dumps[0]["initial"]
            return initial
        state: dict[str, torch.Tensor] = torch.load(
            self.exp / f"{step - 1}epoch.pth", weights_only=True
        )
        return state

    def batch(self, step: int) -> Batch:
        """The training batch of a step: ESPnet's epochs of one step walk through our epochs."""
        batches = self.data["train"].batches
        epoch, position = divmod(step, len(batches))
        if position == 0:
            epoch, position = epoch - 1, len(batches)
        return interleave(batches, epoch + SEED)[position - 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("ddp"))


def by_hand(model: Any, data: Data, utts: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """Loss and accuracy of each utterance per route, from ESPnet's parts, without `route_stats`.

    Args:
        utts: One rank's share of a batch.
    """
    audio = [torch.from_numpy(data.audio[utt]) for utt in utts]
    waves = torch.nn.utils.rnn.pad_sequence(audio, batch_first=True)
    names = [BANDWIDTHS[data.bands[utt]] for utt in utts]
    texts = [ids(*data.texts[utt].split()) for utt in utts]
    ys_in, ys_lengths = padded([[ID["<sos>"], *text] for text in texts], ID["<eos>"])
    with torch.no_grad():
        model.encoder.set_route(names)
        hs, hlens = ESPnetS2TModel.encode(model, waves, torch.tensor([len(a) for a in audio]))
        logits, _ = model.decoder(hs, hlens, ys_in, ys_lengths)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, (utt, text) in enumerate(zip(utts, texts, strict=True)):
        route = f"{utt.split('_')[1]}_{names[row]}"
        target = torch.tensor([*text, ID["<eos>"]])
        log_q = logits[row, : len(target)].double().log_softmax(-1)
        p = torch.full_like(log_q, SMOOTHING / (len(TOKENS) - 1))
        p.scatter_(1, target[:, None], 1 - SMOOTHING)
        found[route]["loss"].append(float((p * (p.log() - log_q)).sum()))
        found[route]["correct"].append(float((log_q.argmax(-1) == target).sum()))
        found[route]["tokens"].append(len(target))
    return found


def check_figures(
    logged: dict[str, Any], hand: dict[str, dict[str, list[float]]], counts: bool
) -> None:
    for route in ("asr_wb", "asr_nb", "st_wb", "st_nb"):
        values = hand.get(route)
        figures = [float(logged[f"{name}_{route}"]) for name in ("loss_att", "acc", "n")]
        if values is None:
            assert np.isnan(figures[:2]).all()
            continue
        n = len(values["loss"])
        assert figures[0] == pytest.approx(sum(values["loss"]) / n, rel=1e-4)
        assert figures[1] == pytest.approx(sum(values["correct"]) / sum(values["tokens"]), rel=1e-4)
        if counts:
            assert figures[2] == pytest.approx(n)


def test_ranks_see_different_routes(run: Run) -> None:
    """A premise of what follows."""
    for data in run.data.values():
        for batch in data.batches:
            for rank in (0, 1):
                assert {data.bands[utt] for utt in batch.utts[rank::2]} == {rank}
    assert {run.batch(step).task for step in range(1, STEPS + 1)} == {"asr", "st"}


def test_both_ranks_end_with_equal_parameters(run: Run) -> None:
    first, second = (dump["final"] for dump in run.dumps)
    assert first.keys() == second.keys()
    changed = 0
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        changed += not torch.equal(value, run.dumps[0]["initial"][name])
    assert changed > 0.9 * sum(value.is_floating_point() for value in first.values())
    assert (run.exp / f"{STEPS}epoch.pth").exists()


def test_the_registry_may_be_imported_before_espnets_task(run: Run) -> None:
    assert [dump["registry_came_first"] for dump in run.dumps] == [True, True]


def test_the_logged_figures_equal_those_computed_by_hand(run: Run) -> None:
    model = smoe_model("transformer", model_conf={"lsm_weight": SMOOTHING})
    data = run.data["train"]
    for step in range(1, STEPS + 1):
        model.load_state_dict(run.state_before(step))
        hand: dict[str, dict[str, list[float]]] = {}
        for rank in (0, 1):  # the routes of the two ranks are disjoint
            hand |= by_hand(model, data, run.batch(step).utts[rank::2])
        logged = run.logged[step]["train"]
        check_figures(logged, hand, counts=True)
        losses = sum((values["loss"] for values in hand.values()), [])
        assert logged["loss_att"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_validation_figures_equal_those_computed_by_hand(run: Run) -> None:
    model = smoe_model("transformer", model_conf={"lsm_weight": SMOOTHING})
    model.load_state_dict(run.state_before(STEPS + 1))
    hand: dict[str, dict[str, list[float]]] = {}
    for batch in run.data["valid"].batches:
        for rank in (0, 1):
            hand |= by_hand(model, run.data["valid"], batch.utts[rank::2])
    check_figures(run.logged[STEPS]["valid"], hand, counts=False)


def test_an_expert_that_no_rank_uses_gets_no_update(run: Run) -> None:
    for step in range(1, STEPS + 1):
        before, after = run.state_before(step), run.state_before(step + 1)
        task = run.batch(step).task
        idle = "st" if task == "asr" else "asr"
        for name in before:
            if f".experts.{idle}." in name:
                assert torch.equal(before[name], after[name]), (step, name)
            elif ".experts." in name and "weight" in name:
                assert not torch.equal(before[name], after[name]), (step, name)


def test_the_logged_keys_are_the_same_at_every_step(run: Run) -> None:
    for part in ("train", "valid"):
        assert len({frozenset(run.logged[step][part]) for step in run.logged}) == 1


def test_the_saved_config_names_the_experts(run: Run) -> None:
    with (run.exp / "config.yaml").open(encoding="utf-8") as file:
        config = yaml.safe_load(file)
    assert config["encoder_conf"]["experts"] == ["wb", "nb"]
    assert config["decoder_conf"]["experts"] == {"asr": ["<asr>"], "st": ["<st_*>"]}
