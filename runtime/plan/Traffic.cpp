#include "runtime/plan/Traffic.h"
#include <algorithm>
#include <map>
#include <set>

using namespace megalodon;
using namespace megalodon::plan;

static uint64_t ranksOf(const LoadedPlan &plan,
                        const CollectiveStart &collective) {
  return uint64_t(plan.communicators[collective.communicator].size);
}

uint64_t megalodon::plan::contributedBytes(const LoadedPlan &plan,
                                           const CollectiveStart &collective,
                                           int64_t batch, int64_t length) {
  const uint64_t share = collective.shareBytes(batch, length);
  return collective.kind == CollectiveKind::ReduceScatter
             ? share * ranksOf(plan, collective)
             : share;
}

uint64_t megalodon::plan::messageBytes(const Function &function,
                                       const Program &program,
                                       const Action &action, int64_t batch,
                                       int64_t length) {
  return program.buffers[action.buffer].bytes /
         uint64_t(timesOf(action.dynamic, function.localBatch(),
                          function.localLength())) *
         uint64_t(timesOf(action.dynamic, batch, length));
}

std::vector<Message> megalodon::plan::messagesOf(const LoadedPlan &plan,
                                                 const Function &function,
                                                 const Program &program) {
  const int64_t batch = function.localBatch(), length = function.localLength();
  std::vector<Message> messages;
  auto walk = [&](const std::vector<Action> &actions, bool update) {
    for (const Action &action : actions) {
      if (action.kind != ActionKind::Run) {
        const bool sends = action.kind == ActionKind::Send;
        messages.push_back(
            {sends ? Message::Kind::Send : Message::Kind::Receive,
             sends ? "send pp" : "receive pp",
             program.buffers[action.buffer].name,
             messageBytes(function, program, action, batch, length),
             action.microbatch, update});
        continue;
      }
      const bool last = action.microbatch + 1 == program.microbatches;
      for (const Command &command : program.segments[action.segment].commands)
        if (auto *start = std::get_if<CollectiveStart>(&command.operation))
          if (!start->last || last)
            messages.push_back({Message::Kind::Collective,
                                collectiveName(plan, *start), command.location,
                                contributedBytes(plan, *start, batch, length),
                                action.microbatch, update});
    }
  };
  walk(program.actions, false);
  walk(program.updateActions, true);
  return messages;
}

std::vector<Traffic>
megalodon::plan::trafficOf(const std::vector<Message> &messages) {
  std::vector<Traffic> list;
  for (const Message &message : messages) {
    if (message.kind == Message::Kind::Receive)
      continue;
    auto found = std::find_if(list.begin(), list.end(), [&](const Traffic &t) {
      return t.name == message.name && t.update == message.update;
    });
    if (found == list.end())
      found = list.insert(list.end(), Traffic{message.name, message.update});
    found->messages += 1;
    found->bytes += message.bytes;
  }
  return list;
}

uint64_t &RankMemory::of(Role role) {
  switch (role) {
  case Role::Parameter:
    return parameters;
  case Role::FirstMoment:
  case Role::SecondMoment:
    return moments;
  case Role::Gradient:
    return gradients;
  case Role::State:
    return state;
  case Role::Residual:
    return residuals;
  case Role::Input:
  case Role::Output:
    break;
  }
  return inputsOutputs;
}

uint64_t megalodon::plan::allocatedBytes(const Variable &variable) {
  return (variable.localBytes() + 63) / 64 * 64;
}

uint64_t megalodon::plan::stagingBytes(const LoadedPlan &plan,
                                       const CollectiveStart &collective,
                                       int64_t batch, int64_t length) {
  // A rank's share in one piece and the ranks' shares in a row are a message
  // already.
  const bool reduces = collective.kind == CollectiveKind::AllReduce;
  if (collective.items.size() == 1 &&
      (reduces || collective.items[0].rowsOf(batch, length) == 1))
    return 0;
  const uint64_t share = collective.shareBytes(batch, length);
  return reduces ? share : share * (ranksOf(plan, collective) + 1);
}

/// The staging memory that running a program takes: like the executor's, memory
/// that is free is used again, and grows where it is too small.
static uint64_t stagingOf(const LoadedPlan &plan, const Function &function,
                          const Program &program) {
  const int64_t batch = function.localBatch(), length = function.localLength();
  std::multiset<uint64_t> spare;
  uint64_t total = 0;
  for (const auto *actions : {&program.actions, &program.updateActions})
    for (const Action &action : *actions) {
      if (action.kind != ActionKind::Run)
        continue;
      std::map<uint32_t, uint64_t> taken; // by event
      for (const Command &command : program.segments[action.segment].commands) {
        if (auto *start = std::get_if<CollectiveStart>(&command.operation)) {
          const uint64_t bytes = stagingBytes(plan, *start, batch, length);
          if (!bytes ||
              (start->last && action.microbatch + 1 != program.microbatches))
            continue;
          auto found = spare.lower_bound(bytes);
          if (found != spare.end()) {
            taken[start->event] = *found;
            spare.erase(found);
            continue;
          }
          if (!spare.empty()) {
            total -= *std::prev(spare.end());
            spare.erase(std::prev(spare.end()));
          }
          total += bytes;
          taken[start->event] = bytes;
        } else if (auto *wait = std::get_if<Wait>(&command.operation)) {
          auto found = taken.find(wait->event);
          if (found == taken.end())
            continue;
          spare.insert(found->second);
          taken.erase(found);
        }
      }
    }
  return total;
}

RankMemory megalodon::plan::memoryOf(const LoadedPlan &plan,
                                     const Function &function,
                                     const Program &program) {
  RankMemory memory;
  memory.arena = program.arenaBytes;
  memory.staging = stagingOf(plan, function, program);
  std::vector<bool> used(plan.variables.size());
  for (const std::vector<uint32_t> *list :
       {&function.inputs, &function.outputs})
    for (uint32_t index : *list)
      used[index] = true;
  for (const Buffer &buffer : program.buffers)
    if (buffer.variable >= 0)
      used[size_t(buffer.variable)] = true;
  for (size_t i = 0; i < plan.variables.size(); ++i) {
    const Variable &variable = plan.variables[i];
    // Parameters and moments are there for every function.
    const bool shared = variable.role == Role::Parameter ||
                        variable.role == Role::FirstMoment ||
                        variable.role == Role::SecondMoment;
    if ((used[i] || shared) && variable.isHeldBy(program.stage))
      memory.of(variable.role) += allocatedBytes(variable);
  }
  return memory;
}
