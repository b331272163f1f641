#include "passes/Partition/PipelineSchedule.h"
#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <limits>
#include <map>
#include <set>

using namespace megalodon;
using Kind = plan::PipelineStep::Kind;

static constexpr std::array<std::string_view, 5> names = {
    "gpipe", "1f1b", "interleaved", "zero-bubble", "forward"};

std::string_view megalodon::scheduleName(ScheduleKind kind) {
  return names[size_t(kind)];
}

std::optional<ScheduleKind>
megalodon::parseScheduleKind(std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    return std::nullopt;
  return ScheduleKind(found - names.begin());
}

//===-- Orders ------------------------------------------------------------===//

/// A round of microbatches goes through one chunk before the next chunk's turn.
/// It has as many as there are ranks, so that the first comes round just in
/// time; the first round takes what is over too.
static unsigned firstRound(PipelineShape shape) {
  return shape.microbatches < shape.ranks
             ? shape.microbatches
             : shape.ranks + shape.microbatches % shape.ranks;
}

/// Forward runs before the first backward run.
static unsigned warmup(ScheduleKind kind, PipelineShape shape, unsigned rank) {
  const unsigned all = shape.microbatches * shape.chunks;
  const unsigned behind = shape.ranks - rank - 1; // ranks behind this one
  switch (kind) {
  case ScheduleKind::GPipe:
  case ScheduleKind::Forward:
    return all;
  case ScheduleKind::Interleaved:
    // As far as the last chunk; then a microbatch comes back every second step.
    if (shape.chunks > 1)
      return std::min(all, (shape.chunks - 1) * firstRound(shape) + 2 * behind);
    break;
  case ScheduleKind::OneFOneB:
  case ScheduleKind::ZeroBubble:
    break;
  }
  return std::min(all, behind);
}

static std::vector<PipelineWork> forwardOrder(PipelineShape shape) {
  std::vector<PipelineWork> order;
  for (unsigned begin = 0; begin < shape.microbatches;) {
    const unsigned end = begin + (begin == 0 ? firstRound(shape) : shape.ranks);
    for (unsigned chunk = 0; chunk < shape.chunks; ++chunk)
      for (unsigned microbatch = begin; microbatch < end; ++microbatch)
        order.push_back({Work::Forward, microbatch, chunk});
    begin = end;
  }
  return order;
}

PipelineSchedule megalodon::buildSchedule(ScheduleKind kind,
                                          PipelineShape shape) {
  assert((shape.chunks == 1 || kind == ScheduleKind::Interleaved ||
          kind == ScheduleKind::Forward) &&
         "this schedule has one chunk a rank");
  PipelineSchedule schedule(shape.ranks);
  const std::vector<PipelineWork> forward = forwardOrder(shape);
  std::vector<PipelineWork> backward = forward;
  for (PipelineWork &work : backward)
    work = {Work::Backward, work.microbatch, shape.chunks - 1 - work.chunk};
  for (unsigned rank = 0; rank < shape.ranks; ++rank) {
    std::vector<PipelineWork> &order = schedule[rank];
    const unsigned first = warmup(kind, shape, rank);
    order.assign(forward.begin(), forward.begin() + first);
    if (kind == ScheduleKind::Forward)
      continue;
    unsigned weights = 0;
    for (unsigned number = 0; number < backward.size(); ++number) {
      if (first + number < forward.size())
        order.push_back(forward[first + number]);
      order.push_back(backward[number]);
      // The later a rank stands, the fewer microbatches it holds as they go
      // forward, and the longer it can put off weight gradients without holding
      // more than the first rank.
      if (kind == ScheduleKind::ZeroBubble && number >= rank)
        order.push_back({Work::Weight, weights++, 0});
    }
    if (kind == ScheduleKind::ZeroBubble)
      while (weights < shape.microbatches)
        order.push_back({Work::Weight, weights++, 0});
  }
  return schedule;
}

