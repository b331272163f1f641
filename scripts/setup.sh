#!/usr/bin/env bash
# Installs what the build needs, by name from Debian 12, and builds into build/ (tools in build/bin/). A second run takes seconds.
#
#   scripts/setup.sh [--tests | --text]     --tests: also what only tests need; --text: also the text of docs/comparison.md
set -euo pipefail
cd "$(dirname "$0")/.."

# lld as a library links zlib and zstd; clang needs g++ for its C++ library; libclang-rt holds the sanitizers.
packages=(
  cmake ninja-build ccache git g++ clang-22 lld-22 libclang-rt-22-dev clang-format-22 clang-tidy-22
  libmlir-22-dev mlir-22-tools llvm-22-dev llvm-22-tools liblld-22-dev libzstd-dev zlib1g-dev
  libflatbuffers-dev flatbuffers-compiler libdnnl-dev libgtest-dev nlohmann-json3-dev libcli11-dev
  python3 python3-numpy openmpi-bin libopenmpi-dev libsentencepiece-dev
)
# A browser looks at the pages that inspect writes.
[[ ${1:-} == --tests ]] && packages+=(chromium python3-pil)
[[ ${1:-} == --text ]] && packages+=(bible-kjv)

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qx "$package installed" <<<"$installed" || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "setup: installing ${missing[*]}"
  as_root=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || { echo "setup: expected root or sudo to install packages" >&2; exit 1; }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Precompiled headers and ccache agree only when clang leaves out the header's time stamp and ccache does not ask for it.
export CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

configure() { # FOLDER OPTION...: configures once, then leaves it to ninja
  local folder=$1
  shift
  [[ -f $folder/build.ninja ]] && return
  echo "setup: configuring $folder"
  cmake -G Ninja -S . -B "$folder" -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld-22 \
    -DCMAKE_SHARED_LINKER_FLAGS=-fuse-ld=lld-22 -DCMAKE_MODULE_LINKER_FLAGS=-fuse-ld=lld-22 \
    -DCMAKE_PREFIX_PATH="$(llvm-config-22 --prefix)" "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
  mv "$folder.log" "$folder/configure.log"
}

configure build -DCMAKE_BUILD_TYPE=Release
echo "setup: building build/"
ninja -C build -j "$(nproc)" --quiet
echo "setup: build/bin holds $(ls build/bin | tr '\n' ' ')"
