// Pickles of tensors: refused with an Error, or tensors every element of which
// lies inside its storage.
#include "runtime/convert/Pickle.h"
#include "runtime/core/Error.h"
#include "test/fuzz/Fuzz.h"

using namespace megalodon;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<convert::PickledTensor> tensors;
  try {
    tensors = convert::readPickle(
        "fuzz.pkl", reinterpret_cast<const std::byte *>(data), size);
  } catch (const Error &) {
    return 0;
  }
  for (const convert::PickledTensor &tensor : tensors) {
    fuzz::require(tensor.shape.size() == tensor.strides.size(),
                  "a shape without strides");
    __int128 last = tensor.offset;
    bool empty = false;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      empty |= tensor.shape[i] == 0;
      last += __int128(tensor.shape[i] - 1) * tensor.strides[i];
    }
    fuzz::require(tensor.offset >= 0 &&
                      (empty || (last >= 0 && last < tensor.storageElements)),
                  "a tensor outside its storage");
  }
  return 0;
}