std::string megalodon::printWork(const std::vector<PipelineWork> &work,
                                 PipelineShape shape) {
  std::string text;
  for (const PipelineWork &one : work) {
    text += text.empty() ? "" : " ";
    text += "FBW"[size_t(one.work)] + std::to_string(one.microbatch);
    if (shape.chunks > 1)
      text += "." + std::to_string(one.chunk);
  }
  return text;
}

std::optional<std::vector<PipelineWork>>
megalodon::parseWork(std::string_view text) {
  std::vector<PipelineWork> result;
  while (!text.empty()) {
    std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    const size_t work = word.empty() ? std::string_view::npos
                                     : std::string_view("FBW").find(word[0]);
    if (work == std::string_view::npos)
      return std::nullopt;
    PipelineWork one{Work(work), 0, 0};
    const char *end = word.data() + word.size();
    auto parsed = std::from_chars(word.data() + 1, end, one.microbatch);
    if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '.')
      parsed = std::from_chars(parsed.ptr + 1, end, one.chunk);
    if (parsed.ec != std::errc() || parsed.ptr != end)
      return std::nullopt;
    result.push_back(one);
  }
  return result;
}

//===-- Messages and slots ------------------------------------------------===//

/// Runs with each receive right before the run that needs it and each send
/// right behind the run that made it.
static std::vector<PipelineAction>
insertMessages(const std::vector<PipelineWork> &order, PipelineShape shape,
               unsigned rank) {
  const unsigned stages = shape.stages();
  std::vector<PipelineAction> actions;
  for (const PipelineWork &work : order) {
    const unsigned stage = shape.stage(rank, work.chunk);
    // Channels: forward over each border, then backward over each.
    auto message = [&](Kind kind, unsigned other, unsigned channel) {
      if (other % shape.ranks != rank)
        actions.push_back({kind, work.work, work.microbatch, work.chunk, 0,
                           other % shape.ranks, channel});
    };
    if (work.work == Work::Forward && stage > 0)
      message(Kind::Receive, stage - 1, stage - 1);
    if (work.work == Work::Backward && stage + 1 < stages)
      message(Kind::Receive, stage + 1, stages + stage);
    actions.push_back(
        {Kind::Run, work.work, work.microbatch, work.chunk, 0, 0, 0});
    if (work.work == Work::Forward && stage + 1 < stages)
      message(Kind::Send, stage + 1, stage);
    if (work.work == Work::Backward && stage > 0)
      message(Kind::Send, stage - 1, stages + stage - 1);
  }
  return actions;
}

/// Lets ranks that would wait for each other for ever take messages before they
/// need them.
static void breakDeadlocks(std::vector<std::vector<PipelineAction>> &actions,
                           PipelineShape shape) {
  for (bool moved = true; moved;) {
    moved = false;
    const plan::PipelineTimeline timeline = plan::simulatePipeline(
        makePrograms(actions, shape, {}), plan::SendMode::Rendezvous, 0);
    // Behind the messages that a rank waits for.
    auto endOfGroup = [&](unsigned rank) {
      size_t end = timeline.finished[rank];
      while (end < actions[rank].size() && actions[rank][end].kind != Kind::Run)
        ++end;
      return end;
    };
    for (unsigned rank = 0; rank < shape.ranks; ++rank)
      for (size_t at = timeline.finished[rank]; at < endOfGroup(rank); ++at) {
        const PipelineAction &send = actions[rank][at];
        if (send.kind != Kind::Send)
          continue;
        std::vector<PipelineAction> &other = actions[send.peer];
        const auto group = other.begin() + endOfGroup(send.peer);
        const auto receive =
            std::find_if(group, other.end(), [&](const PipelineAction &one) {
              return one.kind == Kind::Receive && one.channel == send.channel &&
                     one.microbatch == send.microbatch;
            });
        if (receive == other.end())
          continue;
        std::rotate(group, receive, receive + 1);
        moved = true;
      }
  }
}

