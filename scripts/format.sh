#!/usr/bin/env bash
# Formats every C++ file of the repository; with --check changes nothing and fails where a file differs.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[[ ${1:-} == --check ]] && mode=(--dry-run -Werror)
git ls-files -z -c -o --exclude-standard -- '*.cpp' '*.h' '*.c' | xargs -0 -r -P "$(nproc)" -n 16 clang-format-22 "${mode[@]}"
