// Rotary positions, chunk attention with its gradient, and the cache.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

/// How many tokens of its document stand before token t of row b, counted from
/// the start of its chunk.
static int64_t positionInChunk(const Tensor &count, const Tensor *positions,
                               int64_t b, int64_t t, int64_t chunk) {
  return (positions ? positions->integer(b, t) : count.integer(b) + t) % chunk;
}

/// The tensor of an optional operand.
static const Tensor *given(Execution &e, Value operand) {
  return operand ? &e[operand] : nullptr;
}

static void evaluateRotary(RotaryOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &count = e[op.getCount()];
  const Tensor *positions = given(e, op.getPositions());
  Tensor &y = e(op.getResult());
  const int64_t Z = x.size(2), dz = Z / op.getHeads();
  const double base = op.getBase().convertToDouble();
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t t = 0; t < x.size(1); ++t) {
      const double position = static_cast<double>(
          positionInChunk(count, positions, b, t, op.getChunk()));
      for (int64_t z = 0; z < Z; z += 2) {
        double angle = position * std::pow(base, -double(z % dz) / double(dz));
        Complex turned = op.getScale().convertToDouble() *
                         Complex(x(b, t, z), x(b, t, z + 1)) *
                         std::polar(1.0, op.getInverse() ? -angle : angle);
        y(b, t, z) = turned.real();
        y(b, t, z + 1) = turned.imag();
      }
    }
}

namespace {
/// A key or value that a token sees: one of the call's own, or, with a negative
/// token, a row of the cache.
struct Seen {
  int64_t token, row;
};

/// The tokens that each token of a call sees.
class Windows {
public:
  Windows(const Tensor &count, const Tensor *positions, int64_t chunk)
      : count(count), positions(positions), chunk(chunk) {}
  int64_t size(int64_t b, int64_t t) const {
    return positionInChunk(count, positions, b, t, chunk) + 1;
  }
  Seen at(int64_t b, int64_t t, int64_t position) const {
    const int64_t token = t - (size(b, t) - 1) + position;
    return {token, token + count.integer(b) % chunk};
  }

private:
  const Tensor &count;
  const Tensor *positions;
  int64_t chunk;
};
} // namespace

static double element(const Tensor &own, const Tensor &cache, int64_t b,
                      Seen seen, int64_t column) {
  return seen.token >= 0 ? own(b, seen.token, column)
                         : cache(b, seen.row, column);
}

/// The score of a query with what it sees, in the head whose columns begin at
/// `first` of the query's and at `keyFirst` of the keys'.
static double score(const Tensor &q, const Tensor &k, const Tensor &cache,
                    int64_t b, int64_t t, Seen seen, int64_t first,
                    int64_t keyFirst, int64_t width) {
  double sum = 0;
  for (int64_t z = 0; z < width; ++z)
    sum += q(b, t, first + z) * element(k, cache, b, seen, keyFirst + z);
  return sum;
}

/// The weights of MEGA's attention: the distribution function of a normal
/// distribution, and its density.
static const double kLaplaceMean = std::sqrt(0.5),
                    kLaplaceDeviation = std::sqrt(0.25 / M_PI);

static double laplace(double score) {
  // Half of 1 + erf, without the cancellation far below the mean.
  return 0.5 * std::erfc((kLaplaceMean - score) /
                         (kLaplaceDeviation * std::sqrt(2.0)));
}

static double laplaceDensity(double score) {
  const double z = (score - kLaplaceMean) / kLaplaceDeviation;
  return std::exp(-0.5 * z * z) / (kLaplaceDeviation * std::sqrt(2 * M_PI));
}

static void evaluateAttention(ChunkAttentionOp op, Execution &e) {
  const Tensor &q = e[op.getQ()], &k = e[op.getK()], &v = e[op.getV()],
               &cacheK = e[op.getCacheK()], &cacheV = e[op.getCacheV()];
  Tensor &y = e(op.getResult());
  const Windows windows(e[op.getCount()], given(e, op.getPositions()),
                        cacheK.size(1));
  const int64_t heads = op.getHeads(), dz = q.size(2) / heads,
                dv = y.size(2) / heads;
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t t = 0; t < q.size(1); ++t)
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t group = head * (k.size(2) / dz) / heads;
        std::vector<double> weights(windows.size(b, t));
        double largest = -std::numeric_limits<double>::infinity(), sum = 0;
        for (size_t i = 0; i < weights.size(); ++i) {
          weights[i] = e.rounded(score(q, k, cacheK, b, t, windows.at(b, t, i),
                                       head * dz, group * dz, dz));
          largest = std::max(largest, weights[i]);
        }
        if (op.getFunction() == AttentionFunction::Laplace) {
          for (double &weight : weights)
            weight = laplace(weight);
        } else {
          for (double s : weights)
            sum += std::exp(s - largest);
          const double lse = largest + std::log(sum);
          e(op.getLse())(b, t, head) = lse;
          for (double &weight : weights)
            weight = std::exp(weight - lse);
        }
        for (size_t i = 0; i < weights.size(); ++i)
          for (int64_t c = 0; c < dv; ++c)
            y(b, t, head * dv + c) +=
                weights[i] *
                element(v, cacheV, b, windows.at(b, t, i), group * dv + c);
      }
}

