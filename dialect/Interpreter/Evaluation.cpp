// The table of all evaluation functions.
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
  return true;
}
