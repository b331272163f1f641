// Pipelines: one program a rank, whose actions run the functions of its stages
// and exchange what passes between them.
#include "mlir/IR/SymbolTable.h"
#include "passes/Partition/PipelineSchedule.h"
#include "passes/Schedule/Schedule.h"
#include "llvm/ADT/MapVector.h"
#include <map>

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::PipelineAction;
using ::megalodon::PipelineShape;
using ::megalodon::PipelineWork;
using ::megalodon::Work;
using Kind = ::megalodon::plan::PipelineStep::Kind;

namespace {

class PipelineScheduler {
public:
  PipelineScheduler(plan::PipelineOp pipeline, std::vector<Variable> &variables,
                    Schedule &schedule)
      : pipeline(pipeline), variables(variables), schedule(schedule),
        symbols(pipeline->getParentOfType<ModuleOp>()) {}

  LogicalResult run();

private:
  LogicalResult readWork();
  LogicalResult scheduleRank(unsigned rank);
  LogicalResult checkCollectives();
  FailureOr<unsigned> addSegment(Attribute function, ProgramSchedule &program);
  FailureOr<unsigned> findPort(func::FuncOp function, bool result,
                               StringRef side, const ProgramSchedule &program);

  ArrayAttr functionsOf(Work work) {
    return work == Work::Forward    ? pipeline.getForward()
           : work == Work::Backward ? pipeline.getBackward()
                                    : pipeline.getWeight();
  }

  plan::PipelineOp pipeline;
  std::vector<Variable> &variables;
  Schedule &schedule;
  SymbolTable symbols;
  PipelineShape shape;
  std::vector<std::vector<PipelineAction>> actions;
};

} // namespace

LogicalResult PipelineScheduler::readWork() {
  shape = {static_cast<unsigned>(pipeline.getNumRanks()),
           static_cast<unsigned>(pipeline.getMicrobatches()),
           static_cast<unsigned>(pipeline.getChunks())};
  ::megalodon::PipelineSchedule work;
  for (auto text : pipeline.getWork().getAsRange<StringAttr>()) {
    auto list = ::megalodon::parseWork(text.getValue());
    if (!list)
      return pipeline.emitOpError()
             << "expected words such as F0 or B1.2, got '" << text.getValue()
             << "'";
    for (const PipelineWork &one : *list)
      if (functionsOf(one.work).empty())
        return pipeline.emitOpError()
               << "expected functions for "
               << ::megalodon::printWork({one}, shape) << ", got none";
    work.push_back(std::move(*list));
  }
  std::string wrong = ::megalodon::checkSchedule(work, shape);
  if (!wrong.empty())
    return pipeline.emitOpError() << wrong;
  actions = ::megalodon::expandSchedule(work, shape);
  return success();
}

FailureOr<unsigned> PipelineScheduler::addSegment(Attribute function,
                                                  ProgramSchedule &program) {
  StringRef name = cast<FlatSymbolRefAttr>(function).getValue();
  StringRef part = name;
  part.consume_front((pipeline.getSymName() + ".").str());
  if (failed(scheduleSegment(symbols.lookup<func::FuncOp>(name), part,
                             variables, schedule, program)))
    return failure();
  return program.segments.size() - 1;
}

/// The buffer of the value that `function` exchanges with another stage.
FailureOr<unsigned>
PipelineScheduler::findPort(func::FuncOp function, bool result, StringRef side,
                            const ProgramSchedule &program) {
  ArrayAttr ports =
      result ? function.getAllResultAttrs() : function.getAllArgAttrs();
  if (ports)
    for (auto port : ports.getAsRange<DictionaryAttr>())
      if (port.contains(side))
        for (auto [index, storage] : llvm::enumerate(program.storages))
          if (storage.variable >= 0 &&
              variables[storage.variable].function == schedule.name &&
              variables[storage.variable].name ==
                  port.getAs<StringAttr>(kNameAttr).getValue())
            return index;
  return function.emitOpError()
         << "expected " << (result ? "a result" : "an argument") << " with '"
         << side << "', got none";
}

