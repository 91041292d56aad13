#!/usr/bin/env bash
# Usage: ./run.sh [--option value ...]
#
# Supervised-MoE speech-to-text (ASR and speech translation, narrowband and wideband):
#    1 data          4 examples     7 check data      10 statistics   13 score
#    2 bandwidth     5 BBPE         8 check config    11 train        14 pack
#    3 format audio  6 batch plan   9 parameters      12 decode       15 upload
#
# Examples:
#   ./run.sh --stage 1 --stop_stage 13                       # the built-in corpus
#   ./run.sh --corpus mini_hard                              # a harder one, with noise
#   ./run.sh --corpus mboshi_fr --corpus_dir DIR             # real speech
#   ./run.sh --corpus "fisher_callhome covost2_es_en" --corpus_dir "DIR1 DIR2"
#   ./run.sh --corpus manifest --corpus_dir DIR              # DIR/{train,valid,test}.tsv
#   ./run.sh --stage 11 --s2t_args "--max_epoch 40"          # ESPnet's own training options
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./path.sh
. ./cmd.sh
. ./db.sh

# General
stage=1
stop_stage=13
skip_stages=            # stages between spaces
corpus=mini             # one or several between spaces: mini, mini_hard, mboshi_fr, own, manifest,
                        # kaldi, librispeech, fisher_callhome, covost2_SRC_TGT, mustc_en_TGT,
                        # europarl_st_SRC_TGT
corpus_dir=             # default: db.sh's; of several corpora: in their order, - for db.sh's
datadir=                # default: data/<corpus>
dumpdir=                # default: dump/<corpus>
expdir=                 # default: exp/<corpus>
ngpu=0                  # GPUs of this machine used for training; 0: CPU
nj=2                    # processes of the data stages, and of stock decoding
dask=                   # a dask cluster for stages 2, 3 and 7: tcp://HOST:8786, slurm, ...; see cmd.sh
python=python3

# Data
train_set=train
valid_set=valid
test_sets=              # default: the corpus's
mini_size=5000          # training sentences of a built-in corpus
corpus_args=            # further options of local/prepare_<corpus>.py
telephone_share=        # share of the training utterances sent through a simulated telephone;
                        # test sets then exist in both bandwidths. default: 0.5; own, manifest,
                        # kaldi, real telephone speech and several corpora: 0
telephone_codec=        # names between spaces, drawn evenly: ulaw alaw g721 g723_24 gsm opus amr_nb;
                        # all. default: ulaw; mini_hard: ulaw alaw g721 gsm
telephone_level=        # true: draw each copy's speech level too. default: false; mini_hard: true
telephone_noise=0       # share of the copies with line noise
on_conflict=measured    # header and spectrum disagree: measured, header, or error
fs=16000
audio_format=flac       # flac, flac.ark, wav.ark; none: no copies, training and decoding read the
                        # originals, at any rate
speed_perturb_factors=  # e.g. "0.9 1.0 1.1": copies of the training set at other speeds
min_seconds=0.2
max_seconds=            # default: 8 (mini), 10 (mini_hard), 12 (mboshi_fr), 30 (others)
extra_tasks=            # tables utt2<task> whose labels are tasks too: "intent voice" (mini_hard),
                        # "bandwidth" (stage 2's); the config needs an expert for each

# Tokens
nbpe=                   # lines of the token list; default: 350 (mini), 500 (mini_hard),
                        # 260 (mboshi_fr), 8000
bpemode=bpe             # bpe, unigram
timestamps=auto         # true: all of <0.00> ... <30.00>; auto: if the text has any

# Training
s2t_config=             # default: the corpus's own, else conf/train_encdec_smoe_conformer.yaml
s2t_args=               # further options of espnet2.bin.s2t_train
s2t_tag=                # default: the config's name
stats_dir=              # feature statistics, which models of equal features may share. default:
                        # <expdir>/stats_<s2t_tag>
mixed_batches=false     # true: batches mix tasks too
route_temperature=1     # T: share of a route (task and bandwidth) ~ examples^(1/T); inf: equal
route_floor=0.02        # share of training below which stage 6 warns of a route
train_threads=          # CPU threads of training; default: all

