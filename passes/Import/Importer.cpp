// Building of functions, entries and ports: the same for all models.
#include "passes/Import/Importer.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::Config;
using ::megalodon::EntryKind;
using ::megalodon::EntrySpec;

Importer::Importer(MLIRContext &context, const Config &config,
                   StringRef precision, ArrayRef<EntrySpec> entries)
    : config(config), entries(entries), builder(&context) {
  context.loadDialect<MegalodonDialect, func::FuncDialect>();
  real = precision == "f64" ? Type(builder.getF64Type())
                            : Type(builder.getF32Type());
  stored = precision == "bf16" ? Type(builder.getBF16Type()) : real;
  // The optimizer needs the weights in full; who only reads them does not.
  bool trains = llvm::any_of(entries, [](const EntrySpec &entry) {
    return entry.kind == EntryKind::Grad || entry.kind == EntryKind::Train;
  });
  weight = trains ? real : stored;
  module = ModuleOp::create(builder.getUnknownLoc());
  (*module)->setAttr(
      kConfigAttr, builder.getStringAttr(::megalodon::canonicalConfig(config)));
  (*module)->setAttr(kPrecisionAttr, builder.getStringAttr(precision));
  (*module)->setAttr(kOptimizerAttr, optimizerAttributes());
}

OwningOpRef<ModuleOp> Importer::run() {
  int64_t parameters = 0;
  for (const Port &parameter : modelParameters())
    parameters += cast<RankedTensorType>(parameter.type).getNumElements();
  (*module)->setAttr(kParametersAttr, builder.getI64IntegerAttr(parameters));
  SmallVector<std::tuple<int64_t, int64_t, bool>> shapes;
  for (const EntrySpec &entry : entries)
    if (std::tuple shape{entry.batch / entry.microbatches, entry.length,
                         entry.packed};
        !llvm::is_contained(shapes, shape))
      shapes.push_back(shape);
  for (auto [batch, length, packed] : shapes) {
    std::string name = "layer";
    if (shapes.size() > 1)
      name += ("_" + Twine(batch) + "x" + Twine(length)).str();
    // Generation goes token by token, so its rows are never packed.
    if (packed && llvm::is_contained(shapes, std::tuple(batch, length, false)))
      name += "_packed";
    layers[{batch, length, packed}] = buildLayer({name, batch, length, packed});
  }
  for (const EntrySpec &entry : entries)
    buildEntry(entry);
  return std::move(module);
}

//===-- Parameters and state
//------------------------------------------------===//

DictionaryAttr Importer::optimizerAttributes() {
  NamedAttrList attributes;
  for (auto [name, value] :
       {std::make_pair("beta1", config.optimizer.beta1),
        std::make_pair("beta2", config.optimizer.beta2),
        std::make_pair("epsilon", config.optimizer.epsilon),
        std::make_pair("weight_decay", config.optimizer.weightDecay),
        std::make_pair("clip", config.optimizer.clip)})
    attributes.set(name, builder.getF64FloatAttr(value));
  return attributes.getDictionary(builder.getContext());
}

Port Importer::projection(StringRef name, int64_t outputs, int64_t inputs) {
  InitAttr initializer;
  if (config.initMode == "he")
    initializer = init(InitKind::Normal, 1 / std::sqrt(3.0 * inputs));
  else if (config.initMode == "bert")
    initializer = init(InitKind::Normal, 0.02);
  else if (config.initMode == "gaussian")
    initializer = init(InitKind::TruncatedNormal, 1, 3);
  else if (config.initMode == "xavier")
    initializer = init(InitKind::Uniform, std::sqrt(6.0 / (inputs + outputs)));
  else
    initializer = init(InitKind::Untouched);
  return {name.str(), matrix({outputs, inputs}), Role::Parameter, initializer};
}

Port Importer::countState(StringRef prefix, int64_t batch) {
  return {join(prefix, "count"),
          RankedTensorType::get({batch}, builder.getI64Type()), Role::State};
}

Port Importer::cacheState(StringRef prefix, StringRef name, int64_t batch,
                          int64_t heads, int64_t width) {
  Port port{join(prefix, name),
            activation({batch, config.cacheCapacity(), heads * width}),
            Role::State};
  port.outsideShape = {batch, config.cacheCapacity(), heads, width};
  return port;
}

