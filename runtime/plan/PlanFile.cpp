#include "runtime/plan/PlanFile.h"
#include <cstring>

namespace megalodon::plan {

Sha256::Digest planDigest(Header header, const uint8_t *payload) {
  std::memset(header.digest, 0, sizeof(header.digest));
  Sha256 hash;
  hash.update(&header, sizeof(header));
  hash.update(payload, header.payloadBytes);
  return hash.finish();
}

std::vector<uint8_t> sealPlan(const uint8_t *payload, size_t bytes,
                              uint64_t features) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.headerBytes = sizeof(Header);
  header.features = features;
  header.payloadBytes = bytes;
  Sha256::Digest digest = planDigest(header, payload);
  std::memcpy(header.digest, digest.data(), digest.size());
  std::vector<uint8_t> file(sizeof(Header) + bytes);
  std::memcpy(file.data(), &header, sizeof(Header));
  std::memcpy(file.data() + sizeof(Header), payload, bytes);
  return file;
}

} // namespace megalodon::plan
