// Static memory plan: gives temporaries with known lifetimes offsets in one
// arena, reusing memory whose owner is dead.
#pragma once
#include "llvm/ADT/ArrayRef.h"
#include <cstdint>

namespace mlir::megalodon {

struct Lifetime {
  uint64_t bytes = 0;
  unsigned begin = 0,
           end = 0;    ///< first and last step that touches it, inclusive
  uint64_t offset = 0; ///< chosen by planMemory
};

/// Sets every offset (multiples of 64) and returns the arena's size. No two
/// lifetimes that share a step overlap in memory.
uint64_t planMemory(llvm::MutableArrayRef<Lifetime> lifetimes);

/// The largest sum of bytes alive at one step: no plan can do better.
uint64_t memoryLowerBound(llvm::ArrayRef<Lifetime> lifetimes);

} // namespace mlir::megalodon
