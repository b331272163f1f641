// The import phase: builds the functions of a model from its config.
#include "passes/Import/Import.h"
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include <cmath>
#include <numeric>

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::Config;
using ::megalodon::EntryKind;
using ::megalodon::EntrySpec;

namespace {

/// Tokens between the CEMA states that forward keeps for backward: backward
/// recomputes the states of one such block at a time.
constexpr int64_t kCemaBlock = 64;

/// An argument or result of a function.
struct Port {
  std::string name;
  Type type;
  std::optional<Role> role; ///< absent in layer functions
  InitAttr init = {};
  Attribute defaultValue = {};
  SmallVector<int64_t> outsideShape = {}; ///< empty: the type's own
};

std::string join(StringRef prefix, StringRef name) {
  return (prefix + name).str();
}

class Importer {
public:
  Importer(MLIRContext &context, const Config &config, StringRef precision,
           ArrayRef<EntrySpec> entries)
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
    (*module)->setAttr(kConfigAttr, builder.getStringAttr(
                                        ::megalodon::canonicalConfig(config)));
    (*module)->setAttr(kPrecisionAttr, builder.getStringAttr(precision));
    (*module)->setAttr(kOptimizerAttr, optimizerAttributes());
    int64_t parameters = 0;
    for (const Port &parameter : modelParameters())
      parameters += cast<RankedTensorType>(parameter.type).getNumElements();
    (*module)->setAttr(kParametersAttr, builder.getI64IntegerAttr(parameters));
  }

  OwningOpRef<ModuleOp> run() {
    SmallVector<std::pair<int64_t, int64_t>> shapes;
    for (const EntrySpec &entry : entries)
      if (std::pair shape{entry.batch / entry.microbatches, entry.length};
          !llvm::is_contained(shapes, shape))
        shapes.push_back(shape);
    for (auto [batch, length] : shapes)
      layers[{batch, length}] = buildLayer(
          shapes.size() == 1
              ? std::string("layer")
              : ("layer_" + Twine(batch) + "x" + Twine(length)).str(),
          batch, length);
    for (const EntrySpec &entry : entries)
      buildEntry(entry);
    return std::move(module);
  }

private:
  //===-- Parameters and state --------------------------------------------===//

