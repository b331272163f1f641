// MEGA (arXiv 2209.10655), the predecessor: a damped moving average of real
// states, attention of one head with a relative bias, a gate between the
// residual and what the block has to add.
#include "dialect/Megalodon/Mega.h"
#include "passes/Import/Importer.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens between the states that forward keeps for backward.
constexpr int64_t kEmaBlock = 64;

class MegaImporter : public Importer {
public:
  using Importer::Importer;

private:
  StringRef tableName() const override { return "embed.weight"; }
  StringRef headName() const override { return "output.output.weight"; }

  Port parameter(StringRef name, ArrayRef<int64_t> shape, InitAttr init) {
    return {name.str(), tensor(shape), Role::Parameter, init};
  }
  /// The parameters of a norm of `part`; none without an affine map.
  SmallVector<Port> normParameters(StringRef part, bool affine) {
    SmallVector<Port> ports;
    InitAttr zero = init(InitKind::Zero);
    if (affine)
      ports.push_back(
          parameter(join(part, ".weight"), {config.modelDim}, zero));
    if (affine && hasLayerNorms())
      ports.push_back(parameter(join(part, ".bias"), {config.modelDim}, zero));
    return ports;
  }
  bool hasLayerNorms() const { return config.normType == "layernorm"; }

  SmallVector<Port> layerParameters(int64_t) override {
    int64_t model = config.modelDim, states = config.cemaNdim,
            keys = config.zDim, values = config.valueDim,
            hidden = config.ffnHiddenDim;
    SmallVector<Port> ports = normParameters("mega.norm", config.normAffine);
    auto add = [&](StringRef name, ArrayRef<int64_t> shape, double deviation,
                   double mean = 0) {
      ports.push_back(
          parameter(name, shape, init(InitKind::Normal, deviation, mean)));
    };
    auto addProjection = [&](StringRef part, int64_t outputs, int64_t inputs) {
      ports.push_back(projection(join(part, ".weight"), outputs, inputs));
      ports.push_back(
          parameter(join(part, ".bias"), {outputs}, init(InitKind::Zero)));
    };
    add("mega.ema.alpha", {model, states, 1}, 0.2);
    add("mega.ema.delta", {model, states, 1}, 0.2);
    // The original's signs alternate between states. A state's sign may be
    // moved to its gamma, whose distribution is symmetric.
    add("mega.ema.beta", {model, states, 1}, 0.02, 1);
    add("mega.ema.gamma", {model, states}, 1);
    add("mega.ema.omega", {model, 1}, 1);
    addProjection("mega.wv", values, model);
    addProjection("mega.wu", model, model);
    addProjection("mega.wz", keys, model);
    addProjection("mega.wr", values, model);
    addProjection("mega.wh1", model, model);
    addProjection("mega.wh2", model, values);
    add("mega.gamma", {2, keys}, 0.02);
    ports.push_back(parameter("mega.beta", {2, keys}, init(InitKind::Zero)));
    add("mega.relative", {2, keys}, 0.02);
    llvm::append_range(ports, normParameters("nffn.norm", config.normAffine));
    addProjection("nffn.fc1", hidden, model);
    addProjection("nffn.fc2", model, hidden);
    return ports;
  }
  SmallVector<Port> finalNormParameters() override {
    return normParameters("output.final_norm", config.finalNormAffine);
  }

  SmallVector<Port> layerState(StringRef prefix, int64_t batch) override {
    return {countState(prefix, batch),
            {join(prefix, "h"),
             tensor({batch, config.modelDim, config.cemaNdim, 2}), Role::State},
            cacheState(prefix, "k", batch, 1, 2 * config.zDim),
            cacheState(prefix, "v", batch, 1, config.valueDim)};
  }
  SmallVector<Port> finalState(StringRef, int64_t) override { return {}; }

  /// The norm of `part`, whose parameters are in `in` or absent.
  Value norm(StringRef part, StringRef place, Value x,
             llvm::StringMap<Value> &in) {
    Value weight = in.lookup(join(part, ".weight"));
    FloatAttr eps = builder.getF64FloatAttr(config.normEps);
    if (!hasLayerNorms())
      return RmsNormOp::create(builder, named(place), x, weight, eps,
                               UnitAttr());
    return LayerNormOp::create(builder, named(place), x, weight,
                               in.lookup(join(part, ".bias")), eps);
  }

