#include "passes/Partition/Stages.h"
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::PipelineShape;

std::optional<unsigned> StageMap::find(StringRef name) const {
  if (name == "embed" || name.starts_with("embed.") ||
      name == "tok_embeddings.weight")
    return 0;
  if (name == "loss" || name.starts_with("output.") || name == "norm.weight")
    return last();
  unsigned layer = 0;
  if (name.consume_front("layers.") && !name.consumeInteger(10, layer) &&
      (name.empty() || name[0] == '.') && layer < layers.size())
    return layers[layer];
  return std::nullopt;
}

StringRef mlir::megalodon::nameOf(Operation *op) {
  auto named = op->getLoc()->findInstanceOf<NameLoc>();
  return named ? named.getName().getValue() : StringRef();
}

namespace {

int64_t elementsOf(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type ? type.getNumElements() : 0;
}

/// About how many floating-point operations an op is worth. Only proportions
/// matter, and only to cut the model into stages of like length.
class WorkEstimate {
public:
  explicit WorkEstimate(SymbolTable &symbols) : symbols(symbols) {}

  double of(Operation *op) {
    // What is not a product moves memory: a number costs as much as these.
    constexpr double moved = 16;
    auto lastOf = [](Value value) {
      return cast<RankedTensorType>(value.getType()).getShape().back();
    };
    return llvm::TypeSwitch<Operation *, double>(op)
        .Case([&](func::CallOp call) {
          auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
          auto [entry, fresh] = functions.try_emplace(callee, 0);
          if (fresh) {
            double sum = 0;
            for (Operation &inner : callee.front().without_terminator())
              sum += of(&inner);
            functions[callee] = sum;
          }
          return functions[callee];
        })
        .Case<LinearOp, LinearGradInputOp>([&](Operation *linear) {
          return 2.0 * elementsOf(linear->getOperand(0)) *
                 lastOf(linear->getResult(0));
        })
        .Case([&](LinearGradWeightOp linear) {
          return 2.0 * elementsOf(linear.getDy()) * lastOf(linear.getX());
        })
        .Case<ChunkAttentionOp, ChunkAttentionGradOp>([&](auto attention) {
          double chunk = cast<RankedTensorType>(attention.getCacheK().getType())
                             .getDimSize(1);
          return (isa<ChunkAttentionGradOp>(op) ? 5.0 : 2.0) * chunk *
                 (elementsOf(attention.getQ()) + elementsOf(attention.getV()));
        })
        .Case<CemaOp, CemaGradOp>([&](auto cema) {
          return moved * elementsOf(cema.getX()) * lastOf(cema.getP());
        })
        .Default([&](Operation *) {
          double sum = 0;
          for (Value result : op->getResults())
            sum += elementsOf(result);
          return moved * sum;
        });
  }

private:
  SymbolTable &symbols;
  DenseMap<Operation *, double> functions;
};

} // namespace

FailureOr<StageMap> mlir::megalodon::cutLayers(ModuleOp module,
                                               ArrayRef<func::FuncOp> entries,
                                               PipelineShape shape) {
  SymbolTable symbols(module);
  WorkEstimate work(symbols);
  double most = -1;
  std::vector<double> layers;
  double first = 0, last = 0;
  for (func::FuncOp entry : entries) {
    std::vector<double> inLayer;
    double before = 0, behind = 0, sum = 0;
    for (Operation &op : entry.front().without_terminator()) {
      StringRef name = nameOf(&op);
      unsigned layer = 0;
      double one = work.of(&op);
      sum += one;
      if (name.starts_with("embed")) {
        before += one;
      } else if (name.consume_front("layers.") &&
                 !name.consumeInteger(10, layer)) {
        inLayer.resize(std::max<size_t>(inLayer.size(), layer + 1));
        inLayer[layer] += one;
      } else {
        behind += one;
      }
    }
    if (sum <= most)
      continue;
    most = sum;
    layers = std::move(inLayer);
    first = before;
    last = behind;
  }
  if (layers.size() < shape.stages())
    return func::FuncOp(entries.front()).emitOpError()
           << "expected at least " << shape.stages()
           << " layers for the stages of the pipeline, got " << layers.size();
  StageMap map{shape, {}};
  for (auto [stage, count] : llvm::enumerate(
           ::megalodon::balanceStages(layers, first, last, shape.stages())))
    map.layers.insert(map.layers.end(), count, stage);
  return map;
}