/// All parameters in checkpoint order.
SmallVector<Port> Importer::modelParameters() {
  int64_t model = config.modelDim;
  double deviation = 1 / std::sqrt(static_cast<double>(model));
  InitAttr table = init(InitKind::TruncatedNormal, deviation, 3 * deviation);
  SmallVector<Port> ports;
  ports.push_back({tableName().str(), matrix({config.vocabSize, model}),
                   Role::Parameter, table});
  for (int64_t layer = 0; layer < config.numLayers; ++layer)
    for (Port &port : layerParameters(layer)) {
      port.name = layerName(layer) + "." + port.name;
      ports.push_back(std::move(port));
    }
  llvm::append_range(ports, finalNormParameters());
  if (!config.shareEmb)
    ports.push_back({headName().str(), matrix({config.outputSize, model}),
                     Role::Parameter, table});
  return ports;
}

SmallVector<Port> Importer::modelState(int64_t batch) {
  SmallVector<Port> ports;
  for (int64_t layer = 0; layer < config.numLayers; ++layer)
    llvm::append_range(ports,
                       layerState("state." + layerName(layer) + ".", batch));
  llvm::append_range(ports, finalState("state.final.", batch));
  return ports;
}

//===-- Functions
//-----------------------------------------------------------===//

DictionaryAttr Importer::portAttributes(const Port &port) {
  NamedAttrList attributes;
  attributes.set(kNameAttr, builder.getStringAttr(port.name));
  if (port.role)
    attributes.set(kRoleAttr, RoleAttr::get(builder.getContext(), *port.role));
  if (port.init)
    attributes.set(kInitAttr, port.init);
  if (port.defaultValue)
    attributes.set(kDefaultAttr, port.defaultValue);
  if (!port.outsideShape.empty())
    attributes.set(kShapeAttr, builder.getDenseI64ArrayAttr(port.outsideShape));
  return attributes.getDictionary(builder.getContext());
}

func::FuncOp Importer::openFunction(StringRef name, ArrayRef<Port> arguments,
                                    ArrayRef<Port> results,
                                    llvm::StringMap<Value> &values) {
  SmallVector<Type> argumentTypes, resultTypes;
  SmallVector<DictionaryAttr> argumentAttributes, resultAttributes;
  for (const Port &port : arguments) {
    argumentTypes.push_back(port.type);
    argumentAttributes.push_back(portAttributes(port));
  }
  for (const Port &port : results) {
    resultTypes.push_back(port.type);
    resultAttributes.push_back(portAttributes(port));
  }
  builder.setInsertionPointToEnd(module->getBody());
  auto function =
      func::FuncOp::create(builder, named(name), name,
                           builder.getFunctionType(argumentTypes, resultTypes));
  function.setAllArgAttrs(argumentAttributes);
  function.setAllResultAttrs(resultAttributes);
  Block *body = function.addEntryBlock();
  for (auto [port, argument] : llvm::zip(arguments, body->getArguments())) {
    argument.setLoc(named(port.name));
    values[port.name] = argument;
  }
  builder.setInsertionPointToStart(body);
  return function;
}

func::FuncOp Importer::openLayer(const LayerShape &shape,
                                 llvm::StringMap<Value> &values) {
  auto [name, batch, length, packed] = shape;
  SmallVector<Port> arguments, results;
  Type tokens = activation({batch, length, config.modelDim});
  arguments.push_back({"x", tokens, {}});
  if (packed)
    arguments.push_back({"resets", tokensType(batch, length), {}});
  llvm::append_range(arguments, layerParameters(0));
  llvm::append_range(arguments, layerState("", batch));
  results.push_back({"out", tokens, {}});
  llvm::append_range(results, layerState("", batch));
  for (Port &port : llvm::concat<Port>(arguments, results)) {
    port.role = {};
    port.init = {};
    port.outsideShape.clear();
  }
  func::FuncOp function = openFunction(name, arguments, results, values);
  function.setPrivate();
  addPositions("layer.positions", values["count"], values);
  return function;
}

void Importer::addPositions(const Twine &part, Value count,
                            llvm::StringMap<Value> &values) {
  if (Value resets = values.lookup("resets"))
    values["positions"] =
        DocumentPositionsOp::create(builder, named(part), resets, count);
}

