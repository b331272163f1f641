#include "tools/megalodon-run/PipelineChart.h"
#include "runtime/core/Error.h"
#include "runtime/plan/PipelineTimeline.h"
#include "tools/megalodon-run/Text.h"
#include <charconv>
#include <cmath>
#include <sstream>

namespace megalodon {

namespace {

using plan::ActionKind;
using plan::PipelineStep;

/// A run of a rank: "F0", or "F0.1" in the rank's second stage.
struct Box {
  std::string label;
  double begin, end;
};

struct Rank {
  std::vector<Box> boxes;
  double busy = 0;
  size_t sends = 0, receives = 0;
};

struct Chart {
  const plan::Function *function;
  std::vector<Rank> ranks;
  plan::PipelineTimeline timeline;
  double backward = 0; ///< how long it takes, forward taking 1; 0: none
  bool split = false;  ///< weight gradients run by themselves
};

/// "stage3.backward" is 'B' of stage 3; what else there is belongs to no stage.
std::pair<char, int> workOf(const plan::Segment &segment) {
  const std::string prefix = "stage";
  int stage = -1;
  if (segment.name.compare(0, prefix.size(), prefix) == 0) {
    const char *end = segment.name.data() + segment.name.size();
    const auto [at, error] =
        std::from_chars(segment.name.data() + prefix.size(), end, stage);
    const std::string_view phase(at, size_t(end - at));
    for (auto [name, work] :
         {std::pair(".forward", 'F'), {".backward", 'B'}, {".weight", 'W'}})
      if (error == std::errc() && phase == name)
        return {work, stage};
  }
  return {' ', -1};
}

Chart makeChart(const plan::LoadedPlan &plan, const plan::Function &function) {
  Chart chart{&function, {}, {}};
  std::vector<std::string> labels;
  int stages = 0;
  for (const plan::Program &program : function.programs)
    for (const plan::Segment &segment : program.segments) {
      const auto [work, stage] = workOf(segment);
      stages = std::max(stages, stage + 1);
      chart.split |= work == 'W';
      if (work == 'B')
        chart.backward = 2;
    }
  if (chart.split)
    chart.backward = 1;

  const int ranks = int(function.programs.size());
  std::vector<plan::PipelineProgram> programs;
  for (const plan::Program &program : function.programs) {
    plan::PipelineProgram &steps = programs.emplace_back();
    Rank &rank = chart.ranks.emplace_back();
    for (const plan::Action &action : program.actions) {
      PipelineStep step{PipelineStep::Kind::Run};
      step.microbatch = action.microbatch;
      std::string label;
      if (action.kind == ActionKind::Run) {
        const auto [work, stage] = workOf(program.segments[action.segment]);
        step.stage = stage;
        step.duration = work == 'B' ? chart.backward : work == ' ' ? 0 : 1;
        rank.busy += step.duration;
        if (step.duration > 0)
          label = work + std::to_string(action.microbatch) +
                  (stages > ranks ? str(".", stage / ranks) : "");
      } else {
        const bool send = action.kind == ActionKind::Send;
        step.kind =
            send ? PipelineStep::Kind::Send : PipelineStep::Kind::Receive;
        step.channel = action.channel;
        step.peer = action.peer;
        ++(send ? rank.sends : rank.receives);
      }
      steps.push_back(step);
      rank.boxes.push_back({label, 0, 0});
    }
  }
  chart.timeline =
      plan::simulatePipeline(programs, plan::SendMode::Buffered, 0);
  if (!chart.timeline.deadlock.empty())
    throw Error(str(plan.path, ": function '", function.name,
                    "': ranks wait for each other: ", chart.timeline.deadlock));
  for (size_t r = 0; r < chart.ranks.size(); ++r) {
    std::vector<Box> boxes;
    for (size_t i = 0; i < chart.ranks[r].boxes.size(); ++i)
      if (!chart.ranks[r].boxes[i].label.empty())
        boxes.push_back({chart.ranks[r].boxes[i].label,
                         chart.timeline.spans[r][i].begin,
                         chart.timeline.spans[r][i].end});
    chart.ranks[r].boxes = std::move(boxes);
  }
  return chart;
}

std::vector<Chart> makeCharts(const plan::LoadedPlan &plan) {
  std::vector<Chart> charts;
  for (const plan::Function &function : plan.functions)
    if (function.programs.size() > 1)
      charts.push_back(makeChart(plan, function));
  if (charts.empty())
    throw Error(str(plan.path, ": expected a plan with a pipeline, got one "
                               "rank along the pipeline axis"));
  return charts;
}

std::string percent(double share) { return decimal(100 * share, 1) + " %"; }

std::string title(const Chart &chart) {
  std::string text =
      str(chart.function->name, ": ", chart.ranks.size(), " pipeline ranks, ",
          chart.function->microbatches(),
          chart.function->microbatches() > 1 ? " microbatches" : " microbatch");
  if (chart.split)
    text += "; forward, input gradients and weight gradients take 1 each";
  else if (chart.backward > 0)
    text += "; forward takes 1, backward 2";
  return text + "; bubble " + percent(chart.timeline.bubbleShare);
}

std::string summary(const Chart &chart, size_t rank) {
  const Rank &one = chart.ranks[rank];
  return str("idle ", percent(1 - one.busy / chart.timeline.makespan), ", ",
             chart.timeline.inFlight[rank], " in flight, ", one.sends,
             " sends, ", one.receives, " receives");
}

} // namespace

std::string drawSchedulesAsText(const plan::LoadedPlan &plan) {
  std::ostringstream out;
  for (const Chart &chart : makeCharts(plan)) {
    // One unit of time is as wide as the longest label and a space.
    size_t width = 0;
    for (const Rank &rank : chart.ranks)
      for (const Box &box : rank.boxes)
        width = std::max(width, box.label.size() + 1);
    out << title(chart) << '\n';
    for (size_t r = 0; r < chart.ranks.size(); ++r) {
      std::string line;
      for (const Box &box : chart.ranks[r].boxes) {
        line.resize(size_t(std::lround(box.begin)) * width, ' ');
        line += box.label;
        line.resize(size_t(std::lround(box.end)) * width - 1, '=');
      }
      out << "  rank " << r << "  " << line << '\n';
    }
    for (size_t r = 0; r < chart.ranks.size(); ++r)
      out << "  rank " << r << "  " << summary(chart, r) << '\n';
  }
  return out.str();
}

std::string drawSchedulesAsSvg(const plan::LoadedPlan &plan) {
  constexpr double left = 60, unit = 36, row = 30, gap = 26;
  const std::vector<Chart> charts = makeCharts(plan);
  double width = 0, height = gap;
  for (const Chart &chart : charts) {
    width = std::max(width, left + chart.timeline.makespan * unit + 340);
    height += double(chart.ranks.size()) * row + 2 * gap;
  }
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << width
      << "\" height=\"" << height
      << "\" font-family=\"sans-serif\" font-size=\"11\">\n"
         "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  auto text = [&](double x, double y, const std::string &content,
                  const char *attributes = "") {
    out << "<text x=\"" << x << "\" y=\"" << y << "\"" << attributes << ">"
        << content << "</text>\n";
  };
  double top = gap;
  for (const Chart &chart : charts) {
    text(10, top, title(chart), " font-size=\"13\"");
    for (size_t r = 0; r < chart.ranks.size(); ++r) {
      const double y = top + 12 + double(r) * row;
      text(10, y + 16, str("rank ", r));
      out << "<rect x=\"" << left << "\" y=\"" << y << "\" width=\""
          << chart.timeline.makespan * unit << "\" height=\"" << row - 6
          << "\" fill=\"#eeeeee\"/>\n";
      for (const Box &box : chart.ranks[r].boxes) {
        const char *color = box.label[0] == 'F'   ? "#7aa6d8"
                            : box.label[0] == 'B' ? "#8fc49a"
                                                  : "#e3b778";
        const double x = left + box.begin * unit,
                     w = (box.end - box.begin) * unit;
        out << "<rect x=\"" << x << "\" y=\"" << y << "\" width=\"" << w
            << "\" height=\"" << row - 6 << "\" fill=\"" << color
            << "\" stroke=\"white\"/>\n";
        text(x + w / 2, y + 16, box.label, " text-anchor=\"middle\"");
      }
      text(left + chart.timeline.makespan * unit + 10, y + 16,
           summary(chart, r));
    }
    top += double(chart.ranks.size()) * row + 2 * gap;
  }
  out << "</svg>\n";
  return out.str();
}

} // namespace megalodon
