#include "runtime/train/LossCurve.h"
#include <algorithm>
#include <cmath>
#include <sstream>

using namespace megalodon;

namespace {

/// One axis: values in [low, high] map to pixels in [first, last].
struct Axis {
  double low, high, first, last;

  double pixel(double value) const {
    return first + (value - low) / (high - low) * (last - first);
  }

  /// Round values, four to eight of them.
  std::vector<double> ticks() const {
    double rough = (high - low) / 8,
           power = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (double factor : {1.0, 2.0, 5.0})
      if (factor * power >= rough) {
        step = factor * power;
        break;
      }
    std::vector<double> result;
    for (double n = std::ceil(low / step - 1e-9);
         n * step <= high + step * 1e-9; ++n)
      result.push_back(n * step + 0.0);
    return result;
  }
};

} // namespace

/// At most `limit` points: each the mean of its neighbours, so that a long run
/// stays a small picture.
static std::vector<CurvePoint> thinOut(const std::vector<CurvePoint> &points,
                                       size_t limit) {
  if (points.size() <= limit)
    return points;
  std::vector<CurvePoint> result;
  for (size_t i = 0; i < limit; ++i) {
    size_t begin = i * points.size() / limit,
           end = (i + 1) * points.size() / limit;
    double sum = 0;
    for (size_t j = begin; j < end; ++j)
      sum += points[j].loss;
    result.push_back({points[(begin + end - 1) / 2].step,
                      sum / static_cast<double>(end - begin)});
  }
  return result;
}

static void drawLine(std::ostream &out, const std::vector<CurvePoint> &points,
                     const Axis &x, const Axis &y, const char *color,
                     bool markers) {
  if (points.empty())
    return;
  out << "<polyline fill=\"none\" stroke=\"" << color
      << "\" stroke-width=\"1.6\" stroke-linejoin=\"round\" points=\"";
  for (const CurvePoint &point : points)
    out << x.pixel(static_cast<double>(point.step)) << ','
        << y.pixel(point.loss) << ' ';
  out << "\"/>\n";
  if (!markers && points.size() > 1)
    return;
  for (const CurvePoint &point : points)
    out << "<circle r=\"3\" fill=\"" << color << "\" cx=\""
        << x.pixel(static_cast<double>(point.step)) << "\" cy=\""
        << y.pixel(point.loss) << "\"/>\n";
}

std::string
megalodon::drawLossCurve(const std::vector<CurvePoint> &training,
                         const std::vector<CurvePoint> &validation) {
  std::vector<CurvePoint> lines[2] = {thinOut(training, 600),
                                      thinOut(validation, 200)};
  double steps = 1, low = INFINITY, high = -INFINITY;
  for (const auto &line : lines)
    for (const CurvePoint &point : line) {
      steps = std::max(steps, static_cast<double>(point.step));
      low = std::min(low, point.loss);
      high = std::max(high, point.loss);
    }
  if (!(low <= high))
    low = 0, high = 1;
  double margin =
      std::max((high - low) * 0.05, 1e-6 * std::max(1.0, std::abs(high)));
  Axis x = {0, steps, 64, 780}, y = {low - margin, high + margin, 400, 24};

  std::ostringstream out;
  out.precision(6);
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 450\" "
         "width=\"800\" height=\"450\" "
         "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"800\" "
         "height=\"450\" fill=\"white\"/>\n";
  for (double tick : y.ticks())
    out << "<path d=\"M64 " << y.pixel(tick)
        << "H780\" stroke=\"#ddd\"/><text x=\"58\" y=\"" << y.pixel(tick) + 4
        << "\" text-anchor=\"end\">" << tick << "</text>\n";
  for (double tick : x.ticks())
    out << "<path d=\"M" << x.pixel(tick)
        << " 400v5\" stroke=\"#444\"/><text x=\"" << x.pixel(tick)
        << "\" y=\"419\" text-anchor=\"middle\">"
        << static_cast<int64_t>(std::llround(tick)) << "</text>\n";
  out << "<path d=\"M64 24V400H780\" fill=\"none\" stroke=\"#444\"/>\n"
         "<text x=\"422\" y=\"441\" text-anchor=\"middle\">step</text>\n"
         "<text x=\"16\" y=\"212\" text-anchor=\"middle\" "
         "transform=\"rotate(-90 16 212)\">loss (nats per token)</text>\n";
  drawLine(out, lines[0], x, y, "#1f6fb4", false);
  drawLine(out, lines[1], x, y, "#d1571b", true);
  const char *names[2] = {"training", "validation"},
             *colors[2] = {"#1f6fb4", "#d1571b"};
  for (int i = 0, row = 0; i < 2; ++i)
    if (!lines[i].empty()) {
      int top = 36 + 18 * row++;
      out << "<path d=\"M660 " << top << "h24\" stroke=\"" << colors[i]
          << "\" stroke-width=\"3\"/><text x=\"690\" y=\"" << top + 4 << "\">"
          << names[i] << "</text>\n";
    }
  out << "</svg>\n";
  return out.str();
}
