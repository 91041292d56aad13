#!/usr/bin/env bash
# Stage 1: write data/<set>/{wav.scp,text,text.<task>,utt2lang,utt2spk} for one corpus.
# Usage: local/data.sh CORPUS CORPUS_DIR DATA_DIR DOWNLOAD_DIR NJ PYTHON [the corpus program's options]
set -euo pipefail
corpus=$1; corpus_dir=$2; data=$3; downloads=$4; nj=$5; python=$6
shift 6

case "${corpus}" in
    mini)
        # The audio of one data directory must not replace that of another.
        exec ${python} local/prepare_mini.py --out "${data}" \
            --audio_dir "${downloads}/$(basename "${data}")" --nj "${nj}" "$@" ;;
    mboshi_fr)
        if [ -z "${corpus_dir}" ]; then
            echo "$0: --corpus mboshi_fr needs --corpus_dir (or MBOSHI_FR in db.sh): the directory" \
                "that holds full_corpus_newsplit/ of the public Mboshi-French corpus" >&2
            exit 1
        fi
        exec ${python} local/prepare_mboshi_fr.py --corpus_dir "${corpus_dir}" --out "${data}" "$@" ;;
    own)
        # DATA_DIR already holds the tables; see the README.
        exec ${python} local/prepare_own.py --data "${data}" "$@" ;;
    *)
        echo "$0: unknown corpus '${corpus}'; accepted: mini, mboshi_fr, own" >&2
        exit 1 ;;
esac
