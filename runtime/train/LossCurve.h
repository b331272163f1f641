// Draws the loss curve of a run as an SVG picture.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace megalodon {

struct CurvePoint {
  int64_t step;
  double loss;
};

std::string drawLossCurve(const std::vector<CurvePoint> &training,
                          const std::vector<CurvePoint> &validation);

} // namespace megalodon
