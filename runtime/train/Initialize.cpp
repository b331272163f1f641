#include "runtime/train/Initialize.h"
#include "runtime/core/Error.h"
#include "runtime/core/ThreadPool.h"
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
    return init.a * random.normal(element);
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

void megalodon::initializeParameters(Session &session, uint64_t seed) {
  std::vector<TensorView> parameters = session.parameters();
  std::vector<plan::Initializer> initializers;
  for (const plan::Variable &variable : session.plan().variables)
    if (variable.role == plan::Role::Parameter)
      initializers.push_back(variable.init);
  for (size_t i = 0; i < parameters.size(); ++i)
    if (initializers[i].kind == InitKind::Untouched)
      throw Error(str(session.plan().path, ": parameter '", parameters[i].name,
                      "': expected an initialiser, got init_mode none: give "
                      "start weights with --weights"));

  ThreadPool pool(session.threads());
  constexpr int64_t piece = 1 << 16;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const TensorView &tensor = parameters[i];
    CounterRandom random(seed, hashName(tensor.name));
    std::vector<double> theta;
    if (initializers[i].kind == InitKind::CemaTheta)
      theta = cemaTheta(elementCount(tensor), random);
    int64_t count = elementCount(tensor);
    pool.run((count + piece - 1) / piece, [&](int64_t task, int) {
      for (int64_t element = task * piece,
                   end = std::min(count, element + piece);
           element < end; ++element)
        storeNumber(tensor, element,
                    theta.empty()
                        ? initialValue(initializers[i], random, element)
                        : theta[element]);
    });
  }
}
