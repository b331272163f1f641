// Norms over rows and heads, each with its gradient and, of slices of rows, the
// sums that ranks exchange.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

/// The gain of a channel: weights are stored as what exceeds 1, or, plain, as
/// they are.
static double gain(const Tensor *weight, int64_t channel, bool plain = false) {
  return weight ? (plain ? 0 : 1) + (*weight)[channel] : 1.0;
}

/// Sums over the channels of one row of x and u = dy (1 + weight).
namespace {
struct RowSums {
  double x = 0, xx = 0, u = 0, ux = 0;
};
} // namespace

static RowSums sumRow(const Tensor &x, const Tensor *dy, const Tensor *weight,
                      int64_t row, bool plain = false) {
  RowSums sums;
  const int64_t D = x.shape().back();
  for (int64_t d = 0; d < D; ++d) {
    double xd = x[row * D + d];
    double u = dy ? (*dy)[row * D + d] * gain(weight, d, plain) : 0.0;
    sums.x += xd;
    sums.xx += xd * xd;
    sums.u += u;
    sums.ux += u * xd;
  }
  return sums;
}

static void evaluateRmsNorm(RmsNormOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  const Tensor *weight = e.find(op.getWeight());
  Tensor &y = e(op.getResult());
  const double eps = op.getEps().convertToDouble();
  const int64_t D = x.shape().back();
  for (int64_t row = 0; row < x.rows(); ++row) {
    double r = 1 / std::sqrt(sumRow(x, nullptr, nullptr, row).xx / D + eps);
    for (int64_t d = 0; d < D; ++d)
      y[row * D + d] = x[row * D + d] * r * gain(weight, d, op.getPlain());
  }
}

static void evaluateRmsNormGradSums(RmsNormGradSumsOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &sums = e(op.getSums());
  for (int64_t row = 0; row < x.rows(); ++row) {
    RowSums s =
        sumRow(x, &e[op.getDy()], e.find(op.getWeight()), row, op.getPlain());
    sums[2 * row] = s.xx;
    sums[2 * row + 1] = s.ux;
  }
}

static void evaluateRmsNormGrad(RmsNormGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()];
  const Tensor *weight = e.find(op.getWeight()), *given = e.find(op.getSums());
  Tensor &dx = e(op.getDx()), *dweight = e.result(op.getDweight());
  const double eps = op.getEps().convertToDouble();
  const int64_t D = x.shape().back(), width = op.getWidth().value_or(D);
  for (int64_t row = 0; row < x.rows(); ++row) {
    RowSums sums = sumRow(x, &dy, weight, row, op.getPlain());
    if (given) {
      sums.xx = (*given)[2 * row];
      sums.ux = (*given)[2 * row + 1];
    }
    double r = 1 / std::sqrt(sums.xx / width + eps), mean = sums.ux / width;
    for (int64_t d = 0; d < D; ++d) {
      int64_t i = row * D + d;
      dx[i] =
          r * dy[i] * gain(weight, d, op.getPlain()) - r * r * r * x[i] * mean;
      if (dweight)
        (*dweight)[d] += dy[i] * x[i] * r;
    }
  }
}

static void evaluateLayerNorm(LayerNormOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  const Tensor *weight = e.find(op.getWeight()), *bias = e.find(op.getBias());
  Tensor &y = e(op.getResult());
  const double eps = op.getEps().convertToDouble();
  const int64_t D = x.shape().back();
  for (int64_t row = 0; row < x.rows(); ++row) {
    double mean = sumRow(x, nullptr, nullptr, row).x / D, var = 0;
    for (int64_t d = 0; d < D; ++d)
      var += (x[row * D + d] - mean) * (x[row * D + d] - mean) / D;
    for (int64_t d = 0; d < D; ++d)
      y[row * D + d] =
          (x[row * D + d] - mean) / std::sqrt(var + eps) * gain(weight, d) +
          (bias ? (*bias)[d] : 0.0);
  }
}

static void evaluateLayerNormGradSums(LayerNormGradSumsOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &sums = e(op.getSums());
  for (int64_t row = 0; row < x.rows(); ++row) {
    RowSums s = sumRow(x, &e[op.getDy()], e.find(op.getWeight()), row);
    sums[4 * row] = s.x;
    sums[4 * row + 1] = s.xx;
    sums[4 * row + 2] = s.u;
    sums[4 * row + 3] = s.ux;
  }
}

