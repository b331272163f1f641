#include "runtime/plan/Simulation.h"
#include "runtime/core/Error.h"
#include "runtime/plan/Traffic.h"
#include <algorithm>
#include <map>
#include <tuple>

using namespace megalodon;
using namespace megalodon::plan;

namespace {

/// Bytes of the arena (variable -1) or of a variable.
struct Range {
  int variable;
  uint64_t begin, end;

  bool meets(const Range &other) const {
    return variable == other.variable && begin < other.end && other.begin < end;
  }
};

/// A collective of the ranks of one group, or a message between two stages.
struct Transfer {
  unsigned arrived = 0;
  double begin = 0; ///< when all have arrived
  double end = -1;  ///< negative: not all have
};

/// A message between stages that a rank has begun.
struct Pending {
  Transfer *transfer;
  Range range;
  std::string name;
  uint32_t microbatch;
};

/// What a rank of a stage is at.
struct Rank {
  const Program *program;
  std::vector<std::pair<const Action *, bool>> actions; ///< and if it is the
                                                        ///< first of its list
  size_t action = 0, command = 0;
  bool settled = false;
  double now = 0;
  double linkFree[4] = {};
  double sendFree = 0;
  std::map<uint32_t, int64_t> sequence; ///< collectives begun, by communicator
  std::map<uint32_t, std::pair<Transfer *, const CollectiveStart *>> events;
  std::vector<Pending> pending;
  std::map<std::tuple<uint32_t, uint32_t, bool>, int64_t> messages;
};

class Simulation {
public:
  Simulation(const LoadedPlan &plan, const Function &function,
             const Machine &machine)
      : plan(plan), function(function), machine(machine),
        batch(function.localBatch()), length(function.localLength()),
        ranks(function.programs.size()) {
    estimate.stages.resize(ranks.size());
    for (size_t stage = 0; stage < ranks.size(); ++stage) {
      const Program &program = function.programs[stage];
      ranks[stage].program = &program;
      for (const auto *list : {&program.actions, &program.updateActions})
        for (const Action &action : *list)
          ranks[stage].actions.push_back({&action, &action == list->data()});
    }
  }

  Estimate run() {
    for (bool progress = true; progress;) {
      progress = false;
      for (uint32_t stage = 0; stage < ranks.size(); ++stage)
        while (advance(stage))
          progress = true;
    }
    for (uint32_t stage = 0; stage < ranks.size(); ++stage) {
      Rank &rank = ranks[stage];
      if (rank.action < rank.actions.size() || !settleAll(stage))
        throw Error(str(plan.path, ": function '", function.name,
                        "': pipeline rank ", stage, " waits forever at action ",
                        rank.action, " of ", rank.actions.size()));
      estimate.stages[stage].seconds = rank.now;
      estimate.seconds = std::max(estimate.seconds, rank.now);
    }
    return std::move(estimate);
  }

private:
  /// Does one command or message of a stage. False: it is done or has to wait.
  bool advance(uint32_t stage) {
    Rank &rank = ranks[stage];
    if (rank.action == rank.actions.size())
      return false;
    const auto [action, isFirst] = rank.actions[rank.action];
    // The messages of a list are complete at its end.
    if (isFirst && !rank.settled && !settleAll(stage))
      return false;
    if (action->kind != ActionKind::Run) {
      const Buffer &buffer = rank.program->buffers[action->buffer];
      if (!settle(stage, {rangeOf(buffer, *action)}))
        return false;
      beginMessage(stage, *action);
      ++rank.action;
      rank.settled = false;
      return true;
    }
    const Segment &segment = rank.program->segments[action->segment];
    if (!rank.settled) {
      if (!rank.pending.empty() &&
          !settle(stage, touchedBy(*rank.program, segment, *action)))
        return false;
      rank.settled = true;
      rank.command = 0;
    }
    if (rank.command == segment.commands.size()) {
      ++rank.action;
      rank.settled = false;
      return true;
    }
    if (!execute(stage, segment.commands[rank.command], *action))
      return false;
    ++rank.command;
    return true;
  }

  static Range rangeOf(const Buffer &buffer, const Action &action) {
    const uint64_t index = buffer.index == Indexed::Slot ? action.slot
                           : buffer.index == Indexed::Microbatch
                               ? action.microbatch
                               : 0;
    const uint64_t begin = buffer.offset + index * buffer.stride;
    return {buffer.variable, begin, begin + buffer.bytes};
  }

  static std::vector<Range> touchedBy(const Program &program,
                                      const Segment &segment,
                                      const Action &action) {
    std::vector<Range> ranges;
    auto add = [&](uint32_t buffer) {
      ranges.push_back(rangeOf(program.buffers[buffer], action));
    };
    for (const Command &command : segment.commands) {
      if (auto *dispatch = std::get_if<Dispatch>(&command.operation)) {
        for (uint32_t buffer : dispatch->args)
          add(buffer);
      } else if (auto *product = std::get_if<Product>(&command.operation)) {
        for (uint32_t buffer : {product->a, product->b, product->c})
          add(buffer);
      } else if (auto *copy = std::get_if<CopyStart>(&command.operation)) {
        add(copy->from);
        add(copy->to);
      } else if (auto *start =
                     std::get_if<CollectiveStart>(&command.operation)) {
        for (const CollectiveItem &item : start->items) {
          add(item.from);
          add(item.to);
        }
      }
    }
    return ranges;
  }

