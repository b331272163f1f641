// The embedding and the affine map, each with its gradients.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

/// The first id of the part of the vocabulary that a rank holds.
static int64_t firstId(const Tensor *rank, int64_t rows) {
  return rank ? rank->integer(0) * rows : 0;
}

static void evaluateEmbedding(EmbeddingOp op, Execution &e) {
  const Tensor &tokens = e[op.getTokens()], &weight = e[op.getWeight()];
  Tensor &y = e(op.getResult());
  const double scale = op.getScale().convertToDouble();
  const int64_t rows = weight.size(0), D = weight.size(1);
  const int64_t first = firstId(e.find(op.getRank()), rows);
  for (int64_t t = 0; t < tokens.elements(); ++t) {
    int64_t row = tokens.integer(t) - first;
    for (int64_t d = 0; d < D && row >= 0 && row < rows; ++d)
      y[t * D + d] = scale * weight(row, d);
  }
}

static void evaluateEmbeddingGrad(EmbeddingGradOp op, Execution &e) {
  const Tensor &tokens = e[op.getTokens()], &dy = e[op.getDy()];
  Tensor &dweight = e(op.getDweight());
  const double scale = op.getScale().convertToDouble();
  const int64_t rows = dweight.size(0), D = dweight.size(1);
  const int64_t first = firstId(e.find(op.getRank()), rows);
  for (int64_t t = 0; t < tokens.elements(); ++t) {
    int64_t row = tokens.integer(t) - first;
    for (int64_t d = 0; d < D && row >= 0 && row < rows; ++d)
      dweight(row, d) += scale * dy[t * D + d];
  }
}

static void evaluateLinear(LinearOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &weight = e[op.getWeight()];
  const Tensor *bias = e.find(op.getBias());
  Tensor &y = e(op.getResult());
  const int64_t M = weight.size(0), K = weight.size(1);
  for (int64_t t = 0; t < x.rows(); ++t)
    for (int64_t m = 0; m < M; ++m) {
      double sum = bias ? (*bias)[m] : 0.0;
      for (int64_t k = 0; k < K; ++k)
        sum += x[t * K + k] * weight[m * K + k];
      y[t * M + m] = sum;
    }
}

static void evaluateLinearGradInput(LinearGradInputOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &weight = e[op.getWeight()];
  Tensor &dx = e(op.getDx());
  const int64_t M = weight.size(0), K = weight.size(1);
  for (int64_t t = 0; t < dy.rows(); ++t)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t k = 0; k < K; ++k)
        dx[t * K + k] += dy[t * M + m] * weight[m * K + k];
}

static void evaluateLinearGradWeight(LinearGradWeightOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()];
  Tensor &dweight = e(op.getDweight());
  const int64_t M = dweight.size(0), K = dweight.size(1);
  for (int64_t t = 0; t < dy.rows(); ++t)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t k = 0; k < K; ++k)
        dweight[m * K + k] += dy[t * M + m] * x[t * K + k];
}

static void evaluateLinearGradBias(LinearGradBiasOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()];
  Tensor &dbias = e(op.getDbias());
  const int64_t M = dbias.size(0);
  for (int64_t i = 0; i < dy.elements(); ++i)
    dbias[i % M] += dy[i];
}

void interpreter::addProducts(Evaluations &evaluations) {
  evaluations.add(evaluateEmbedding);
  evaluations.add(evaluateEmbeddingGrad);
  evaluations.add(evaluateLinear);
  evaluations.add(evaluateLinearGradInput);
  evaluations.add(evaluateLinearGradWeight);
  evaluations.add(evaluateLinearGradBias);
}
