// Whether what a file says of itself is believed.
#pragma once
#include <cstdint>

namespace megalodon {

enum class Trust : uint8_t {
  Verify, ///< digests are computed again and compared
  Assume  ///< they are not: faster, for files that nobody else can write to
};

} // namespace megalodon
