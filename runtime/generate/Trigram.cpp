#include "runtime/generate/Trigram.h"

using namespace megalodon;

Trigram::Trigram()
    : triples(1 << 24), pairs(1 << 16), singles(1 << 8), afterTwo(1 << 16),
      afterOne(1 << 8), followersTwo(1 << 16), followersOne(1 << 8) {}

void Trigram::add(const uint8_t *bytes, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i, ++total) {
    uint32_t next = bytes[i];
    different += singles[next]++ == 0;
    if (total >= 1) {
      uint32_t one = context & 0xff;
      followersOne[one] += pairs[one << 8 | next]++ == 0;
      ++afterOne[one];
    }
    if (total >= 2) {
      followersTwo[context] += triples[context << 8 | next]++ == 0;
      ++afterTwo[context];
    }
    context = (context << 8 | next) & 0xffff;
  }
}

double Trigram::probability(uint8_t a, uint8_t b, uint8_t next) const {
  // (count + followers * lower) / (continued + followers); the lowest order
  // falls back to the uniform distribution.
  auto interpolate = [](double count, double continued, double followers,
                        double lower) {
    return continued == 0
               ? lower
               : (count + followers * lower) / (continued + followers);
  };
  uint32_t two = uint32_t(a) << 8 | b;
  double p = interpolate(singles[next], total, different, 1.0 / 256);
  p = interpolate(pairs[uint32_t(b) << 8 | next], afterOne[b], followersOne[b],
                  p);
  return interpolate(triples[two << 8 | next], afterTwo[two], followersTwo[two],
                     p);
}
