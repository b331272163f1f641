// The record of a checkpoint, trainer.json, as it is and with its digest put
// right: refused with an Error, or used to verify files.
#include "runtime/core/Error.h"
#include "runtime/core/Sha256.h"
#include "runtime/train/Checkpoint.h"
#include "test/fuzz/Fuzz.h"
#include <nlohmann/json.hpp>

using namespace megalodon;
using nlohmann::json;

static void use(const std::string &folder) {
  try {
    const json record = readRecord(folder);
    for (const char *set : {kModelFile, kOptimizerFile, kStateFile})
      for (const std::string &file : checkpointFiles(folder, record, set))
        verifyCheckpointFile(folder, record, file);
  } catch (const Error &) {
    return;
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static fuzz::MemoryFile recordFile, tensors;
  static const fuzz::Folder folder;
  static const bool linked = [] {
    folder.link(kRecordFile, recordFile);
    tensors.assign("content", 7);
    for (const char *name :
         {kModelFile, kOptimizerFile, kStateFile,
          "model.safetensors.index.json", "model-00001-of-00002.safetensors"})
      folder.link(name, tensors);
    return true;
  }();
  (void)linked;
  recordFile.assign(data, size);
  use(folder.path());
  // Nobody stops whoever alters a record from computing its digest anew. The
  // reader refuses depth before it looks at the digest.
  size_t depth = 0;
  for (size_t i = 0; i < size; ++i)
    depth += data[i] == '{' || data[i] == '[';
  json record =
      depth < 64 ? json::parse(data, data + size, nullptr, false) : json();
  if (!record.is_object())
    return 0;
  record.erase("digest");
  std::string text = record.dump();
  record["digest"] = Sha256::hex(Sha256::of(text.data(), text.size()));
  text = record.dump();
  recordFile.assign(text.data(), text.size());
  use(folder.path());
  return 0;
}
