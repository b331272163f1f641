#include "runtime/train/Initialize.h"
#include "runtime/core/Error.h"
#include "runtime/core/ThreadPool.h"
#include "runtime/io/SpreadTensor.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Random.h"
#include "runtime/train/Tensors.h"
#include <algorithm>
#include <numeric>

using namespace megalodon;
using plan::InitKind;

/// CEMA's frequencies: logit(D^(-j/D)) for j = 1..D, in random order over the
/// channels.
static std::vector<double> cemaTheta(int64_t channels,
                                     const CounterRandom &random) {
  std::vector<double> theta(channels);
  for (int64_t j = 1; j <= channels; ++j) {
    double f = std::exp(-static_cast<double>(j) *
                        std::log(static_cast<double>(channels)) /
                        static_cast<double>(channels));
    theta[j - 1] = std::log(f / (1 - f));
  }
  for (int64_t last = channels - 1; last > 0; --last)
    std::swap(theta[last], theta[random.below(last + 1, last)]);
  return theta;
}

static double initialValue(const plan::Initializer &init,
                           const CounterRandom &random, int64_t element) {
  switch (init.kind) {
  case InitKind::Constant:
    return init.a;
  case InitKind::Normal:
    return init.b + init.a * random.normal(element);
  case InitKind::TruncatedNormal:
    return random.truncatedNormal(init.a, init.b, element);
  case InitKind::Uniform:
    return init.a * (2 * random.uniform(element) - 1);
  case InitKind::ComplexNormal:
    return element % 2 == 0 ? init.a * random.normal(element) : 0;
  case InitKind::Zero:
  case InitKind::CemaTheta:
  case InitKind::Untouched:
    break;
  }
  return 0;
}

void megalodon::initializeBox(const TensorView &into,
                              const std::vector<int64_t> &shape, const Box &box,
                              const plan::Initializer &init, uint64_t seed,
                              ThreadPool &pool) {
  CounterRandom random(seed, hashName(into.name));
  std::vector<double> theta;
  if (init.kind == InitKind::CemaTheta)
    theta = cemaTheta(Box::whole(shape).elements(), random);
  TensorView host = into; // the workers ask for nothing
  host.memory = into.overwrite();
  host.copy = nullptr;
  host.zero();
  struct Run {
    int64_t from, to, count;
  };
  constexpr int64_t piece = 1 << 16;
  std::vector<Run> runs;
  forEachRun(shape, box, [&](int64_t from, int64_t to, int64_t count) {
    for (int64_t done = 0; done < count; done += piece)
      runs.push_back({from + done, to + done, std::min(piece, count - done)});
  });
  // Runs may be short: a task takes as many as make a piece.
  std::vector<size_t> begins;
  for (size_t i = 0, elements = piece; i < runs.size(); ++i) {
    if (elements >= piece) {
      begins.push_back(i);
      elements = 0;
    }
    elements += size_t(runs[i].count);
  }
  begins.push_back(runs.size());
  pool.run(int64_t(begins.size()) - 1, [&](int64_t task, int) {
    for (size_t i = begins[size_t(task)]; i < begins[size_t(task) + 1]; ++i)
      for (int64_t k = 0; k < runs[i].count; ++k)
        storeNumber(host, runs[i].to + k,
                    theta.empty() ? initialValue(init, random, runs[i].from + k)
                                  : theta[size_t(runs[i].from + k)]);
  });
}

void megalodon::initializeParameters(Session &session, uint64_t seed) {
  const plan::LoadedPlan &plan = session.plan();
  std::vector<plan::Initializer> initializers;
  for (const plan::Variable &variable : plan.variables)
    if (variable.role == plan::Role::Parameter) {
      if (variable.init.kind == InitKind::Untouched)
        throw Error(str(plan.path, ": parameter '", variable.name,
                        "': expected an initialiser, got init_mode none: give "
                        "start weights with --weights"));
      initializers.push_back(variable.init);
    }
  ThreadPool pool(session.threads());
  const std::vector<SpreadTensor> parameters =
      spreadVariables(session, plan::Role::Parameter);
  for (size_t i = 0; i < parameters.size(); ++i)
    if (const std::optional<Box> &box = parameters[i].box()) {
      initializeBox(parameters[i].part, parameters[i].whole.shape, *box,
                    initializers[i], seed, pool);
      parameters[i].part.flush();
    }
}
