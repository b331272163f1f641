// Serialises schedules and kernels to the FlatBuffers plan file.
#include "passes/Codegen/Passes.h"
#include "passes/Schedule/Schedule.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/plan/Plan_generated.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/JSON.h"
#include <set>

using namespace mlir;
using namespace mlir::megalodon;
namespace fb = ::megalodon::plan::fb;

static fb::ElementType elementType(Type type) {
  if (type.isF32())
    return fb::ElementType::F32;
  if (type.isF64())
    return fb::ElementType::F64;
  if (type.isBF16())
    return fb::ElementType::BF16;
  if (type.isInteger(32))
    return fb::ElementType::I32;
  assert(type.isInteger(64) && "unexpected element type in a signature");
  return fb::ElementType::I64;
}

static fb::Role role(Role role) { return static_cast<fb::Role>(role); }
static_assert(static_cast<int>(fb::Role::State) ==
              static_cast<int>(Role::State));
static_assert(static_cast<int>(fb::InitKind::Untouched) ==
              static_cast<int>(InitKind::Untouched));
static_assert(static_cast<int>(fb::Role::Residual) ==
              static_cast<int>(Role::Residual));
static_assert(static_cast<int>(fb::Indexed::Slot) ==
              static_cast<int>(Indexed::Slot));
static_assert(static_cast<int>(fb::ActionKind::Receive) ==
              static_cast<int>(::megalodon::plan::PipelineStep::Kind::Receive));
static_assert(static_cast<int>(fb::Outer::Batch) ==
              static_cast<int>(plan::Outer::Batch));
static_assert(static_cast<int>(fb::CollectiveKind::ReduceScatter) ==
              static_cast<int>(plan::CollectiveKind::ReduceScatter));
static_assert(static_cast<int>(fb::Axis::Tensor) ==
              static_cast<int>(Axis::Tensor));
static_assert(static_cast<int>(fb::Inner::Tokens) ==
              static_cast<int>(plan::Inner::Tokens));

/// Which leading dimensions of a signature tensor follow the call's batch and
/// length.
static fb::Dynamic dynamic(const Variable &variable, const Schedule &schedule) {
  ArrayRef<int64_t> shape = variable.shape;
  switch (variable.role) {
  case Role::State:
    return fb::Dynamic::Batch;
  case Role::Input:
  case Role::Output:
    if (shape.empty() || shape[0] != schedule.batch)
      return fb::Dynamic::None;
    // generate gives one row of logits a batch row
    if (shape.size() < 2 || shape[1] != schedule.length ||
        (schedule.entry == "generate" && variable.role == Role::Output))
      return fb::Dynamic::Batch;
    return fb::Dynamic::BatchLength;
  default:
    return fb::Dynamic::None;
  }
}

namespace {
class PlanWriter {
public:
  explicit PlanWriter(ModuleOp module) : module(module) {}
  FailureOr<std::vector<uint8_t>> write();

private:
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Variable>>>
  writeVariables();
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Kernel>>>
  writeKernels(ModuleOp kernels);
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Split>>>
  writeSplits(ArrayAttr splits);
  flatbuffers::Offset<fb::Function> writeFunction(const Schedule &schedule);
  flatbuffers::Offset<fb::Program> writeProgram(const ProgramSchedule &program,
                                                unsigned stage, bool exact);
  flatbuffers::Offset<fb::Segment> writeSegment(const SegmentSchedule &segment);
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::GpuImage>>>
  writeImages(ModuleOp kernels);
  bool isCuda() const { return features & ::megalodon::plan::kFeatureCuda; }
  flatbuffers::Offset<fb::Command> writeStep(const Step &step);
  flatbuffers::Offset<fb::Command> writeCollective(const Step &step);
  uint32_t communicatorOf(plan::CollectiveOp op);
  flatbuffers::Offset<fb::Command>
  command(fb::Operation kind, flatbuffers::Offset<void> operation,
          StringRef location, uint32_t queue = ::megalodon::plan::kMainQueue) {
    return fb::CreateCommand(builder, kind, operation, queue, string(location));
  }
  flatbuffers::Offset<flatbuffers::String> string(StringRef text) {
    return builder.CreateSharedString(text.data(), text.size());
  }

