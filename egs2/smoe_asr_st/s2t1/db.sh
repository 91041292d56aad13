# Where the corpora are. Sourced by run.sh; `--corpus_dir` on the command line wins.
MBOSHI_FR=
