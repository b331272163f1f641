#include "runtime/train/Schedule.h"
#include "runtime/core/Error.h"
#include <cmath>

using namespace megalodon;

ScheduleKind megalodon::parseScheduleKind(const std::string &name) {
  if (name == "linear")
    return ScheduleKind::Linear;
  if (name == "cosine")
    return ScheduleKind::Cosine;
  if (name == "constant")
    return ScheduleKind::Constant;
  throw Error(
      str("--schedule: expected linear, cosine or constant, got '", name, "'"));
}

void Schedule::verify() const {
  if (!(peak > 0) || !std::isfinite(peak))
    throw Error(str("--lr: expected a positive number, got ", peak));
  if (warmup < 0)
    throw Error(str("--warmup: expected at least 0, got ", warmup));
  if (total < 0)
    throw Error(str("--total-steps: expected at least 0, got ", total));
  if (!(initRatio >= 0 && initRatio <= 1))
    throw Error(
        str("--lr-init-ratio: expected a number from 0 to 1, got ", initRatio));
  if (!(endRatio >= 0 && endRatio <= 1))
    throw Error(
        str("--lr-end-ratio: expected a number from 0 to 1, got ", endRatio));
  if (!(cycles > 0) || !std::isfinite(cycles))
    throw Error(str("--cycles: expected a positive number, got ", cycles));
}

double Schedule::ratio(int64_t update) const {
  if (update < warmup)
    return initRatio + static_cast<double>(update) * (1 - initRatio) /
                           static_cast<double>(warmup);
  if (kind == ScheduleKind::Constant)
    return 1;
  // Also covers a warmup that never ends, where the fraction below would be 0 /
  // 0.
  if (update >= total)
    return kind == ScheduleKind::Cosine && update == total && total > warmup
               ? endRatio + 0.5 * (1 - endRatio) * (std::cos(M_PI * cycles) + 1)
               : endRatio;
  double s = static_cast<double>(update - warmup) /
             static_cast<double>(total - warmup);
  if (kind == ScheduleKind::Linear)
    return s * endRatio + (1 - s);
  return endRatio + 0.5 * (1 - endRatio) * (std::cos(M_PI * s * cycles) + 1);
}
