// The learning rate of each update: warmup, then linear, cosine or constant.
#pragma once
#include <cstdint>
#include <string>

namespace megalodon {

enum class ScheduleKind { Linear, Cosine, Constant };

/// Throws Error naming the kinds there are.
ScheduleKind parseScheduleKind(const std::string &name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::Linear;
  double peak = 1e-3;
  int64_t warmup = 2000;
  int64_t total = 0;
  double initRatio = 1e-4;
  double endRatio = 0.01;
  double cycles = 1;

  /// Throws Error naming the option that makes no sense.
  void verify() const;

  /// The multiplier of `peak` for update number 0, 1, ...
  double ratio(int64_t update) const;
  double rate(int64_t update) const { return peak * ratio(update); }
};

} // namespace megalodon