  ModuleOp module;
  flatbuffers::FlatBufferBuilder builder{1 << 20};
  std::vector<Variable> variables;
  std::vector<Schedule> schedules;
  llvm::StringMap<uint32_t> kernelNumbers;
  /// Axes and pipeline ranks of each communicator.
  std::vector<std::pair<std::vector<fb::Axis>, std::vector<uint32_t>>>
      communicators;
  uint64_t features = 0;
};
} // namespace

flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Split>>>
PlanWriter::writeSplits(ArrayAttr splits) {
  std::vector<flatbuffers::Offset<fb::Split>> result;
  if (!splits)
    return 0;
  for (auto split : splits.getAsRange<DenseI64ArrayAttr>()) {
    std::vector<fb::Axis> axes;
    for (int64_t axis : split.asArrayRef().drop_front())
      axes.push_back(static_cast<fb::Axis>(axis));
    result.push_back(
        fb::CreateSplitDirect(builder, static_cast<uint32_t>(split[0]), &axes));
  }
  return builder.CreateVector(result);
}

flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Variable>>>
PlanWriter::writeVariables() {
  llvm::StringMap<int> parameters;
  for (auto [index, variable] : llvm::enumerate(variables))
    if (variable.role == Role::Parameter)
      parameters[variable.name] = index;
  auto parameterOf = [&](const Variable &variable) {
    for (StringRef prefix : {"exp_avg_sq.", "exp_avg.", "grad."}) {
      StringRef name = variable.name;
      if (variable.role != Role::Parameter && variable.role != Role::Residual &&
          name.consume_front(prefix)) {
        auto found = parameters.find(name);
        return found == parameters.end() ? -1 : found->second;
      }
    }
    return -1;
  };
  // The pipeline ranks that hold each variable: those whose programs use it.
  std::vector<std::set<uint32_t>> users(variables.size());
  size_t ranks = 1;
  for (const Schedule &schedule : schedules)
    for (auto [stage, program] : llvm::enumerate(schedule.programs)) {
      ranks = std::max(ranks, stage + 1);
      for (const Storage &storage : program.storages)
        if (storage.variable >= 0)
          users[storage.variable].insert(stage);
    }
  std::vector<flatbuffers::Offset<fb::Variable>> result;
  for (auto [index, variable] : llvm::enumerate(variables)) {
    const Schedule *owner = nullptr;
    for (const Schedule &schedule : schedules)
      if (schedule.name == variable.function)
        owner = &schedule;
    flatbuffers::Offset<fb::Initializer> init;
    if (variable.init)
      init = fb::CreateInitializer(
          builder, static_cast<fb::InitKind>(variable.init.getKind()),
          variable.init.getA().getValueAsDouble(),
          variable.init.getB().getValueAsDouble());
    auto shape = builder.CreateVector(
        std::vector<int64_t>(variable.shape.begin(), variable.shape.end()));
    auto splits = writeSplits(variable.splits);
    flatbuffers::Offset<flatbuffers::Vector<uint32_t>> stages;
    if (users[index].size() < ranks)
      stages = builder.CreateVector(
          std::vector<uint32_t>(users[index].begin(), users[index].end()));
    auto name = builder.CreateString(variable.name);
    bool optional =
        variable.role == Role::State || variable.defaultValue.has_value();
    result.push_back(fb::CreateVariable(
        builder, name, elementType(variable.type.getElementType()),
        role(variable.role), shape,
        owner ? dynamic(variable, *owner) : fb::Dynamic::None, init,
        parameterOf(variable), optional, variable.defaultValue.value_or(0.0),
        splits, stages));
  }
  return builder.CreateVector(result);
}

flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::Kernel>>>
PlanWriter::writeKernels(ModuleOp kernels) {
  std::vector<flatbuffers::Offset<fb::Kernel>> result;
  if (!kernels)
    return builder.CreateVector(result);
  for (auto kernel : kernels.getOps<func::FuncOp>()) {
    kernelNumbers[kernel.getName()] = result.size();
    uint64_t scratch =
        cast<IntegerAttr>(kernel->getAttr(plan::kScratchAttr)).getInt();
    auto source = kernel->getAttrOfType<StringAttr>(plan::kSourceAttr);
    auto symbol = kernel->getAttrOfType<StringAttr>(plan::kSymbolAttr);
    StringRef name = symbol ? symbol.getValue() : kernel.getName();
    // Only a GPU has use for these.
    auto number = [&](StringRef name) -> uint32_t {
      auto value = kernel->getAttrOfType<IntegerAttr>(name);
      return isCuda() && value ? value.getInt() : 0;
    };
    result.push_back(fb::CreateKernel(builder, builder.CreateString(name.str()),
                                      scratch, string(source.getValue()),
                                      number(plan::kThreadsAttr),
                                      number(plan::kWordsAttr)));
  }
  return builder.CreateVector(result);
}

flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fb::GpuImage>>>
PlanWriter::writeImages(ModuleOp kernels) {
  auto list =
      kernels ? kernels->getAttrOfType<ArrayAttr>(plan::kImagesAttr) : nullptr;
  if (!list)
    return 0;
  std::vector<flatbuffers::Offset<fb::GpuImage>> images;
  for (auto image : list.getAsRange<DictionaryAttr>()) {
    ArrayRef<char> data = image.getAs<DenseElementsAttr>("data").getRawData();
    builder.ForceVectorAlignment(data.size(), 1, 32);
    auto bytes = builder.CreateVector(
        reinterpret_cast<const uint8_t *>(data.data()), data.size());
    images.push_back(fb::CreateGpuImage(
        builder, string(image.getAs<StringAttr>("arch").getValue()),
        image.contains("ptx"), bytes));
  }
  return builder.CreateVector(images);
}

uint32_t PlanWriter::communicatorOf(plan::CollectiveOp op) {
  std::vector<fb::Axis> axes;
  for (int64_t axis : op.getAxes())
    axes.push_back(static_cast<fb::Axis>(axis));
  std::vector<uint32_t> stages;
  if (auto list = op.getStages())
    stages.assign(list->begin(), list->end());
  std::pair entry(std::move(axes), std::move(stages));
  auto found = llvm::find(communicators, entry);
  if (found == communicators.end())
    found = communicators.insert(found, std::move(entry));
  return found - communicators.begin();
}

flatbuffers::Offset<fb::Command> PlanWriter::writeCollective(const Step &step) {
  auto op = cast<plan::CollectiveOp>(step.op);
  std::vector<flatbuffers::Offset<fb::CollectiveItem>> items;
  for (auto [index, item] : llvm::enumerate(step.items))
    items.push_back(fb::CreateCollectiveItem(
        builder, step.buffers[2 * index], step.buffers[2 * index + 1],
        item.rows, static_cast<fb::Dynamic>(item.dynamic), item.rowBytes));
  auto type = cast<RankedTensorType>(op.getInputs()[0].getType());
  auto table = fb::CreateCollectiveStartDirect(
      builder, static_cast<fb::CollectiveKind>(op.getKind()),
      communicatorOf(op), elementType(type.getElementType()), &items,
      step.event, op.getLast());
  return command(fb::Operation::CollectiveStart, table.Union(), step.location,
                 ::megalodon::plan::kMessageQueue);
}

