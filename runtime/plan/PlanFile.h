// The outer form of a plan file: header and digest in front of the FlatBuffers
// payload. Used by the compiler and the loader.
#pragma once
#include "runtime/core/Sha256.h"
#include "runtime/plan/Header.h"
#include <vector>

namespace megalodon::plan {

/// The bytes of a plan file: a header with the digest, then the payload.
std::vector<uint8_t> sealPlan(const uint8_t *payload, size_t bytes,
                              uint64_t features);

/// The digest a file with this header and payload must carry.
Sha256::Digest planDigest(Header header, const uint8_t *payload);

} // namespace megalodon::plan
