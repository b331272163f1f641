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
class LoadedPlan; // runtime/plan/LoadedPlan.h
} // namespace plan

/// A named tensor in host memory owned by somebody else. `shape` is the shape
/// of the last or coming call, not the maximum.
struct TensorView {
  std::string name;
  ElementType type;
  std::vector<int64_t> shape;
  std::byte *data;
  size_t bytes;
};

/// The shape of one call. Zero means the compiled maximum.
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
};

class Session {
public:
  Session(std::shared_ptr<const plan::LoadedPlan> plan, SessionOptions options);
  ~Session();
  Session(Session &&) noexcept;

  const plan::LoadedPlan &plan() const;

  /// Index of a function of the plan. Throws Error naming the functions there
  /// are.
  size_t function(std::string_view name) const;
  bool hasFunction(std::string_view name) const;

  /// Memory of a variable of a function (parameters and moments are the same
  /// memory in all functions), shaped for `shape`. Throws Error when the
  /// function has no such variable.
  TensorView variable(size_t function, std::string_view name,
                      CallShape shape = {});

  /// All variables with a role that the function takes or gives.
  std::vector<TensorView> inputs(size_t function, CallShape shape = {});
  std::vector<TensorView> outputs(size_t function, CallShape shape = {});

  /// All parameters of the plan, in the plan's order, and their moments when
  /// the plan has them.
  std::vector<TensorView> parameters();
  std::vector<TensorView> firstMoments();
  std::vector<TensorView> secondMoments();

  /// Sets every state.* variable of the function to a fresh sequence (all
  /// zero).
  void resetState(size_t function);

  /// Sets optional inputs (loss_scale, ...) of the function to their defaults.
  void resetOptionalInputs(size_t function);

  /// Runs a function, or one half of a training step; `accumulate` adds
  /// gradients to what earlier microbatches left. Parameters must have been
  /// filled by the caller. Token ids must have been checked.
  void run(size_t function, CallShape shape = {}, Half half = Half::All,
           bool accumulate = false);

  /// Per-command times of the last run when profiling is on: indexed like the
  /// function's commands, in seconds.
  void setProfiling(bool on);
  const std::vector<double> &commandSeconds() const;

  int threads() const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

} // namespace megalodon
