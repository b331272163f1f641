// Layouts as plain values, and the mesh they refer to.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/Support/Error.h"
#include <array>

namespace mlir::megalodon {

using Axes = SmallVector<Axis, 1>;

/// Number of ranks along each axis, in the order of Axis.
struct MeshShape {
  std::array<int64_t, 4> sizes = {1, 1, 1, 1};

  int64_t operator[](Axis axis) const {
    return sizes[static_cast<size_t>(axis)];
  }
  int64_t &operator[](Axis axis) { return sizes[static_cast<size_t>(axis)]; }
  int64_t ranks() const;
  int64_t product(ArrayRef<Axis> axes) const;
  /// `dp=2,pp=1,cp=1,tp=4`.
  std::string text() const;
  /// Reads that form; axes left out have one rank.
  static llvm::Expected<MeshShape> parse(StringRef text);
};

/// How a tensor is spread: the axes that split each dimension, major first, and
/// the axes over which its values are partial sums.
struct Layout {
  SmallVector<Axes> dimensions;
  Axes sum;

  /// Every rank holds the whole tensor.
  static Layout whole(int64_t rank) {
    return {SmallVector<Axes>(static_cast<size_t>(rank)), {}};
  }
  static Layout of(LayoutAttr attribute);
  /// The layout of a tensor that has one.
  static Layout of(Value value) {
    return of(cast<LayoutAttr>(
        cast<RankedTensorType>(value.getType()).getEncoding()));
  }
  LayoutAttr attribute(MLIRContext *context) const;
  /// `type` in this layout.
  RankedTensorType on(RankedTensorType type) const {
    return type.cloneWithEncoding(attribute(type.getContext()));
  }
  /// What one rank holds of `type`.
  RankedTensorType localType(RankedTensorType type,
                             const MeshShape &mesh) const;
  bool operator==(const Layout &other) const {
    return dimensions == other.dimensions && sum == other.sum;
  }
  bool operator!=(const Layout &other) const { return !(*this == other); }
};

/// The module's mesh: the shape of `shard.grid @mesh`, one rank without it.
MeshShape getMesh(ModuleOp module);

} // namespace mlir::megalodon
