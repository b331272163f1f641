// The timestep norm, its gradient, and what ranks of the chunk axis exchange.
#include "dialect/Interpreter/Evaluation.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

namespace {
/// Statistics of `count` tokens.
struct Statistics {
  double count = 0, mean = 0, var = 0;
};
} // namespace

/// Statistics of tokens and of tokens behind them.
static Statistics merge(const Statistics &a, const Statistics &b) {
  double n = a.count + b.count, d = b.mean - a.mean;
  return {n, a.mean + b.count / n * d,
          (a.count * a.var + b.count * b.var) / n +
              a.count * b.count / (n * n) * d * d};
}

/// Those of the entries of a token that belong to group `g` of `G`.
static Statistics statisticsOf(const Tensor &x, int64_t b, int64_t t, int64_t g,
                               int64_t G) {
  const int64_t width = x.size(2) / G;
  Statistics s{1, 0, 0};
  for (int64_t d = g * width; d < (g + 1) * width; ++d)
    s.mean += x(b, t, d) / width;
  for (int64_t d = g * width; d < (g + 1) * width; ++d)
    s.var += (x(b, t, d) - s.mean) * (x(b, t, d) - s.mean) / width;
  return s;
}

/// The number of tokens in front of token t that count for it.
static int64_t tokensBefore(const Tensor *positions, const Tensor &count,
                            int64_t b, int64_t t) {
  return positions ? positions->integer(b, t) : count.integer(b) + t;
}

static void evaluateNorm(TimestepNormOp op, Execution &e) {
  const Tensor &x = e[op.getX()], &weight = e[op.getWeight()],
               &bias = e[op.getBias()], &count = e[op.getCount()],
               &mean = e[op.getMean()], &var = e[op.getVar()];
  const Tensor *positions = e.find(op.getPositions());
  Tensor &y = e(op.getResult()), &runningMean = e(op.getRunningMean()),
         &runningRstd = e(op.getRunningRstd());
  const double eps = op.getEps().convertToDouble();
  const int64_t B = x.size(0), L = x.size(1), G = mean.size(1),
                width = x.size(2) / G;
  for (int64_t b = 0; b < B; ++b) {
    e(op.getNewCount()).integer(b) =
        tokensBefore(positions, count, b, L - 1) + 1;
    for (int64_t g = 0; g < G; ++g) {
      Statistics s{double(count.integer(b)), mean(b, g), var(b, g)};
      for (int64_t t = 0; t < L; ++t) {
        if (tokensBefore(positions, count, b, t) == 0)
          s = {};
        s = merge(s, statisticsOf(x, b, t, g, G));
        double r = 1 / std::sqrt(s.var + eps);
        runningMean(b, t, g) = s.mean;
        runningRstd(b, t, g) = r;
        for (int64_t d = g * width; d < (g + 1) * width; ++d)
          y(b, t, d) = (x(b, t, d) - s.mean) * r * (1 + weight[d]) + bias[d];
      }
      e(op.getNewMean())(b, g) = s.mean;
      e(op.getNewVar())(b, g) = s.var;
    }
  }
}

static void evaluateNormGrad(TimestepNormGradOp op, Execution &e) {
  const Tensor &dy = e[op.getDy()], &x = e[op.getX()],
               &weight = e[op.getWeight()], &count = e[op.getCount()],
               &runningMean = e[op.getRunningMean()],
               &runningRstd = e[op.getRunningRstd()];
  const Tensor *endMean = e.find(op.getDnewMean()),
               *endVar = e.find(op.getDnewVar()),
               *positions = e.find(op.getPositions());
  Tensor &dx = e(op.getDx()), &dweight = e(op.getDweight()),
         &dbias = e(op.getDbias());
  const int64_t L = x.size(1), G = runningMean.size(2), width = x.size(2) / G;
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t g = 0; g < G; ++g) {
      double du = endMean ? (*endMean)(b, g) : 0.0;
      double dv = endVar ? (*endVar)(b, g) : 0.0;
      for (int64_t t = L - 1; t >= 0; --t) {
        const double n = double(tokensBefore(positions, count, b, t)),
                     c1 = n / (n + 1), c2 = 1 / (n + 1),
                     r = runningRstd(b, t, g), mean = runningMean(b, t, g);
        const double m = statisticsOf(x, b, t, g, G).mean;
        double sum = 0, sumX = 0;
        for (int64_t d = g * width; d < (g + 1) * width; ++d) {
          double u = dy(b, t, d) * (1 + weight[d]);
          sum += u;
          sumX += u * (x(b, t, d) - mean);
          dweight[d] += dy(b, t, d) * (x(b, t, d) - mean) * r;
          dbias[d] += dy(b, t, d);
        }
        du -= r * sum;
        dv -= r * r * r / 2 * sumX;
        // c1 (m - the mean before the token) is m - mean; of no tokens exactly
        // 0.
        const double drift = n == 0 ? 0.0 : 2 * c2 * dv * (m - mean);
        for (int64_t d = g * width; d < (g + 1) * width; ++d)
          dx(b, t, d) = dy(b, t, d) * (1 + weight[d]) * r +
                        (c2 * du + drift) / width +
                        2 * c2 * dv * (x(b, t, d) - m) / width;
        du = c1 * du - drift;
        dv = c1 * dv;
      }
      e(op.getDmean())(b, g) = du;
      e(op.getDvar())(b, g) = dv;
    }
}