# Validation
check_samples=true      # stage 7 decodes all audio: silence, NaN, copies of test audio
accept_faults=false     # true: go on without what stage 7 lists
allow_speaker_overlap=  # true: speakers may be in training and test. default: false; mboshi_fr: true

# Decoding and scoring
inference_config=conf/decode.yaml
tasks=                  # tasks to decode and score between spaces; default: those with references
inference_args=         # further options: those of espnet2.bin.s2t_inference's search, and others
                        # of espnet_smoe.Speech2Text
stock_decode=false      # true: decode with espnet2.bin.s2t_inference itself, nj processes at a time
decode_threads=         # CPU threads of decoding; default: all
inference_model=valid.acc.ave.pth
inference_tag=          # default: the inference config's name and the model's
route_override=         # wb or nb: force the encoder's expert
text_normalisation=nfc_ws
hf_repo=                # stage 15

options="stage stop_stage skip_stages corpus corpus_dir datadir dumpdir expdir ngpu nj dask python
train_set valid_set test_sets mini_size corpus_args telephone_share telephone_codec telephone_level
telephone_noise on_conflict fs audio_format speed_perturb_factors min_seconds max_seconds extra_tasks
nbpe bpemode timestamps s2t_config s2t_args s2t_tag mixed_batches route_temperature route_floor
check_samples accept_faults allow_speaker_overlap train_threads stats_dir tasks inference_config
inference_args stock_decode decode_threads inference_model inference_tag route_override
text_normalisation hf_repo"
command="./run.sh$([ $# = 0 ] || printf ' %q' "$@")"
. local/parse_options.sh

log() { echo "$(date '+%H:%M:%S') $*"; }

. local/corpora.sh
read -ra corpora <<< "${corpus}"
read -ra corpus_dirs <<< "${corpus_dir}"
if [ "${#corpora[@]}" = 1 ]; then corpus_dirs=("${corpus_dir:--}"); fi
for name in "${corpora[@]:-}"; do
    if ! corpus_facts "${name}"; then
        log "--corpus ${name}: unknown; accepted: $(echo ${known_corpora})" >&2
        exit 2
    fi
done
if [ "${#corpora[@]}" -gt 1 ]; then
    if [[ " ${corpus} " == *" own "* ]] || [ -n "$(printf '%s\n' "${corpora[@]}" | sort | uniq -d)" ]; then
        log "--corpus ${corpus}: accepted are several different corpora without own" >&2
        exit 2
    elif [ "${#corpus_dirs[@]}" != 0 ] && [ "${#corpus_dirs[@]}" != "${#corpora[@]}" ]; then
        log "--corpus_dir ${corpus_dir}: ${#corpus_dirs[@]} for ${#corpora[@]} corpora; accepted is" \
            "one for each, in their order, or - for db.sh's" >&2
        exit 2
    fi
    all_tests=
    for name in "${corpora[@]}"; do
        corpus_facts "${name}"
        for set in ${facts[0]}; do all_tests+=" ${name}_${set}"; done
    done
    facts=("${all_tests# }" 0 30 8000)
    facts_line=(ulaw false)
    facts_config=conf/train_encdec_smoe_conformer.yaml
fi
case "${audio_format}" in
    flac | flac.ark | wav.ark | none) ;;
    *) log "--audio_format ${audio_format}: accepted: flac, flac.ark, wav.ark, none" >&2; exit 2 ;;
esac
for name in stage stop_stage ngpu nj; do
    if ! [[ "${!name}" =~ ^[0-9]+$ ]]; then
        log "--${name} ${!name}: accepted is a whole number" >&2
        exit 2
    fi
done
if [ "${nj}" -lt 1 ]; then
    log "--nj ${nj}: accepted is 1 or more" >&2
    exit 2
fi
case "${stock_decode}" in
    true | false) ;;
    *) log "--stock_decode ${stock_decode}: accepted: true, false" >&2; exit 2 ;;
esac
if [ -n "${ESPNET_SMOE_ROUTE:-}" ]; then
    log "ESPNET_SMOE_ROUTE is set: unset it; the recipe takes --route_override" >&2
    exit 2
