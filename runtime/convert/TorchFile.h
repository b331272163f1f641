// Files of torch.save: a state_dict's tensors, read and written.
#pragma once
#include "runtime/convert/Tensor.h"

namespace megalodon::convert {

/// The tensors of a state_dict in the bytes of a file, which `owner` keeps.
/// Throws Error naming `path` and what is wrong or refused; nothing in the file
/// is executed, and nothing is allocated that the file does not hold.
TensorSet readTorch(const std::string &path, const std::byte *data,
                    size_t bytes, const std::shared_ptr<const void> &owner);
/// The same for a file, which stays mapped.
TensorSet readTorch(const std::string &path);

/// Writes a file for torch.load(weights_only=True). Tensors with the same
/// memory share a storage.
void writeTorch(const std::string &path, const TensorSet &set);

} // namespace megalodon::convert
