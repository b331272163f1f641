// The cross entropy, of whole and of split vocabularies, and its sums.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static constexpr int64_t kIgnoredTarget = -100;

/// log sum exp of `number` elements from `first` on; of none the lowest finite
/// number of the type.
static double logSumExp(const Tensor &x, int64_t first, int64_t number,
                        int64_t stride, double lowest) {
  double largest = lowest, sum = 0;
  for (int64_t i = 0; i < number; ++i)
    largest = std::max(largest, x[first + i * stride]);
  for (int64_t i = 0; i < number; ++i)
    sum += std::exp(x[first + i * stride] - largest);
  return number > 0 ? largest + std::log(sum) : lowest;
}

static double lowestOf(Value value) {
  return getElementTypeOrSelf(value.getType()).isF64()
             ? std::numeric_limits<double>::lowest()
             : std::numeric_limits<float>::lowest();
}

static void evaluateCrossEntropy(CrossEntropyOp op, Execution &e) {
  const Tensor &logits = e[op.getLogits()], &targets = e[op.getTargets()];
  Tensor &nll = e(op.getNll()), &lse = e(op.getLse());
  const int64_t O = logits.size(2);
  for (int64_t t = 0; t < targets.elements(); ++t) {
    lse[t] = logSumExp(logits, t * O, O, 1, lowestOf(op.getLogits()));
    if (targets.integer(t) != kIgnoredTarget)
      nll[t] = e.rounded(lse[t]) - logits[t * O + targets.integer(t)];
  }
}

static void evaluateCrossEntropyGrad(CrossEntropyGradOp op, Execution &e) {
  const Tensor &dnll = e[op.getDnll()], &logits = e[op.getLogits()],
               &targets = e[op.getTargets()], &lse = e[op.getLse()];
  const Tensor *rank = e.find(op.getRank());
  Tensor &dlogits = e(op.getDlogits());
  const int64_t O = logits.size(2), first = rank ? rank->integer(0) * O : 0,
                vocabulary = op.getVocabulary().value_or(O);
  for (int64_t t = 0; t < targets.elements(); ++t) {
    if (targets.integer(t) == kIgnoredTarget)
      continue;
    for (int64_t o = 0; o < O && first + o < vocabulary; ++o)
      dlogits[t * O + o] =
          dnll[t] * (e.rounded(std::exp(logits[t * O + o] - lse[t])) -
                     (first + o == targets.integer(t) ? 1.0 : 0.0));
  }
}

static void evaluateSummary(CrossEntropySummaryOp op, Execution &e) {
  const Tensor &logits = e[op.getLogits()], &targets = e[op.getTargets()];
  Tensor &summary = e(op.getSummary());
  const int64_t O = logits.size(2), first = e[op.getRank()].integer(0) * O,
                vocabulary = op.getVocabulary();
  const int64_t own = std::clamp<int64_t>(vocabulary - first, 0, O);
  for (int64_t t = 0; t < targets.elements(); ++t) {
    summary[2 * t] = logSumExp(logits, t * O, own, 1, lowestOf(op.getLogits()));
    const int64_t column = targets.integer(t) - first;
    if (column >= 0 && column < own)
      summary[2 * t + 1] = logits[t * O + column];
  }
}

static void evaluateCombine(CrossEntropyCombineOp op, Execution &e) {
  const Tensor &summaries = e[op.getSummaries()], &targets = e[op.getTargets()];
  Tensor &nll = e(op.getNll()), &lse = e(op.getLse());
  const int64_t width = summaries.size(2), ranks = width / 2;
  for (int64_t t = 0; t < targets.elements(); ++t) {
    lse[t] =
        logSumExp(summaries, t * width, ranks, 2, lowestOf(op.getSummaries()));
    if (targets.integer(t) == kIgnoredTarget)
      continue;
    nll[t] = e.rounded(lse[t]);
    for (int64_t r = 0; r < ranks; ++r)
      nll[t] -= summaries[t * width + 2 * r + 1];
  }
}

static void evaluateMean(MeanOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  double sum = 0;
  for (int64_t i = 0; i < x.elements(); ++i)
    sum += x[i];
  e(op.getResult())[0] = sum / double(op.getParts() * x.elements());
}

static void evaluateMeanGrad(MeanGradOp op, Execution &e) {
  Tensor &dx = e(op.getDx());
  for (int64_t i = 0; i < dx.elements(); ++i)
    dx[i] = e[op.getDy()][0] / double(op.getParts() * dx.elements());
}

static void evaluateLossSum(LossSumOp op, Execution &e) {
  const Tensor &nll = e[op.getNll()], &targets = e[op.getTargets()];
  for (int64_t t = 0; t < targets.elements(); ++t) {
    e(op.getSum())[0] += nll[t];
    e(op.getCount()).integer(0) += targets.integer(t) != kIgnoredTarget;
  }
}

void interpreter::addLoss(Evaluations &evaluations) {
  evaluations.add(evaluateCrossEntropy);
  evaluations.add(evaluateCrossEntropyGrad);
  evaluations.add(evaluateSummary);
  evaluations.add(evaluateCombine);
  evaluations.add(evaluateMean);
  evaluations.add(evaluateMeanGrad);
  evaluations.add(evaluateLossSum);
}