LogicalResult PipelineScheduler::scheduleRank(unsigned rank) {
  ProgramSchedule &program = schedule.programs.emplace_back();
  program.microbatches = shape.microbatches;
  for (const PipelineAction &action : actions[rank])
    program.slots = std::max<int64_t>(program.slots, action.slot + 1);

  DenseMap<std::pair<unsigned, unsigned>, unsigned> segments;
  auto functionOf = [&](Work work, unsigned chunk) {
    return symbols.lookup<func::FuncOp>(
        cast<FlatSymbolRefAttr>(functionsOf(work)[shape.stage(rank, chunk)])
            .getValue());
  };
  for (unsigned chunk = 0; chunk < shape.chunks; ++chunk)
    for (Work work : {Work::Forward, Work::Backward, Work::Weight}) {
      ArrayAttr functions = functionsOf(work);
      if (functions.empty())
        continue;
      auto segment = addSegment(functions[shape.stage(rank, chunk)], program);
      if (failed(segment))
        return failure();
      segments[{static_cast<unsigned>(work), chunk}] = *segment;
    }

  for (const PipelineAction &action : actions[rank]) {
    ActionSchedule made{
        action.kind,       0,          0, action.peer, action.channel,
        action.microbatch, action.slot};
    if (action.kind == Kind::Run) {
      made.segment =
          segments.lookup({static_cast<unsigned>(action.work), action.chunk});
    } else {
      bool send = action.kind == Kind::Send;
      auto buffer = findPort(functionOf(action.work, action.chunk), send,
                             send ? plan::kToAttr : plan::kFromAttr, program);
      if (failed(buffer))
        return failure();
      made.buffer = *buffer;
    }
    program.actions.push_back(made);
  }
  // Both count as the work of the last microbatch.
  for (auto [functions, list] :
       {std::pair(pipeline.getFinish(), &program.actions),
        std::pair(pipeline.getUpdate(), &program.updateActions)}) {
    if (functions.empty())
      continue;
    auto segment = addSegment(functions[rank], program);
    if (failed(segment))
      return failure();
    list->push_back({Kind::Run, *segment, 0, 0, 0, shape.microbatches - 1, 0});
  }
  return success();
}

/// The ranks of a pipeline run different functions, but those that take part in
/// a collective must all come to it, with the same tensors and in one order.
LogicalResult PipelineScheduler::checkCollectives() {
  auto describe = [](plan::CollectiveOp op) {
    std::string text;
    llvm::raw_string_ostream out(text);
    out << plan::stringifyCollectiveKind(op.getKind()) << " of "
        << op.getInputs().getTypes() << (op.getLast() ? " (last)" : "");
    return text;
  };
  constexpr int64_t pipelineAxis = static_cast<int64_t>(Axis::Pipeline);
  // By axes and ranks that take part.
  llvm::MapVector<Attribute, std::map<int64_t, std::vector<std::string>>> said;
  for (auto [rank, program] : llvm::enumerate(schedule.programs))
    for (const auto *list : {&program.actions, &program.updateActions})
      for (const ActionSchedule &action : *list)
        if (action.kind == Kind::Run)
          for (const Step &step : program.segments[action.segment].steps) {
            auto op = step.kind == Step::Kind::Collective
                          ? cast<plan::CollectiveOp>(step.op)
                          : plan::CollectiveOp();
            if (!op || !llvm::is_contained(op.getAxes(), pipelineAxis))
              continue;
            SmallVector<int64_t> ranks =
                op.getStages()
                    ? SmallVector<int64_t>(*op.getStages())
                    : llvm::to_vector(llvm::seq<int64_t>(shape.ranks));
            Builder b(op.getContext());
            auto &group = said[b.getArrayAttr(
                {op.getAxesAttr(), b.getDenseI64ArrayAttr(ranks)})];
            for (int64_t member : ranks)
              group[member];
            group[rank].push_back(describe(op));
          }
  for (auto &[key, group] : said) {
    const auto &[first, expected] = *group.begin();
    for (const auto &[rank, got] : group)
      for (size_t i = 0; i < std::max(expected.size(), got.size()); ++i) {
        auto at = [&](const std::vector<std::string> &list) {
          return i < list.size() ? list[i] : std::string("none");
        };
        if (at(expected) != at(got))
          return pipeline.emitOpError()
                 << "collective " << i << " over the pipeline: rank " << rank
                 << ": expected " << at(expected) << " as on rank " << first
                 << ", got " << at(got);
      }
  }
  return success();
}

LogicalResult PipelineScheduler::run() {
  schedule.name = pipeline.getSymName().str();
  schedule.entry = pipeline.getEntry().str();
  if (failed(readWork()))
    return failure();
  for (unsigned rank = 0; rank < shape.ranks; ++rank)
    if (failed(scheduleRank(rank)))
      return failure();
  if (failed(checkCollectives()))
    return failure();
  auto whole = [&](StringRef attribute, int64_t local) {
    auto value = pipeline->getAttrOfType<IntegerAttr>(attribute);
    return value ? value.getInt() : local;
  };
  schedule.batch = whole(kBatchAttr, schedule.localBatch * shape.microbatches);
  schedule.length = whole(kLengthAttr, schedule.localLength);
  return success();
}

LogicalResult
mlir::megalodon::schedulePipeline(plan::PipelineOp pipeline,
                                  std::vector<Variable> &variables,
                                  Schedule &schedule) {
  return PipelineScheduler(pipeline, variables, schedule).run();
}
