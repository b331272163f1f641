// What kernels that work on rows share: the rows of a workgroup, the vectors of
// a row, sums with several accumulators in flight, and flat tensors.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/Lowerings.h"

namespace mlir::megalodon {

/// A lowering of one op; knows the compilation's options.
template <typename OpType> struct LoweringPattern : OpRewritePattern<OpType> {
  LoweringPattern(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern<OpType>(context), options(options) {}
  const LoweringOptions &options;
};

inline RankedTensorType tensorOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}
/// The type in which a tensor's elements are computed.
inline Type elementOf(Value value) {
  return computeType(tensorOf(value).getElementType());
}
inline int64_t widthOf(Value value) {
  return tensorOf(value).getShape().back();
}
inline double bytesOf(Type type) {
  auto tensor = cast<RankedTensorType>(type);
  return double(tensor.getNumElements()) *
         (tensor.getElementTypeBitWidth() / 8);
}
/// Bytes of all operands and results of an op: what a kernel that touches each
/// once moves.
double bytesOf(Operation *op);

/// Rows of `width` elements a workgroup handles: enough work to be worth a
/// call, few enough rows to spread over cores and stay in a core's cache. On a
/// GPU few: thousands of workgroups, of little shared memory, hide each other's
/// latency.
int64_t rowsPerWorkgroup(const LoweringOptions &options, int64_t width);
/// The grid whose workgroups handle `rows` tokens each.
inline Grid tokenGrid(int64_t rows) {
  return Grid{1, plan::Outer::One, plan::Inner::Tokens, rows};
}
/// Visits this workgroup's tokens of a tokenGrid(rows).
void forTokens(KernelBuilder &k, int64_t rows,
               function_ref<void(Value token)> body);

/// Visits the vectors of a row of n elements with four sets of accumulators in
/// turn, so that their latency is hidden, and returns the sets.
SmallVector<SmallVector<Value>>
accumulateRow(KernelBuilder &k, int64_t n, Type element, ValueRange initial,
              function_ref<void(Value index, Value mask,
                                MutableArrayRef<Value> accumulators)>
                  body);
/// `count` sums over a row of n elements; body adds the terms of one vector.
/// Scalars.
SmallVector<Value>
sumRow(KernelBuilder &k, int64_t n, Type element, unsigned count,
       function_ref<void(Value index, Value mask, MutableArrayRef<Value> sums)>
           body);
/// The vector with `fill` in the masked lanes.
Value fillMasked(KernelBuilder &k, Value vector, Value mask, Value fill);
/// 1 / sqrt(sum / n + eps), of a scalar sum.
Value inverseRoot(KernelBuilder &k, Value sum, int64_t n, double eps);

/// Rows of partial sums over tokens: one row of `width` a workgroup of
/// tokenGrid(rows), for tokens of the type [B, L, ...].
RankedTensorType partialRowsType(RankedTensorType tokens, int64_t rows,
                                 int64_t width);
/// Sets this workgroup's row of a partial sum to 0.
void clearPartialRow(KernelBuilder &k, Value partial);
/// partial[workgroup, column...] += term.
void addToPartialRow(KernelBuilder &k, Value partial, Value column, Value term,
                     Value mask);

/// Elements of a flat tensor a workgroup handles.
inline constexpr int64_t kElementsPerWorkgroup = 16384;
inline int64_t flatWorkgroups(int64_t n) {
  return (n + kElementsPerWorkgroup - 1) / kElementsPerWorkgroup;
}
inline Grid flatGrid(int64_t n) {
  return Grid{flatWorkgroups(n), plan::Outer::One, plan::Inner::One, 1};
}
/// Visits the vectors of this workgroup's elements of a flat tensor of n, with
/// carried values.
SmallVector<Value>
forElements(KernelBuilder &k, int64_t n, Type element, ValueRange carried,
            function_ref<SmallVector<Value>(Value index, Value mask,
                                            ValueRange carried)>
                body);
void forElements(KernelBuilder &k, int64_t n, Type element,
                 function_ref<void(Value index, Value mask)> body);

/// The second file of populateRowLowering.
void populateElementwiseLowering(RewritePatternSet &patterns,
                                 const LoweringOptions &options);

} // namespace mlir::megalodon
