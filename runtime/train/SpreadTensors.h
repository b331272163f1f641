// Tensors that the ranks of a world hold in parts, written as whole tensors
// into files that do not say who held what.
#pragma once
#include "runtime/io/Safetensors.h"
#include "runtime/parallel/Communicator.h"

namespace megalodon {

/// Writes the tensors into `folder`. One rank writes the file `set`
/// ("model.safetensors"). Several ranks each write some whole tensors, as
/// evenly as their sizes allow, into files of their own
/// ("model-00001-of-00002..."), and rank 0 an index. Each tensor is assembled
/// from the ranks that hold it, one at a time. Returns the files this rank
/// wrote; all are synced. Called by all ranks with the same tensors; throws on
/// all of them.
std::vector<std::string> writeSpread(const std::string &folder,
                                     const std::string &set,
                                     const std::vector<SpreadTensor> &tensors,
                                     World &world, int64_t step);

/// Writes the tensors into one file, which rank 0 does. Called by all ranks
/// with the same tensors; throws on all of them.
void writeAssembled(const std::string &path,
                    const std::vector<SpreadTensor> &tensors, World &world);

/// Name of the index that several ranks write for a set.
std::string indexOfSet(const std::string &set);

} // namespace megalodon
