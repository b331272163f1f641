// Entries that are cut into the stages of a pipeline: every rank goes through
// its own list of work, and waits where a message has not been sent yet.
#include "dialect/Interpreter/Frame.h"
#include "dialect/Plan/Plan.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

namespace {
/// "B3.1": what runs, of which microbatch, in which chunk of the rank.
struct WorkItem {
  char kind;
  int64_t microbatch = 0, chunk = 0;

  static WorkItem parse(StringRef word) {
    WorkItem item{word.front()};
    auto [microbatch, chunk] = word.drop_front().split('.');
    microbatch.getAsInteger(10, item.microbatch);
    chunk.getAsInteger(10, item.chunk);
    return item;
  }
};

/// What the ranks at one place of the pipeline hold.
struct Holder {
  SmallVector<int64_t> ranks;
  /// By name and copy: the microbatch of what exists once for each, else 0.
  std::map<std::pair<std::string, int64_t>, RankValues> held;
  llvm::StringSet<> accumulated;
};

/// From stage, to stage, microbatch.
using MessageKey = std::array<int64_t, 3>;
} // namespace

/// The copy of a tensor that a function means when it works on a microbatch.
static int64_t copyOf(DictionaryAttr attributes, int64_t microbatch) {
  Attribute index = attributes.get(plan::kIndexAttr);
  if (auto number = dyn_cast_or_null<IntegerAttr>(index))
    return number.getInt();
  return index ? microbatch : 0;
}

static std::optional<int64_t> otherEnd(DictionaryAttr attributes,
                                       StringRef side) {
  auto number = attributes.getAs<IntegerAttr>(side);
  return number ? std::optional(number.getInt()) : std::nullopt;
}

FailureOr<NamedTensors> Interpreter::runPipeline(plan::PipelineOp pipeline,
                                                 const NamedTensors &inputs) {
  const int64_t places = pipeline.getNumRanks(),
                microbatches = pipeline.getMicrobatches();
  std::vector<Holder> holders(places);
  for (int64_t rank : llvm::seq(grid.ranks()))
    holders[grid.coordinate(rank, static_cast<int64_t>(Axis::Pipeline))]
        .ranks.push_back(rank);
  std::map<MessageKey, RankValues> messages;
  NamedTensors outputs;

  auto lookup = [&](Attribute symbol) {
    return module.lookupSymbol<func::FuncOp>(
        cast<FlatSymbolRefAttr>(symbol).getAttr());
  };
  // Arguments, or nothing while a message has not arrived.
  auto gather = [&](func::FuncOp function, Holder &holder, int64_t microbatch,
                    int64_t stage) -> FailureOr<SmallVector<RankValues>> {
    SmallVector<RankValues> arguments;
    for (BlockArgument argument : function.getArguments()) {
      DictionaryAttr attributes =
          function.getArgAttrDict(argument.getArgNumber());
      Port port = Port::of(attributes, argument.getType());
      if (port.name == "tokens")
        options.length = port.type.getDimSize(1);
      const auto key = std::pair(port.name, copyOf(attributes, microbatch));
      if (auto from = otherEnd(attributes, plan::kFromAttr)) {
        auto message = messages.find({*from, stage, microbatch});
        if (message == messages.end())
          return failure();
        holder.held[key] = message->second;
      }
      auto held = holder.held.find(key);
      if (held == holder.held.end()) {
        // Accumulators that only the pipeline has; its first microbatch does
        // not read them.
        auto role = attributes.getAs<RoleAttr>(kRoleAttr);
        const bool isAccumulator = role && role.getValue() == Role::Gradient;
        auto whole = inputs.find(port.name);
        if (whole == inputs.end() && !isAccumulator) {
          function.emitError("expected a tensor for argument '")
              << port.name << "'";
          return failure();
        }
        RankValues parts;
        for (int64_t rank : holder.ranks)
          parts.push_back(std::make_shared<const Tensor>(
              whole == inputs.end() ? Tensor(port.type)
                                    : port.part(*whole->second, grid, rank,
                                                microbatch, microbatches)));
        held = holder.held.emplace(key, std::move(parts)).first;
      }
      arguments.push_back(held->second);
    }
    return arguments;
  };
  auto keep = [&](func::FuncOp function, Holder &holder, int64_t microbatch,
                  int64_t stage, ArrayRef<RankValues> values) {
    for (auto [number, value] : llvm::enumerate(values)) {
      DictionaryAttr attributes = function.getResultAttrDict(number);
      Port port = Port::of(attributes, function.getResultTypes()[number]);
      holder.held[{port.name, copyOf(attributes, microbatch)}] = value;
      if (auto to = otherEnd(attributes, plan::kToAttr))
        messages[{stage, *to, microbatch}] = value;
      auto role = attributes.getAs<RoleAttr>(kRoleAttr);
      if (role && role.getValue() == Role::Residual)
        continue;
      TensorRef &whole = outputs[port.name];
      Tensor next =
          whole ? *whole : Tensor(port.shape, value.front()->isReal());
      for (auto [rank, part] : llvm::zip_equal(holder.ranks, value))
        port.insert(next, *part, grid, rank, microbatch, microbatches);
      whole = std::make_shared<const Tensor>(std::move(next));
    }
  };

  // The work of all ranks; whoever can go on does.
  std::vector<SmallVector<WorkItem>> work(places);
  std::vector<size_t> done(places, 0);
  for (auto [place, list] : llvm::enumerate(pipeline.getWork())) {
    SmallVector<StringRef> words;
    cast<StringAttr>(list).getValue().split(words, ' ', -1, false);
    for (StringRef word : words)
      work[place].push_back(WorkItem::parse(word));
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (int64_t place = 0; place < places; ++place) {
      if (done[place] == work[place].size())
        continue;
      const WorkItem item = work[place][done[place]];
      const int64_t stage = item.chunk * places + place;
      ArrayAttr functions = item.kind == 'F'   ? pipeline.getForward()
                            : item.kind == 'B' ? pipeline.getBackward()
                                               : pipeline.getWeight();
      func::FuncOp function = lookup(functions[stage]);
      Holder &holder = holders[place];
      auto waits = [&](DictionaryAttr attributes) {
        auto from = otherEnd(attributes, plan::kFromAttr);
        return from && !messages.count({*from, stage, item.microbatch});
      };
      if (llvm::any_of(llvm::seq(function.getNumArguments()), [&](unsigned i) {
            return waits(function.getArgAttrDict(i));
          }))
        continue;
      // A stage's gradients start with its first microbatch.
      options.accumulate =
          !holder.accumulated.insert(function.getName()).second;
      auto arguments = gather(function, holder, item.microbatch, stage);
      if (failed(arguments))
        return failure();
      Frame frame(*this, function, holder.ranks, *arguments);
      if (failed(frame.advance()))
        return failure();
      if (frame.waitsAt())
        return frame.waitsAt()->emitOpError(
                   "sends along the pipeline, expected that only behind the "
                   "last microbatch"),
               failure();
      keep(function, holder, item.microbatch, stage, frame.returned());
      ++done[place];
      moved = true;
    }
  }
  for (int64_t place = 0; place < places; ++place)
    if (done[place] != work[place].size())
      return pipeline.emitOpError("rank ")
                 << place << " waits for a message at step " << done[place]
                 << " of '"
                 << cast<StringAttr>(pipeline.getWork()[place]).getValue()
                 << "', expected one that another rank sends before",
             failure();

  // Tails run different functions on each rank, and meet in collectives.
  for (ArrayAttr tails : {pipeline.getFinish(), pipeline.getUpdate()}) {
    if (tails.empty())
      continue;
    options.accumulate = false;
    std::vector<std::unique_ptr<Frame>> frames;
    for (int64_t place = 0; place < places; ++place) {
      func::FuncOp function = lookup(tails[place]);
      auto arguments = gather(function, holders[place], 0, place);
      if (failed(arguments))
        return failure();
      frames.push_back(std::make_unique<Frame>(
          *this, function, holders[place].ranks, *arguments));
    }
    if (failed(runTails(frames)))
      return failure();
    for (int64_t place = 0; place < places; ++place)
      keep(lookup(tails[place]), holders[place], 0, place,
           frames[place]->returned());
  }
  return outputs;
}

