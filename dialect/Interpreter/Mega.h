// Evaluation functions of the ops that only MEGA has.
#pragma once
#include "dialect/Interpreter/Evaluation.h"

namespace mlir::megalodon::interpreter {
void addMega(Evaluations &evaluations);
} // namespace mlir::megalodon::interpreter
