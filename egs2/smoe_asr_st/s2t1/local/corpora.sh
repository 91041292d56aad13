# What run.sh knows of each corpus. Sourced by it; needs db.sh's variables.
known_corpora="mini, mini_hard, mboshi_fr, own, manifest, kaldi, librispeech, fisher_callhome,
covost2_SRC_TGT, mustc_en_TGT, europarl_st_SRC_TGT (SRC, TGT: languages as the corpus writes them;
several targets: covost2_en_de_ja), or several of these between spaces"

# corpus_facts NAME sets facts=(test sets, telephone share, longest utterance in seconds, lines of
# the token list), facts_dir (db.sh's directory), facts_config, and of the simulated telephone
# facts_line=(codecs, level); 1: no such corpus.
corpus_facts() {
    facts_dir=
    facts_line=(ulaw false)
    facts_config=conf/train_encdec_smoe_conformer.yaml
    case "$1" in
        mini)              facts=("test" 0.5 8 350); facts_config=conf/train_mini.yaml ;;
        mini_hard)         facts=("test" 0.5 10 500); facts_config=conf/study/mini_hard.yaml
                           facts_line=("ulaw alaw g721 gsm" true) ;;
        mboshi_fr)         facts=("dev" 0.5 12 260); facts_config=conf/train_mboshi_fr.yaml
                           facts_dir=${MBOSHI_FR} ;;
        own)               facts=("test" 0 30 8000); facts_config=conf/train_own.yaml ;;
        manifest | kaldi)  facts=("test" 0 30 8000) ;;
        librispeech)       facts=("test_clean test_other" 0.5 30 8000); facts_dir=${LIBRISPEECH} ;;
        fisher_callhome)   facts=("fisher_test callhome_evltest" 0 30 8000)
                           facts_dir=${FISHER_CALLHOME} ;;
        covost2_?*_?*)     facts=("test" 0.5 30 8000); facts_dir=${COVOST2} ;;
        mustc_en_?*)       facts=("tst-COMMON tst-HE" 0.5 30 8000); facts_dir=${MUSTC} ;;
        europarl_st_?*_?*) facts=("test" 0.5 30 8000); facts_dir=${EUROPARL_ST} ;;
        *) return 1 ;;
    esac
}
