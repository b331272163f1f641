// Private to the pass that cuts entries into stages (CutPipeline.cpp).
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/IRMapping.h"
#include "passes/Entry.h"
#include "passes/Partition/Layout.h"
#include "passes/Partition/PipelineSchedule.h"
#include "passes/Partition/Stages.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::megalodon {

/// Where an op of an entry goes.
enum class Part { Forward, Backward, Weight, Tail };

struct Place {
  Part part;
  unsigned stage; ///< of Tail: none
};

/// Collectives, slices and ranks.
inline bool isShardOp(Operation *op) {
  return isa<shard::ShardDialect>(op->getDialect());
}

/// A function in the making. Arguments are added as they are needed.
class FunctionBuilder {
public:
  FunctionBuilder(func::FuncOp entry, const Twine &name)
      : name(name.str()), loc(entry.getLoc()), b(entry.getContext()),
        block(std::make_unique<Block>()) {
    b.setInsertionPointToEnd(block.get());
  }

  Value addArgument(Type type, Location loc, DictionaryAttr attributes) {
    argumentAttributes.push_back(attributes);
    return block->addArgument(type, loc);
  }
  void addResult(Value value, DictionaryAttr attributes) {
    results.push_back(value);
    resultAttributes.push_back(attributes);
  }

  /// Puts the function in front of `before` and names it.
  FlatSymbolRefAttr finish(Operation *before) {
    func::ReturnOp::create(b, loc, results);
    OpBuilder builder(before);
    auto function = func::FuncOp::create(
        builder, loc, name,
        builder.getFunctionType(block->getArgumentTypes(),
                                ValueRange(results).getTypes()));
    function.getBody().push_back(block.release());
    function.setAllArgAttrs(argumentAttributes);
    function.setAllResultAttrs(resultAttributes);
    return FlatSymbolRefAttr::get(builder.getContext(), name);
  }

  std::string name;
  Location loc;
  OpBuilder b;
  IRMapping mapping;

private:
  std::unique_ptr<Block> block;
  SmallVector<DictionaryAttr> argumentAttributes, resultAttributes;
  SmallVector<Value> results;
};

/// Cuts one entry. Ops get a place, a part and a stage; what crosses from one
/// place to another gets a name; then the functions are written.
class EntryCutter {
public:
  EntryCutter(func::FuncOp entry, const StageMap &stages,
              ::megalodon::ScheduleKind kind)
      : entry(entry), body(entry.front()), stages(stages), kind(kind),
        context(entry.getContext()), b(context), entryKind(getEntryKind(entry)),
        differentiated(entryKind == "grad" || entryKind == "train") {
    if (auto count = entry->getAttrOfType<IntegerAttr>(kMicrobatchesAttr))
      microbatches = count.getInt();
    numStages = stages.shape.stages();
    outputs.resize(numStages);
    cotangents.resize(numStages);
  }

  LogicalResult run();

private:
  // PlaceOps.cpp
  void accumulateGradients();
  void findParameterStages();
  LogicalResult placeOps();
  LogicalResult placeOp(Operation *op);
  LogicalResult splitSum(AccumulateOp op);
  void separateWeightGradients();
  LogicalResult findCrossings();
  LogicalResult addCrossing(OpOperand &operand, Operation *from,
                            Operation *user);
  void deferStates();
  std::string keep(Value value, unsigned stage);
  SmallVector<int64_t> ranksOf(StringRef parameter) const;

  // StageFunctions.cpp
  FlatSymbolRefAttr buildStage(Part part, unsigned stage);
  Value stageValue(FunctionBuilder &function, Value value, Part part,
                   unsigned stage);
  FlatSymbolRefAttr buildTail(bool update, unsigned rank);
  Value tailValue(FunctionBuilder &function, Value value, unsigned rank);
  Value sumOverPipeline(FunctionBuilder &function, Location loc, Value value,
                        ArrayRef<int64_t> ranks = {});
  Value cloneFloating(FunctionBuilder &function, Value value);
  DictionaryAttr portAttributes(DictionaryAttr attributes, Type type) const;
  DictionaryAttr residualAttributes(StringRef name, Attribute index,
                                    StringRef side = {},
                                    unsigned other = 0) const;

  bool isFloating(Value value) const {
    return floating.contains(value.getDefiningOp());
  }
  const Place *placeOf(Value value) const {
    auto found = places.find(value.getDefiningOp());
    return found == places.end() ? nullptr : &found->second;
  }
  bool isIn(Operation *op, Part part, unsigned stage) const {
    auto found = places.find(op);
    return found != places.end() && found->second.part == part &&
           found->second.stage == stage;
  }
  /// The value that the shard ops in front of `value` started from.
  static Value skipShardOps(Value value) {
    while (Operation *op = value.getDefiningOp()) {
      if (!isShardOp(op) || op->getNumOperands() != 1)
        break;
      value = op->getOperand(0);
    }
    return value;
  }
  static StringRef parameterOf(StringRef name) {
    for (StringRef prefix : {"exp_avg_sq.", "exp_avg.", "grad."})
      if (name.consume_front(prefix))
        break;
    return name;
  }
  bool hasPart(Part part) const {
    return part == Part::Forward ||
           (differentiated && part == Part::Backward) ||
           (kind == ::megalodon::ScheduleKind::ZeroBubble &&
            part == Part::Weight);
  }
  Part lastPart() const {
    return hasPart(Part::Weight)     ? Part::Weight
           : hasPart(Part::Backward) ? Part::Backward
                                     : Part::Forward;
  }

  func::FuncOp entry;
  Block &body;
  const StageMap &stages;
  ::megalodon::ScheduleKind kind;
  MLIRContext *context;
  OpBuilder b;
  StringRef entryKind;
  bool differentiated;
  int64_t microbatches = 1;
  unsigned numStages;

  DenseMap<Operation *, Place> places;
  DenseSet<Operation *> floating; ///< made anew in each function
  DenseSet<Operation *> updates;  ///< of the tail: the optimizer's half
  llvm::StringMap<SmallVector<unsigned>> parameterStages;
  Value loss;                    ///< of a microbatch, before shard ops
  SmallVector<Value> outputs;    ///< of each stage, to the next
  SmallVector<Value> cotangents; ///< of each stage's input, to the former
  /// Names of what a stage keeps, and in which order.
  SmallVector<llvm::MapVector<Value, std::string>, 0> kept;
  /// New states that the last function of a stage writes: by result number.
  DenseSet<unsigned> deferred;
  DenseSet<unsigned> produced; ///< results that a function gives
};

} // namespace mlir::megalodon
