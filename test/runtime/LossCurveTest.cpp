// The loss curve: a well-formed picture for long, short, flat and empty runs.
#include "runtime/train/LossCurve.h"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

using namespace megalodon;

static size_t count(const std::string &text, const std::string &piece) {
  size_t n = 0;
  for (size_t at = text.find(piece); at != text.npos;
       at = text.find(piece, at + 1))
    ++n;
  return n;
}

TEST(LossCurve, DrawsBothLinesWithAxes) {
  std::vector<CurvePoint> training, validation;
  for (int64_t step = 1; step <= 5000; ++step) {
    training.push_back({step, 5.0 / std::sqrt(double(step)) + 1});
    if (step % 1000 == 0)
      validation.push_back({step, 1.2});
  }
  std::string svg = drawLossCurve(training, validation);
  EXPECT_EQ(svg.find("<svg "), 0u);
  EXPECT_NE(svg.find("</svg>"), svg.npos);
  EXPECT_EQ(count(svg, "<polyline"), 2u);
  EXPECT_EQ(count(svg, "<circle"), 5u);
  for (const char *text : {">training<", ">validation<", ">step<", ">5000<",
                           "loss (nats per token)"})
    EXPECT_NE(svg.find(text), svg.npos) << text;
  EXPECT_LT(svg.size(), 30000u); // thousands of steps are thinned out
}

TEST(LossCurve, SurvivesDegenerateRuns) {
  for (const std::string &svg :
       {drawLossCurve({}, {}), drawLossCurve({{1, 2.0}}, {}),
        drawLossCurve({{1, 2.0}, {2, 2.0}}, {{2, 2.0}})}) {
    EXPECT_NE(svg.find("</svg>"), svg.npos);
    EXPECT_EQ(svg.find("nan"), svg.npos);
    EXPECT_EQ(svg.find("inf"), svg.npos);
  }
}
