#!/usr/bin/env python3
"""Does ESPnet's own `Speech2Text` give stage 12's texts, from the directory and from the zip?

Run in the recipe directory after stages 12 and 14:

    python ../../../benchmarks/stock_texts.py --s2t_dir exp/mini/s2t_train_mini \
        --decode_dir exp/mini/s2t_train_mini/decode_valid.acc.ave --examples dump/mini/s2t

All that is used is ``import espnet_smoe`` and ESPnet's `Speech2Text`, with the options of stage 12;
the zip is unpacked in a new directory elsewhere. Exits with 1 if a text differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from route_swap import decode

from espnet_smoe.datadir import read_table


def main() -> int:
    from espnet2.bin.s2t_inference import Speech2Text
    from espnet2.main_funcs.pack_funcs import unpack

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s2t_dir", type=Path, required=True)
    parser.add_argument("--decode_dir", type=Path, required=True, help="stage 12's output")
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--model", default="valid.acc.ave.pth")
    parser.add_argument("--config", type=Path, default=Path("conf/decode.yaml"))
    args = parser.parse_args()
    options = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    texts = sorted(p for p in args.decode_dir.glob("*/*/text") if p.parts[-3] != "jobs")
    with tempfile.TemporaryDirectory() as elsewhere:
        archive = args.s2t_dir / f"s2t_{Path(args.model).stem}.zip"
        sources: dict[str, dict[str, Any]] = {
            "directory": {
                "s2t_train_config": str(args.s2t_dir / "config.yaml"),
                "s2t_model_file": str(args.s2t_dir / args.model),
            },
            "packed zip": unpack(str(archive), str(Path(elsewhere) / "model")),
        }
        total = 0
        for source, files in sources.items():
            compared, different = 0, 0
            for path in texts:
                test_set, task = path.parts[-3:-1]
                weight = options.get("ctc_weight", 0.0) if task == "asr" else 0.0
                speech2text = Speech2Text(**files, **{**options, "ctc_weight": weight})
                expected = read_table(path, allow_empty=True)
                found = decode(speech2text, args.examples, test_set, task)
                compared += len(expected)
                different += sum(found[utt] != text for utt, text in expected.items())
            print(f"{source}: {compared} texts, {different} different from stage 12's", flush=True)
            total += different
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
