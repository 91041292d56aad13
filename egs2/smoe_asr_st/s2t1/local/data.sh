#!/usr/bin/env bash
# Stage 1: write data/<set>/{wav.scp,text,text.<task>,utt2lang,utt2spk} for one corpus.
# Usage: local/data.sh CORPUS CORPUS_DIR DATA_DIR DOWNLOAD_DIR NJ PYTHON [the corpus program's options]
set -euo pipefail
corpus=$1; corpus_dir=$2; data=$3; downloads=$4; nj=$5; python=$6
shift 6

case "${corpus}" in
    mini | mini_hard)
        # The audio of one data directory must not replace that of another.
        exec ${python} "local/prepare_${corpus}.py" --out "${data}" \
            --audio_dir "${downloads}/$(basename "${data}")" --nj "${nj}" "$@" ;;
    own)
        # DATA_DIR already holds the tables; see the README.
        exec ${python} local/prepare_own.py --data "${data}" "$@" ;;
    covost2_*) program=prepare_covost2.py ;;
    mustc_*) program=prepare_mustc.py ;;
    europarl_st_*) program=prepare_europarl_st.py ;;
    mboshi_fr | librispeech | fisher_callhome | manifest | kaldi) program=prepare_${corpus}.py ;;
    *)
        . local/corpora.sh
        echo "$0: unknown corpus '${corpus}'; accepted: $(echo ${known_corpora})" >&2
        exit 1 ;;
esac
exec ${python} "local/${program}" --corpus "${corpus}" --corpus_dir "${corpus_dir}" \
    --out "${data}" "$@"