/// Gives a microbatch the lowest free slot of its chunk while it is here.
static void assignSlots(std::vector<PipelineAction> &actions,
                        PipelineShape shape) {
  // The microbatch in each slot of each chunk, and where it is used last.
  std::vector<std::vector<std::optional<unsigned>>> slots(shape.chunks);
  std::map<std::pair<unsigned, unsigned>, size_t> last;
  for (size_t index = 0; index < actions.size(); ++index)
    last[{actions[index].chunk, actions[index].microbatch}] = index;
  for (size_t index = 0; index < actions.size(); ++index) {
    PipelineAction &action = actions[index];
    std::vector<std::optional<unsigned>> &held = slots[action.chunk];
    auto at = std::find(held.begin(), held.end(),
                        std::optional<unsigned>(action.microbatch));
    if (at == held.end())
      at = std::find(held.begin(), held.end(), std::nullopt);
    if (at == held.end())
      at = held.insert(held.end(), std::nullopt);
    *at = action.microbatch;
    action.slot = unsigned(at - held.begin());
    if (last[{action.chunk, action.microbatch}] == index)
      *at = std::nullopt;
  }
}

std::vector<std::vector<PipelineAction>>
megalodon::expandSchedule(const PipelineSchedule &schedule,
                          PipelineShape shape) {
  std::vector<std::vector<PipelineAction>> actions;
  for (unsigned rank = 0; rank < schedule.size(); ++rank)
    actions.push_back(insertMessages(schedule[rank], shape, rank));
  breakDeadlocks(actions, shape);
  for (std::vector<PipelineAction> &list : actions)
    assignSlots(list, shape);
  return actions;
}

unsigned megalodon::countSlots(const std::vector<PipelineAction> &actions,
                               unsigned chunk) {
  unsigned slots = 0;
  for (const PipelineAction &action : actions)
    if (action.chunk == chunk)
      slots = std::max(slots, action.slot + 1);
  return slots;
}

std::vector<plan::PipelineProgram>
megalodon::makePrograms(const std::vector<std::vector<PipelineAction>> &actions,
                        PipelineShape shape, WorkCosts costs) {
  std::vector<plan::PipelineProgram> programs;
  for (unsigned rank = 0; rank < actions.size(); ++rank) {
    const bool split = std::any_of(
        actions[rank].begin(), actions[rank].end(),
        [](const PipelineAction &one) { return one.work == Work::Weight; });
    plan::PipelineProgram &program = programs.emplace_back();
    for (const PipelineAction &action : actions[rank]) {
      double duration = 0;
      if (action.kind == Kind::Run)
        duration = action.work == Work::Forward  ? costs.forward
                   : action.work == Work::Weight ? costs.weight
                   : split                       ? costs.backward - costs.weight
                                                 : costs.backward;
      program.push_back({action.kind, int(shape.stage(rank, action.chunk)),
                         action.microbatch, duration, action.channel,
                         action.peer});
    }
  }
  return programs;
}

//===-- Stages ------------------------------------------------------------===//

std::vector<unsigned>
megalodon::balanceStages(const std::vector<double> &layers, double first,
                         double last, unsigned stages) {
  assert(stages >= 1 && layers.size() >= stages && "a layer for each stage");
  std::vector<double> before(layers.size() + 1);
  for (size_t layer = 0; layer < layers.size(); ++layer)
    before[layer + 1] = before[layer] + layers[layer];
  // The slowest stage, then the sum of squares, so that the others are alike.
  using Cost = std::pair<double, double>;
  const Cost never{std::numeric_limits<double>::infinity(), 0};
  std::vector<std::vector<Cost>> best(
      stages + 1, std::vector<Cost>(layers.size() + 1, never));
  std::vector<std::vector<size_t>> begin(
      stages + 1, std::vector<size_t>(layers.size() + 1));
  best[0][0] = {0, 0};
  for (unsigned stage = 1; stage <= stages; ++stage)
    for (size_t end = stage; end <= layers.size(); ++end)
      for (size_t from = stage - 1; from < end; ++from) {
        const double work = before[end] - before[from] +
                            (stage == 1 ? first : 0) +
                            (stage == stages ? last : 0);
        const auto &[slowest, squares] = best[stage - 1][from];
        const Cost cost{std::max(slowest, work), squares + work * work};
        if (cost < best[stage][end]) {
          best[stage][end] = cost;
          begin[stage][end] = from;
        }
      }
  std::vector<unsigned> counts(stages);
  size_t end = layers.size();
  for (unsigned stage = stages; stage > 0; --stage) {
    counts[stage - 1] = unsigned(end - begin[stage][end]);
    end = begin[stage][end];
  }
  return counts;
}