static void evaluateAttentionGrad(ChunkAttentionGradOp op, Execution &e) {
  const Tensor &dout = e[op.getDout()], &q = e[op.getQ()], &k = e[op.getK()],
               &v = e[op.getV()], &cacheK = e[op.getCacheK()],
               &cacheV = e[op.getCacheV()];
  Tensor &dq = e(op.getDq()), &dk = e(op.getDk()), &dvalue = e(op.getDv());
  const bool softmax = op.getFunction() == AttentionFunction::Softmax;
  const Windows windows(e[op.getCount()], given(e, op.getPositions()),
                        cacheK.size(1));
  const int64_t heads = op.getHeads(), dz = q.size(2) / heads,
                dv = dout.size(2) / heads;
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t t = 0; t < q.size(1); ++t)
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t group = head * (k.size(2) / dz) / heads;
        const int64_t size = windows.size(b, t);
        // dweights is dP and `slopes` what dS has of it: with softmax, less
        // delta. That is the mean of dP by the weights, divided by the sum of
        // the weights, which is one but for lse's rounding; undivided, that
        // rounding would be all of a gradient that vanishes, as with one key.
        std::vector<double> dweights(size), slopes(size);
        double delta = 0, sum = 0, terms = 0;
        for (int64_t i = 0; i < size; ++i) {
          const Seen seen = windows.at(b, t, i);
          const double s =
              score(q, k, cacheK, b, t, seen, head * dz, group * dz, dz);
          const double weight =
              softmax ? std::exp(s - e[op.getLse()](b, t, head)) : laplace(s);
          slopes[i] = softmax ? weight : laplaceDensity(s);
          for (int64_t c = head * dv; c < (head + 1) * dv; ++c) {
            const double term =
                dout(b, t, c) *
                element(v, cacheV, b, seen, c + (group - head) * dv);
            dweights[i] += term;
            terms += weight * std::abs(term);
            if (seen.token >= 0)
              dvalue(b, seen.token, c) += weight * dout(b, t, c);
          }
          if (softmax) {
            delta += weight * dweights[i];
            sum += weight;
          }
        }
        if (sum > 0)
          delta = e.rounded(delta / sum, terms / sum);
        for (int64_t i = 0; i < size; ++i) {
          const Seen seen = windows.at(b, t, i);
          const double dscore = slopes[i] * (dweights[i] - delta);
          for (int64_t z = head * dz; z < (head + 1) * dz; ++z) {
            dq(b, t, z) +=
                dscore * element(k, cacheK, b, seen, z + (group - head) * dz);
            if (seen.token >= 0)
              dk(b, seen.token, z) += dscore * q(b, t, z);
          }
        }
      }
}

static void evaluateSumHeadGroups(SumHeadGroupsOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &y = e(op.getResult());
  const int64_t heads = op.getHeads(), width = x.size(2) / heads,
                share = heads / op.getGroups();
  for (int64_t t = 0; t < x.rows(); ++t)
    for (int64_t c = 0; c < x.size(2); ++c)
      y[t * y.size(2) + c / width / share * width + c % width] +=
          x[t * x.size(2) + c];
}

static void evaluateAdvanceCount(AdvanceCountOp op, Execution &e) {
  const Tensor &count = e[op.getCount()];
  const Tensor *positions = e.find(op.getPositions());
  const int64_t L = e[op.getX()].size(1);
  for (int64_t b = 0; b < count.size(0); ++b)
    e(op.getResult()).integer(b) =
        positions ? positions->integer(b, L - 1) + 1 : count.integer(b) + L;
}

static void evaluateDocumentPositions(DocumentPositionsOp op, Execution &e) {
  const Tensor &resets = e[op.getResets()], &count = e[op.getCount()];
  Tensor &positions = e(op.getPositions());
  for (int64_t b = 0; b < resets.size(0); ++b) {
    int64_t next = count.integer(b);
    for (int64_t t = 0; t < resets.size(1); ++t) {
      if (resets.integer(b, t) != 0)
        next = 0;
      positions.integer(b, t) = next++;
    }
  }
}

static void evaluateCacheAppend(CacheAppendOp op, Execution &e) {
  const Tensor &cache = e[op.getCache()], &rows = e[op.getRows()],
               &count = e[op.getCount()];
  const Tensor *positions = given(e, op.getPositions());
  Tensor &result = e(op.getResult());
  const int64_t chunk = cache.size(1), L = rows.size(1);
  for (int64_t b = 0; b < cache.size(0); ++b) {
    const int64_t open =
        (positionInChunk(count, positions, b, L - 1, chunk) + 1) % chunk;
    for (int64_t row = 0; row < chunk; ++row)
      for (int64_t c = 0; c < cache.size(2); ++c)
        result(b, row, c) =
            row < open ? element(rows, cache, b, {L - open + row, row}, c)
                       : unspecified();
  }
}

void interpreter::addAttention(Evaluations &evaluations) {
  evaluations.add(evaluateRotary);
  evaluations.add(evaluateAttention);
  evaluations.add(evaluateAttentionGrad);
  evaluations.add(evaluateCacheAppend);
  evaluations.add(evaluateSumHeadGroups);
  evaluations.add(evaluateAdvanceCount);
  evaluations.add(evaluateDocumentPositions);
}