  RankedTensorType tensor(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, real);
  }
  RankedTensorType activation(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, stored);
  }
  /// A matrix that only products read, or the embedding table.
  RankedTensorType matrix(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, weight);
  }

  InitAttr init(InitKind kind, double a = 0, double b = 0) {
    return InitAttr::get(builder.getContext(), kind, builder.getF64FloatAttr(a),
                         builder.getF64FloatAttr(b));
  }

  DictionaryAttr optimizerAttributes() {
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

  /// Initialiser of an internal projection, as `init_mode` says.
  InitAttr projectionInit(int64_t outputs, int64_t inputs) {
    if (config.initMode == "he")
      return init(InitKind::Normal, 1 / std::sqrt(3.0 * inputs));
    if (config.initMode == "bert")
      return init(InitKind::Normal, 0.02);
    if (config.initMode == "gaussian")
      return init(InitKind::TruncatedNormal, 1, 3);
    if (config.initMode == "xavier")
      return init(InitKind::Uniform, std::sqrt(6.0 / (inputs + outputs)));
    return init(InitKind::Untouched);
  }

  /// Parameters of layer `layer` in checkpoint order, named relative to it.
  SmallVector<Port> layerParameters(int64_t layer) {
    SmallVector<Port> ports;
    auto add = [&](StringRef name, ArrayRef<int64_t> shape, InitAttr init) {
      ports.push_back({name.str(), tensor(shape), Role::Parameter, init});
    };
    auto addZero = [&](StringRef name, ArrayRef<int64_t> shape) {
      add(name, shape, init(InitKind::Zero));
    };
    auto addProjection = [&](StringRef name, int64_t outputs, int64_t inputs) {
      ports.push_back({name.str(), matrix({outputs, inputs}), Role::Parameter,
                       projectionInit(outputs, inputs)});
    };
    int64_t model = config.modelDim, states = config.cemaNdim,
            keys = config.zDim, values = config.valueDim,
            hidden = config.ffnHiddenDim;
    addZero("mega.timenorm.weight", {model});
    addZero("mega.timenorm.bias", {model});
    add("mega.cema.alpha", {model, states, 1}, init(InitKind::Normal, 0.2));
    add("mega.cema.delta", {model, states, 1}, init(InitKind::Normal, 0.2));
    add("mega.cema.theta", {model, 1, 1}, init(InitKind::CemaTheta));
    add("mega.cema.gamma", {model, states, 2},
        init(InitKind::ComplexNormal, 1));
    add("mega.cema.omega", {model, 1},
        init(InitKind::TruncatedNormal, 0.25, 1));
    if (config.normAffine)
      addZero("mega.rmsnorm.weight", {model});
    addProjection("mega.wv.weight", values, model);
    addZero("mega.wv.bias", {values});
    addProjection("mega.wz.weight", keys, model);
    addZero("mega.wz.bias", {keys});
    addProjection("mega.wr.weight", values, model);
    addZero("mega.wr.bias", {values});
    addProjection("mega.wh1.weight", model, model);
    addZero("mega.wh1.bias", {model});
    addProjection("mega.wh2.weight", model, values);
    addZero("mega.gamma", {2, keys});
    addZero("mega.beta", {2, keys});
    if (config.normAffine) {
      addZero("nffn.norm.weight", {model});
      addZero("nffn.norm.bias", {model});
    }
    addProjection("nffn.fc1.weight", hidden, model);
    addProjection("nffn.fc2.weight", model, hidden);
    if (config.swiglu)
      addProjection("nffn.fc3.weight", hidden, model);
    if (config.rescaleNffn)
      add("nffn.alpha", {model},
          init(InitKind::Constant, 0.1 * std::pow(0.5, layer)));
    return ports;
  }

  /// All parameters in checkpoint order.
  SmallVector<Port> modelParameters() {
    int64_t model = config.modelDim;
    double deviation = 1 / std::sqrt(static_cast<double>(model));
    InitAttr table = init(InitKind::TruncatedNormal, deviation, 3 * deviation);
    SmallVector<Port> ports;
    ports.push_back({"embed.weight", matrix({config.vocabSize, model}),
                     Role::Parameter, table});
    for (int64_t layer = 0; layer < config.numLayers; ++layer)
      for (Port &port : layerParameters(layer)) {
        port.name = layerName(layer) + "." + port.name;
        ports.push_back(std::move(port));
      }
    for (StringRef name :
         {"output.final_norm.weight", "output.final_norm.bias"})
      ports.push_back(
          {name.str(), tensor({model}), Role::Parameter, init(InitKind::Zero)});
    if (!config.shareEmb)
      ports.push_back({"output.output.weight",
                       matrix({config.outputSize, model}), Role::Parameter,
                       table});
    return ports;
  }

  static std::string layerName(int64_t layer) {
    return "layers." + std::to_string(layer);
  }

  SmallVector<Port> normState(StringRef prefix, int64_t batch) {
    Type statistics = tensor({batch, config.normNumGroups});
    return {{join(prefix, "count"),
             RankedTensorType::get({batch}, builder.getI64Type()), Role::State},
            {join(prefix, "mean"), statistics, Role::State},
            {join(prefix, "var"), statistics, Role::State}};
  }

  SmallVector<Port> layerState(StringRef prefix, int64_t batch) {
    SmallVector<Port> ports = normState(prefix, batch);
    ports.push_back({join(prefix, "h"),
                     tensor({batch, config.modelDim, config.cemaNdim, 2}),
                     Role::State});
    auto addCache = [&](StringRef name, int64_t width) {
      Port port{join(prefix, name),
                activation({batch, config.chunkSize, width}), Role::State};
      port.outsideShape = {batch, config.chunkSize, config.numHeads,
                           width / config.numHeads};
      ports.push_back(std::move(port));
    };
    addCache("k", config.zDim);
    addCache("v", config.valueDim);
    return ports;
  }

  SmallVector<Port> modelState(int64_t batch) {
    SmallVector<Port> ports;
    for (int64_t layer = 0; layer < config.numLayers; ++layer)
      llvm::append_range(ports,
                         layerState("state." + layerName(layer) + ".", batch));
    llvm::append_range(ports, normState("state.final.", batch));
    return ports;
  }

  //===-- Functions -------------------------------------------------------===//

  Location named(const Twine &name) {
    return NameLoc::get(builder.getStringAttr(name));
  }

  DictionaryAttr portAttributes(const Port &port) {
    NamedAttrList attributes;
    attributes.set(kNameAttr, builder.getStringAttr(port.name));
    if (port.role)
      attributes.set(kRoleAttr,
                     RoleAttr::get(builder.getContext(), *port.role));
    if (port.init)
      attributes.set(kInitAttr, port.init);
    if (port.defaultValue)
      attributes.set(kDefaultAttr, port.defaultValue);
    if (!port.outsideShape.empty())
      attributes.set(kShapeAttr,
                     builder.getDenseI64ArrayAttr(port.outsideShape));
    return attributes.getDictionary(builder.getContext());
  }

  /// Opens a function at the module's end; `values` receives its arguments by
  /// name.
  func::FuncOp openFunction(StringRef name, ArrayRef<Port> arguments,
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
    auto function = func::FuncOp::create(
        builder, named(name), name,
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

  /// The body of a layer: figure 1 of the paper, top to bottom.
  func::FuncOp buildLayer(StringRef name, int64_t batch, int64_t length) {
    SmallVector<Port> arguments, results;
    Type tokens = activation({batch, length, config.modelDim});
    arguments.push_back({"x", tokens, {}});
    llvm::append_range(arguments, layerParameters(0));
    llvm::append_range(arguments, layerState("", batch));
    results.push_back({"out", tokens, {}});
    llvm::append_range(results, layerState("", batch));
    for (Port &port : llvm::concat<Port>(arguments, results)) {
      port.role = {};
      port.init = {};
      port.outsideShape.clear();
    }
    llvm::StringMap<Value> in;
    func::FuncOp function = openFunction(name, arguments, results, in);
    function.setPrivate();
    OpBuilder &b = builder;
    auto at = [&](StringRef part) { return named("layer." + part); };
    FloatAttr eps = b.getF64FloatAttr(config.normEps);
    FloatAttr base = b.getF64FloatAttr(config.ropeBase);
    IntegerAttr heads = b.getI64IntegerAttr(config.numHeads);
    IntegerAttr chunk = b.getI64IntegerAttr(config.chunkSize);
    auto linear = [&](StringRef part, Value x) -> Value {
      return LinearOp::create(b, at(part), x, in.lookup(join(part, ".weight")),
                              in.lookup(join(part, ".bias")));
    };

    // Gated attention with moving average.
    Value x = in["x"], count = in["count"];
    auto norm = TimestepNormOp::create(
        b, at("mega.timenorm"), x, in["mega.timenorm.weight"],
        in["mega.timenorm.bias"], count, in["mean"], in["var"], eps);
    auto coefficients = CemaCoefficientsOp::create(
        b, at("mega.cema"), in["mega.cema.alpha"], in["mega.cema.delta"],
        in["mega.cema.theta"], in["mega.cema.gamma"]);
    auto cema = CemaOp::create(
        b, at("mega.cema"), norm.getResult(), coefficients.getP(),
        coefficients.getQ(), coefficients.getG(), in["mega.cema.omega"],
        in["h"], b.getI64IntegerAttr(std::min(kCemaBlock, length)));
    Value mixed = RmsNormOp::create(b, at("mega.rmsnorm"), cema.getResult(),
                                    in.lookup("mega.rmsnorm.weight"), eps);
    auto qk =
        NormalizedQKOp::create(b, at("mega.qk"), linear("mega.wz", mixed),
                               in["mega.gamma"], in["mega.beta"], heads, eps);
    Value q = RotaryOp::create(b, at("mega.rope"), qk.getQ(), count, heads,
                               base, chunk, UnitAttr());
    Value k = RotaryOp::create(b, at("mega.rope"), qk.getK(), count, heads,
                               base, chunk, UnitAttr());
    Value v =
        SiluOp::create(b, at("mega.wv"), linear("mega.wv", norm.getResult()));
    auto attention = ChunkAttentionOp::create(b, at("mega.attention"), q, k, v,
                                              in["k"], in["v"], count, heads);
    Value gated = GateOp::create(b, at("mega.gate"), attention.getResult(),
                                 linear("mega.wr", mixed));
    Value candidate = linear("mega.wh1", mixed);
    Value y =
        AddOp::create(b, at("mega.residual"), tokens,
                      ValueRange{x, candidate, linear("mega.wh2", gated)});

    // Normalized feed-forward; its residual starts at the layer's input.
    Value normalized = LayerNormOp::create(b, at("nffn.norm"), y,
                                           in.lookup("nffn.norm.weight"),
                                           in.lookup("nffn.norm.bias"), eps);
    Value hidden = linear("nffn.fc1", normalized);
    if (config.swiglu)
      hidden = GateOp::create(b, at("nffn.gate"),
                              linear("nffn.fc3", normalized), hidden);
    else
      hidden = SiluOp::create(b, at("nffn.silu"), hidden);
    Value out = TwoHopResidualOp::create(b, at("nffn.residual"), x,
                                         linear("nffn.fc2", hidden),
                                         in.lookup("nffn.alpha"));

    Value cacheK =
        CacheAppendOp::create(b, at("mega.cache"), in["k"], k, count);
    Value cacheV =
        CacheAppendOp::create(b, at("mega.cache"), in["v"], v, count);
    func::ReturnOp::create(b, at("out"),
                           ValueRange{out, norm.getNewCount(),
                                      norm.getNewMean(), norm.getNewVar(),
                                      cema.getNewState(), cacheK, cacheV});
    return function;
  }

  void buildEntry(const EntrySpec &entry) {
    int64_t batch = entry.batch / entry.microbatches, length = entry.length;
    bool train = entry.kind == EntryKind::Train;
    bool hasTargets = train || entry.kind == EntryKind::Grad ||
                      entry.kind == EntryKind::Score;
    Type scalar = tensor({}), positions = tensor({batch, length});
    Type integer = RankedTensorType::get({}, builder.getI64Type());
    Type tokens = RankedTensorType::get({batch, length}, builder.getI32Type());

    SmallVector<Port> arguments, results;
    arguments.push_back({"tokens", tokens, Role::Input});
    if (hasTargets)
      arguments.push_back({"targets", tokens, Role::Input});
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
    function->setAttr(
        kEntryAttr, builder.getStringAttr(::megalodon::entryName(entry.kind)));
    if (entry.microbatches > 1)
      function->setAttr(kMicrobatchesAttr,
                        builder.getI64IntegerAttr(entry.microbatches));
    OpBuilder &b = builder;

    Value x = EmbeddingOp::create(
        b, named("embed"), activation({batch, length, config.modelDim}),
        in["tokens"], in["embed.weight"], /*rank=*/Value(),
        b.getF64FloatAttr(config.scaleEmb
                              ? std::sqrt(static_cast<double>(config.modelDim))
                              : 1));
    SmallVector<Value> newState;
    func::FuncOp layerFunction = layers.lookup({batch, length});
    for (int64_t layer = 0; layer < config.numLayers; ++layer) {
      SmallVector<Value> operands{x};
      for (const Port &port : layerParameters(layer))
        operands.push_back(in[layerName(layer) + "." + port.name]);
      for (const Port &port :
           layerState("state." + layerName(layer) + ".", batch))
        operands.push_back(in[port.name]);
      auto call = func::CallOp::create(b, named(layerName(layer)),
                                       layerFunction, operands);
      x = call.getResult(0);
      llvm::append_range(newState, call.getResults().drop_front());
    }
    auto norm = TimestepNormOp::create(
        b, named("output.final_norm"), x, in["output.final_norm.weight"],
        in["output.final_norm.bias"], in["state.final.count"],
        in["state.final.mean"], in["state.final.var"],
        b.getF64FloatAttr(config.normEps));
    newState.append({norm.getNewCount(), norm.getNewMean(), norm.getNewVar()});
    x = norm.getResult();
    if (entry.kind == EntryKind::Generate)
      x = LastTokenOp::create(b, named("output.last_token"), x);
    SmallVector<int64_t> logitsShape(
        cast<RankedTensorType>(x.getType()).getShape());
    logitsShape.back() = config.outputSize;
    Value logits = LinearOp::create(
        b, named("output.output"), tensor(logitsShape), x,
        in[config.shareEmb ? "embed.weight" : "output.output.weight"], Value());

    SmallVector<Value> returned;
    if (hasTargets) {
      Value nll =
          CrossEntropyOp::create(b, named("loss"), logits, in["targets"])
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

  const Config &config;
  ArrayRef<EntrySpec> entries;
  OpBuilder builder;
  Type real;   ///< the compute type
  Type stored; ///< of activations
  Type weight; ///< of matrices that only products read
  OwningOpRef<ModuleOp> module;
  llvm::DenseMap<std::pair<int64_t, int64_t>, func::FuncOp> layers;
};

} // namespace

namespace megalodon {
OwningOpRef<ModuleOp> importConfig(MLIRContext &context, const Config &config,
                                   StringRef precision,
                                   ArrayRef<EntrySpec> entries) {
  return Importer(context, config, precision, entries).run();
}
} // namespace megalodon
