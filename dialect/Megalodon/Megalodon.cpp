// Registration of the megalodon dialect and the generated definitions.
#include "dialect/Megalodon/Mega.h"
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
      ,
#define GET_OP_LIST
#include "dialect/Megalodon/MegaOps.cpp.inc"
      >();
}

Operation *MegalodonDialect::materializeConstant(OpBuilder &builder,
                                                 Attribute value, Type type,
                                                 Location loc) {
  return arith::ConstantOp::materialize(builder, value, type, loc);
}

//===-- Layouts -----------------------------------------------------------===//

static ParseResult parseAxis(AsmParser &parser,
                             SmallVectorImpl<int32_t> &axes) {
  StringRef name;
  SMLoc place = parser.getCurrentLocation();
  if (parser.parseKeyword(&name))
    return failure();
  std::optional<Axis> axis = symbolizeAxis(name);
  if (!axis)
    return parser.emitError(place, "expected dp, pp, cp or tp, got '")
           << name << "'";
  axes.push_back(static_cast<int32_t>(*axis));
  return success();
}

Attribute LayoutAttr::parse(AsmParser &parser, Type) {
  MLIRContext *context = parser.getContext();
  SmallVector<DenseI32ArrayAttr> dimensions;
  SmallVector<int32_t> sum;
  auto parseDimension = [&]() -> ParseResult {
    SmallVector<int32_t> axes;
    if (failed(parser.parseOptionalKeyword("_")))
      do {
        if (parseAxis(parser, axes))
          return failure();
      } while (succeeded(parser.parseOptionalPlus()));
    dimensions.push_back(DenseI32ArrayAttr::get(context, axes));
    return success();
  };
  if (parser.parseLess() || parser.parseCommaSeparatedList(
                                AsmParser::Delimiter::Square, parseDimension))
    return {};
  if (succeeded(parser.parseOptionalKeyword("sum")) &&
      parser.parseCommaSeparatedList(AsmParser::Delimiter::Square,
                                     [&] { return parseAxis(parser, sum); }))
    return {};
  if (parser.parseGreater())
    return {};
  return parser.getChecked<LayoutAttr>(context, dimensions,
                                       DenseI32ArrayAttr::get(context, sum));
}

void LayoutAttr::print(AsmPrinter &printer) const {
  auto name = [](int32_t axis) {
    return stringifyAxis(static_cast<Axis>(axis));
  };
  printer << "<[";
  llvm::interleaveComma(getDimensions(), printer, [&](DenseI32ArrayAttr axes) {
    if (axes.empty())
      printer << "_";
    llvm::interleave(
        axes.asArrayRef(), printer.getStream(),
        [&](int32_t axis) { printer << name(axis); }, " + ");
  });
  printer << "]";
  if (!getSum().empty()) {
    printer << " sum [";
    llvm::interleaveComma(getSum().asArrayRef(), printer,
                          [&](int32_t axis) { printer << name(axis); });
    printer << "]";
  }
  printer << ">";
}

LogicalResult LayoutAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 ArrayRef<DenseI32ArrayAttr> dimensions,
                                 DenseI32ArrayAttr sum) {
  uint32_t seen = 0;
  auto take = [&](DenseI32ArrayAttr axes) -> LogicalResult {
    for (int32_t axis : axes.asArrayRef()) {
      if (axis < 0 || axis > static_cast<int32_t>(Axis::Tensor))
        return emitError() << "expected an axis from 0 to 3, got " << axis;
      if (seen & (1u << axis))
        return emitError() << "expected every axis once, got "
                           << stringifyAxis(static_cast<Axis>(axis))
                           << " twice";
      seen |= 1u << axis;
    }
    return success();
  };
  for (DenseI32ArrayAttr axes : dimensions)
    if (failed(take(axes)))
      return failure();
  return take(sum);
}

#define GET_OP_CLASSES
#include "dialect/Megalodon/MegalodonOps.cpp.inc"

#define GET_OP_CLASSES
#include "dialect/Megalodon/MegaOps.cpp.inc"