  /// Waits for the messages that meet one of the ranges.
  bool settle(uint32_t stage, const std::vector<Range> &ranges) {
    Rank &rank = ranks[stage];
    for (size_t i = 0; i < rank.pending.size();) {
      if (std::none_of(ranges.begin(), ranges.end(), [&](const Range &range) {
            return range.meets(rank.pending[i].range);
          })) {
        ++i;
        continue;
      }
      if (!finishMessage(stage, i))
        return false;
    }
    return true;
  }

  bool settleAll(uint32_t stage) {
    while (!ranks[stage].pending.empty())
      if (!finishMessage(stage, 0))
        return false;
    return true;
  }

  bool finishMessage(uint32_t stage, size_t index) {
    Rank &rank = ranks[stage];
    const Pending &pending = rank.pending[index];
    const double end = pending.transfer->end;
    if (end < 0)
      return false;
    estimate.stages[stage].pipelineWait += std::max(0.0, end - rank.now);
    wait(stage, pending.name, "", pending.microbatch, end);
    rank.pending.erase(rank.pending.begin() + std::ptrdiff_t(index));
    return true;
  }

  void wait(uint32_t stage, const std::string &name,
            const std::string &location, uint32_t microbatch, double until) {
    Rank &rank = ranks[stage];
    const double end = std::max(rank.now, until);
    estimate.stages[stage].trace.push_back({TraceEvent::Kind::Wait,
                                            "wait " + name, location, 0,
                                            microbatch, rank.now, end});
    rank.now = end;
  }

  void beginMessage(uint32_t stage, const Action &action) {
    Rank &rank = ranks[stage];
    const bool sends = action.kind == ActionKind::Send;
    const uint32_t from = sends ? stage : action.peer,
                   to = sends ? action.peer : stage;
    const int64_t number =
        rank.messages[{action.peer, action.channel, sends}]++;
    Transfer &transfer = messages[{from, to, action.channel, number}];
    const uint64_t bytes =
        messageBytes(function, *rank.program, action, batch, length);
    transfer.begin = std::max(transfer.begin, rank.now);
    if (++transfer.arrived == 2) {
      const Link &link = machine.links[size_t(Axis::Pipeline)];
      transfer.begin = std::max(transfer.begin, ranks[from].sendFree);
      transfer.end =
          transfer.begin + link.latency + double(bytes) / link.bytesPerSecond;
      ranks[from].sendFree = transfer.end;
      estimate.stages[from].wireBytes += double(bytes);
    }
    const std::string name = sends ? "send pp" : "receive pp";
    const Buffer &buffer = rank.program->buffers[action.buffer];
    estimate.stages[stage].trace.push_back(
        {sends ? TraceEvent::Kind::Send : TraceEvent::Kind::Receive, name,
         buffer.name, bytes, action.microbatch, rank.now, rank.now});
    rank.pending.push_back(
        {&transfer, rangeOf(buffer, action), name, action.microbatch});
  }

  bool execute(uint32_t stage, const Command &command, const Action &action) {
    Rank &rank = ranks[stage];
    if (auto *start = std::get_if<CollectiveStart>(&command.operation)) {
      if (!start->last || action.microbatch + 1 == rank.program->microbatches)
        beginCollective(stage, *start, command, action);
      return true;
    }
    auto *awaited = std::get_if<Wait>(&command.operation);
    if (!awaited) {
      work(stage, command, action);
      return true;
    }
    auto found = rank.events.find(awaited->event);
    if (found == rank.events.end())
      return true; // of a copy, or of a collective that was left out
    const auto [transfer, collective] = found->second;
    if (transfer->end < 0)
      return false;
    const std::string name = collectiveName(plan, *collective);
    expose(stage, name, std::max(0.0, transfer->end - rank.now));
    wait(stage, name, command.location, action.microbatch, transfer->end);
    compute(stage, unpackedBytes(*collective));
    rank.events.erase(found);
    return true;
  }

  void work(uint32_t stage, const Command &command, const Action &action) {
    TraceEvent event = eventOf(plan, command, batch, length, action.microbatch);
    const double flops = flopsOf(command, batch, length);
    const double seconds =
        std::max(flops / machine.flopsPerSecond,
                 double(event.bytes) / machine.bytesPerSecond);
    estimate.stages[stage].flops += flops;
    double &now = ranks[stage].now;
    event.begin = now;
    event.end = now += seconds;
    estimate.stages[stage].compute += seconds;
    estimate.stages[stage].trace.push_back(std::move(event));
  }

