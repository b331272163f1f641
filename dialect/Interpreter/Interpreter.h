// Reference interpreter: executes the entries of a module of megalodon ops in
// f64 with plain loops, one rank or all ranks of a mesh in one process. It
// shares nothing with the lowerings, so it can judge them.
#pragma once
#include "dialect/Interpreter/Evaluation.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include <array>
#include <map>
#include <string>

namespace mlir::plan {
class PipelineOp;
} // namespace mlir::plan

namespace mlir::megalodon::interpreter {

/// What each rank that takes part holds of a value.
using RankValues = SmallVector<TensorRef, 1>;
/// Whole tensors by the names that entries give them.
using NamedTensors = std::map<std::string, TensorRef>;

/// Ranks along the axes of the mesh; the tensor axis counts fastest.
struct Grid {
  std::array<int64_t, 4> sizes = {1, 1, 1, 1};

  static Grid of(ModuleOp module);
  int64_t ranks() const { return sizes[0] * sizes[1] * sizes[2] * sizes[3]; }
  int64_t coordinate(int64_t rank, int64_t axis) const;
  /// A rank's number among those that differ along `axes` only, the first axis
  /// slowest; and how many there are.
  int64_t place(int64_t rank, ArrayRef<int64_t> axes) const;
  int64_t parts(ArrayRef<int64_t> axes) const;
};

/// A tensor of an entry's signature, as its attributes describe it.
struct Port {
  std::string name;
  RankedTensorType type;      ///< of a rank's part
  SmallVector<int64_t> shape; ///< of the whole, as the outside sees it
  /// Dimension and the axes that split it.
  SmallVector<std::pair<int64_t, SmallVector<int64_t>>> splits;
  bool byMicrobatch = false;

  static Port of(DictionaryAttr attributes, Type type);
  /// What a rank holds of a whole tensor, and how that is put back.
  Tensor part(const Tensor &whole, const Grid &grid, int64_t rank,
              int64_t microbatch = 0, int64_t microbatches = 1) const;
  void insert(Tensor &whole, const Tensor &part, const Grid &grid, int64_t rank,
              int64_t microbatch = 0, int64_t microbatches = 1) const;
};

/// Called behind every op with its results on each rank; may replace them. The
/// calls that lead to the op stand in `calls`, outermost first.
using Observer = std::function<LogicalResult(
    Operation *op, ArrayRef<Operation *> calls, ArrayRef<RankValues> operands,
    MutableArrayRef<RankValues> results)>;

class Interpreter {
public:
  explicit Interpreter(ModuleOp module)
      : module(module), grid(Grid::of(module)) {}

  void observe(Observer observer) { this->observer = std::move(observer); }
  /// Rounds every result of an op at random from now on.
  void roundWith(RandomRounding &rounding) { options.rounding = &rounding; }

  /// Runs an entry, a function or a pipeline, on whole tensors. Fails with a
  /// diagnostic at an op without evaluation.
  FailureOr<NamedTensors> runEntry(StringRef name, const NamedTensors &inputs);

  /// Another evaluation of the op that an observer sees, for one rank, rounded
  /// at random; empty if the op is a collective.
  SmallVector<Tensor> repeat(Operation *op, ArrayRef<TensorRef> operands,
                             RandomRounding &rounding) const;

private:
  class Frame;

  FailureOr<NamedTensors> runFunction(func::FuncOp function,
                                      const NamedTensors &inputs);
  FailureOr<NamedTensors> runPipeline(plan::PipelineOp pipeline,
                                      const NamedTensors &inputs);
  LogicalResult runTails(std::vector<std::unique_ptr<Frame>> &frames);

  ModuleOp module;
  Grid grid;
  Observer observer;
  SmallVector<Operation *> calls;
  CallOptions options;
};

/// The entries of a module in their order, functions and pipelines.
SmallVector<StringRef> entryNames(ModuleOp module);

} // namespace mlir::megalodon::interpreter
