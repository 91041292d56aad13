"""Run by test_recipe.py in a process of its own: ESPnet's `Speech2Text` on a packed model.

Usage: python packed_process.py ARCHIVE DIRECTORY < requests.json > answers.json

A request is ``[task, audio file]``, an answer ``[text, score, route]``. Nothing of the recipe is
imported: this is what a user of a packed model writes.
"""

import json
import sys

from espnet2.bin.s2t_inference import Speech2Text
from espnet2.main_funcs.pack_funcs import unpack

import espnet_smoe  # noqa: F401  (makes ESPnet know the names)
from espnet_smoe.audio import TARGET_RATE, read_audio, resample

BEAM = 2
CTC_WEIGHTS = {"asr": 0.3, "st_eng": 0.0}  # as stage 12


def main() -> None:
    archive, directory = sys.argv[1:]
    requests = json.load(sys.stdin)
    files = unpack(archive, directory)
    answers = []
    for task, ctc_weight in CTC_WEIGHTS.items():
        speech2text = Speech2Text(
            **files,
            beam_size=BEAM,
            ctc_weight=ctc_weight,
            lang_sym="<spa>",
            task_sym=f"<{task}>",
        )
        for path in [path for wanted, path in requests if wanted == task]:
            x, rate = read_audio(path)
            text_and_more = speech2text(resample(x, rate, TARGET_RATE))[0]
            route = speech2text.s2t_model.last_route[0]
            answers.append([task, path, text_and_more[3], float(text_and_more[4].score), route])
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
