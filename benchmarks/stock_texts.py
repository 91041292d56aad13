#!/usr/bin/env python3
"""Does ESPnet's own `Speech2Text` give stage 12's texts, from the directory and from the zip?

Run in the recipe directory after stages 12 and 14:

    python ../../../benchmarks/stock_texts.py --s2t_dir exp/mini/s2t_train_mini \\
        --decode_dir exp/mini/s2t_train_mini/decode_valid.acc.ave --examples dump/mini/s2t

Two fresh processes use nothing but ``import espnet_smoe`` and ESPnet's `Speech2Text`, with the
options of stage 12: one in the recipe directory on the experiment directory, one on the packed
zip, unpacked in another directory and run there. The audio is what stage 3 wrote (16 kHz; that of
the ``nb`` sets was 8 kHz). Exits with 1 if a text differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from espnet_smoe.datadir import read_table

Request = dict[str, str]  # task, language, audio (an absolute path), expected


def answer(files: dict[str, str], options: dict[str, Any], requests: list[Request]) -> list[str]:
    """What a user of ESPnet writes; returns one text per request."""
    import soundfile
    from espnet2.bin.s2t_inference import Speech2Text
    from espnet2.main_funcs.pack_funcs import unpack

    import espnet_smoe  # noqa: F401  (makes ESPnet know the names)

    if "archive" in files:
        files = unpack(files["archive"], "model")
    texts = []
    for task in dict.fromkeys(request["task"] for request in requests):
        ctc_weight = options.get("ctc_weight", 0.0) if task == "asr" else 0.0
        speech2text = Speech2Text(**files, **{**options, "ctc_weight": ctc_weight})
        for request in (r for r in requests if r["task"] == task):
            speech, _ = soundfile.read(request["audio"], dtype="float32")
            language = f"<{request['language']}>"
            texts.append(speech2text(speech, lang_sym=language, task_sym=f"<{task}>")[0][3])
    return texts


def collect(decode_dir: Path, examples: Path) -> list[Request]:
    """Every text of stage 12, ordered by task."""
    requests = []
    for path in decode_dir.glob("*/*/text"):
        test_set, task = path.parts[-3:-1]
        if test_set == "jobs":
            continue
        languages = read_table(examples / test_set / "utt2lang")
        audio = read_table(examples / test_set / "wav.scp")
        for utt, text in read_table(path, allow_empty=True).items():
            where = str(Path(audio[utt]).absolute())
            row = {"task": task, "language": languages[utt], "audio": where, "expected": text}
            requests.append(row)
    if not requests:
        raise SystemExit(f"{decode_dir} holds no <test set>/<task>/text; run stage 12")
    return sorted(requests, key=lambda r: (r["task"], r["audio"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s2t_dir", type=Path, required=True)
    parser.add_argument("--decode_dir", type=Path, required=True, help="stage 12's output")
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--model", default="valid.acc.ave.pth")
    parser.add_argument("--config", type=Path, default=Path("conf/decode.yaml"))
    args = parser.parse_args()
    options = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    requests = collect(args.decode_dir, args.examples)
    directory = {
        "s2t_train_config": str(args.s2t_dir / "config.yaml"),
        "s2t_model_file": str(args.s2t_dir / args.model),
    }
    archive = (args.s2t_dir / f"s2t_{Path(args.model).stem}.zip").absolute()
    total = 0
    with tempfile.TemporaryDirectory() as elsewhere:
        for source, files, cwd in (
            ("directory", directory, "."),
            ("packed zip", {"archive": str(archive)}, elsewhere),
        ):
            done = subprocess.run(
                [sys.executable, str(Path(__file__).absolute()), "answer"],
                input=json.dumps([files, options, requests]),
                stdout=subprocess.PIPE,
                text=True,
                cwd=cwd,
                check=True,
            )
            texts = json.loads(done.stdout.splitlines()[-1])
            pairs = zip(texts, requests, strict=True)
            different = sum(text != request["expected"] for text, request in pairs)
            print(f"{source}: {len(texts)} texts, {different} differ from stage 12's", flush=True)
            total += different
    return 1 if total else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["answer"]:
        print(json.dumps(answer(*json.load(sys.stdin))))
        sys.exit(0)
    sys.exit(main())
