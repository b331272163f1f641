// The table of all evaluation functions, and rounding at random.
#include "dialect/Interpreter/Evaluation.h"
#include "dialect/Interpreter/Mega.h"

using namespace mlir;
using namespace mlir::megalodon::interpreter;

Evaluations::Evaluations() {
  addElementwise(*this);
  addProducts(*this);
  addNorms(*this);
  addTimestepNorm(*this);
  addCema(*this);
  addAttention(*this);
  addMega(*this);
  addLoss(*this);
  addOptimizer(*this);
  addLayouts(*this);
}

const Evaluations &Evaluations::get() {
  static const Evaluations all;
  return all;
}

bool Evaluations::evaluate(Operation *op, Execution &execution) const {
  auto found = table.find(op->getName().getStringRef());
  if (found == table.end())
    return false;
  found->second(op, execution);
  execution.roundResults();
  return true;
}

//===-- Rounding at random ------------------------------------------------===//

double RandomRounding::operator()(double value, double magnitude, Type type) {
  auto real = dyn_cast<FloatType>(getElementTypeOrSelf(type));
  if (!real || !std::isfinite(value))
    return value;
  const double unit = std::ldexp(1.0, -int(real.getFPMantissaWidth()));
  return value +
         magnitude * unit * std::uniform_real_distribution(-1.0, 1.0)(random);
}

double Execution::rounded(double value, double magnitude) const {
  if (!options.rounding)
    return value;
  return (*options.rounding)(value, magnitude, op->getResult(0).getType());
}

void Execution::roundResults() const {
  if (!options.rounding)
    return;
  for (auto [tensor, type] : llvm::zip_equal(results, op->getResultTypes()))
    if (tensor.isReal())
      for (int64_t i = 0; i < tensor.elements(); ++i)
        tensor[i] = (*options.rounding)(tensor[i], tensor[i], type);
}
