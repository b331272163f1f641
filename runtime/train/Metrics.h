// What a training run writes down in its folder: metrics.jsonl, one JSON object
// a line, the same as TensorBoard's events, and the losses in it.
#pragma once
#include "runtime/train/EventFile.h"
#include "runtime/train/LossCurve.h"
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace megalodon {

class Metrics {
public:
  /// Keeps the lines up to and including `step`; a run that continues from
  /// there writes the others again.
  Metrics(const std::string &folder, int64_t step);
  ~Metrics();
  Metrics(const Metrics &) = delete;
  Metrics &operator=(const Metrics &) = delete;

  /// Appends a line. "loss" and "validation_loss" also go to the curve.
  void add(const nlohmann::json &line);

  /// Makes the lines so far durable.
  void sync();

  std::string curve() const { return drawLossCurve(training, validation); }

private:
  void remember(const nlohmann::json &line);

  std::string path;
  int descriptor = -1;
  EventFile events;
  std::vector<CurvePoint> training, validation;
};

/// Resident memory of this process in bytes.
int64_t residentBytes();

} // namespace megalodon
