#!/usr/bin/env bash
# Installs, builds and runs all tests; the last line is `N passed, N failed`. With MEGALODON_GOLDEN naming the folder of the golden
# vectors they are checked too.
#
#   scripts/test.sh [--only REGEX]     only the suites whose name matches
set -uo pipefail
cd "$(dirname "$0")/.."
only=.
[[ ${1:-} == --only ]] && only=${2:?--only: expected a regular expression}

# Debian's own: another Python on the PATH may lack python3-numpy.
python=/usr/bin/python3
logs=build/test-logs

# suite NAME COMMAND...: runs a suite beside the others, as many at a time as there are processors.
suite() {
  [[ $1 =~ $only ]] || return 0
  while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
  run_suite "$@" &
}

# The same for one that uses all processors itself.
wide_suite() {
  [[ $1 =~ $only ]] || return 0
  wait
  run_suite "$@"
}

# A suite's counts are taken from its own summary; a suite without one counts as one test.
run_suite() {
  local name=$1 log="$logs/$1.log" status=0 good bad begin=$SECONDS
  shift
  echo 0 1 >"$logs/$name.counts" # should it be killed
  "$@" >"$log" 2>&1 || status=$?
  good=$(counted "$log" passed)
  bad=$(counted "$log" failed)
  if ((good + bad == 0)); then
    good=$((status == 0))
    bad=$((status != 0))
  elif ((status != 0 && bad == 0)); then
    bad=1 # it stopped before its end
  fi
  echo "$good" "$bad" >"$logs/$name.counts"
  { # at once: another suite may end at the same time
    printf '%-6s %-28s %5d passed %4d failed %5d s\n' "$([[ $bad == 0 ]] && echo OK || echo 'NOT OK')" "$name" "$good" "$bad" $((SECONDS - begin))
    if ((bad)); then
      grep -E 'NOT OK|FAIL|error:|warning:' "$log" | head -n 40
      tail -n 15 "$log"
    fi
  } >"$logs/$name.report"
  cat "$logs/$name.report"
}

# The counts in the summaries of lit, ctest and our own programs.
counted() {
  case $2 in
    passed) sed -nE 's/^ *Passed *: *([0-9]+).*/\1/p; s/^([0-9]+) passed, .*/\1/p' "$1"
            sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests? failed out of ([0-9]+)/\2 - \1/p' "$1" | xargs -r -n 3 expr ;;
    failed) sed -nE 's/^ *(Failed|Unexpectedly Passed|Unresolved|Timed Out) *: *([0-9]+).*/\2/p; s/^[0-9]+ passed, ([0-9]+) failed.*/\1/p' "$1"
            sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests? failed.*/\1/p' "$1" ;;
  esac | awk '{ sum += $1 } END { print sum + 0 }'
}

sanitized() {
  [[ -f build-sanitize/build.ninja ]] ||
    cmake -G Ninja -S . -B build-sanitize -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
      -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld-22 -DMEGALODON_COMPILER=OFF -DMEGALODON_SANITIZE=ON || return
  ninja -C build-sanitize -j "$jobs" --quiet || return
  UBSAN_OPTIONS=print_stacktrace=1 ctest --test-dir build-sanitize -j "$jobs" --output-on-failure
}

fresh_docs() {
  scripts/dialect-docs.sh "$logs/dialect.md" && diff docs/dialect.md "$logs/dialect.md"
}

