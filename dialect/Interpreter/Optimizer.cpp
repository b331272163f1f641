// Gradient accumulation, norms, clipping and AdamW.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static void evaluateAccumulate(AccumulateOp op, Execution &e) {
  const Tensor &gradient = e[op.getGradient()], &into = e[op.getInto()];
  Tensor &y = e(op.getResult());
  for (int64_t i = 0; i < y.elements(); ++i)
    y[i] = gradient[i] + (e.options.accumulate ? into[i] : 0.0);
}

static double sumOfSquares(ArrayRef<TensorRef> tensors) {
  double sum = 0;
  for (const TensorRef &tensor : tensors)
    for (int64_t i = 0; i < tensor->elements(); ++i)
      sum += (*tensor)[i] * (*tensor)[i];
  return sum;
}

static void evaluateGlobalNorm(GlobalNormOp op, Execution &e) {
  e(op.getNorm())[0] = std::sqrt(sumOfSquares(e.all()));
}

static void evaluateSumOfSquares(SumOfSquaresOp op, Execution &e) {
  e(op.getSum())[0] = sumOfSquares(e.all());
}

static void evaluateNormOfSquares(NormOfSquaresOp op, Execution &e) {
  double sum = 0;
  for (const TensorRef &part : e.all())
    sum += (*part)[0];
  e(op.getNorm())[0] = std::sqrt(sum);
}

static void evaluateClip(ClipOp op, Execution &e) {
  const double largest = op.getMaxNorm().convertToDouble();
  e(op.getCoefficient())[0] =
      largest > 0 ? std::min(1.0, largest / (e[op.getNorm()][0] + 1e-6)) : 1.0;
}

static void evaluateAdamW(AdamWOp op, Execution &e) {
  const Tensor &parameter = e[op.getParameter()],
               &first = e[op.getFirstMoment()],
               &second = e[op.getSecondMoment()],
               &gradient = e[op.getGradient()];
  Tensor &newParameter = e(op.getNewParameter()),
         &newFirst = e(op.getNewFirstMoment()),
         &newSecond = e(op.getNewSecondMoment());
  const double beta1 = op.getBeta1().convertToDouble(),
               beta2 = op.getBeta2().convertToDouble(),
               epsilon = op.getEpsilon().convertToDouble(),
               decay = op.getWeightDecay().convertToDouble(),
               lr = e[op.getLr()][0], clip = e[op.getClip()][0],
               step = double(e[op.getStep()].integer(0));
  for (int64_t i = 0; i < parameter.elements(); ++i) {
    double g = clip * gradient[i];
    newFirst[i] = beta1 * first[i] + (1 - beta1) * g;
    newSecond[i] = beta2 * second[i] + (1 - beta2) * g * g;
    double mean = newFirst[i] / (1 - std::pow(beta1, step)),
           var = newSecond[i] / (1 - std::pow(beta2, step));
    newParameter[i] = parameter[i] * (1 - lr * decay) -
                      lr * mean / (std::sqrt(var) + epsilon);
  }
}

void interpreter::addOptimizer(Evaluations &evaluations) {
  evaluations.add(evaluateAccumulate);
  evaluations.add(evaluateGlobalNorm);
  evaluations.add(evaluateSumOfSquares);
  evaluations.add(evaluateNormOfSquares);
  evaluations.add(evaluateClip);
  evaluations.add(evaluateAdamW);
}
