#!/usr/bin/env bash
# From nothing to a trained model: installs, builds, compiles models/megalodon-tiny.json, trains it on real text, evaluates it
# beside a trigram model and lets it write.
#
#   scripts/quickstart.sh [--data DIR]... [--out DIR] [--steps N]
#
# Without --data it reads C++ headers that LLVM's package has put on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit "${1:-0}"
}

data=() out=quickstart-out steps=700
while (($#)); do
  case $1 in
    --data) data+=("${2:?--data: expected a folder}") && shift 2 ;;
    --out) out=${2:?--out: expected a folder} && shift 2 ;;
    --steps) steps=${2:?--steps: expected a number} && shift 2 ;;
    -h | --help) usage ;;
    *) echo "quickstart: unknown option $1" >&2 && usage 1 >&2 ;;
  esac
done

scripts/setup.sh
if ((${#data[@]} == 0)); then
  headers=$(llvm-config-22 --includedir)
  data=("$headers/llvm/ADT" "$headers/llvm/Support" "$headers/mlir/IR")
fi
say() { printf '\n== %s\n' "$*"; }
split=(--validation-fraction 0.1)
mkdir -p "$out"

say "compile models/megalodon-tiny.json: a training step, scoring and generation in one plan"
build/bin/megalodon-opt models/megalodon-tiny.json --entry=train:8x256,score:1x256,generate:1x128 -o "$out/tiny.plan"
build/bin/megalodon-run inspect "$out/tiny.plan" | sed -n 1,9p

say "train on ${data[*]}"
build/bin/megalodon-run train "$out/tiny.plan" --data "${data[@]}" "${split[@]}" --steps "$steps" --schedule cosine --lr 4e-3 --warmup 60 \
  --out "$out/run" --resume --log-every 20 --eval-every "$((steps / 6))" --eval-tokens 32768

evaluate() { build/bin/megalodon-run eval "$out/tiny.plan" --weights "$out/run" --data "${data[@]}" "${split[@]}" --split validation --max-tokens 262144 "$@"; }
say "held-out files, beside an interpolated trigram model of the same training files"
evaluate --trigram "${data[@]}"
say "the same with the carried state zeroed before each call"
evaluate --reset-state | sed -n 1,4p

say "a sample"
build/bin/megalodon-run generate "$out/tiny.plan" --weights "$out/run" --prompt "/// Returns true if " --max-tokens 500 --temperature 0.7 --seed 1
printf '\n\nThe loss curve is in %s, the weights in %s.\n' "$out/run/loss.svg" "$out/run"
