// The fixed header in front of a plan's FlatBuffers payload. Shared by the
// writer (compiler) and the loader (runtime).
#pragma once
#include <cstdint>

namespace megalodon::plan {

inline constexpr char kMagic[8] = {'M', 'G', 'D', 'N', 'P', 'L', 'A', 'N'};
inline constexpr uint32_t kVersion = 3;

/// Features a plan may need of the runtime; an unknown bit refuses the plan.
enum FeatureBits : uint64_t {
  kFeatureOneDnn = 1u << 0,
  kFeatureCuda = 1u << 1,
  kFeatureCublasLt = 1u << 2
};
inline constexpr uint64_t kKnownFeatures =
    kFeatureOneDnn | kFeatureCuda | kFeatureCublasLt;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t headerBytes; // sizeof(Header): the payload starts here
  uint64_t features;
  uint64_t payloadBytes;
  uint8_t digest[32]; // SHA-256 of the header (digest zeroed) and the payload
};
static_assert(sizeof(Header) == 64);

/// Queues of commands. What is started on another queue than the main one runs
/// beside what follows, until it is waited for; on one queue all is in order.
enum Queue : uint32_t { kMainQueue = 0, kMessageQueue = 1 };
inline constexpr uint32_t kMaxQueues = 8;

/// Index of each word of a dispatch's parameter block (args[0], int64).
enum ParameterWord {
  kBatch = 0,
  kLength = 1,
  kTokens = 2,
  kAccumulate = 3,
  kDataRank = 4, // this rank's coordinate along each axis of the mesh
  kPipelineRank = 5,
  kChunkRank = 6,
  kTensorRank = 7,
  kFirstImmediate = 8
};

} // namespace megalodon::plan
