// What a rank sends in one call of the compiled shape, and the memory it needs,
// read off a plan's command lists.
#pragma once
#include "runtime/plan/LoadedPlan.h"

namespace megalodon::plan {

/// A message that a rank takes part in.
struct Message {
  enum class Kind : uint8_t { Collective, Send, Receive };
  Kind kind;
  std::string name; ///< "all_gather cp", "send pp", "receive pp"
  std::string location;
  uint64_t bytes; ///< what the rank puts in; for Receive, what it takes out
  uint32_t microbatch;
  bool update; ///< belongs to the optimizer, not to forward and backward
};

/// All messages of a rank, in the order in which it begins them. The call ends
/// its step's accumulation.
std::vector<Message> messagesOf(const LoadedPlan &plan,
                                const Function &function,
                                const Program &program);

/// Bytes that a rank puts into a collective: its block of an all_gather, its
/// whole input of a reduce_scatter or all_reduce.
uint64_t contributedBytes(const LoadedPlan &plan,
                          const CollectiveStart &collective, int64_t batch,
                          int64_t length);

/// Bytes of a message to or from another pipeline rank.
uint64_t messageBytes(const Function &function, const Program &program,
                      const Action &action, int64_t batch, int64_t length);

/// What a rank puts into messages of one name.
struct Traffic {
  std::string name;
  bool update;
  int64_t messages = 0;
  uint64_t bytes = 0;
};

/// Sums of messages by name, in order of first appearance; receives are left
/// out, the sender counts them.
std::vector<Traffic> trafficOf(const std::vector<Message> &messages);

/// Memory of one rank in bytes, as a session allocates it for one function.
struct RankMemory {
  uint64_t parameters = 0, moments = 0, gradients = 0, state = 0;
  uint64_t inputsOutputs = 0;
  uint64_t residuals = 0; ///< what lives between a pipeline's segments
  uint64_t arena = 0;
  uint64_t staging = 0; ///< messages that do not lie in buffers as they travel

  uint64_t activations() const { return residuals + arena; }
  uint64_t total() const {
    return parameters + moments + gradients + state + inputsOutputs +
           residuals + arena + staging;
  }
  /// Memory of variables of that role.
  uint64_t &of(Role role);
};

RankMemory memoryOf(const LoadedPlan &plan, const Function &function,
                    const Program &program);

/// What a session allocates for a rank's part of a variable.
uint64_t allocatedBytes(const Variable &variable);

/// Bytes of memory that a message needs besides its buffers: what is received
/// and what is sent, in the order of the message.
uint64_t stagingBytes(const LoadedPlan &plan, const CollectiveStart &collective,
                      int64_t batch, int64_t length);

} // namespace megalodon::plan
