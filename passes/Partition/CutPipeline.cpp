// Cuts entries into the stages of a pipeline: one function a stage and phase,
// whose arguments and results say what moves between ranks and what a stage
// keeps for its backward pass.
#include "passes/Partition/EntryCutter.h"
#include "passes/Partition/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_CUTPIPELINE
#include "passes/Partition/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::PipelineShape;
using ::megalodon::ScheduleKind;

LogicalResult EntryCutter::run() {
  accumulateGradients();
  if (failed(placeOps()))
    return failure();
  if (differentiated && !loss)
    return entry.emitOpError("expected a loss that is a megalodon.mean");
  separateWeightGradients();
  if (failed(findCrossings()))
    return failure();
  deferStates();
  auto each = [&](unsigned count,
                  llvm::function_ref<FlatSymbolRefAttr(unsigned)> build) {
    SmallVector<Attribute> names;
    for (unsigned number : llvm::seq(count))
      names.push_back(build(number));
    return ArrayAttr::get(context, names);
  };
  auto functions = [&](Part part) {
    return each(hasPart(part) ? numStages : 0,
                [&](unsigned stage) { return buildStage(part, stage); });
  };
  auto tails = [&](bool wanted, bool update) {
    return each(wanted ? stages.shape.ranks : 0,
                [&](unsigned rank) { return buildTail(update, rank); });
  };
  ArrayAttr forward = functions(Part::Forward),
            backward = functions(Part::Backward),
            weight = functions(Part::Weight),
            finish = tails(differentiated, false),
            update = tails(entryKind == "train", true);
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (!produced.contains(index))
      return entry.emitOpError() << "result '" << nameOfResult(entry, index)
                                 << "': expected a value that a stage computes";

  PipelineShape shape = stages.shape;
  shape.microbatches = microbatches;
  SmallVector<std::string> lists;
  auto schedule = ::megalodon::buildSchedule(kind, shape);
  for (const auto &work : schedule)
    lists.push_back(::megalodon::printWork(work, shape));
  b.setInsertionPoint(entry);
  auto pipeline = plan::PipelineOp::create(
      b, entry.getLoc(), entry.getName(), entryKind, microbatches, shape.chunks,
      forward, backward, weight, finish, update,
      b.getStrArrayAttr(SmallVector<StringRef>(lists.begin(), lists.end())));
  if (auto batch = entry->getAttrOfType<IntegerAttr>(kBatchAttr))
    pipeline->setAttr(kBatchAttr,
                      b.getI64IntegerAttr(batch.getInt() * microbatches));
  if (Attribute length = entry->getAttr(kLengthAttr))
    pipeline->setAttr(kLengthAttr, length);
  entry.erase();
  return success();
}

namespace {
struct CutPipeline : mlir::megalodon::impl::CutPipelineBase<CutPipeline> {
  using CutPipelineBase::CutPipelineBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    int64_t ranks = getMesh(module)[Axis::Pipeline];
    if (ranks == 1)
      return;
    auto kind = ::megalodon::parseScheduleKind(schedule);
    if (!kind || *kind == ScheduleKind::Forward) {
      module.emitError() << "schedule: expected gpipe, 1f1b, interleaved or "
                            "zero-bubble, got '"
                         << schedule << "'";
      return signalPassFailure();
    }
    const unsigned perRank = chunks;
    if (perRank < 1 || (perRank > 1 && *kind != ScheduleKind::Interleaved)) {
      module.emitError() << "chunks: expected 1 with schedule " << schedule
                         << ", got " << perRank;
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> entries;
    for (auto function : module.getOps<func::FuncOp>())
      if (!getEntryKind(function).empty())
        entries.push_back(function);
    if (entries.empty())
      return;
    auto stages =
        cutLayers(module, entries, {static_cast<unsigned>(ranks), 1, perRank});
    if (failed(stages))
      return signalPassFailure();
    numStages += stages->shape.stages();
    for (func::FuncOp entry : entries) {
      bool differentiated =
          getEntryKind(entry) == "grad" || getEntryKind(entry) == "train";
      if (failed(EntryCutter(entry, *stages,
                             differentiated ? *kind : ScheduleKind::Forward)
                     .run()))
        return signalPassFailure();
    }
  }
};
} // namespace
