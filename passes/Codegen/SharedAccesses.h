// What a kernel in vector form reads and writes, and where threads that share
// its vectors must wait for each other.
#pragma once
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Operation.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::megalodon {

/// Arguments of a kernel before its buffers.
inline constexpr unsigned kParametersArgument = 0, kWorkgroupArgument = 1,
                          kScratchArgument = 2, kFirstBufferArgument = 3;

/// A number that the index is a multiple of on every path: 1 where nothing is
/// known, 0 where the index is 0.
int64_t knownMultiple(Value index);

/// The accesses of one kernel.
///
/// A vector access that starts at a multiple of its lanes always gives an
/// element to one thread, whatever the other indices are; such accesses of one
/// width need no order between threads. Any other pair of accesses to one piece
/// of memory of which one writes does: scalars are read by all threads and
/// written by the first one.
class SharedAccesses {
public:
  SharedAccesses(func::FuncOp kernel, int64_t threads);

  /// The ops in front of which the threads must wait. All control flow of a
  /// kernel in vector form is the same for all threads, so they can anywhere.
  ArrayRef<Operation *> placesOfBarriers() const {
    return barriers.getArrayRef();
  }

private:
  struct Access {
    unsigned memory;
    bool writes;
    /// Bytes of a thread's share when the access starts at a multiple of its
    /// lanes; 0 for a scalar, negative when threads share it in no fixed way.
    int64_t share;
    bool operator==(const Access &other) const {
      return memory == other.memory && writes == other.writes &&
             share == other.share;
    }
  };
  /// Accesses since the threads last waited.
  using Pending = SmallVector<Access, 8>;

  void findMemories(func::FuncOp kernel);
  std::optional<Access> accessOf(Operation *op) const;
  static bool conflict(const Access &before, const Access &after);
  static void addTo(Pending &pending, ArrayRef<Access> accesses);
  void scan(Block &block, Pending &pending, bool place);

  int64_t threads;
  /// Memories by the memref value; views of scratch that overlap are one.
  llvm::DenseMap<Value, unsigned> memories;
  llvm::SmallSetVector<Operation *, 16> barriers;
};

} // namespace mlir::megalodon
