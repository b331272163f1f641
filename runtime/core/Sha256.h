// SHA-256 (FIPS 180-4), fed in pieces. Protects plans and checkpoints against
// damage.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace megalodon {

class Sha256 {
public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  void update(const void *data, size_t bytes);
  /// The digest of everything fed; the object is used up.
  Digest finish();

  static Digest of(const void *data, size_t bytes);
  static std::string hex(const Digest &digest);

private:
  void block(const uint8_t *data);

  std::array<uint32_t, 8> state;
  std::array<uint8_t, 64> pending;
  uint64_t total = 0;
};

} // namespace megalodon
