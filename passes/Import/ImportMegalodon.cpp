// MEGALODON's parameters, state and layer.
#include "passes/Import/Importer.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens between the CEMA states that forward keeps for backward: backward
/// recomputes the states of one such block at a time.
constexpr int64_t kCemaBlock = 64;

class MegalodonImporter : public Importer {
public:
  using Importer::Importer;

private:
  StringRef tableName() const override { return "embed.weight"; }
  StringRef headName() const override { return "output.output.weight"; }

  SmallVector<Port> layerParameters(int64_t layer) override {
    SmallVector<Port> ports;
    auto add = [&](StringRef name, ArrayRef<int64_t> shape, InitAttr init) {
      ports.push_back({name.str(), tensor(shape), Role::Parameter, init});
    };
    auto addZero = [&](StringRef name, ArrayRef<int64_t> shape) {
      add(name, shape, init(InitKind::Zero));
    };
    auto addProjection = [&](StringRef name, int64_t outputs, int64_t inputs) {
      ports.push_back(projection(name, outputs, inputs));
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

  SmallVector<Port> finalNormParameters() override {
    SmallVector<Port> ports;
    for (StringRef name :
         {"output.final_norm.weight", "output.final_norm.bias"})
      ports.push_back({name.str(), tensor({config.modelDim}), Role::Parameter,
                       init(InitKind::Zero)});
    return ports;
  }

  SmallVector<Port> normState(StringRef prefix, int64_t batch) {
    Type statistics = tensor({batch, config.normNumGroups});
    return {countState(prefix, batch),
            {join(prefix, "mean"), statistics, Role::State},
            {join(prefix, "var"), statistics, Role::State}};
  }

  SmallVector<Port> layerState(StringRef prefix, int64_t batch) override {
    SmallVector<Port> ports = normState(prefix, batch);
    ports.push_back({join(prefix, "h"),
                     tensor({batch, config.modelDim, config.cemaNdim, 2}),
                     Role::State});
    ports.push_back(
        cacheState(prefix, "k", batch, config.numHeads, config.headKeyDim()));
    ports.push_back(
        cacheState(prefix, "v", batch, config.numHeads, config.headValueDim()));
    return ports;
  }

  SmallVector<Port> finalState(StringRef prefix, int64_t batch) override {
    return normState(prefix, batch);
  }

  /// The body of a layer: figure 1 of the paper, top to bottom.
  func::FuncOp buildLayer(const LayerShape &shape) override {
    llvm::StringMap<Value> in;
    func::FuncOp function = openLayer(shape, in);
    Type tokens = in["x"].getType();
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
    Value x = in["x"], count = in["count"], positions = in.lookup("positions");
    auto norm = TimestepNormOp::create(
        b, at("mega.timenorm"), x, in["mega.timenorm.weight"],
        in["mega.timenorm.bias"], count, in["mean"], in["var"], positions, eps);
    auto coefficients = CemaCoefficientsOp::create(
        b, at("mega.cema"), in["mega.cema.alpha"], in["mega.cema.delta"],
        in["mega.cema.theta"], in["mega.cema.gamma"]);
    auto cema = CemaOp::create(
        b, at("mega.cema"), norm.getResult(), coefficients.getP(),
        coefficients.getQ(), coefficients.getG(), in["mega.cema.omega"],
        in["h"], positions,
        b.getI64IntegerAttr(std::min(kCemaBlock, shape.length)));
    Value mixed =
        RmsNormOp::create(b, at("mega.rmsnorm"), cema.getResult(),
                          in.lookup("mega.rmsnorm.weight"), eps, UnitAttr());
    auto qk =
        NormalizedQKOp::create(b, at("mega.qk"), linear("mega.wz", mixed),
                               in["mega.gamma"], in["mega.beta"], heads, eps);
    Value q =
        RotaryOp::create(b, at("mega.rope"), qk.getQ(), count, positions, heads,
                         base, chunk, UnitAttr(), b.getF64FloatAttr(1));
    Value k =
        RotaryOp::create(b, at("mega.rope"), qk.getK(), count, positions, heads,
                         base, chunk, UnitAttr(), b.getF64FloatAttr(1));
    Value v =
        SiluOp::create(b, at("mega.wv"), linear("mega.wv", norm.getResult()));
    auto attention = ChunkAttentionOp::create(
        b, at("mega.attention"), q, k, v, in["k"], in["v"], count, positions,
        heads,
        AttentionFunctionAttr::get(b.getContext(), AttentionFunction::Softmax));
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

    Value cacheK = CacheAppendOp::create(b, at("mega.cache"), in["k"], k, count,
                                         positions);
    Value cacheV = CacheAppendOp::create(b, at("mega.cache"), in["v"], v, count,
                                         positions);
    func::ReturnOp::create(b, at("out"),
                           ValueRange{out, norm.getNewCount(),
                                      norm.getNewMean(), norm.getNewVar(),
                                      cema.getNewState(), cacheK, cacheV});
    return function;
  }

  Value buildFinalNorm(Value x, llvm::StringMap<Value> &in,
                       SmallVectorImpl<Value> &newState) override {
    addPositions("output.final_norm.positions", in["state.final.count"], in);
    auto norm = TimestepNormOp::create(
        builder, named("output.final_norm"), x, in["output.final_norm.weight"],
        in["output.final_norm.bias"], in["state.final.count"],
        in["state.final.mean"], in["state.final.var"], in.lookup("positions"),
        builder.getF64FloatAttr(config.normEps));
    newState.append({norm.getNewCount(), norm.getNewMean(), norm.getNewVar()});
    return norm.getResult();
  }
};

} // namespace

std::unique_ptr<Importer> mlir::megalodon::createMegalodonImporter(
    MLIRContext &context, const ::megalodon::Config &config,
    StringRef precision, ArrayRef<::megalodon::EntrySpec> entries) {
  return std::make_unique<MegalodonImporter>(context, config, precision,
                                             entries);
}
