#!/usr/bin/env bash
# All that wants a GPU in one command, under 8 minutes: gpu tests, loader comparison, training.
# Nothing is downloaded or installed.
#   bash bench/gpu.sh [OUT]          writes records into OUT/*.json, what each step printed into
#                                    OUT/gpu.md and OUT/logs; OUT is gpu-results unless given
#   bash bench/gpu.sh --cpu [OUT]    without a GPU: the same steps in small, as far as a CPU can
# PYTHON chooses the interpreter: .venv/bin/python if it is there, else python3. LIMIT_S: the most
# seconds of all steps. A step that fails, hangs or comes too late is written down and does not stop
# the others; none takes more than half of the time.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
python=${PYTHON:-$python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

stop() { echo "bench/gpu.sh: $1" >&2; exit 2; }

# Seven sequences a subject fill whole steps of training.
if [[ ${1:-} == --cpu ]]; then
  shift
  export CUDA_VISIBLE_DEVICES='' REQUIRE_GPU=0
  limit_s=${LIMIT_S:-1800} subjects=2 samples=128
  net=(--arch resnet18 --batch-size 7 --iter-size 2 --steps 1)
else
  export REQUIRE_GPU=1
  limit_s=${LIMIT_S:-460} subjects=24 samples=1024
  net=(--arch resnet152 --batch-size 56 --iter-size 3 --steps 7)
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    stop "torch finds no GPU; what a CPU can run: bash bench/gpu.sh --cpu ${1:-gpu-results}"
fi
"$python" -c 'import nvidia.dali' 2> /dev/null ||
  stop "no DALI: install nvidia-dali-cuda120, or put its wheels on PYTHONPATH"

mkdir -p "${1:-gpu-results}/logs"
out=$(cd "${1:-gpu-results}" && pwd)
data=$(mktemp -d "$out/data-XXXXXX")
trap 'rm -rf "$data"' EXIT
all_ok=true
{ git -C "$root" describe --always --dirty; nvidia-smi -L; } > "$out/gpu.md" 2> /dev/null

step() { # NAME COMMAND...: run a step, keep its output, and write down its end
  local name=$1 log=$out/logs/$1.txt begin=$SECONDS end=ok code
  local left=$((limit_s - SECONDS)) most=$((limit_s / 2))
  shift
  ((left < most)) && most=$left
  if ((most < 1)); then
    end='not run: time is up'
    : > "$log"
  else
    timeout --kill-after=5 "$most" "$@" > "$log" 2>&1
    code=$?
    ((code)) && end="exit status $code"
    ((code == 124 || code == 137)) && end="stopped after $most s"
  fi
  [[ $end == ok ]] || all_ok=false
  end="$name: $end, $((SECONDS - begin)) s"
  echo "$end"
  printf '\n## %s\n```\n%s\n```\n' "$end" "$(tail -c 8000 "$log")" >> "$out/gpu.md"
}

run='import sys; sys.argv[0] = "%s"; from %s.cli import main; main()' # installed or not
# shellcheck disable=SC2059
ckshard=("$python" -c "$(printf "$run" ckshard shard_builder)" --debug)
# shellcheck disable=SC2059
cktrain=("$python" -c "$(printf "$run" cktrain train)" --debug)

build() { # CODEC
  step "data-$1" "${ckshard[@]}" build "$data/release" "$data/train-$1" --codec "$1" --yes
}

train() { # STREAM CODEC --baseline|--no-baseline: on synthetic, cached and real batches
  step "train-$1-$2" "${cktrain[@]}" bench "$data/train-$2" --stream "$1" "$3" "${net[@]}" \
    --warmup 1 --repeats 5 --json "$out/train-$1-$2.json"
}

waits() { # CODEC: of a simulated device, in a long epoch and at the border of CK+'s
  step "waits-$1" "${ckshard[@]}" bench "$data/train-$1" --streams flow --dtype float16 \
    --batch-size 10 --consumer-ms 5 --epoch-samples 80 --seconds 0.5 --json "$out/waits-$1.json"
}

# The gpu tests' files only: others import what may be missing here. Warnings fail nothing: other
# versions than the pinned ones have others.
mapfile -t gpu_tests < <(grep -rl --include='test_*.py' 'mark\.gpu' "$root/tests")

# The most telling first: time may run out. The peers of the loaders are those without worker
# processes, for which a container often has too little shared memory.
step data "${ckshard[@]}" synth "$data/release" --subjects "$subjects" --max-frames 6
build jpg
step tests "$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -m gpu -W default \
  --tb=short -p no:cacheprovider "${gpu_tests[@]}"
train flow jpg --baseline
waits jpg
train rgb jpg --baseline
step loaders "$python" -m bench.loaders --folder "$data" --subjects "$subjects" \
  --samples "$samples" --seconds 0.5 --only dali_reader,spdl --json "$out/loaders.json"
build raw
train flow raw --no-baseline
waits raw
$all_ok