  /// Time for bytes read and written.
  void compute(uint32_t stage, double bytes) {
    const double seconds = bytes / machine.bytesPerSecond;
    estimate.stages[stage].compute += seconds;
    ranks[stage].now += seconds;
  }

  bool isStaged(const CollectiveStart &start) const {
    return stagingBytes(plan, start, batch, length) != 0;
  }

  /// Bytes moved to put a message together, and to take it apart.
  double packedBytes(const CollectiveStart &start) const {
    return isStaged(start)
               ? 2 * double(contributedBytes(plan, start, batch, length))
               : 0;
  }
  double unpackedBytes(const CollectiveStart &start) const {
    if (!isStaged(start))
      return 0;
    const double gathered =
        start.kind == CollectiveKind::AllGather
            ? double(plan.communicators[start.communicator].size)
            : 1;
    return 2 * gathered * double(start.shareBytes(batch, length));
  }

  void beginCollective(uint32_t stage, const CollectiveStart &start,
                       const Command &command, const Action &action) {
    Rank &rank = ranks[stage];
    TraceEvent event = eventOf(plan, command, batch, length, action.microbatch);
    event.begin = rank.now;
    compute(stage, packedBytes(start));
    event.end = rank.now;
    estimate.stages[stage].trace.push_back(std::move(event));
    const Communicator &group = plan.communicators[start.communicator];
    const int64_t number = rank.sequence[start.communicator]++;
    // Stages meet in one collective only if it goes along the pipeline.
    std::vector<uint32_t> members = {stage};
    if (std::count(group.axes.begin(), group.axes.end(), Axis::Pipeline)) {
      members.clear();
      for (uint32_t other = 0; other < ranks.size(); ++other)
        if (group.isMember(other))
          members.push_back(other);
    }
    Transfer &transfer =
        collectives[{start.communicator, number, members.front()}];
    transfer.begin = std::max(transfer.begin, rank.now);
    if (++transfer.arrived == members.size())
      travel(transfer, start, group, members);
    rank.events[start.event] = {&transfer, &start};
  }

  /// All have arrived: sets when it ends.
  void travel(Transfer &transfer, const CollectiveStart &start,
              const Communicator &group, const std::vector<uint32_t> &members) {
    Link slowest = {0, 0};
    for (Axis axis : group.axes) {
      const Link &link = machine.links[size_t(axis)];
      slowest.latency = std::max(slowest.latency, link.latency);
      slowest.bytesPerSecond =
          slowest.bytesPerSecond == 0
              ? link.bytesPerSecond
              : std::min(slowest.bytesPerSecond, link.bytesPerSecond);
      for (uint32_t member : members)
        transfer.begin =
            std::max(transfer.begin, ranks[member].linkFree[size_t(axis)]);
    }
    const double size = double(group.size),
                 share = double(start.shareBytes(batch, length));
    const bool reduces = start.kind == CollectiveKind::AllReduce;
    const double steps = (reduces ? 2 : 1) * (size - 1),
                 bytes = steps * (reduces ? share / size : share);
    transfer.end = transfer.begin + steps * slowest.latency +
                   bytes / slowest.bytesPerSecond;
    for (uint32_t member : members) {
      for (Axis axis : group.axes)
        ranks[member].linkFree[size_t(axis)] = transfer.end;
      estimate.stages[member].wireBytes += bytes;
    }
  }

  void expose(uint32_t stage, const std::string &name, double seconds) {
    std::vector<Exposed> &list = estimate.stages[stage].exposed;
    auto found = std::find_if(list.begin(), list.end(),
                              [&](const Exposed &e) { return e.name == name; });
    if (found == list.end())
      found = list.insert(list.end(), Exposed{name});
    found->seconds += seconds;
  }

  const LoadedPlan &plan;
  const Function &function;
  const Machine &machine;
  const int64_t batch, length;
  std::vector<Rank> ranks;
  std::map<std::tuple<uint32_t, int64_t, uint32_t>, Transfer> collectives;
  std::map<std::tuple<uint32_t, uint32_t, uint32_t, int64_t>, Transfer>
      messages;
  Estimate estimate;
};

} // namespace

double StageEstimate::exposedSeconds() const {
  double sum = 0;
  for (const Exposed &entry : exposed)
    sum += entry.seconds;
  return sum;
}

double Estimate::exposedShare() const {
  if (seconds == 0)
    return 0;
  double sum = 0;
  for (const StageEstimate &stage : stages)
    sum += stage.exposedSeconds();
  return sum / (seconds * double(stages.size()));
}

double Estimate::bubbleShare() const {
  if (seconds == 0)
    return 0;
  double busy = 0;
  for (const StageEstimate &stage : stages)
    busy += stage.compute + stage.exposedSeconds();
  return 1 - busy / (seconds * double(stages.size()));
}

Estimate megalodon::plan::simulate(const LoadedPlan &plan,
                                   const Function &function,
                                   const Machine &machine) {
  return Simulation(plan, function, machine).run();
}
