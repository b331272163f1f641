// The complex exponential moving average: coefficients, scan, gradients, and
// what ranks of the chunk axis exchange.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static constexpr double kTwoPi = 6.283185307179586476925286766559;

static void evaluateCoefficients(CemaCoefficientsOp op, Execution &e) {
  const Tensor &alpha = e[op.getAlpha()], &delta = e[op.getDelta()],
               &theta = e[op.getTheta()], &gamma = e[op.getGamma()];
  Tensor &p = e(op.getP()), &q = e(op.getQ()), &g = e(op.getG());
  const int64_t D = p.size(0), N = p.size(1);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t k = 0; k < N; ++k) {
      p(d, k) = sigmoid(alpha(d, k, 0));
      double phi = (k + 1) * sigmoid(theta(d, 0, 0)) * kTwoPi / N;
      q.set(std::polar(1 - p(d, k) * sigmoid(delta(d, k, 0)), phi), d, k);
      g.set(gamma.complex(d, k) / std::sqrt(double(N)), d, k);
    }
}

static void evaluateCoefficientsGrad(CemaCoefficientsGradOp op, Execution &e) {
  const Tensor &dp = e[op.getDp()], &dq = e[op.getDq()], &dg = e[op.getDg()];
  const Tensor &alpha = e[op.getAlpha()], &delta = e[op.getDelta()],
               &theta = e[op.getTheta()];
  Tensor &dalpha = e(op.getDalpha()), &ddelta = e(op.getDdelta()),
         &dtheta = e(op.getDtheta()), &dgamma = e(op.getDgamma());
  const int64_t D = dp.size(0), N = dp.size(1);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t k = 0; k < N; ++k) {
      double p = sigmoid(alpha(d, k, 0)), s = sigmoid(delta(d, k, 0)),
             t = sigmoid(theta(d, 0, 0)), step = (k + 1) * kTwoPi / N;
      Complex direction = std::polar(1.0, t * step),
              q = (1 - p * s) * direction,
              cotangent = std::conj(dq.complex(d, k));
      double dm = (cotangent * direction).real(),
             dphi = (cotangent * Complex(0, 1) * q).real();
      dalpha(d, k, 0) = (dp(d, k) - s * dm) * p * (1 - p);
      ddelta(d, k, 0) = -p * s * (1 - s) * dm;
      dtheta(d, 0, 0) += t * (1 - t) * step * dphi;
      dgamma.set(dg.complex(d, k) / std::sqrt(double(N)), d, k);
    }
}

/// Whether a document begins at token t, which then sees nothing before it.
static bool beginsDocument(const Tensor *positions, int64_t b, int64_t t) {
  return positions && positions->integer(b, t) == 0;
}

static void evaluateCema(CemaOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &p = e[op.getP()], &q = e[op.getQ()],
               &g = e[op.getG()], &omega = e[op.getOmega()],
               &state = e[op.getState()];
  const Tensor *positions = e.find(op.getPositions());
  Tensor &y = e(op.getResult()), &newState = e(op.getNewState()),
         &blockStates = e(op.getBlockStates());
  const int64_t block = op.getBlock();
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t d = 0; d < x.size(2); ++d) {
      for (int64_t t = 0; t < x.size(1); ++t)
        y(b, t, d) = omega(d, 0) * x(b, t, d);
      for (int64_t k = 0; k < p.size(1); ++k) {
        Complex h = state.complex(b, d, k);
        for (int64_t t = 0; t < x.size(1); ++t) {
          if (beginsDocument(positions, b, t))
            h = 0;
          if (t % block == 0)
            blockStates.set(h, t / block, b, d, k);
          h = q.complex(d, k) * h + p(d, k) * x(b, t, d);
          y(b, t, d) += (g.complex(d, k) * h).real();
        }
        newState.set(h, b, d, k);
      }
    }
}

