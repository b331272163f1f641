// Model configs: refused with a message, or written in the canonical form,
// which parses to itself.
#include "passes/Import/Config.h"
#include "test/fuzz/Fuzz.h"

using namespace megalodon;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::SmallVector<std::string> remarks;
  llvm::Expected<Config> config = parseConfig(
      {reinterpret_cast<const char *>(data), size}, "config.json", remarks);
  if (!config) {
    const std::string message = llvm::toString(config.takeError());
    fuzz::require(!message.empty(), "refused without a message");
    return 0;
  }
  const std::string canonical = canonicalConfig(*config);
  llvm::Expected<Config> again =
      parseConfig(canonical, "canonical.json", remarks);
  if (!again)
    llvm::consumeError(again.takeError());
  fuzz::require(bool(again), "the canonical form is refused");
  fuzz::require(canonicalConfig(*again) == canonical,
                "the canonical form changes when parsed");
  return 0;
}
