// --trust, which several commands share.
#pragma once
#include "runtime/core/Trust.h"
#include <CLI/CLI.hpp>

namespace megalodon {

inline void addTrustOption(CLI::App &command, Trust &trust) {
  command.add_flag_callback(
      "--trust", [&trust] { trust = Trust::Assume; },
      "do not compute the digests of plan and checkpoint again: faster; only "
      "for files that nobody else can write to");
}

} // namespace megalodon