static void evaluateCemaGrad(CemaGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()], &p = e[op.getP()],
               &q = e[op.getQ()], &g = e[op.getG()], &omega = e[op.getOmega()],
               &blockStates = e[op.getBlockStates()];
  const Tensor *end = e.find(op.getDnewState()),
               *positions = e.find(op.getPositions());
  Tensor &dx = e(op.getDx()), &dp = e(op.getDp()), &dq = e(op.getDq()),
         &dg = e(op.getDg()), &domega = e(op.getDomega()),
         &dstate = e(op.getDstate());
  const int64_t L = x.size(1), block = op.getBlock();
  std::vector<Complex> before(L); // the state in front of every token
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t d = 0; d < x.size(2); ++d) {
      for (int64_t t = 0; t < L; ++t) {
        dx(b, t, d) = omega(d, 0) * dy(b, t, d);
        domega(d, 0) += dy(b, t, d) * x(b, t, d);
      }
      for (int64_t k = 0; k < p.size(1); ++k) {
        const Complex decay = q.complex(d, k), gain = g.complex(d, k);
        for (int64_t t = 0; t < L; ++t)
          before[t] = beginsDocument(positions, b, t) ? Complex()
                      : t % block == 0
                          ? blockStates.complex(t / block, b, d, k)
                          : decay * before[t - 1] + p(d, k) * x(b, t - 1, d);
        Complex carry = end ? end->complex(b, d, k) : Complex(),
                sumQ = dq.complex(d, k), sumG = dg.complex(d, k);
        for (int64_t t = L - 1; t >= 0; --t) {
          Complex l = std::conj(gain) * dy(b, t, d) + carry,
                  h = decay * before[t] + p(d, k) * x(b, t, d);
          dx(b, t, d) += p(d, k) * l.real();
          dp(d, k) += x(b, t, d) * l.real();
          sumQ += l * std::conj(before[t]);
          sumG += dy(b, t, d) * std::conj(h);
          carry = beginsDocument(positions, b, t) ? Complex()
                                                  : std::conj(decay) * l;
        }
        dq.set(sumQ, d, k);
        dg.set(sumG, d, k);
        dstate.set(carry, b, d, k);
      }
    }
}

static void evaluateSummary(CemaSummaryOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &p = e[op.getP()], &q = e[op.getQ()];
  Tensor &summary = e(op.getSummary());
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t d = 0; d < p.size(0); ++d)
      for (int64_t k = 0; k < p.size(1); ++k) {
        Complex h;
        for (int64_t t = 0; t < x.size(1); ++t)
          h = q.complex(d, k) * h + p(d, k) * x(b, t, d);
        summary.set(h, b, 0, d, k);
      }
}

static void evaluateGradSummary(CemaGradSummaryOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &q = e[op.getQ()], &g = e[op.getG()];
  Tensor &summary = e(op.getSummary());
  for (int64_t b = 0; b < dy.size(0); ++b)
    for (int64_t d = 0; d < q.size(0); ++d)
      for (int64_t k = 0; k < q.size(1); ++k) {
        Complex carry;
        for (int64_t t = dy.size(1) - 1; t >= 0; --t)
          carry = std::conj(q.complex(d, k)) *
                  (std::conj(g.complex(d, k)) * dy(b, t, d) + carry);
        summary.set(carry, b, 0, d, k);
      }
}

static void evaluatePrefix(CemaPrefixOp op, Execution &e) {
  const Tensor &summaries = e[op.getSummaries()], &q = e[op.getQ()],
               &state = e[op.getState()];
  Tensor &local = e(op.getLocalState()), &end = e(op.getNewState());
  const int64_t ranks = summaries.size(1), rank = e[op.getRank()].integer(0);
  const bool reverse = op.getReverse();
  for (int64_t b = 0; b < state.size(0); ++b)
    for (int64_t d = 0; d < q.size(0); ++d)
      for (int64_t k = 0; k < q.size(1); ++k) {
        Complex decay = q.complex(d, k), power = 1, h = state.complex(b, d, k);
        for (int64_t t = 0; t < e.options.length; ++t)
          power *= reverse ? std::conj(decay) : decay;
        for (int64_t step = 0; step < ranks; ++step) {
          int64_t s = reverse ? ranks - 1 - step : step;
          if (s == rank)
            local.set(h, b, d, k);
          h = power * h + summaries.complex(b, s, d, k);
        }
        end.set(h, b, d, k);
      }
}

void interpreter::addCema(Evaluations &evaluations) {
  evaluations.add(evaluateCoefficients);
  evaluations.add(evaluateCoefficientsGrad);
  evaluations.add(evaluateCema);
  evaluations.add(evaluateCemaGrad);
  evaluations.add(evaluateSummary);
  evaluations.add(evaluateGradSummary);
  evaluations.add(evaluatePrefix);
}