static void evaluateLayerNormGrad(LayerNormGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()];
  const Tensor *weight = e.find(op.getWeight()), *given = e.find(op.getSums());
  Tensor &dx = e(op.getDx()), *dweight = e.result(op.getDweight()),
         *dbias = e.result(op.getDbias());
  const double eps = op.getEps().convertToDouble();
  const int64_t D = x.shape().back(), width = op.getWidth().value_or(D);
  for (int64_t row = 0; row < x.rows(); ++row) {
    RowSums sums = sumRow(x, &dy, weight, row);
    if (given)
      sums = {(*given)[4 * row], (*given)[4 * row + 1], (*given)[4 * row + 2],
              (*given)[4 * row + 3]};
    double mean = sums.x / width, var = sums.xx / width - mean * mean;
    if (!given) {
      var = 0;
      for (int64_t d = 0; d < D; ++d)
        var += (x[row * D + d] - mean) * (x[row * D + d] - mean) / D;
    }
    double r = 1 / std::sqrt(var + eps);
    double meanU = sums.u / width,
           meanUn = r * (sums.ux - mean * sums.u) / width;
    for (int64_t d = 0; d < D; ++d) {
      int64_t i = row * D + d;
      double n = (x[i] - mean) * r;
      dx[i] = r * (dy[i] * gain(weight, d) - meanU - n * meanUn);
      if (dweight)
        (*dweight)[d] += dy[i] * n;
      if (dbias)
        (*dbias)[d] += dy[i];
    }
  }
}

/// 1 / sqrt(mean(z^2) + eps) over the columns of a head that begin at `first`.
static double headRms(const Tensor &z, int64_t first, int64_t width,
                      double eps) {
  double squares = 0;
  for (int64_t j = 0; j < width; ++j)
    squares += z[first + j] * z[first + j];
  return 1 / std::sqrt(squares / width + eps);
}

static void evaluateNormalizedQK(NormalizedQKOp op, Execution &e) {
  const Tensor &z = e[op.getZ()], &gamma = e[op.getGamma()],
               &beta = e[op.getBeta()];
  Tensor *results[] = {&e(op.getQ()), &e(op.getK())};
  const double eps = op.getEps().convertToDouble();
  const int64_t Z = z.shape().back(), dz = Z / op.getHeads();
  for (int64_t first = 0; first < z.elements(); first += dz) {
    double r = headRms(z, first, dz, eps);
    for (int64_t i = first; i < first + dz; ++i)
      for (int64_t which : {0, 1})
        (*results[which])[i] =
            z[i] * r * (1 + gamma(which, i % Z)) / std::sqrt(double(dz)) +
            beta(which, i % Z);
  }
}

static void evaluateNormalizedQKGrad(NormalizedQKGradOp op, Execution &e) {
  const Tensor &z = e[op.getZ()], &gamma = e[op.getGamma()];
  const Tensor *cotangents[] = {&e[op.getDq()], &e[op.getDk()]};
  Tensor &dz = e(op.getDz()), &dgamma = e(op.getDgamma()),
         &dbeta = e(op.getDbeta());
  const double eps = op.getEps().convertToDouble();
  const int64_t Z = z.shape().back(), width = Z / op.getHeads();
  const double root = std::sqrt(double(width));
  for (int64_t first = 0; first < z.elements(); first += width) {
    double r = headRms(z, first, width, eps), mean = 0;
    std::vector<double> u(width);
    for (int64_t j = 0; j < width; ++j) {
      int64_t i = first + j, column = i % Z;
      for (int64_t which : {0, 1}) {
        double cotangent = (*cotangents[which])[i];
        u[j] += cotangent * (1 + gamma(which, column)) / root;
        dgamma(which, column) += cotangent * z[i] * r / root;
        dbeta(which, column) += cotangent;
      }
      mean += u[j] * z[i] / width;
    }
    for (int64_t j = 0; j < width; ++j)
      dz[first + j] = r * u[j] - r * r * r * z[first + j] * mean;
  }
}

void interpreter::addNorms(Evaluations &evaluations) {
  evaluations.add(evaluateRmsNorm);
  evaluations.add(evaluateRmsNormGrad);
  evaluations.add(evaluateRmsNormGradSums);
  evaluations.add(evaluateLayerNorm);
  evaluations.add(evaluateLayerNormGrad);
  evaluations.add(evaluateLayerNormGradSums);
  evaluations.add(evaluateNormalizedQK);
  evaluations.add(evaluateNormalizedQKGrad);
}
