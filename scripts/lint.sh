#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over every C++ source of the repository, or with --changed over those that differ from the base:
# $MEGALODON_LINT_BASE, else the common ancestor with origin/main, else the last commit. Needs build/ (scripts/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

base() {
  local head ancestor
  head=$(git rev-parse HEAD)
  ancestor=${MEGALODON_LINT_BASE:-$(git merge-base HEAD origin/main 2>/dev/null || true)}
  [[ -n $ancestor && $ancestor != "$head" ]] || ancestor=$(git rev-parse -q --verify HEAD~1 || echo "$head")
  echo "$ancestor"
}

if [[ ${1:-} == --changed ]]; then
  mapfile -t files < <(git diff --name-only --diff-filter=d "$(base)" -- '*.cpp')
else
  mapfile -t files < <(git ls-files -- '*.cpp')
fi
# Only what the build compiles can be parsed.
mapfile -t known < <(for file in "${files[@]}"; do grep -qF "\"$PWD/$file\"" build/compile_commands.json && echo "$file"; done)
((${#known[@]})) || { echo "lint: no file to look at"; exit 0; }
printf '%s\0' "${known[@]}" | xargs -0 -P "$(nproc)" -n 1 clang-tidy-22 -p build --quiet --warnings-as-errors='*' 2> >(grep -v 'warnings generated' >&2)
echo "lint: ${#known[@]} files are clean"
