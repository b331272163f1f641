// What the verifiers of the megalodon dialect are written in: the constraints
// are numbered as in the op's description. Ranks and kinds of elements are
// checked by the operand types; shapes of results are written once, in
// Inference.cpp, and compared here. A file of verifiers a file of ops.
#pragma once
#include "dialect/Megalodon/Mega.h"

namespace mlir::megalodon::verifiers {

inline ArrayRef<int64_t> shapeOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape();
}

inline Type elementOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getElementType();
}

/// The type in which the elements are computed: F, of a value of type A or F.
inline Type computeTypeOf(Value value) { return computeType(elementOf(value)); }

/// A chain of checks of one op. The first that fails reports; later ones are
/// skipped. Absent optional values pass.
class Check {
public:
  explicit Check(Operation *op) : op(op) {}

  Check &shape(StringRef name, Value value, ArrayRef<int64_t> expected) {
    if (passed && value && shapeOf(value) != expected)
      report(name) << "expected [" << expected << "], got [" << shapeOf(value)
                   << "]";
    return *this;
  }

  Check &element(StringRef name, Value value, Type expected) {
    if (passed && value && elementOf(value) != expected)
      report(name) << "expected elements of " << expected << ", got "
                   << elementOf(value);
    return *this;
  }

  /// Elements of type A or F, F being `expected`.
  Check &activation(StringRef name, Value value, Type expected) {
    if (passed && value && computeTypeOf(value) != expected)
      report(name) << "expected elements of " << expected
                   << (expected.isF32() ? " or bf16" : "") << ", got "
                   << elementOf(value);
    return *this;
  }

  Check &type(StringRef name, Value value, Value like) {
    return shape(name, value, shapeOf(like))
        .element(name, value, elementOf(like));
  }

  Check &positive(StringRef name, int64_t value) {
    if (passed && value <= 0)
      report(name) << "expected a positive number, got " << value;
    return *this;
  }

  Check &positive(StringRef name, const APFloat &value) {
    if (passed && !(value.convertToDouble() > 0))
      report(name) << "expected a positive number, got "
                   << value.convertToDouble();
    return *this;
  }

  /// `divisor`, named `name`, divides `extent`.
  Check &divides(StringRef name, int64_t divisor, StringRef extentName,
                 int64_t extent) {
    if (passed && (divisor <= 0 || extent % divisor != 0))
      report(name) << "expected a divisor of " << extentName << " " << extent
                   << ", got " << divisor;
    return *this;
  }

  /// A condition of its own words.
  Check &that(bool holds, StringRef name, const Twine &expected,
              const Twine &got) {
    if (passed && !holds)
      report(name) << "expected " << expected << ", got " << got;
    return *this;
  }

  /// The results are those that follow from the operands; with `rounding` their
  /// elements may be of either type A or F.
  template <typename OpT>
  LogicalResult results(OpT typedOp, ArrayRef<StringRef> names,
                        bool rounding = false) {
    if (!passed)
      return failure();
    SmallVector<Type> inferred;
    if (failed(OpT::inferReturnTypes(op->getContext(), op->getLoc(),
                                     typename OpT::Adaptor(typedOp), inferred)))
      return failure();
    if (inferred.size() != op->getNumResults())
      return op->emitOpError() << "expected " << inferred.size()
                               << " results, got " << op->getNumResults();
    for (auto [name, type, result] :
         llvm::zip(names, inferred, op->getResults())) {
      shape(name, result, cast<RankedTensorType>(type).getShape());
      Type expected = cast<RankedTensorType>(type).getElementType();
      if (rounding)
        activation(name, result, computeType(expected));
      else
        element(name, result, expected);
    }
    return *this;
  }

  bool ok() const { return passed; }
  operator LogicalResult() const { return success(passed); }

private:
  InFlightDiagnostic report(StringRef name) {
    passed = false;
    return op->emitOpError() << name << ": ";
  }

  Operation *op;
  bool passed = true;
};

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

//===-- What ops and their gradients ask alike ----------------------------===//

/// Of the logits of cema_coefficients.
void checkLogits(Check &check, Value alpha, Value delta, Value theta,
                 int64_t channels, int64_t states);

/// A plain gain has nothing to be where there is no weight.
void checkPlain(Check &check, bool plain, Value weight);

/// Of chunk_attention's q, k, v and caches. Keys and values have as many heads
/// as k's width holds, which `heads` is a multiple of.
void checkAttention(Check &check, Value q, Value k, Value v, Value cacheK,
                    Value cacheV, Value count, Value positions, int64_t heads);

} // namespace mlir::megalodon::verifiers