scripts/setup.sh --tests || { echo "0 passed, 1 failed"; exit 1; }
mkdir -p "$logs"
rm -f "$logs"/*.counts
jobs=$(nproc) # asked before OMP_NUM_THREADS, which nproc obeys
export OMP_NUM_THREADS=1
tools=(--opt build/bin/megalodon-opt --run build/bin/megalodon-run)
emulated=(--opt build/bin/megalodon-opt-emulated --run build/bin/megalodon-run) # kernels for a GPU, on the CPU
suite format scripts/format.sh --check
suite lint scripts/lint.sh --changed
suite docs fresh_docs
wide_suite lit "$(llvm-config-22 --bindir)/lit" -s --no-progress-bar build/test/lit
wide_suite runtime ctest --test-dir build -j "$jobs" --output-on-failure
wide_suite runtime-sanitized sanitized
suite page "$python" test/runtime/page_test.py "${tools[@]}"
suite commands "$python" test/docs/pages.py --build build
suite measurements "$python" test/scripts/measurements_test.py
suite reference "$python" test/reference/check_reference.py
suite numerics-ops "$python" test/numerics/ops.py "${tools[@]}"
suite numerics-parallel "$python" test/numerics/parallel.py "${tools[@]}"
suite traffic "$python" test/numerics/traffic.py "${tools[@]}"
suite numerics-meshes "$python" test/numerics/meshes.py "${tools[@]}"
suite numerics-model "$python" test/numerics/model.py "${tools[@]}"
suite numerics-packed "$python" test/numerics/packed.py "${tools[@]}"
suite numerics-lowerings "$python" test/numerics/lowerings.py "${tools[@]}"
suite gpu-resources "$python" scripts/gpu-resources.py --check --opt build/bin/megalodon-opt
suite numerics-gpu-math "$python" test/numerics/gpu_math.py --opt build/bin/megalodon-opt
suite emulation "$python" test/emulation/check_emulation.py "${emulated[@]}"
suite emulation-ops "$python" test/numerics/ops.py "${emulated[@]}" --opt-arg=--target=cuda --precision f32 --only '^(?!chunk_attention)'
suite emulation-model "$python" test/numerics/model.py "${emulated[@]}" --opt-arg=--target=cuda --precision f32
suite emulation-targets "$python" test/emulation/compare_targets.py --precision f32 --precision bf16
suite emulation-cema-matrix "$python" test/numerics/ops.py "${emulated[@]}" --opt-arg=--target=cuda --opt-arg=--cema=matrix --precision f32 \
  --only '^cema/(tiles|chunks)'
suite emulation-cema-accuracy "$python" test/numerics/cema_accuracy.py "${emulated[@]}" --opt-arg=--target=cuda --form matrix
attention=(--opt-arg=--target=cuda --precision f32 --precision bf16)
suite emulation-attention-stored "$python" test/numerics/ops.py "${emulated[@]}" "${attention[@]}" --opt-arg=--attention=stored \
  --only '^chunk_attention(?!.*(packed|laplace))'
suite emulation-attention-recomputed "$python" test/numerics/ops.py "${emulated[@]}" "${attention[@]}" --opt-arg=--attention=recomputed \
  --only '^chunk_attention'
suite convert "$python" test/runtime/convert_test.py "${tools[@]}"
suite documents "$python" test/runtime/documents_test.py "${tools[@]}"
suite packed "$python" test/runtime/packed_test.py "${tools[@]}"
suite numerics-verify "$python" test/numerics/verify.py "${tools[@]}"
suite numerics-shapes "$python" test/numerics/shapes.py "${tools[@]}"
suite emulation-shapes "$python" test/numerics/shapes.py "${emulated[@]}" --target cuda
suite emulation-verify "$python" test/numerics/verify.py "${emulated[@]}" --opt-arg=--target=cuda --precision f32 \
  --only '^model/(swiglu|llama|mesh_cp_tp)|^broken/cema'
suite numerics-mutations "$python" test/numerics/mutations.py "${tools[@]}"
if [[ -n ${MEGALODON_GOLDEN:-} ]]; then
  for precision in f32 f64 bf16; do
    suite "golden-$precision" "$python" "$MEGALODON_GOLDEN/check.py" "${tools[@]}" --precision "$precision" --only '^(model|carry|train|decode|llama)'
  done
  for precision in f32 bf16; do
    suite "golden-emulated-$precision" "$python" "$MEGALODON_GOLDEN/check.py" "${emulated[@]}" --target cuda --precision "$precision" --only '^(model_m1|carry_c1|train_t1|llama_l2)'
  done
  suite golden-cuda-compile "$python" "$MEGALODON_GOLDEN/check.py" --opt build/bin/megalodon-opt --target=cuda --stage=compile --work "$logs/cuda-plans" \
    --precision bf16 --only '^(carry|train)'
  suite golden-mesh-f64 "$python" "$MEGALODON_GOLDEN/check.py" "${tools[@]}" --precision f64 --only '^(model|train)' --mesh dp=2,pp=2,cp=2,tp=2
  suite golden-mesh-llama "$python" "$MEGALODON_GOLDEN/check.py" "${tools[@]}" --precision f64 --only '^llama' --mesh pp=2,tp=2
  suite golden-mesh-bf16 "$python" "$MEGALODON_GOLDEN/check.py" "${tools[@]}" --precision bf16 --only '^model_p1' --mesh cp=2,tp=2
  suite golden-mesh-f32 "$python" "$MEGALODON_GOLDEN/check.py" "${tools[@]}" --precision f32 --only '^(model|train)' --mesh cp=2,tp=2
fi
wait
read -r passed failed < <(cat "$logs"/*.counts 2>/dev/null | awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }')
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
