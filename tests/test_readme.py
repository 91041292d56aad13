"""What the README shows exists and works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import soundfile
import yaml
from saved_model import save_model
from tiny import speech

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN_SH = (ROOT / "egs2/smoe_asr_st/s2t1/run.sh").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_options_of_run_sh_exist() -> None:
    known = set(re.search(r'^options="(.*?)"', RUN_SH, re.DOTALL | re.MULTILINE)[1].split())
    lines = re.findall(r"\./run\.sh(.*)|run with `(.*?)`", README)
    named = set(re.findall(r"--(\w+)", " ".join(a or b for a, b in lines))) - {"help"}
    espnet = {"python", "init_param", "ignore_init_mismatch", "config"}  # of ESPnet's programs
    named |= set(re.findall(r"`--(\w+) ", README)) - espnet - cli_options()
    assert named - known == set()
    assert {"stage", "stop_stage", "corpus", "datadir", "telephone_share"} <= named


def test_yaml_names_real_classes_and_options() -> None:
    import inspect

    from espnet2.tasks import s2t

    import espnet_smoe  # noqa: F401

    (text,) = code_blocks("yaml")
    config = yaml.safe_load(text)
    for name in ("encoder", "decoder", "model", "preprocessor"):
        cls = getattr(s2t, f"{name}_choices").get_class(config[name])
        options = config.get(f"{name}_conf", {})
        assert set(options) <= set(inspect.signature(cls).parameters)


def test_espnets_python_example_compiles() -> None:
    (text,) = [block for block in code_blocks("python") if "espnet2" in block]
    compile(text, "README.md", "exec")
    assert text.index("import espnet_smoe") < text.index("espnet2")


def test_our_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "exp/mini/s2t_train_mini")
    (tmp_path / "calls").mkdir()
    for name in ("call.wav", "a.flac", "c.wav", "calls/1.wav", "calls/2.wav"):
        soundfile.write(tmp_path / name, speech(8000).numpy(), 16000)
    (text,) = [block for block in code_blocks("python") if "espnet2" not in block]
    exec(compile(text, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "spa wb/asr BandwidthEstimate(label='wb'" in lines[0]
    assert sorted(line.split()[0] for line in lines[-2:]) == ["calls/1.wav", "calls/2.wav"]


def cli_options() -> set[str]:
    texts = (p.read_text(encoding="utf-8") for p in (ROOT / "espnet_smoe").glob("cli*.py"))
    return {option for text in texts for option in re.findall(r'"--(\w+)"', text)}


def test_options_of_espnet_smoe_exist() -> None:
    lines = re.findall(r"    espnet-smoe \w+ ((?:.*\\\n)*.*)", README)
    named = set(re.findall(r"--(\w+)", " ".join(lines)))
    assert {"model", "task", "format", "out", "channels", "new_token", "picture"} <= named
    assert named <= cli_options()


def test_commands_of_espnet_smoe_exist() -> None:
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "espnet_smoe").glob("cli*.py")]
    known = {name for text in texts for name in re.findall(r'add_parser\(\s*"(\w+)"', text)}
    assert set(re.findall(r"espnet-smoe\s+(\w+)", README)) == known


@pytest.mark.parametrize("target", ["mini", "test"])
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"make {target}" in README


def test_configs_named_exist() -> None:
    named = re.findall(r"train_\w+\.yaml", README)
    assert named
    for name in named:
        assert (ROOT / "egs2/smoe_asr_st/s2t1/conf" / name).exists()
