// Seeded random inputs of an entry, or those of a file.
#pragma once
#include "dialect/Interpreter/Interpreter.h"
#include <string>

namespace mlir::megalodon {

/// One tensor for every input of the entry, as the type in the IR can hold it.
/// What `file`
/// (safetensors, empty: none) holds is taken from there; fails if a tensor of
/// it has another shape or type. With `wholeChunks` sequences stand at the
/// start of a chunk, as ranks of the chunk axis want it.
FailureOr<interpreter::NamedTensors>
sampleTensors(ModuleOp module, StringRef entry, uint64_t seed,
              const std::string &file, bool wholeChunks);

} // namespace mlir::megalodon
