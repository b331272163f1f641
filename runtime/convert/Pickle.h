// The pickles of state_dicts that torch.save writes, without executing
// anything: what is neither a tensor nor needed to describe one is refused.
#pragma once
#include "runtime/io/Safetensors.h"
#include <cstddef>
#include <string>
#include <vector>

namespace megalodon::convert {

/// A tensor as a pickle describes it: a view of a storage.
struct PickledTensor {
  std::string name;
  StoredTensor::Type type;
  std::string storage;     ///< its key: the entry data/<key> of the archive
  int64_t storageElements; ///< how many it has
  int64_t offset;          ///< in elements
  std::vector<int64_t> shape, strides;
};

/// The tensors of a pickled dict of tensors, in its order. Names are unique;
/// every view lies inside its storage. Throws Error naming `path` and the
/// global, the opcode or the tensor that is refused.
std::vector<PickledTensor> readPickle(const std::string &path,
                                      const std::byte *data, size_t bytes);

/// The pickle of an OrderedDict of dense tensors, for torch.load with
/// weights_only.
std::string writePickle(const std::vector<PickledTensor> &tensors);

} // namespace megalodon::convert