//===-- Checks and formulas -----------------------------------------------===//

std::string megalodon::checkSchedule(const PipelineSchedule &schedule,
                                     PipelineShape shape) {
  if (schedule.size() != shape.ranks)
    return "expected the work of " + std::to_string(shape.ranks) +
           " ranks, got " + std::to_string(schedule.size());
  auto has = [&](Work work) {
    for (const std::vector<PipelineWork> &order : schedule)
      for (const PipelineWork &one : order)
        if (one.work == work)
          return true;
    return false;
  };
  const std::array<bool, 3> expected = {true, has(Work::Backward),
                                        has(Work::Weight)};
  for (unsigned rank = 0; rank < shape.ranks; ++rank) {
    auto wrong = [&](const PipelineWork &work, const std::string &what) {
      return "rank " + std::to_string(rank) + ": expected " +
             printWork({work}, shape) + " " + what;
    };
    std::set<std::pair<unsigned, unsigned>> done[3];
    for (const PipelineWork &work : schedule[rank]) {
      if (work.microbatch >= shape.microbatches || work.chunk >= shape.chunks)
        return wrong(work, "of " + std::to_string(shape.microbatches) +
                               " microbatches and " +
                               std::to_string(shape.chunks) + " chunks");
      const std::pair<unsigned, unsigned> key{work.microbatch, work.chunk};
      const size_t kind = size_t(work.work);
      if (!done[kind].insert(key).second)
        return wrong(work, "once, got it twice");
      if (kind > 0 && !done[kind - 1].count(key))
        return wrong(work, "after " + printWork({{Work(kind - 1),
                                                  work.microbatch, work.chunk}},
                                                shape));
    }
    for (size_t kind = 0; kind < 3; ++kind)
      for (unsigned chunk = 0; chunk < shape.chunks; ++chunk)
        for (unsigned microbatch = 0; microbatch < shape.microbatches;
             ++microbatch)
          if (expected[kind] && !done[kind].count({microbatch, chunk}))
            return wrong({Work(kind), microbatch, chunk}, "once, got none");
  }
  return plan::simulatePipeline(
             makePrograms(expandSchedule(schedule, shape), shape, {}),
             plan::SendMode::Rendezvous, 0)
      .deadlock;
}

std::optional<double>
megalodon::bubbleOf(ScheduleKind kind, PipelineShape shape, WorkCosts costs) {
  const double others = shape.ranks - 1;
  switch (kind) {
  case ScheduleKind::GPipe:
  case ScheduleKind::OneFOneB:
    return others * (costs.forward + costs.backward);
  case ScheduleKind::Interleaved:
    if (shape.microbatches % shape.ranks != 0)
      return std::nullopt;
    return others * (costs.forward + costs.backward);
  case ScheduleKind::ZeroBubble:
    if (shape.microbatches < shape.ranks)
      return std::nullopt;
    return others * (costs.forward + costs.backward - 2 * costs.weight);
  case ScheduleKind::Forward:
    if (shape.chunks > 1 && shape.microbatches % shape.ranks != 0)
      return std::nullopt;
    return others * costs.forward;
  }
  return std::nullopt;
}

unsigned megalodon::inFlightOf(ScheduleKind kind, PipelineShape shape,
                               unsigned rank) {
  if (kind == ScheduleKind::Forward)
    return 1;
  if (kind == ScheduleKind::ZeroBubble)
    return std::min(shape.ranks, shape.microbatches);
  return std::min(warmup(kind, shape, rank) + 1,
                  shape.microbatches * shape.chunks);
}
