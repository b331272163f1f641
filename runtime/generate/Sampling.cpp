#include "runtime/generate/Sampling.h"
#include "runtime/core/Error.h"
#include "runtime/train/Random.h"
#include <algorithm>
#include <cmath>
#include <numeric>

using namespace megalodon;

void Sampling::verify() const {
  if (!(temperature >= 0) || !std::isfinite(temperature))
    throw Error(str("--temperature: expected a number of at least 0, got ",
                    temperature));
  if (topK < 0)
    throw Error(str("--top-k: expected at least 0, got ", topK));
  if (!(topP > 0 && topP <= 1))
    throw Error(
        str("--top-p: expected a number above 0 and at most 1, got ", topP));
  if (!(minP >= 0 && minP <= 1))
    throw Error(str("--min-p: expected a number from 0 to 1, got ", minP));
}

static void verifyFinite(const std::vector<double> &logits) {
  for (size_t i = 0; i < logits.size(); ++i)
    if (!std::isfinite(logits[i]))
      throw Error(str("logits: expected finite numbers, got ", logits[i],
                      " for token ", i));
}

std::vector<double>
Sampling::distribution(const std::vector<double> &logits) const {
  verifyFinite(logits);
  size_t size = logits.size();
  double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> mass(size);
  if (temperature == 0) {
    mass[std::max_element(logits.begin(), logits.end()) - logits.begin()] = 1;
    return mass;
  }
  for (size_t i = 0; i < size; ++i)
    mass[i] = std::exp((logits[i] - largest) / temperature);

  // All cuts speak of the distribution before any of them, so their order does
  // not matter.
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return mass[a] != mass[b] ? mass[a] > mass[b] : a < b;
  });
  double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  double smallest = minP; // the most likely token has mass exp(0) = 1
  if (topK > 0 && static_cast<size_t>(topK) < size)
    smallest = std::max(smallest, mass[order[topK - 1]]);
  double before = 0, kept = 0;
  for (size_t i : order) {
    bool keep = mass[i] >= smallest && (topP >= 1 || before <= topP * total);
    before += mass[i];
    if (!keep)
      mass[i] = 0;
    kept += mass[i];
  }
  for (double &m : mass)
    m /= kept;
  return mass;
}

int32_t Sampling::choose(const std::vector<double> &logits,
                         int64_t position) const {
  if (temperature == 0) {
    verifyFinite(logits);
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                                logits.begin());
  }
  std::vector<double> mass = distribution(logits);
  double draw = CounterRandom(seed, hashName("sampling")).uniform(position);
  double cumulative = 0;
  int32_t last = 0;
  for (size_t i = 0; i < mass.size(); ++i) {
    if (mass[i] == 0)
      continue;
    last = static_cast<int32_t>(i);
    cumulative += mass[i];
    if (draw < cumulative)
      break;
  }
  return last;
}
