// A Session binds one plan's variables to memory and runs its functions. This
// is the one door between the command-line tools and the executor.
#pragma once
#include "runtime/core/ElementType.h"
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace megalodon {

namespace plan {
class LoadedPlan;  // runtime/plan/LoadedPlan.h
struct RankMemory; // runtime/plan/Traffic.h
struct TraceEvent; // runtime/plan/Trace.h
} // namespace plan

class Device;       // runtime/device.h
class HostCopy;     // runtime/variables.h
class World;        // runtime/parallel/Communicator.h
struct Coordinates; // runtime/parallel/Mesh.h

/// A named tensor owned by somebody else, as the host sees it. `shape` is the
/// shape of the last or coming call, not the maximum, and of this rank's part
/// alone (runtime/io/SpreadTensor.h says which part that is).
///
/// The tensor may live on a GPU. So its elements are asked for each time: what
/// read(), write() and overwrite() give is good until the session's next run,
/// and what is written there takes part in that run.
struct TensorView {
  std::string name;
  ElementType type;
  std::vector<int64_t> shape;
  std::byte *memory; ///< of the host; without meaning where there is a copy
  size_t bytes;
  HostCopy *copy = nullptr; ///< of a tensor that lives elsewhere

  const std::byte *read() const;
  /// To change some of the elements.
  std::byte *write() const;
  /// To change all of them; what they are is not told.
  std::byte *overwrite() const;
  void zero() const;
  /// Says that what was written may begin to move to where it is used.
  void flush() const;
};

/// The shape of one call, of all ranks together. Zero means the compiled
/// maximum.
struct CallShape {
  int64_t batch = 0;
  int64_t length = 0;
};

/// Which half of a training step runs.
enum class Half { All, Compute, Update };

struct SessionOptions {
  int threads =
      0; ///< workers including the caller; 0 = the number of processors
  bool poison = false; ///< fills the arena with NaN before each call, so that a
                       ///< kernel that reads what nobody wrote shows
  int gpu = -1; ///< of a plan for GPUs; negative: the ranks of a machine take
                ///< its GPUs in turn
};

class Session {
public:
  /// A session of one rank.
  Session(std::shared_ptr<const plan::LoadedPlan> plan, SessionOptions options);
  /// This rank's part of a session of all ranks of the world, which open it
  /// together and then make the same calls. Throws Error when the plan's mesh
  /// has another number of ranks, or when a rank holds another plan.
  Session(std::shared_ptr<const plan::LoadedPlan> plan, SessionOptions options,
          World &world);
  /// A session of one rank that uses the parameters and moments of another one
  /// as its own; everything else, the device included, is its own. Both may
  /// run at the same time as long as neither changes them. Throws Error where
  /// the parameters are not in the host's memory.
  Session(const Session &other, SessionOptions options);
  ~Session();
  Session(Session &&) noexcept;

  const plan::LoadedPlan &plan() const;
  World &world() const;
  /// This rank's place in the plan's mesh.
  const Coordinates &place() const;

  /// Index of a function of the plan. Throws Error naming the functions there
  /// are.
  size_t function(std::string_view name) const;
  bool hasFunction(std::string_view name) const;

  /// Memory of a variable of a function (parameters and moments are the same
  /// memory in all functions), shaped for `shape`. Throws Error when the
  /// function has no such variable, or this rank no part of it.
  TensorView variable(size_t function, std::string_view name,
                      CallShape shape = {});

  /// All variables that the function takes or gives and of which this rank
  /// holds a part.
  std::vector<TensorView> inputs(size_t function, CallShape shape = {});
  std::vector<TensorView> outputs(size_t function, CallShape shape = {});

  /// All parameters of the plan of which this rank holds a part, in the plan's
  /// order, and their moments when the plan has them.
  std::vector<TensorView> parameters();
  std::vector<TensorView> firstMoments();
  std::vector<TensorView> secondMoments();

  /// Sets every state.* variable of the function to a fresh sequence (all
  /// zero).
  void resetState(size_t function);

  /// Sets optional inputs (loss_scale, ...) of the function to their defaults.
  void resetOptionalInputs(size_t function);

  /// Runs a function, or one half of a training step; `accumulate` adds
  /// gradients to what earlier calls left, `last` says that the update comes
  /// next. Parameters must have been filled by the caller. Token ids must have
  /// been checked.
  void run(size_t function, CallShape shape = {}, Half half = Half::All,
           bool accumulate = false, bool last = true);

  /// The training step that errors about messages between ranks name.
  void setStep(int64_t step);

  /// Per-command times of the last run when profiling is on, in seconds:
  /// indexed like the segments of this rank's program and their commands, each
  /// the sum over all runs of its segment.
  void setProfiling(bool on);
  const std::vector<std::vector<double>> &commandSeconds() const;

  /// Adds everything that happens on this rank from now on to `trace`: commands
  /// and messages in their order. Null: no longer.
  void setTrace(std::vector<plan::TraceEvent> *trace);

  int threads() const;

  /// What the plan runs on here.
  Device &device() const;

  /// The memory that this rank has allocated: shared memory, the arena, that of
  /// all functions used so far and of the messages they sent.
  plan::RankMemory memory() const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

} // namespace megalodon
