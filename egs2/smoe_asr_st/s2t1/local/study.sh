#!/usr/bin/env bash
# Usage: local/study.sh CONF [--nproc N] [--stage all|list|data|power|train|analyse] [--option value ...]
# Runs the study that CONF (conf/study/*.yaml) describes, or goes on where it stopped; see
# docs/study.md, or --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./path.sh
exec python3 local/study.py "$@"
