# Where the corpora are. Sourced by run.sh; `--corpus_dir` on the command line wins.
# Nothing is ever downloaded: a corpus that is not there says where it is to be had.
MBOSHI_FR=        # holds full_corpus_newsplit/
LIBRISPEECH=      # holds LibriSpeech/, or is it
FISHER_CALLHOME=  # holds LDC2010S01 LDC2010T04 LDC96S35 LDC96T17 fisher-callhome-corpus
COVOST2=          # holds clips/, validated.tsv and covost_v2.*.tsv, in itself or per language
MUSTC=            # holds en-de/ and the like
EUROPARL_ST=      # holds v1.1/, or is it