static void evaluateStatistics(TimestepStatisticsOp op, Execution &e) {
  const Tensor &x = e[op.getX()];
  Tensor &summary = e(op.getSummary());
  const int64_t G = op.getGroups();
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t g = 0; g < G; ++g) {
      Statistics s;
      for (int64_t t = 0; t < x.size(1); ++t)
        s = merge(s, statisticsOf(x, b, t, g, G));
      summary(b, 0, 0, g) = s.mean;
      summary(b, 0, 1, g) = s.var;
    }
}

static void evaluatePrefix(TimestepPrefixOp op, Execution &e) {
  const Tensor &summaries = e[op.getSummaries()], &count = e[op.getCount()],
               &mean = e[op.getMean()], &var = e[op.getVar()];
  const int64_t ranks = summaries.size(1), rank = e[op.getRank()].integer(0);
  const double length = double(e.options.length);
  for (int64_t b = 0; b < mean.size(0); ++b) {
    e(op.getLocalCount()).integer(b) =
        count.integer(b) + rank * e.options.length;
    e(op.getNewCount()).integer(b) =
        count.integer(b) + ranks * e.options.length;
    for (int64_t g = 0; g < mean.size(1); ++g) {
      Statistics s{double(count.integer(b)), mean(b, g), var(b, g)};
      for (int64_t r = 0; r < ranks; ++r) {
        if (r == rank) {
          e(op.getLocalMean())(b, g) = s.mean;
          e(op.getLocalVar())(b, g) = s.var;
        }
        s = merge(s, {length, summaries(b, r, 0, g), summaries(b, r, 1, g)});
      }
      e(op.getNewMean())(b, g) = s.mean;
      e(op.getNewVar())(b, g) = s.var;
    }
  }
}

static void evaluateLocalCount(LocalCountOp op, Execution &e) {
  const Tensor &count = e[op.getCount()];
  for (int64_t b = 0; b < count.size(0); ++b)
    e(op.getLocalCount()).integer(b) =
        count.integer(b) + e[op.getRank()].integer(0) * e.options.length;
}

/// The mean in front of a rank's first token, from the one behind it.
static double meanBefore(const Tensor &x, const Tensor &runningMean, double n,
                         int64_t b, int64_t g) {
  double m = statisticsOf(x, b, 0, g, runningMean.size(2)).mean;
  return ((n + 1) * runningMean(b, 0, g) - m) / n;
}

static void evaluateMomentsGrad(TimestepMomentsGradOp op, Execution &e) {
  const Tensor &dmean = e[op.getDmean()], &dvar = e[op.getDvar()],
               &x = e[op.getX()], &count = e[op.getCount()],
               &runningMean = e[op.getRunningMean()];
  Tensor &share = e(op.getShare());
  for (int64_t b = 0; b < dmean.size(0); ++b)
    for (int64_t g = 0; g < dmean.size(1); ++g) {
      const double n = double(count.integer(b));
      if (n == 0)
        continue;
      double mean = meanBefore(x, runningMean, n, b, g);
      share(b, 0, 0, g) = (dmean(b, g) - 2 * mean * dvar(b, g)) / n;
      share(b, 0, 1, g) = dvar(b, g) / n;
    }
}

static void evaluateSuffixGrad(TimestepSuffixGradOp op, Execution &e) {
  const Tensor &dx = e[op.getDx()], &x = e[op.getX()],
               &shares = e[op.getShares()], &count = e[op.getCount()],
               &runningMean = e[op.getRunningMean()];
  Tensor &result = e(op.getResult());
  const int64_t ranks = shares.size(1), rank = e[op.getRank()].integer(0),
                G = shares.size(3), width = x.size(2) / G;
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t g = 0; g < G; ++g) {
      double behind[2] = {0, 0}, total[2] = {0, 0};
      for (int64_t r = 0; r < ranks; ++r)
        for (int64_t which : {0, 1}) {
          total[which] += shares(b, r, which, g);
          behind[which] += r > rank ? shares(b, r, which, g) : 0.0;
        }
      for (int64_t t = 0; t < x.size(1); ++t)
        for (int64_t d = g * width; d < (g + 1) * width; ++d)
          result(b, t, d) =
              dx(b, t, d) + (behind[0] + 2 * x(b, t, d) * behind[1]) / width;
      const double n = double(count.integer(b));
      if (rank != 0 || n == 0)
        continue;
      double mean = meanBefore(x, runningMean, n, b, g);
      e(op.getDmean())(b, g) = n * (total[0] + 2 * mean * total[1]);
      e(op.getDvar())(b, g) = n * total[1];
    }
}

void interpreter::addTimestepNorm(Evaluations &evaluations) {
  evaluations.add(evaluateNorm);
  evaluations.add(evaluateNormGrad);
  evaluations.add(evaluateStatistics);
  evaluations.add(evaluatePrefix);
  evaluations.add(evaluateLocalCount);
  evaluations.add(evaluateMomentsGrad);
  evaluations.add(evaluateSuffixGrad);
}