fi
# A run that is killed takes its programs along, so that a rerun finds nobody else writing.
if setpriv --pdeathsig KILL true 2> /dev/null; then
    python="setpriv --pdeathsig KILL ${python}"
fi
test_sets=${test_sets:-${facts[0]}}
telephone_share=${telephone_share:-${facts[1]}}
telephone_codec=${telephone_codec:-${facts_line[0]}}
telephone_level=${telephone_level:-${facts_line[1]}}
if [[ "${telephone_share}" =~ ^0*\.?0*$ ]]; then telephone_share=0; fi
max_seconds=${max_seconds:-${facts[2]}}
nbpe=${nbpe:-${facts[3]}}
# Published splits with the same speakers on both sides.
overlapping=$([[ " ${corpus}" =~ \ (mboshi_fr|europarl_st) ]] && echo true || echo false)
allow_speaker_overlap=${allow_speaker_overlap:-${overlapping}}
corpus_name=$(IFS=+; echo "${corpora[*]}")
datadir=${datadir:-data/${corpus_name}}
dumpdir=${dumpdir:-dump/${corpus_name}}
expdir=${expdir:-exp/${corpus_name}}
s2t_config=${s2t_config:-${facts_config}}
if [ ! -f "${s2t_config}" ]; then
    log "${s2t_config}: no such training config; choose one of: $(echo conf/train_*.yaml)" >&2
    exit 1
fi
s2t_tag=${s2t_tag:-$(basename "${s2t_config}" .yaml)}
if [ -z "${inference_tag}" ]; then
    inference_tag=$(basename "${inference_config}" .yaml)_${inference_model%.pth}
    inference_tag+=${route_override:+_route_${route_override}}
    if [ "${stock_decode}" = true ]; then inference_tag+=_stock; fi
fi
processors=$(env -u OMP_NUM_THREADS nproc)  # nproc heeds path.sh's 1
train_threads=${train_threads:-${processors}}
decode_threads=${decode_threads:-${processors}}

s2t_dir=${expdir}/s2t_${s2t_tag}
stats_dir=${stats_dir:-${expdir}/stats_${s2t_tag}}
token_dir=${datadir}/token_list_${bpemode}${nbpe}
decode_dir=${s2t_dir}/${inference_tag}
examples=${dumpdir}/s2t
train_dir=${examples}/${train_set}
valid_dir=${examples}/${valid_set}

# With a simulated telephone, each test set exists in both bandwidths.
decode_sets=
for name in ${test_sets}; do
    if [ "${telephone_share}" = 0 ]; then
        decode_sets+=" ${name}"
    else
        decode_sets+=" ${name}_wb ${name}_nb"
    fi
done
all_sets="${train_set} ${valid_set}${decode_sets}"
repeated=$(tr ' ' '\n' <<< "${all_sets}" | sort | uniq -d | grep . | paste -sd ' ' || true)
if [ -n "${repeated}" ]; then
    log "--train_set, --valid_set, --test_sets: ${repeated} is named more than once" >&2
    exit 2
fi
case "${audio_format}" in
    flac)  audio_type=sound ;;
    *.ark) audio_type=kaldi_ark ;;
    none)  audio_type=audio ;;  # this package's own: any locator of wav.scp, at any rate
esac

data_options() {  # train|valid DIRECTORY
    local entry
    for entry in "wav.scp,speech,${audio_type}" text,text,text text.prev,text_prev,text \
        text.ctc,text_ctc,text bandwidth,bandwidth,text_int; do
        echo "--$1_data_path_and_name_and_type $2/${entry}"
    done
}
model_options="--config ${s2t_config} --token_list ${token_dir}/tokens.txt
    --token_type bpe --bpemodel ${token_dir}/bpe.model --use_preprocessor true"

# On a CPU: keep freed memory instead of returning it to the system at every step, which makes a
# step about 1.4 times as fast; and let waiting threads spin only shortly, since spinning long slows
# a step sixtyfold as soon as another program uses a core.
tunables=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296
cpu_settings="env GLIBC_TUNABLES=${tunables} GOMP_SPINCOUNT=10000"

