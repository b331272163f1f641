// What stands between layout assignment and partition.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

/// Tensors are whole there, so a change of layout changes nothing.
static void evaluateReshard(ReshardOp op, Execution &e) {
  e(op.getResult()) = e[op.getInput()];
}

void interpreter::addLayouts(Evaluations &evaluations) {
  evaluations.add(evaluateReshard);
}