void Importer::buildEntry(const EntrySpec &entry) {
  int64_t batch = entry.batch / entry.microbatches, length = entry.length;
  bool train = entry.kind == EntryKind::Train;
  bool hasTargets =
      train || entry.kind == EntryKind::Grad || entry.kind == EntryKind::Score;
  Type scalar = tensor({}), positions = tensor({batch, length});
  Type integer = RankedTensorType::get({}, builder.getI64Type());
  Type tokens = tokensType(batch, length);

  SmallVector<Port> arguments, results;
  arguments.push_back({"tokens", tokens, Role::Input});
  if (hasTargets)
    arguments.push_back({"targets", tokens, Role::Input});
  if (entry.packed) {
    // Who does not say where documents begin has one in each row.
    Port resets{"resets", tokens, Role::Input};
    resets.defaultValue = builder.getF64FloatAttr(0);
    arguments.push_back(std::move(resets));
  }
  if (train) {
    arguments.push_back({"step", integer, Role::Input});
    arguments.push_back({"lr", scalar, Role::Input});
    Port scale{"loss_scale", scalar, Role::Input};
    scale.defaultValue = builder.getFloatAttr(real, 1);
    arguments.push_back(std::move(scale));
  }
  SmallVector<Port> parameters = modelParameters();
  llvm::append_range(arguments, parameters);
  if (train)
    for (auto [prefix, role] :
         {std::make_pair("exp_avg.", Role::FirstMoment),
          std::make_pair("exp_avg_sq.", Role::SecondMoment)})
      for (const Port &parameter : parameters)
        arguments.push_back(
            {join(prefix, parameter.name), parameter.type, role});
  SmallVector<Port> state = modelState(batch);
  llvm::append_range(arguments, state);

  switch (entry.kind) {
  case EntryKind::Forward:
    results.push_back(
        {"logits", tensor({batch, length, config.outputSize}), Role::Output});
    break;
  case EntryKind::Generate:
    results.push_back(
        {"logits", tensor({batch, config.outputSize}), Role::Output});
    break;
  case EntryKind::Score:
    results.push_back({"nll", positions, Role::Output});
    results.push_back({"nll_sum", scalar, Role::Output});
    results.push_back({"count", integer, Role::Output});
    break;
  case EntryKind::Grad:
  case EntryKind::Train:
    results.push_back({"loss", scalar, Role::Output});
    break;
  }
  llvm::append_range(results, state);

  llvm::StringMap<Value> in;
  func::FuncOp function = openFunction(::megalodon::functionName(entry.kind),
                                       arguments, results, in);
  function->setAttr(kEntryAttr,
                    builder.getStringAttr(::megalodon::entryName(entry.kind)));
  if (entry.microbatches > 1)
    function->setAttr(kMicrobatchesAttr,
                      builder.getI64IntegerAttr(entry.microbatches));
  OpBuilder &b = builder;

  Value x = EmbeddingOp::create(
      b, named("embed"), activation({batch, length, config.modelDim}),
      in["tokens"], in[tableName()], /*rank=*/Value(),
      b.getF64FloatAttr(config.scaleEmb
                            ? std::sqrt(static_cast<double>(config.modelDim))
                            : 1));
  SmallVector<Value> newState;
  func::FuncOp layerFunction = layers.at({batch, length, entry.packed});
  for (int64_t layer = 0; layer < config.numLayers; ++layer) {
    SmallVector<Value> operands{x};
    if (entry.packed)
      operands.push_back(in["resets"]);
    for (const Port &port : layerParameters(layer))
      operands.push_back(in[layerName(layer) + "." + port.name]);
    for (const Port &port :
         layerState("state." + layerName(layer) + ".", batch))
      operands.push_back(in[port.name]);
    auto call = func::CallOp::create(b, named(layerName(layer)), layerFunction,
                                     operands);
    x = call.getResult(0);
    llvm::append_range(newState, call.getResults().drop_front());
  }
  x = buildFinalNorm(x, in, newState);
  if (entry.kind == EntryKind::Generate)
    x = LastTokenOp::create(b, named("output.last_token"), x);
  SmallVector<int64_t> logitsShape(
      cast<RankedTensorType>(x.getType()).getShape());
  logitsShape.back() = config.outputSize;
  Value logits =
      LinearOp::create(b, named("output.output"), tensor(logitsShape), x,
                       in[config.shareEmb ? tableName() : headName()], Value());

  SmallVector<Value> returned;
  if (hasTargets) {
    Value nll = CrossEntropyOp::create(b, named("loss"), logits, in["targets"])
                    .getNll();
    if (entry.kind == EntryKind::Score) {
      auto sum = LossSumOp::create(b, named("loss"), nll, in["targets"]);
      returned = {nll, sum.getSum(), sum.getCount()};
    } else {
      returned = {MeanOp::create(b, named("loss"), nll)};
    }
  } else {
    returned = {logits};
  }
  llvm::append_range(returned, newState);
  func::ReturnOp::create(b, named("return"), returned);
}

namespace megalodon {
OwningOpRef<ModuleOp> importConfig(MLIRContext &context, const Config &config,
                                   StringRef precision,
                                   ArrayRef<EntrySpec> entries) {
  auto create = config.isLlama()  ? createLlamaImporter
                : config.isMega() ? createMegaImporter
                                  : createMegalodonImporter;
  return create(context, config, precision, entries)->run();
}
} // namespace megalodon
