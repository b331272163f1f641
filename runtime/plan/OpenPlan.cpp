// The outside of a plan file: header, version, digest, features, FlatBuffers.
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/plan/PlanReader.h"
#include <cstring>

namespace megalodon::plan {

std::shared_ptr<const LoadedPlan> LoadedPlan::parse(const std::string &path,
                                                    const uint8_t *data,
                                                    size_t bytes, Trust trust) {
  Header header;
  if (bytes < sizeof(header))
    throw Error(str(path, ": not a plan: expected at least ", sizeof(header),
                    " bytes, got ", bytes));
  std::memcpy(&header, data, sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    throw Error(str(path, ": not a plan: the file does not begin with '",
                    std::string(kMagic, sizeof(kMagic)), "'"));
  if (header.version != kVersion)
    throw Error(str(path, ": plan version: expected ", kVersion, ", got ",
                    header.version, "; compile the plan again"));
  if (header.headerBytes != sizeof(header))
    throw Error(str(path, ": corrupt plan: header size: expected ",
                    sizeof(header), ", got ", header.headerBytes));
  if (header.payloadBytes != bytes - sizeof(header))
    throw Error(str(path, ": corrupt plan: payload: expected ",
                    header.payloadBytes, " bytes, got ",
                    bytes - sizeof(header)));
  const uint8_t *payload = data + sizeof(header);
  Sha256::Digest digest;
  std::memcpy(digest.data(), header.digest, digest.size());
  if (trust == Trust::Verify)
    digest = planDigest(header, payload);
  if (std::memcmp(digest.data(), header.digest, digest.size()) != 0)
    throw Error(str(path, ": corrupt plan: digest: expected ",
                    Sha256::hex(digest),
                    ", got another; the file was altered"));
  if (header.features & ~kKnownFeatures)
    throw Error(str(
        path, ": plan needs features this runtime does not know: feature bits ",
        header.features & ~kKnownFeatures));

  flatbuffers::Verifier verifier(payload, header.payloadBytes, 64,
                                 flatbuffers::uoffset_t(1) << 24);
  if (header.payloadBytes >= FLATBUFFERS_MAX_BUFFER_SIZE ||
      !fb::VerifyPlanBuffer(verifier))
    throw Error(
        str(path, ": corrupt plan: the FlatBuffers payload does not verify"));
  auto plan = std::make_shared<LoadedPlan>();
  plan->path = path;
  plan->digest = Sha256::hex(digest);
  plan->features = header.features;
  PlanReader(*plan, header.payloadBytes).read(*fb::GetPlan(payload));
  return plan;
}

std::shared_ptr<const LoadedPlan> LoadedPlan::open(const std::string &path,
                                                   Trust trust) {
  // A copy, not a map: what was verified is what runs, whatever happens to the
  // file meanwhile.
  const std::string file = readText(path);
  return parse(path, reinterpret_cast<const uint8_t *>(file.data()),
               file.size(), trust);
}

} // namespace megalodon::plan