runs() {  # stage number: is it asked for?
    [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] || return 1
    case " ${skip_stages} " in *" $1 "*) log "Stage $1: skipped"; return 1 ;; esac
}

if runs 1; then
    log "Stage 1: data preparation (${corpus}) -> ${datadir}"
    for index in "${!corpora[@]}"; do
        name=${corpora[index]}
        corpus_facts "${name}"
        dir=${corpus_dirs[index]:--}
        if [ "${dir}" = - ]; then dir=${facts_dir}; fi
        out=${datadir}
        downloads=downloads
        sets="${train_set} ${valid_set} ${test_sets}"
        if [ "${#corpora[@]}" -gt 1 ]; then
            out=${datadir}/corpora/${name}
            downloads=downloads/$(basename "${datadir}")
            sets="${train_set} ${valid_set} ${facts[0]}"
        fi
        case "${name}" in
            mini | mini_hard) corpus_options=(--size "${mini_size}") ;;
            own | manifest | kaldi) corpus_options=(--sets "${sets}") ;;
            *) corpus_options=() ;;
        esac
        if [ "${#corpora[@]}" -gt 1 ] && [[ "${name}" != mini* ]]; then
            corpus_options+=(--text_case lower_nopunct)  # some would be in capitals
        fi
        local/data.sh "${name}" "${dir}" "${out}" "${downloads}" "${nj}" "${python}" \
            "${corpus_options[@]}" ${corpus_args}
    done
    if [ "${#corpora[@]}" -gt 1 ]; then
        ${python} local/combine_corpora.py --parts "${datadir}/corpora" --corpora "${corpus}" \
            --out "${datadir}" --train_set "${train_set}" --valid_set "${valid_set}"
    fi
fi

if runs 2; then
    log "Stage 2: bandwidth tagging -> ${dumpdir}/tagged"
    ${python} local/tag_bandwidth.py --data "${datadir}" --out "${dumpdir}/tagged" \
        --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_sets}" \
        --telephone_share "${telephone_share}" --telephone_codec "${telephone_codec}" \
        --telephone_level "${telephone_level}" --telephone_noise "${telephone_noise}" \
        --on_conflict "${on_conflict}" --nj "${nj}" ${dask:+--dask "${dask}"}
fi

if runs 3; then
    log "Stage 3: format audio (${fs} Hz, ${audio_format}) -> ${dumpdir}/raw"
    ${python} local/format_audio.py --tagged "${dumpdir}/tagged" --out "${dumpdir}/raw" \
        --sets "${all_sets}" --train_set "${train_set}" --fs "${fs}" \
        --audio_format "${audio_format}" --speed_perturb_factors "${speed_perturb_factors}" \
        --nj "${nj}" --dask "${dask}"
fi

if runs 4; then
    log "Stage 4: one example per utterance and task -> ${examples}"
    ${python} local/make_examples.py --raw "${dumpdir}/raw" --out "${examples}" --fs "${fs}" \
        --train_sets "${train_set} ${valid_set}" --test_sets "${decode_sets}" \
        --min_seconds "${min_seconds}" --max_seconds "${max_seconds}" \
        --extra_tasks "${extra_tasks}"
fi

if runs 5; then
    log "Stage 5: byte-level BPE, ${nbpe} tokens -> ${token_dir}"
    ${python} local/train_bbpe.py --train_dir "${train_dir}" --out "${token_dir}" \
        --vocab_size "${nbpe}" --model_type "${bpemode}" --timestamps "${timestamps}"
fi

if runs 6; then
    log "Stage 6: batch plan (${s2t_config})"
    ${python} local/plan_batches.py --examples "${examples}" --sets "${train_set} ${valid_set}" \
        --train_set "${train_set}" --min_batch_size "$((ngpu > 1 ? ngpu : 1))" \
        --mixed "${mixed_batches}" --route_temperature "${route_temperature}" \
        --route_floor "${route_floor}" --fs "${fs}" \
        -- --config "${s2t_config}" ${s2t_args}
fi

