// What only MEGA has: coefficients of a damped moving average, queries and keys
// with a relative bias, the update gate, and their gradients.
#include "dialect/Interpreter/Mega.h"
#include "dialect/Megalodon/Mega.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static void evaluateEmaCoefficients(EmaCoefficientsOp op, Execution &e) {
  const Tensor &alpha = e[op.getAlpha()], &delta = e[op.getDelta()],
               &beta = e[op.getBeta()], &gamma = e[op.getGamma()];
  Tensor &p = e(op.getP()), &q = e(op.getQ()), &g = e(op.getG());
  const int64_t D = p.size(0), N = p.size(1);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t n = 0; n < N; ++n) {
      double s = sigmoid(delta(d, n, 0));
      p(d, n) = s * beta(d, n, 0);
      q.set(1 - s * sigmoid(alpha(d, n, 0)), d, n);
      g.set(gamma(d, n) / std::sqrt(double(N)), d, n);
    }
}

static void evaluateEmaCoefficientsGrad(EmaCoefficientsGradOp op,
                                        Execution &e) {
  const Tensor &dp = e[op.getDp()], &dq = e[op.getDq()], &dg = e[op.getDg()];
  const Tensor &alpha = e[op.getAlpha()], &delta = e[op.getDelta()],
               &beta = e[op.getBeta()];
  Tensor &dalpha = e(op.getDalpha()), &ddelta = e(op.getDdelta()),
         &dbeta = e(op.getDbeta()), &dgamma = e(op.getDgamma());
  const int64_t D = dp.size(0), N = dp.size(1);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t n = 0; n < N; ++n) {
      double a = sigmoid(alpha(d, n, 0)), s = sigmoid(delta(d, n, 0)),
             decay = dq.complex(d, n).real();
      dalpha(d, n, 0) = -s * a * (1 - a) * decay;
      ddelta(d, n, 0) = s * (1 - s) * (beta(d, n, 0) * dp(d, n) - a * decay);
      dbeta(d, n, 0) = s * dp(d, n);
      dgamma(d, n) = dg.complex(d, n).real() / std::sqrt(double(N));
    }
}

namespace {
/// Where a token stands in its chunk, and what follows from it.
struct Place {
  double position, scale;

  template <typename OpT>
  Place(OpT op, const Execution &e, int64_t row, int64_t token, int64_t width)
      : position(double(seen(op, e, row, token) % int64_t(op.getChunk()))),
        scale(op.getPerKey() ? 1 / (position + 1)
                             : 1 / std::sqrt(double(width))) {}

  /// Tokens of its document in front of this one.
  template <typename OpT>
  static int64_t seen(OpT op, const Execution &e, int64_t row, int64_t token) {
    if (const Tensor *positions = e.find(op.getPositions()))
      return positions->integer(row, token);
    return e[op.getCount()].integer(row) + token;
  }

  /// The turn of the pair that begins at an even column.
  Complex turn(double base, int64_t column, int64_t width) const {
    return std::polar(1.0, position *
                               std::pow(base, -double(column) / double(width)));
  }
};
} // namespace

static void evaluateMegaQK(MegaQKOp op, Execution &e) {
  const Tensor &z = e[op.getZ()], &gamma = e[op.getGamma()],
               &beta = e[op.getBeta()], &relative = e[op.getRelative()];
  Tensor *results[] = {&e(op.getQ()), &e(op.getK())};
  const double base = op.getBase().convertToDouble();
  const int64_t Z = z.size(2);
  for (int64_t b = 0; b < z.size(0); ++b)
    for (int64_t t = 0; t < z.size(1); ++t) {
      const Place place(op, e, b, t, Z);
      for (int64_t which : {0, 1}) {
        Tensor &y = *results[which];
        const double scale = which == 0 ? place.scale : 1;
        for (int64_t i = 0; i < Z; ++i)
          y(b, t, i) = scale * (z(b, t, i) * gamma(which, i) + beta(which, i));
        for (int64_t i = 0; i < Z; i += 2) {
          Complex turned = place.turn(base, i, Z) *
                           Complex(relative(which, i), relative(which, i + 1));
          y(b, t, Z + i) = turned.real();
          y(b, t, Z + i + 1) = turned.imag();
        }
      }
    }
}

static void evaluateMegaQKGrad(MegaQKGradOp op, Execution &e) {
  const Tensor &z = e[op.getZ()], &gamma = e[op.getGamma()];
  const Tensor *cotangents[] = {&e[op.getDq()], &e[op.getDk()]};
  Tensor &dz = e(op.getDz()), &dgamma = e(op.getDgamma()),
         &dbeta = e(op.getDbeta()), &drelative = e(op.getDrelative());
  const double base = op.getBase().convertToDouble();
  const int64_t Z = z.size(2);
  for (int64_t b = 0; b < z.size(0); ++b)
    for (int64_t t = 0; t < z.size(1); ++t) {
      const Place place(op, e, b, t, Z);
      for (int64_t which : {0, 1}) {
        const Tensor &dy = *cotangents[which];
        for (int64_t i = 0; i < Z; ++i) {
          double u = (which == 0 ? place.scale : 1) * dy(b, t, i);
          dz(b, t, i) += u * gamma(which, i);
          dgamma(which, i) += u * z(b, t, i);
          dbeta(which, i) += u;
        }
        for (int64_t i = 0; i < Z; i += 2) {
          Complex turned = std::conj(place.turn(base, i, Z)) *
                           Complex(dy(b, t, Z + i), dy(b, t, Z + i + 1));
          drelative(which, i) += turned.real();
          drelative(which, i + 1) += turned.imag();
        }
      }
    }
}

static void evaluateUpdateGate(UpdateGateOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &candidate = e[op.getCandidate()],
               &gate = e[op.getGate()];
  Tensor &y = e(op.getResult());
  for (int64_t i = 0; i < x.elements(); ++i)
    y[i] = x[i] + sigmoid(gate[i]) * (candidate[i] - x[i]);
}

static void evaluateUpdateGateGrad(UpdateGateGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()],
               &candidate = e[op.getCandidate()], &gate = e[op.getGate()];
  Tensor &dx = e(op.getDx()), &dcandidate = e(op.getDcandidate()),
         &dgate = e(op.getDgate());
  for (int64_t i = 0; i < x.elements(); ++i) {
    double s = sigmoid(gate[i]);
    dx[i] = dy[i] * (1 - s);
    dcandidate[i] = dy[i] * s;
    dgate[i] = dy[i] * (candidate[i] - x[i]) * s * (1 - s);
  }
}

void interpreter::addMega(Evaluations &evaluations) {
  evaluations.add(evaluateEmaCoefficients);
  evaluations.add(evaluateEmaCoefficientsGrad);
  evaluations.add(evaluateMegaQK);
  evaluations.add(evaluateMegaQKGrad);
  evaluations.add(evaluateUpdateGate);
  evaluations.add(evaluateUpdateGateGrad);
}
