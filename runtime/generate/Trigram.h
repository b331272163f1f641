// An interpolated trigram model over bytes (Witten and Bell's weights): what a
// compressor of the last century makes of the same text. A trained model must
// beat it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace megalodon {

class Trigram {
public:
  Trigram();

  /// Counts the bytes of a text that continues what was added before.
  void add(const uint8_t *bytes, std::size_t size);

  /// Probability of `next` after the bytes `a`, `b`: each order falls back to
  /// the one below with the weight of its number of different followers.
  double probability(uint8_t a, uint8_t b, uint8_t next) const;

private:
  std::vector<uint32_t> triples, pairs,
      singles;                              // counts, the predicted byte last
  std::vector<uint32_t> afterTwo, afterOne; // how often a context was continued
  std::vector<uint16_t> followersTwo,
      followersOne; // by how many different bytes
  uint64_t total = 0;
  uint32_t different = 0, context = 0;
};

} // namespace megalodon