flatbuffers::Offset<fb::Command> PlanWriter::writeStep(const Step &step) {
  std::vector<uint32_t> buffers(step.buffers.begin(), step.buffers.end());
  switch (step.kind) {
  case Step::Kind::Copy: {
    auto copy = fb::CreateCopyStart(builder, buffers[0], buffers[1], step.bytes,
                                    fb::Dynamic::None, step.event);
    return command(fb::Operation::CopyStart, copy.Union(), step.location);
  }
  case Step::Kind::Collective:
    return writeCollective(step);
  case Step::Kind::Wait:
    return command(fb::Operation::Wait,
                   fb::CreateWait(builder, step.event).Union(), step.location);
  case Step::Kind::Dispatch: {
    auto dispatch = cast<plan::DispatchOp>(step.op);
    plan::GridAttr from = dispatch.getGrid();
    fb::Grid grid(from.getFactor(), from.getDivisor(),
                  static_cast<fb::Outer>(from.getOuter()),
                  static_cast<fb::Inner>(from.getInner()));
    auto arguments = builder.CreateVector(buffers);
    auto immediates = builder.CreateVector(std::vector<int64_t>(
        dispatch.getImmediates().begin(), dispatch.getImmediates().end()));
    uint32_t kernel = kernelNumbers.lookup(
        dispatch.getKernel().getLeafReference().getValue());
    auto table =
        fb::CreateDispatch(builder, kernel, arguments, immediates, &grid,
                           dispatch.getFlops().convertToDouble(),
                           dispatch.getBytes().convertToDouble());
    return command(fb::Operation::Dispatch, table.Union(), step.location);
  }
  case Step::Kind::Product:
    break;
  }
  auto product = cast<plan::ProductOp>(step.op);
  auto elementOf = [](Value value) {
    return elementType(
        cast<RankedTensorType>(value.getType()).getElementType());
  };
  if (product.getLibrary() == "onednn")
    features |= ::megalodon::plan::kFeatureOneDnn;
  if (product.getLibrary() == "cublaslt")
    features |= ::megalodon::plan::kFeatureCublasLt;
  auto table = fb::CreateProduct(
      builder, buffers[0], buffers[1], buffers[2], product.getTransA(),
      product.getTransB(), product.getM(), product.getN(), product.getK(),
      product.getTileM(), product.getTileN(), /*accumulate=*/false,
      string(product.getLibrary()), string(step.location),
      elementOf(product.getA()), elementOf(product.getC()));
  return command(fb::Operation::Product, table.Union(), step.location);
}

flatbuffers::Offset<fb::Segment>
PlanWriter::writeSegment(const SegmentSchedule &segment) {
  std::vector<flatbuffers::Offset<fb::Command>> commands;
  for (const Step &step : segment.steps) {
    commands.push_back(writeStep(step));
    if (step.kind == Step::Kind::Copy)
      commands.push_back(command(fb::Operation::Wait,
                                 fb::CreateWait(builder, step.event).Union(),
                                 step.location));
  }
  return fb::CreateSegmentDirect(builder, segment.name.c_str(), &commands);
}

