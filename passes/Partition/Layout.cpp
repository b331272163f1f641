#include "passes/Partition/Layout.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::megalodon;

int64_t MeshShape::ranks() const {
  return sizes[0] * sizes[1] * sizes[2] * sizes[3];
}

int64_t MeshShape::product(ArrayRef<Axis> axes) const {
  int64_t product = 1;
  for (Axis axis : axes)
    product *= (*this)[axis];
  return product;
}

std::string MeshShape::text() const {
  std::string text;
  for (auto [number, size] : llvm::enumerate(sizes))
    text += (Twine(number ? "," : "") +
             stringifyAxis(static_cast<Axis>(number)) + "=" + Twine(size))
                .str();
  return text;
}

llvm::Expected<MeshShape> MeshShape::parse(StringRef text) {
  constexpr int64_t kMostRanks = 1 << 20;
  MeshShape mesh;
  SmallVector<StringRef> items;
  text.split(items, ',', -1, /*KeepEmpty=*/false);
  uint32_t seen = 0;
  for (StringRef item : items) {
    auto [name, size] = item.split('=');
    std::optional<Axis> axis = symbolizeAxis(name);
    int64_t ranks = 0;
    if (!axis || size.getAsInteger(10, ranks) || ranks < 1 ||
        ranks > kMostRanks)
      return llvm::createStringError(
          "expected dp, pp, cp and tp, each with its number of ranks as in "
          "dp=2,tp=4, got '" +
          item + "'");
    uint32_t bit = 1u << static_cast<uint32_t>(*axis);
    if (seen & bit)
      return llvm::createStringError("expected " + name +
                                     " once, got it twice");
    seen |= bit;
    mesh[*axis] = ranks;
  }
  if (mesh.sizes[0] * mesh.sizes[1] > kMostRanks ||
      mesh.sizes[2] * mesh.sizes[3] > kMostRanks || mesh.ranks() > kMostRanks)
    return llvm::createStringError("expected at most " + Twine(kMostRanks) +
                                   " ranks, got '" + text + "'");
  return mesh;
}

Layout Layout::of(LayoutAttr attribute) {
  Layout layout;
  auto list = [](DenseI32ArrayAttr numbers) {
    return Axes(llvm::map_range(numbers.asArrayRef(), [](int32_t number) {
      return static_cast<Axis>(number);
    }));
  };
  for (DenseI32ArrayAttr axes : attribute.getDimensions())
    layout.dimensions.push_back(list(axes));
  layout.sum = list(attribute.getSum());
  return layout;
}

LayoutAttr Layout::attribute(MLIRContext *context) const {
  auto list = [&](ArrayRef<Axis> axes) {
    return DenseI32ArrayAttr::get(context,
                                  llvm::map_to_vector(axes, [](Axis axis) {
                                    return static_cast<int32_t>(axis);
                                  }));
  };
  SmallVector<DenseI32ArrayAttr> all;
  for (const Axes &axes : dimensions)
    all.push_back(list(axes));
  return LayoutAttr::get(context, all, list(sum));
}

RankedTensorType Layout::localType(RankedTensorType type,
                                   const MeshShape &mesh) const {
  SmallVector<int64_t> shape(type.getShape());
  for (auto [extent, axes] : llvm::zip_equal(shape, dimensions))
    extent = llvm::divideCeil(extent, mesh.product(axes));
  return RankedTensorType::get(shape, type.getElementType());
}

MeshShape mlir::megalodon::getMesh(ModuleOp module) {
  MeshShape mesh;
  if (auto grid = module.lookupSymbol<shard::GridOp>(kMeshSymbol))
    for (auto [size, extent] : llvm::zip_equal(mesh.sizes, grid.getShape()))
      size = extent;
  return mesh;
}
