// A fault that tests put into kernels.
#include "tools/megalodon-opt/NegateKernel.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

bool mlir::megalodon::negateKernel(ModuleOp module, StringRef name) {
  bool found = false;
  module.walk([&](Operation *op) {
    OpOperand *stored =
        llvm::TypeSwitch<Operation *, OpOperand *>(op)
            .Case(
                [](vector::StoreOp op) { return &op.getValueToStoreMutable(); })
            .Case([](vector::MaskedStoreOp op) {
              return &op.getValueToStoreMutable();
            })
            .Case([](memref::StoreOp op) { return &op.getValueMutable(); })
            .Default(nullptr);
    auto kernel = op->getParentOfType<func::FuncOp>();
    if (!stored || !kernel || kernel.getName() != name ||
        !isa<FloatType>(getElementTypeOrSelf(stored->get().getType())))
      return;
    OpBuilder b(op);
    stored->set(arith::NegFOp::create(b, op->getLoc(), stored->get()));
    found = true;
  });
  return found;
}
