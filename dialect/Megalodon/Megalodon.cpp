// Registration of the megalodon dialect and the generated definitions.
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::megalodon;

#include "dialect/Megalodon/MegalodonDialect.cpp.inc"
#include "dialect/Megalodon/MegalodonEnums.cpp.inc"
#include "dialect/Megalodon/MegalodonInterfaces.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dialect/Megalodon/MegalodonAttributes.cpp.inc"

void MegalodonDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialect/Megalodon/MegalodonAttributes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialect/Megalodon/MegalodonOps.cpp.inc"
      >();
}

Operation *MegalodonDialect::materializeConstant(OpBuilder &builder,
                                                 Attribute value, Type type,
                                                 Location loc) {
  return arith::ConstantOp::materialize(builder, value, type, loc);
}

#define GET_OP_CLASSES
#include "dialect/Megalodon/MegalodonOps.cpp.inc"
