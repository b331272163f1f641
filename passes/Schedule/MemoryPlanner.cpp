#include "passes/Schedule/MemoryPlanner.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/MathExtras.h"
#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

using namespace mlir::megalodon;

uint64_t
mlir::megalodon::planMemory(llvm::MutableArrayRef<Lifetime> lifetimes) {
  // Greedy by size: big tensors first, each at the lowest offset where no
  // tensor alive at the same time lies. Within a few percent of the lower bound
  // for our programs (inspect prints both), and deterministic.
  std::vector<unsigned> order(lifetimes.size());
  std::iota(order.begin(), order.end(), 0u);
  llvm::sort(order, [&](unsigned a, unsigned b) {
    return std::tie(lifetimes[b].bytes, a) < std::tie(lifetimes[a].bytes, b);
  });

  std::vector<unsigned> placed; // sorted by offset
  uint64_t arena = 0;
  for (unsigned index : order) {
    Lifetime &lifetime = lifetimes[index];
    uint64_t size = llvm::alignTo(lifetime.bytes, 64), at = 0;
    for (unsigned other : placed) {
      const Lifetime &taken = lifetimes[other];
      if (taken.end < lifetime.begin || lifetime.end < taken.begin)
        continue;
      if (taken.offset >= at + size)
        break;
      at = std::max(at, llvm::alignTo(taken.offset + taken.bytes, 64));
    }
    lifetime.offset = at;
    arena = std::max(arena, at + size);
    auto position = std::upper_bound(
        placed.begin(), placed.end(), index, [&](unsigned a, unsigned b) {
          return lifetimes[a].offset < lifetimes[b].offset;
        });
    placed.insert(position, index);
  }
  return arena;
}

uint64_t mlir::megalodon::memoryLowerBound(llvm::ArrayRef<Lifetime> lifetimes) {
  unsigned steps = 0;
  for (const Lifetime &lifetime : lifetimes)
    steps = std::max(steps, lifetime.end + 1);
  std::vector<int64_t> change(steps + 1);
  for (const Lifetime &lifetime : lifetimes) {
    change[lifetime.begin] += llvm::alignTo(lifetime.bytes, 64);
    change[lifetime.end + 1] -= llvm::alignTo(lifetime.bytes, 64);
  }
  int64_t alive = 0, most = 0;
  for (int64_t step : change)
    most = std::max(most, alive += step);
  return most;
}
