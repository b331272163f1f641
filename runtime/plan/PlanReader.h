// Turns a plan's verified FlatBuffer into the structs of LoadedPlan.h and
// checks what FlatBuffers' verifier cannot know. Private to the loader.
#pragma once
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Plan_generated.h"
#include <limits>
#include <set>

namespace megalodon::plan {

// Bounds far above any real plan, so that sums and products of checked sizes
// cannot overflow.
inline constexpr int64_t kMaxElements = int64_t(1) << 44;
inline constexpr uint64_t kMaxBytes = uint64_t(1) << 48;
inline constexpr int64_t kMaxBatch = int64_t(1) << 18;
inline constexpr int64_t kMaxWorkgroups = std::numeric_limits<uint32_t>::max();
inline constexpr uint32_t kMaxRanks = 1 << 20;
inline constexpr uint32_t kMaxMicrobatches = 1 << 16;
// Of all GPUs so far: threads of a workgroup, its shared memory, and how many
// workgroups a launch may have.
inline constexpr uint32_t kMaxThreads = 1024;
inline constexpr uint64_t kMaxSharedBytes = 227 << 10;
inline constexpr int64_t kMaxLaunch = std::numeric_limits<int32_t>::max();
// Loops over these are nested.
inline constexpr size_t kMaxDimensions = 16;
inline constexpr uint32_t kMaxFunctions = 1024;
inline constexpr uint32_t kMaxImages = 256;
inline constexpr uint32_t kMaxName = 4096;
// Message tags: MPI promises 15 bits, and the tools need some of their own.
inline constexpr uint32_t kMaxChannel = (1 << 14) - 1;

/// Reads one plan. A file a part: ReadVariables.cpp, ReadKernels.cpp,
/// ReadFunctions.cpp, ReadCommands.cpp.
class PlanReader {
public:
  PlanReader(LoadedPlan &plan, uint64_t payloadBytes)
      : plan(plan), room((uint64_t(64) << 20) + 64 * payloadBytes) {}

  void read(const fb::Plan &root);

private:
  template <typename... Pieces>
  [[noreturn]] void fail(const std::string &field,
                         const Pieces &...pieces) const {
    throw Error(str(plan.path, ": corrupt plan: ", field, ": ", pieces...));
  }
  template <typename... Pieces>
  void check(bool ok, const std::string &field, const Pieces &...pieces) const {
    if (!ok)
      fail(field, pieces...);
  }
  template <typename To, typename From>
  To enumerator(From value, From last, const std::string &field) const {
    check(int(value) >= 0 && value <= last, field, "unknown value ",
          int(value));
    return To(int(value));
  }

  /// Counts memory before it is asked for. Tables, lists and texts of a payload
  /// may be shared, as texts are, so that a small file could fill any memory.
  void take(uint64_t bytes) const {
    check(bytes <= room, "payload",
          "the same parts of it are used over and "
          "over, more often than any compiler does");
    room -= bytes;
  }
  template <typename T>
  const flatbuffers::Vector<T> &list(const flatbuffers::Vector<T> &from) const {
    constexpr uint64_t structBytes = 256;
    take(from.size() * (std::is_class_v<T> ? structBytes : sizeof(T)));
    // FlatBuffers' verifier looks at where a list begins, not its elements.
    check(!std::is_arithmetic_v<T> || from.size() == 0 ||
              reinterpret_cast<uintptr_t>(from.Data()) % alignof(T) == 0,
          "payload", "a list of ", sizeof(T),
          "-byte numbers is not aligned to them");
    return from;
  }
  std::string text(const flatbuffers::String *from) const {
    if (!from)
      return "";
    take(from->size());
    return from->str();
  }
  /// A text that errors repeat.
  std::string nameIn(const flatbuffers::String *from,
                     const std::string &field) const {
    check(from->size() <= kMaxName, field, "expected names of at most ",
          kMaxName, " bytes, got ", from->size());
    return text(from);
  }

  // ReadVariables.cpp
  void readMesh(const fb::Mesh &from);
  template <typename Vector>
  std::vector<Axis> readAxes(const Vector &from,
                             const std::string &field) const;
  std::vector<uint32_t> readStages(const flatbuffers::Vector<uint32_t> *from,
                                   const std::string &field) const;
  void readCommunicator(const fb::Communicator &from);
  void readSplits(const fb::Variable &from, Variable &variable,
                  const std::string &field) const;
  void readVariable(const fb::Variable &from);
  void checkParameterOf(const Variable &variable) const;

  // ReadKernels.cpp
  void readKernel(const fb::Kernel &from);
  void readImage(const fb::GpuImage &from);

  /// What the readers of one program's parts need to know of it.
  struct Context {
    const Function &function;
    Program &program;
    int64_t batch, length; ///< of one microbatch on one rank, at most
  };

  // ReadFunctions.cpp
  void readVariableList(const flatbuffers::Vector<uint32_t> &from,
                        Function &function, const std::string &field,
                        std::vector<uint32_t> &into) const;
  /// All tensors that follow the call are cut in the same way; the first says
  /// how.
  void readParts(const Variable &variable, uint32_t dimension, int64_t &parts,
                 const std::string &field) const;
  void checkShape(const Variable &variable, const Function &function,
                  const std::string &field) const;
  void readFunction(const fb::Function &from);
  void readProgram(const fb::Program &from, Function &function,
                   const std::string &field);
  void readSegment(const fb::Segment &from, const Context &context,
                   const std::string &field);
  Action readAction(const fb::Action &from, const Context &context,
                    const std::string &field) const;
  /// Every message is sent and received, in the same order and size.
  void checkMessages(const Function &function,
                     std::vector<Action> Program::*list,
                     const std::string &field) const;
  void readBuffer(const fb::Buffer &from, const Context &context,
                  const std::string &field) const;
  static uint64_t copiesOf(const Buffer &buffer, const Program &program);
  const Buffer &buffer(const Context &context, uint32_t index,
                       const std::string &field) const;
  /// Whether two buffers may share bytes in one microbatch and slot.
  static bool overlap(const Context &context, const Buffer &left,
                      uint64_t leftBytes, const Buffer &right,
                      uint64_t rightBytes);

  // ReadCommands.cpp
  Command readCommand(const fb::Command &from, const Context &context,
                      const std::string &field);
  void setQueue(uint32_t communicator, uint32_t queue,
                const std::string &field);
  Dispatch readDispatch(const fb::Dispatch &from, const Context &context,
                        const std::string &field) const;
  Product readProduct(const fb::Product &from, const Context &context,
                      const std::string &field) const;
  CopyStart readCopy(const fb::CopyStart &from, const Context &context,
                     const std::string &field);
  CollectiveStart readCollective(const fb::CollectiveStart &from,
                                 const Context &context,
                                 const std::string &field);
  CollectiveItem readItem(const fb::CollectiveItem &from,
                          const CollectiveStart &collective, uint64_t ranks,
                          const Context &context,
                          const std::string &field) const;

  LoadedPlan &plan;
  std::set<std::string> sharedNames;
  int64_t elements = 0;      ///< of all variables
  mutable uint64_t room;     ///< bytes that may yet be copied
  std::set<uint32_t> events; ///< started and not yet waited for
};

} // namespace megalodon::plan