/// Runs functions of all places of the pipeline up to their ends. A collective
/// is made once all its members stand in front of it.
LogicalResult
Interpreter::runTails(std::vector<std::unique_ptr<Frame>> &frames) {
  while (true) {
    for (auto &frame : frames)
      if (!frame->waitsAt() && failed(frame->advance()))
        return failure();
    // The members of the collective that the first waiting frame stands at.
    auto membersOf = [&](Operation *op) {
      SmallVector<Frame *> members;
      auto stages = op->getAttrOfType<DenseI64ArrayAttr>(plan::kStagesAttr);
      for (auto [place, frame] : llvm::enumerate(frames))
        if (!stages || llvm::is_contained(stages.asArrayRef(), int64_t(place)))
          members.push_back(frame.get());
      return members;
    };
    bool waiting = false, moved = false;
    for (auto &frame : frames) {
      Operation *op = frame->waitsAt();
      if (!op)
        continue;
      waiting = true;
      SmallVector<Frame *> members = membersOf(op);
      if (llvm::any_of(members, [&](Frame *member) {
            Operation *other = member->waitsAt();
            return !other || other->getName() != op->getName() ||
                   other->getResultTypes() != op->getResultTypes() ||
                   other->getAttr(plan::kStagesAttr) !=
                       op->getAttr(plan::kStagesAttr);
          }))
        continue;
      SmallVector<int64_t> ranks;
      RankValues brought;
      for (Frame *member : members) {
        llvm::append_range(ranks, member->ranks());
        llvm::append_range(brought, member->brought());
      }
      auto made = evaluateShardOp(op, grid, ranks, &brought);
      if (failed(made))
        return failure();
      auto next = made->begin();
      for (Frame *member : members) {
        member->deliver(RankValues(next, next + member->ranks().size()));
        next += member->ranks().size();
      }
      moved = true;
      break;
    }
    if (!waiting)
      return success();
    if (!moved) {
      for (auto &frame : frames)
        if (frame->waitsAt())
          return frame->waitsAt()->emitOpError(
              "waits for ranks of the pipeline that never come here");
    }
  }
}