flatbuffers::Offset<fb::Program>
PlanWriter::writeProgram(const ProgramSchedule &program, unsigned stage,
                         bool exact) {
  std::vector<flatbuffers::Offset<fb::Buffer>> buffers;
  for (const Storage &storage : program.storages) {
    auto name = string(storage.name);
    if (storage.variable >= 0) {
      RankedTensorType type = variables[storage.variable].type;
      uint64_t bytes =
          type.getNumElements() * (type.getElementTypeBitWidth() / 8);
      buffers.push_back(fb::CreateBuffer(
          builder, storage.variable, storage.copy * bytes, bytes, name,
          storage.index == Indexed::None ? 0 : bytes,
          static_cast<fb::Indexed>(storage.index)));
    } else {
      const Lifetime &lifetime = program.temporaries[storage.temporary];
      buffers.push_back(
          fb::CreateBuffer(builder, -1, lifetime.offset, lifetime.bytes, name));
    }
  }
  std::vector<flatbuffers::Offset<fb::Segment>> segments;
  for (const SegmentSchedule &segment : program.segments)
    segments.push_back(writeSegment(segment));
  // What passes between stages is [rows, tokens, ...].
  auto message = exact ? fb::Dynamic::None : fb::Dynamic::BatchLength;
  auto write = [&](ArrayRef<ActionSchedule> list) {
    std::vector<flatbuffers::Offset<fb::Action>> actions;
    for (const ActionSchedule &action : list) {
      auto kind = static_cast<fb::ActionKind>(action.kind);
      actions.push_back(fb::CreateAction(
          builder, kind, action.segment, action.buffer, action.peer,
          action.channel, action.microbatch, action.slot,
          kind == fb::ActionKind::Run ? fb::Dynamic::None : message));
    }
    return builder.CreateVector(actions);
  };
  auto bufferVector = builder.CreateVector(buffers);
  auto segmentVector = builder.CreateVector(segments);
  auto actions = write(program.actions), updates = write(program.updateActions);
  return fb::CreateProgram(builder, stage, bufferVector, program.arenaBytes,
                           program.microbatches, program.slots, segmentVector,
                           actions, updates);
}

/// Work of a step's matrix products at the compiled shape.
static double productFlops(const Step &step) {
  if (auto product = dyn_cast_or_null<plan::ProductOp>(step.op))
    return product.getFlops().convertToDouble();
  auto dispatch = dyn_cast_or_null<plan::DispatchOp>(step.op);
  return dispatch &&
                 dispatch.getKernel().getLeafReference().getValue().starts_with(
                     "linear")
             ? dispatch.getFlops().convertToDouble()
             : 0;
}

flatbuffers::Offset<fb::Function>
PlanWriter::writeFunction(const Schedule &schedule) {
  double flops = 0; // of all ranks: those of one stage do the same
  std::array<int64_t, 4> mesh = meshSizes(module);
  std::vector<flatbuffers::Offset<fb::Program>> programs;
  for (auto [stage, program] : llvm::enumerate(schedule.programs)) {
    programs.push_back(writeProgram(program, stage, schedule.isExact()));
    for (const auto *list : {&program.actions, &program.updateActions})
      for (const ActionSchedule &action : *list)
        if (action.kind == ::megalodon::plan::PipelineStep::Kind::Run)
          for (const Step &step : program.segments[action.segment].steps)
            flops += productFlops(step) * mesh[0] * mesh[2] * mesh[3];
  }
  std::vector<uint32_t> inputs(schedule.inputs.begin(), schedule.inputs.end()),
      outputs(schedule.outputs.begin(), schedule.outputs.end());
  return fb::CreateFunctionDirect(builder, schedule.name.c_str(), &inputs,
                                  &outputs, schedule.batch, schedule.length,
                                  schedule.isExact(), &programs, flops);
}

