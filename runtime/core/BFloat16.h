// bf16: the upper half of an f32.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace megalodon {

/// A number of ElementType::BF16 in memory.
struct BFloat16 {
  uint16_t bits;
};

inline float widen(BFloat16 number) {
  const uint32_t word = uint32_t(number.bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

/// Rounds to nearest, ties to even; a NaN stays a NaN.
inline BFloat16 narrow(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  const uint32_t rounded = (word + 0x7fff + (word >> 16 & 1)) >> 16;
  const bool isNan = (word & 0x7fffffff) > 0x7f800000;
  return {uint16_t(isNan ? word >> 16 | 0x40 : rounded)};
}

inline void widen(const BFloat16 *from, size_t count, float *to) {
  for (size_t i = 0; i < count; ++i)
    to[i] = widen(from[i]);
}
inline void narrow(const float *from, size_t count, BFloat16 *to) {
  for (size_t i = 0; i < count; ++i)
    to[i] = narrow(from[i]);
}

} // namespace megalodon