  func::FuncOp buildLayer(const LayerShape &shape) override {
    llvm::StringMap<Value> in;
    func::FuncOp function = openLayer(shape, in);
    OpBuilder &b = builder;
    auto at = [&](StringRef part) { return named("layer." + part); };
    auto linear = [&](StringRef part, Value x) -> Value {
      return LinearOp::create(b, at(part), x, in[join(part, ".weight")],
                              in[join(part, ".bias")]);
    };
    auto silu = [&](StringRef part, Value x) -> Value {
      return SiluOp::create(b, at(part), x);
    };
    auto add = [&](StringRef part, Value x, Value y) -> Value {
      return AddOp::create(b, at(part), x.getType(), ValueRange{x, y});
    };

    // Gated attention with moving average.
    Value x = in["x"], count = in["count"], positions = in.lookup("positions");
    Value normalized = norm("mega.norm", "layer.mega.norm", x, in);
    auto coefficients = EmaCoefficientsOp::create(
        b, at("mega.ema"), in["mega.ema.alpha"], in["mega.ema.delta"],
        in["mega.ema.beta"], in["mega.ema.gamma"]);
    auto ema = CemaOp::create(
        b, at("mega.ema"), normalized, coefficients.getP(), coefficients.getQ(),
        coefficients.getG(), in["mega.ema.omega"], in["h"], positions,
        b.getI64IntegerAttr(std::min(kEmaBlock, shape.length)));
    Value mixed = silu("mega.ema", ema.getResult());
    auto weights = config.attentionFunction == "laplace"
                       ? AttentionFunction::Laplace
                       : AttentionFunction::Softmax;
    auto qk = MegaQKOp::create(
        b, at("mega.qk"), silu("mega.wz", linear("mega.wz", mixed)),
        in["mega.gamma"], in["mega.beta"], in["mega.relative"], count,
        positions, b.getF64FloatAttr(config.ropeBase),
        b.getI64IntegerAttr(config.cacheCapacity()),
        weights == AttentionFunction::Laplace ? b.getUnitAttr() : UnitAttr());
    Value v = silu("mega.wv", linear("mega.wv", normalized));
    auto attention = ChunkAttentionOp::create(
        b, at("mega.attention"), qk.getQ(), qk.getK(), v, in["k"], in["v"],
        count, positions, b.getI64IntegerAttr(1),
        AttentionFunctionAttr::get(b.getContext(), weights));
    Value gated = GateOp::create(b, at("mega.gate"), attention.getResult(),
                                 linear("mega.wr", mixed));
    Value candidate =
        silu("mega.candidate", add("mega.candidate", linear("mega.wh1", mixed),
                                   linear("mega.wh2", gated)));
    Value y = UpdateGateOp::create(b, at("mega.update"), x, candidate,
                                   linear("mega.wu", mixed));

    // Normalized feed-forward.
    Value hidden =
        silu("nffn.fc1",
             linear("nffn.fc1", norm("nffn.norm", "layer.nffn.norm", y, in)));
    Value out = add("nffn.residual", y, linear("nffn.fc2", hidden));

    Value cacheK = CacheAppendOp::create(b, at("mega.cache"), in["k"],
                                         qk.getK(), count, positions);
    Value cacheV = CacheAppendOp::create(b, at("mega.cache"), in["v"], v, count,
                                         positions);
    Value newCount =
        AdvanceCountOp::create(b, at("mega.count"), count, x, positions);
    func::ReturnOp::create(
        b, at("out"),
        ValueRange{out, newCount, ema.getNewState(), cacheK, cacheV});
    return function;
  }

  Value buildFinalNorm(Value x, llvm::StringMap<Value> &in,
                       SmallVectorImpl<Value> &) override {
    return norm("output.final_norm", "output.final_norm", x, in);
  }
};

} // namespace

std::unique_ptr<Importer> mlir::megalodon::createMegaImporter(
    MLIRContext &context, const ::megalodon::Config &config,
    StringRef precision, ArrayRef<::megalodon::EntrySpec> entries) {
  return std::make_unique<MegaImporter>(context, config, precision, entries);
}
