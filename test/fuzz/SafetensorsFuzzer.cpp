// Safetensors files, and indices of several: refused with an Error or read
// within their bounds. An input that begins with '{' is an index and, behind a
// zero, the one file beside it.
#include "runtime/core/Error.h"
#include "runtime/io/Safetensors.h"
#include "test/fuzz/Fuzz.h"
#include <cstring>

using namespace megalodon;

/// Reads every tensor of a size that a test can hold, whole and in part.
static void readAll(const SafetensorsFile &file) {
  for (const StoredTensor &stored : file.tensors()) {
    fuzz::require(file.find(stored.name), "a listed tensor is not found");
    const int64_t elements = stored.elements();
    if (elements > 4096)
      continue;
    const ElementType type =
        stored.isFloat() ? ElementType::F32 : ElementType::I32;
    const Box whole = Box::whole(stored.shape);
    fuzz::require(whole.elements() == elements, "shape and size disagree");
    std::vector<std::byte> memory(size_t(elements) * elementBytes(type));
    TensorView view{stored.name, type, stored.shape, memory.data(),
                    memory.size()};
    try {
      file.read(stored, view);
    } catch (const Error &) {
      continue; // values that do not fit the type
    }
    if (stored.shape.empty() || stored.shape[0] < 2)
      continue;
    // The second half of the rows and as many again beyond the end.
    Box part = whole;
    part.offset[0] = part.extent[0] / 2;
    view.shape = part.extent;
    file.read(stored, view, stored.shape, part);
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static fuzz::MemoryFile index, tensors;
  static const fuzz::Folder folder;
  static const bool linked = [] {
    folder.link("model.safetensors.index.json", index);
    folder.link("a.safetensors", tensors);
    return true;
  }();
  (void)linked;
  std::string path = folder.path() + "/a.safetensors";
  if (size && data[0] == '{') {
    const auto *zero = static_cast<const uint8_t *>(std::memchr(data, 0, size));
    const size_t text = zero ? size_t(zero - data) : size;
    index.assign(data, text);
    tensors.assign(data + text + (zero ? 1 : 0), size - text - (zero ? 1 : 0));
    path = folder.path() + "/model.safetensors.index.json";
  } else {
    tensors.assign(data, size);
  }
  try {
    readAll(SafetensorsFile(path));
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
