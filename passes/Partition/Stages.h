// Which stage of a pipeline each part of a model is in.
#pragma once
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "passes/Partition/PipelineSchedule.h"

namespace mlir::megalodon {

/// Which stage each part of the model is in.
struct StageMap {
  ::megalodon::PipelineShape shape;
  std::vector<unsigned> layers; ///< the stage of each layer

  unsigned last() const { return shape.stages() - 1; }
  unsigned rankOf(unsigned stage) const { return stage % shape.ranks; }

  /// The stage of what `name` names: a part of the model as the import phase
  /// calls it, or a tensor that belongs to one.
  std::optional<unsigned> find(StringRef name) const;
};

/// The name an op got when the model was built; empty if it has none.
StringRef nameOf(Operation *op);

/// Cuts the layers of the entry with the most work so that the slowest stage is
/// as fast as possible. All entries share the cut, as they share parameters.
FailureOr<StageMap> cutLayers(ModuleOp module, ArrayRef<func::FuncOp> entries,
                              ::megalodon::PipelineShape shape);

} // namespace mlir::megalodon