FailureOr<std::vector<uint8_t>> PlanWriter::write() {
  auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule);
  // A module of library products only has no kernels and needs no object.
  ArrayRef<char> object;
  if (kernels) {
    auto compiled =
        kernels->getAttrOfType<DenseElementsAttr>(plan::kObjectAttr);
    if (kernels->hasAttr(plan::kImagesAttr))
      features |= ::megalodon::plan::kFeatureCuda;
    else if (!compiled)
      return module.emitError()
             << "expected compiled kernels; run the codegen phase first";
    else
      object = compiled.getRawData();
  }
  if (failed(scheduleEntries(module, variables, schedules)))
    return failure();

  auto attribute = [&](StringRef name) {
    auto text = module->getAttrOfType<StringAttr>(name);
    return text ? text.getValue() : StringRef();
  };
  StringRef config =
      attribute(kConfigAttr).empty() ? StringRef("{}") : attribute(kConfigAttr);
  auto parsed = llvm::json::parse(config);
  if (!parsed || !parsed->getAsObject()) {
    llvm::consumeError(parsed.takeError());
    return module.emitError() << kConfigAttr << " is not a JSON object";
  }
  auto number = [&](StringRef key) {
    return parsed->getAsObject()->getInteger(key).value_or(0);
  };

  std::vector<flatbuffers::Offset<flatbuffers::String>> cpuFeatures;
  if (auto list = module->getAttrOfType<ArrayAttr>(kCpuFeaturesAttr))
    for (auto feature : list.getAsRange<StringAttr>())
      cpuFeatures.push_back(string(feature.getValue()));

  // A module of library products only has no kernels to tell its target.
  module.walk([&](plan::ProductOp product) {
    if (product.getLibrary() == "cublaslt")
      features |= ::megalodon::plan::kFeatureCuda;
  });
  // The code goes first: FlatBuffers grow downwards, and its alignment is the
  // largest.
  auto images = writeImages(kernels);
  builder.ForceVectorAlignment(object.size(), 1, 32);
  auto objectBytes = builder.CreateVector(
      reinterpret_cast<const uint8_t *>(object.data()), object.size());
  auto kernelVector = writeKernels(kernels);
  std::vector<flatbuffers::Offset<fb::Function>> functions;
  for (const Schedule &schedule : schedules)
    functions.push_back(writeFunction(schedule));
  auto functionVector = builder.CreateVector(functions);
  auto variableVector = writeVariables();
  auto featureVector = builder.CreateVector(cpuFeatures);
  std::vector<flatbuffers::Offset<fb::Communicator>> groups;
  for (const auto &[axes, stages] : communicators)
    groups.push_back(fb::CreateCommunicatorDirect(
        builder, &axes, stages.empty() ? nullptr : &stages));
  auto groupVector = builder.CreateVector(groups);
  std::array<int64_t, 4> sizes = meshSizes(module);
  fb::Mesh mesh(sizes[0], sizes[1], sizes[2], sizes[3]);
  auto producer = string("megalodon-opt 0.1");
  auto configText = builder.CreateString(config.str());
  StringRef modelType =
      parsed->getAsObject()->getString("model_type").value_or("megalodon");
  auto model = string(modelType), precision = string(attribute(kPrecisionAttr)),
       target = string(isCuda() ? "cuda" : "cpu"),
       cpu = string(attribute(kCpuAttr));
  int64_t vocabulary = number("vocab_size"), output = number("output_size");
  fb::PlanBuilder plan(builder);
  plan.add_producer(producer);
  plan.add_config(configText);
  plan.add_model(model);
  plan.add_precision(precision);
  plan.add_target(target);
  plan.add_cpu(cpu);
  plan.add_cpu_features(featureVector);
  plan.add_vocab_size(vocabulary);
  plan.add_output_size(output > 0 ? output : vocabulary);
  // A cache that never closes is one chunk as long as it holds.
  if (const int64_t capacity = number("max_seq_len")) {
    plan.add_chunk_size(capacity);
    plan.add_context(capacity);
  } else {
    plan.add_chunk_size(number("chunk_size"));
  }
  plan.add_num_layers(number("num_layers"));
  plan.add_variables(variableVector);
  plan.add_kernels(kernelVector);
  plan.add_functions(functionVector);
  if (!isCuda())
    plan.add_object(objectBytes);
  if (!images.IsNull())
    plan.add_images(images);
  plan.add_mesh(&mesh);
  plan.add_communicators(groupVector);
  fb::FinishPlanBuffer(builder, plan.Finish());
  return ::megalodon::plan::sealPlan(builder.GetBufferPointer(),
                                     builder.GetSize(), features);
}

FailureOr<std::vector<uint8_t>> mlir::megalodon::writePlan(ModuleOp module) {
  return PlanWriter(module).write();
}
