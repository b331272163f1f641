// Entries of the reference interpreter: whole tensors in and out, parts of them
// for the ranks in between.
#include "dialect/Interpreter/Interpreter.h"
#include "dialect/Interpreter/Frame.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

//===-- The mesh ----------------------------------------------------------===//

Grid Grid::of(ModuleOp module) {
  Grid grid;
  if (auto op = module.lookupSymbol<shard::GridOp>(kMeshSymbol))
    for (auto [axis, size] : llvm::enumerate(op.getShape()))
      grid.sizes[axis] = size;
  return grid;
}

int64_t Grid::coordinate(int64_t rank, int64_t axis) const {
  for (int64_t faster = 3; faster > axis; --faster)
    rank /= sizes[faster];
  return rank % sizes[axis];
}

int64_t Grid::place(int64_t rank, ArrayRef<int64_t> axes) const {
  int64_t number = 0;
  for (int64_t axis : axes)
    number = number * sizes[axis] + coordinate(rank, axis);
  return number;
}

int64_t Grid::parts(ArrayRef<int64_t> axes) const {
  int64_t number = 1;
  for (int64_t axis : axes)
    number *= sizes[axis];
  return number;
}

//===-- Ports -------------------------------------------------------------===//

Port Port::of(DictionaryAttr attributes, Type type) {
  Port port;
  port.type = cast<RankedTensorType>(type);
  if (auto name = attributes.getAs<StringAttr>(kNameAttr))
    port.name = name.str();
  auto shape = attributes.getAs<DenseI64ArrayAttr>(kShapeAttr);
  port.shape.assign(shape ? shape.asArrayRef() : port.type.getShape());
  if (auto splits = attributes.getAs<ArrayAttr>(kSplitsAttr))
    for (auto split : splits.getAsRange<DenseI64ArrayAttr>())
      port.splits.emplace_back(
          split[0], SmallVector<int64_t>(split.asArrayRef().drop_front()));
  auto index = attributes.getAs<StringAttr>(plan::kIndexAttr);
  port.byMicrobatch = index && index.getValue() == "microbatch";
  return port;
}

Tensor Port::part(const Tensor &whole, const Grid &grid, int64_t rank,
                  int64_t microbatch, int64_t microbatches) const {
  Tensor result = whole;
  for (const auto &[dimension, axes] : splits)
    result = slice(result, dimension, grid.place(rank, axes), grid.parts(axes));
  if (byMicrobatch)
    result = slice(result, 0, microbatch, microbatches);
  result.reshape(type.getShape());
  return result;
}

void Port::insert(Tensor &whole, const Tensor &part, const Grid &grid,
                  int64_t rank, int64_t microbatch,
                  int64_t microbatches) const {
  // From the whole to the part and back: each cut writes into the one before.
  SmallVector<Tensor> cuts{whole};
  SmallVector<std::pair<int64_t, int64_t>> places;
  auto cut = [&](int64_t dimension, int64_t place, int64_t parts) {
    cuts.push_back(slice(cuts.back(), dimension, place, parts));
    places.emplace_back(dimension, place);
  };
  for (const auto &[dimension, axes] : splits)
    cut(dimension, grid.place(rank, axes), grid.parts(axes));
  if (byMicrobatch)
    cut(0, microbatch, microbatches);
  Tensor own = part;
  own.reshape(cuts.back().shape());
  cuts.back() = std::move(own);
  for (size_t number = places.size(); number > 0; --number)
    insertPart(cuts[number - 1], cuts[number], places[number - 1].first,
               places[number - 1].second);
  whole = std::move(cuts.front());
}

//===-- Entries -----------------------------------------------------------===//

SmallVector<StringRef> interpreter::entryNames(ModuleOp module) {
  SmallVector<StringRef> names;
  for (Operation &op : *module.getBody()) {
    if (auto function = dyn_cast<func::FuncOp>(op);
        function && function->hasAttr(kEntryAttr))
      names.push_back(function.getName());
    if (auto pipeline = dyn_cast<plan::PipelineOp>(op))
      names.push_back(pipeline.getSymName());
  }
  return names;
}

FailureOr<NamedTensors> Interpreter::runEntry(StringRef name,
                                              const NamedTensors &inputs) {
  options = {.rounding = options.rounding};
  calls.clear();
  if (auto pipeline = module.lookupSymbol<plan::PipelineOp>(name))
    return runPipeline(pipeline, inputs);
  if (auto function = module.lookupSymbol<func::FuncOp>(name))
    return runFunction(function, inputs);
  module.emitError("expected an entry '") << name << "'";
  return failure();
}

SmallVector<Tensor> Interpreter::repeat(Operation *op,
                                        ArrayRef<TensorRef> operands,
                                        RandomRounding &rounding) const {
  SmallVector<Tensor> results;
  for (Type type : op->getResultTypes())
    results.emplace_back(type);
  CallOptions rounded = options;
  rounded.rounding = &rounding;
  Execution execution(op, operands, results, rounded);
  if (!Evaluations::get().evaluate(op, execution))
    results.clear();
  return results;
}

FailureOr<NamedTensors> Interpreter::runFunction(func::FuncOp function,
                                                 const NamedTensors &inputs) {
  SmallVector<RankValues> arguments;
  const auto ranks = llvm::to_vector(llvm::seq(grid.ranks()));
  for (BlockArgument argument : function.getArguments()) {
    Port port = Port::of(function.getArgAttrDict(argument.getArgNumber()),
                         argument.getType());
    auto found = inputs.find(port.name);
    if (found == inputs.end()) {
      function.emitError("expected a tensor for argument '")
          << port.name << "'";
      return failure();
    }
    if (port.name == "tokens")
      options.length = port.type.getDimSize(1);
    RankValues &parts = arguments.emplace_back();
    for (int64_t rank : ranks)
      parts.push_back(std::make_shared<const Tensor>(
          port.part(*found->second, grid, rank)));
  }
  Frame frame(*this, function, ranks, arguments);
  if (failed(frame.advance()))
    return failure();
  NamedTensors outputs;
  for (auto [number, values] : llvm::enumerate(frame.returned())) {
    // What ranks keep for themselves makes no whole tensor.
    auto role = function.getResultAttrOfType<RoleAttr>(number, kRoleAttr);
    if (role && role.getValue() == Role::Residual)
      continue;
    Port port = Port::of(function.getResultAttrDict(number),
                         function.getResultTypes()[number]);
    Tensor whole(port.shape, values.front()->isReal());
    for (int64_t rank : ranks)
      port.insert(whole, *values[rank], grid, rank);
    outputs[port.name] = std::make_shared<const Tensor>(std::move(whole));
  }
  return outputs;
}
