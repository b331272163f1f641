// The two tables that decide how a model lies on a mesh: one of parameters and
// other named tensors, one of ops.
#pragma once
#include "passes/Partition/Layout.h"

namespace mlir::megalodon {

/// The layout of the argument or result `name` of an entry, of rank `rank`,
/// before optimizer or parameter sharding. Only axes of more than one rank
/// stand in it. With `tied` the head's weight is the embedding's.
Layout layoutOfPort(StringRef name, Role role, int64_t rank, bool tied,
                    const MeshShape &mesh);

/// How one tensor of an op takes part. Each dimension has a letter; dimensions
/// with the same letter are split alike. The letter b is always split over dp,
/// l over cp.
struct TensorRule {
  std::string letters;      ///< one a dimension
  std::string whole;        ///< letters that must not be split
  bool reshardable = false; ///< operands: the assignment may change the layout
  bool sum = false; ///< results: where a split letter is missing, the value is
                    ///< a sum over its axes
};

struct OpRule {
  SmallVector<TensorRule> operands, results;
  /// Results are linear in the first so many operands taken together, so sums
  /// may pass through.
  unsigned linearOperands = 0;
};

/// The rule of an op, nothing for ops without one.
std::optional<OpRule> ruleOf(Operation *op);

} // namespace mlir::megalodon