if runs 7; then
    log "Stage 7: validate the data"
    ${python} local/check_data.py --examples "${examples}" --sets "${all_sets}" \
        --train_set "${train_set}" --data "${datadir}" --token_list "${token_dir}/tokens.txt" \
        --check_samples "${check_samples}" --accept_faults "${accept_faults}" \
        --allow_speaker_overlap "${allow_speaker_overlap}" --fs "${fs}" \
        --audio_format "${audio_format}" --nj "${nj}" --dask "${dask}" \
        -- --config "${s2t_config}" ${s2t_args}
fi

if runs 8; then
    log "Stage 8: check the config: build the model, one forward and backward"
    ${python} local/check_config.py --examples "${train_dir}" --fs "${fs}" -- ${model_options} ${s2t_args}
fi

if runs 9; then
    log "Stage 9: parameters"
    ${python} -m espnet_smoe.cli params "${s2t_config}" --token_list "${token_dir}/tokens.txt" \
        ${s2t_args}
fi

if runs 10; then
    log "Stage 10: feature statistics -> ${stats_dir}"
    OMP_NUM_THREADS=1 ${python} local/collect_stats.py --out "${stats_dir}" --nj "${nj}" \
        --python "${python}" --train_dir "${train_dir}" --valid_dir "${valid_dir}" \
        -- ${model_options} $(data_options train "${train_dir}") \
        $(data_options valid "${valid_dir}") ${s2t_args}
fi

if runs 11; then
    log "Stage 11: train -> ${s2t_dir} (progress: ${s2t_dir}/train.log)"
    ${cpu_settings} OMP_NUM_THREADS="${train_threads}" ${train_cmd} ${python} local/train.py \
        --out "${s2t_dir}" --python "${python}" -- --ngpu "${ngpu}" \
        --multiprocessing_distributed true ${model_options} \
        --normalize global_mvn --normalize_conf stats_file="${stats_dir}/train/feats_stats.npz" \
        $(data_options train "${train_dir}") $(data_options valid "${valid_dir}") ${s2t_args}
fi

if runs 12; then
    log "Stage 12: decode${decode_sets} -> ${decode_dir}"
    if [ "${stock_decode}" = true ]; then
        decoder="${python} local/stock_decode.py"
    else
        decoder="${cpu_settings} OMP_NUM_THREADS=${decode_threads} ${python} local/decode.py"
    fi
    ${decoder} --out "${decode_dir}" --examples "${examples}" --tasks "${tasks}" \
        --sets "${decode_sets}" --s2t_dir "${s2t_dir}" --model "${inference_model}" \
        --config "${inference_config}" --audio_type "${audio_type}" --nj "${nj}" --ngpu "${ngpu}" \
        --python "${python}" --route_override "${route_override}" -- ${inference_args}
fi

if runs 13; then
    log "Stage 13: score"
    ${python} local/score.py --decode_dir "${decode_dir}" --raw "${examples}" \
        --test_sets "${test_sets}" --tasks "${tasks}" --expdir "${s2t_dir}" \
        --command "${command}" --text_normalisation "${text_normalisation}"
    log "The model: ${PWD}/${s2t_dir}/${inference_model}"
fi

if runs 14; then
    log "Stage 14: pack -> ${s2t_dir}/s2t_${inference_model%.pth}.zip"
    ${python} -m espnet2.bin.pack s2t --outpath "${s2t_dir}/s2t_${inference_model%.pth}.zip" \
        --s2t_train_config "${s2t_dir}/config.yaml" --s2t_model_file "${s2t_dir}/${inference_model}" \
        --option "${token_dir}/bpe.model" --option "${stats_dir}/train/feats_stats.npz" \
        $([ -f "${decode_dir}/RESULTS.md" ] && echo "--option ${decode_dir}/RESULTS.md")
fi

if runs 15; then
    if [ -z "${hf_repo}" ]; then
        log "Stage 15: skipped; --hf_repo USER/NAME uploads the packed model"
    else
        log "Stage 15: upload to ${hf_repo}"
        huggingface-cli upload "${hf_repo}" "${s2t_dir}/s2t_${inference_model%.pth}.zip"
    fi
fi
