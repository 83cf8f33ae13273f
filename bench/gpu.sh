#!/usr/bin/env bash
# All that wants a GPU in one command, under 8 minutes: gpu tests, loader comparison, training. Nothing is downloaded or installed.
#   bash bench/gpu.sh [OUT]          writes OUT/gpu.json, OUT/gpu.md and OUT/logs; OUT is gpu-results unless given
#   bash bench/gpu.sh --cpu [OUT]    without a GPU: the same steps in small, as far as a CPU can run them
# PYTHON chooses the interpreter: .venv/bin/python if it is there, else python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-$python}" -m bench.gpu "$@"
