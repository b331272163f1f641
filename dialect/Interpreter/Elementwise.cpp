// Activations, gates, sums and residuals, each with its gradient.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static void evaluateSilu(SiluOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &y = e(op.getResult());
  for (int64_t i = 0; i < x.elements(); ++i)
    y[i] = x[i] * sigmoid(x[i]);
}

static void evaluateSiluGrad(SiluGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()];
  Tensor &dx = e(op.getDx());
  for (int64_t i = 0; i < x.elements(); ++i) {
    double s = sigmoid(x[i]);
    dx[i] = dy[i] * s * (1 + x[i] * (1 - s));
  }
}

static void evaluateGate(GateOp op, Execution &e) {
  const Tensor &value = e[op.getValue()], &gate = e[op.getGate()];
  Tensor &y = e(op.getResult());
  for (int64_t i = 0; i < value.elements(); ++i)
    y[i] = value[i] * gate[i] * sigmoid(gate[i]);
}

static void evaluateGateGrad(GateGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &value = e[op.getValue()],
               &gate = e[op.getGate()];
  Tensor &dvalue = e(op.getDvalue()), &dgate = e(op.getDgate());
  for (int64_t i = 0; i < value.elements(); ++i) {
    double s = sigmoid(gate[i]);
    dvalue[i] = dy[i] * gate[i] * s;
    dgate[i] = dy[i] * value[i] * s * (1 + gate[i] * (1 - s));
  }
}

static void evaluateAdd(AddOp op, Execution &e) {
  Tensor &y = e(op.getResult());
  for (const TensorRef &x : e.all())
    for (int64_t i = 0; i < y.elements(); ++i)
      y[i] += (*x)[i];
}

static void evaluateTwoHopResidual(TwoHopResidualOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &branch = e[op.getBranch()];
  const Tensor *alpha = e.find(op.getAlpha());
  Tensor &y = e(op.getResult());
  const int64_t D = x.shape().back();
  for (int64_t i = 0; i < x.elements(); ++i)
    y[i] = x[i] + (alpha ? (*alpha)[i % D] : 1.0) * branch[i];
}

static void evaluateTwoHopResidualGrad(TwoHopResidualGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &branch = e[op.getBranch()],
               &alpha = e[op.getAlpha()];
  Tensor &dbranch = e(op.getDbranch()), &dalpha = e(op.getDalpha());
  const int64_t D = alpha.size(0);
  for (int64_t i = 0; i < dy.elements(); ++i) {
    dbranch[i] = alpha[i % D] * dy[i];
    dalpha[i % D] += dy[i] * branch[i];
  }
}

static void evaluateLastToken(LastTokenOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &y = e(op.getResult());
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t d = 0; d < x.size(2); ++d)
      y(b, d) = x(b, x.size(1) - 1, d);
}

void interpreter::addElementwise(Evaluations &evaluations) {
  evaluations.add(evaluateSilu);
  evaluations.add(evaluateSiluGrad);
  evaluations.add(evaluateGate);
  evaluations.add(evaluateGateGrad);
  evaluations.add(evaluateAdd);
  evaluations.add(evaluateTwoHopResidual);
  evaluations.add(evaluateTwoHopResidualGrad);
  evaluations.add(evaluateLastToken);
}
