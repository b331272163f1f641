// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): a value is
// a pure function of seed, stream and counter, so any thread may compute any of
// them in any order and get the same bits.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace megalodon {

/// FNV-1a: the stream of a name, and the only hash that decides anything about
/// data order.
inline uint64_t hashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : name)
    hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

class CounterRandom {
public:
  CounterRandom(uint64_t seed, uint64_t stream) : seed(seed), stream(stream) {}

  /// 128 random bits.
  std::array<uint32_t, 4> block(uint64_t counter) const {
    std::array<uint32_t, 4> x = {low(counter), high(counter), low(stream),
                                 high(stream)};
    uint32_t k0 = low(seed), k1 = high(seed);
    for (int round = 0; round < 10; ++round) {
      uint64_t a = uint64_t(0xD2511F53u) * x[0],
               b = uint64_t(0xCD9E8D57u) * x[2];
      x = {high(b) ^ x[1] ^ k0, low(b), high(a) ^ x[3] ^ k1, low(a)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return x;
  }

  /// In the open interval (0, 1), 52 bits and a half, so that neither end is
  /// reached after rounding.
  double uniform(uint64_t counter) const {
    auto x = block(counter);
    return unit(x[0], x[1]);
  }

  /// In [0, bound). The bias of the multiplication is below bound / 2^64.
  uint64_t below(uint64_t bound, uint64_t counter) const {
    auto x = block(counter);
    return static_cast<uint64_t>(
        (static_cast<unsigned __int128>(uint64_t(x[1]) << 32 | x[0]) * bound) >>
        64);
  }

  /// Mean 0, standard deviation 1 (Box-Muller, the cosine branch).
  double normal(uint64_t counter) const {
    auto x = block(counter);
    return std::sqrt(-2.0 * std::log(unit(x[0], x[1]))) *
           std::cos(6.283185307179586476925 * unit(x[2], x[3]));
  }

  /// Mean 0, standard deviation `deviation` before the cut at +-bound. Rejected
  /// attempts draw from counters 2^48 apart.
  double truncatedNormal(double deviation, double bound,
                         uint64_t counter) const {
    for (uint64_t attempt = 0; attempt < 0xffff; ++attempt) {
      double value = deviation * normal(counter + (attempt << 48));
      if (std::abs(value) <= bound)
        return value;
    }
    return 0;
  }

private:
  static uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
  static uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  static double unit(uint32_t a, uint32_t b) {
    return (static_cast<double>((uint64_t(b) << 32 | a) >> 12) + 0.5) * 0x1p-52;
  }

  uint64_t seed, stream;
};

} // namespace megalodon
