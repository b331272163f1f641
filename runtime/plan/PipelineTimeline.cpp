#include "runtime/plan/PipelineTimeline.h"
#include <algorithm>
#include <map>
#include <utility>

using namespace megalodon::plan;

namespace {

/// When the two sides of a message were ready for it; negative: not yet.
struct Message {
  double sent = -1, received = -1;
};

class Simulation {
public:
  Simulation(const std::vector<PipelineProgram> &programs, SendMode mode,
             double transfer)
      : programs(programs), mode(mode), transfer(transfer),
        clock(programs.size()) {
    for (const PipelineProgram &program : programs)
      timeline.spans.emplace_back(program.size());
    timeline.finished.assign(programs.size(), 0);
  }

  PipelineTimeline run() {
    for (bool progress = true; progress;) {
      progress = false;
      for (size_t rank = 0; rank < programs.size(); ++rank)
        while (advance(rank))
          progress = true;
    }
    describeDeadlock();
    double busy = 0;
    for (size_t rank = 0; rank < programs.size(); ++rank) {
      timeline.makespan = std::max(timeline.makespan, clock[rank]);
      for (const PipelineStep &step : programs[rank])
        busy += step.duration;
      timeline.inFlight.push_back(countInFlight(programs[rank]));
    }
    if (timeline.makespan > 0)
      timeline.bubbleShare =
          1 - busy / (timeline.makespan * double(programs.size()));
    return std::move(timeline);
  }

private:
  /// Runs what comes next on a rank: one run, or all messages up to the next.
  bool advance(size_t rank) {
    const PipelineProgram &program = programs[rank];
    const unsigned first = timeline.finished[rank];
    if (first == program.size())
      return false;
    double &now = clock[rank];
    if (program[first].kind == PipelineStep::Kind::Run) {
      timeline.spans[rank][first] = {now, now + program[first].duration};
      now += program[first].duration;
      ++timeline.finished[rank];
      return true;
    }
    unsigned last = first;
    while (last < program.size() &&
           program[last].kind != PipelineStep::Kind::Run)
      ++last;
    for (unsigned index = first; index < last; ++index) {
      Message &message = messageOf(rank, program[index]);
      (program[index].kind == PipelineStep::Kind::Send ? message.sent
                                                       : message.received) =
          now;
    }
    double end = now;
    for (unsigned index = first; index < last; ++index) {
      const Message &message = messageOf(rank, program[index]);
      const bool send = program[index].kind == PipelineStep::Kind::Send;
      double done = now;
      if (mode == SendMode::Rendezvous) {
        if (message.sent < 0 || message.received < 0)
          return false;
        done = std::max(message.sent, message.received) + transfer;
      } else if (!send) {
        if (message.sent < 0)
          return false;
        done = std::max(now, message.sent + transfer);
      }
      timeline.spans[rank][index] = {now, done};
      end = std::max(end, done);
    }
    now = end;
    timeline.finished[rank] = last;
    return true;
  }

  Message &messageOf(size_t rank, const PipelineStep &step) {
    const bool send = step.kind == PipelineStep::Kind::Send;
    return messages[{{send ? rank : step.peer, send ? step.peer : rank},
                     {step.channel, step.microbatch}}];
  }

  void describeDeadlock() {
    for (size_t rank = 0; rank < programs.size(); ++rank) {
      unsigned at = timeline.finished[rank];
      for (; at < programs[rank].size() &&
             programs[rank][at].kind != PipelineStep::Kind::Run;
           ++at) {
        const PipelineStep &step = programs[rank][at];
        const Message &message = messageOf(rank, step);
        const bool send = step.kind == PipelineStep::Kind::Send;
        if ((send ? message.received : message.sent) >= 0 ||
            (send && mode == SendMode::Buffered))
          continue;
        timeline.deadlock += (timeline.deadlock.empty() ? "rank " : "; rank ") +
                             std::to_string(rank) +
                             (send ? " waits to send microbatch "
                                   : " waits to receive microbatch ") +
                             std::to_string(step.microbatch) + " on channel " +
                             std::to_string(step.channel) +
                             (send ? " to" : " from") + " rank " +
                             std::to_string(step.peer);
      }
    }
  }

  static unsigned countInFlight(const PipelineProgram &program) {
    std::map<std::pair<int, uint32_t>, size_t> lastRun;
    for (size_t index = 0; index < program.size(); ++index)
      if (program[index].kind == PipelineStep::Kind::Run &&
          program[index].stage >= 0)
        lastRun[{program[index].stage, program[index].microbatch}] = index;
    std::map<std::pair<int, uint32_t>, bool> held;
    size_t most = 0;
    for (size_t index = 0; index < program.size(); ++index) {
      const PipelineStep &step = program[index];
      if (step.kind != PipelineStep::Kind::Run || step.stage < 0)
        continue;
      const std::pair<int, uint32_t> key{step.stage, step.microbatch};
      held[key] = true;
      most = std::max(most, held.size());
      if (lastRun[key] == index)
        held.erase(key);
    }
    return unsigned(most);
  }

  const std::vector<PipelineProgram> &programs;
  const SendMode mode;
  const double transfer;
  std::vector<double> clock;
  std::map<
      std::pair<std::pair<uint64_t, uint64_t>, std::pair<uint32_t, uint32_t>>,
      Message>
      messages;
  PipelineTimeline timeline;
};

} // namespace

PipelineTimeline
megalodon::plan::simulatePipeline(const std::vector<PipelineProgram> &programs,
                                  SendMode mode, double transfer) {
  return Simulation(programs, mode, transfer).run();
}
