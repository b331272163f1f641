// LLaMA-2, the baseline: full causal attention over a cache of fixed capacity,
// SwiGLU, root mean square norms with plain gains.
#include "passes/Import/Importer.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;

namespace {

class LlamaImporter : public Importer {
public:
  using Importer::Importer;

private:
  StringRef tableName() const override { return "tok_embeddings.weight"; }
  StringRef headName() const override { return "output.weight"; }

  Port gain(StringRef name) {
    return {name.str(), tensor({config.modelDim}), Role::Parameter,
            init(InitKind::Constant, 1)};
  }

  SmallVector<Port> layerParameters(int64_t) override {
    int64_t model = config.modelDim, hidden = config.ffnHiddenDim,
            keys = config.keyHeads * config.headKeyDim();
    return {projection("attention.wq.weight", model, model),
            projection("attention.wk.weight", keys, model),
            projection("attention.wv.weight", keys, model),
            projection("attention.wo.weight", model, model),
            projection("feed_forward.w1.weight", hidden, model),
            projection("feed_forward.w2.weight", model, hidden),
            projection("feed_forward.w3.weight", hidden, model),
            gain("attention_norm.weight"),
            gain("ffn_norm.weight")};
  }
  SmallVector<Port> finalNormParameters() override {
    return {gain("norm.weight")};
  }

  SmallVector<Port> layerState(StringRef prefix, int64_t batch) override {
    return {
        countState(prefix, batch),
        cacheState(prefix, "k", batch, config.keyHeads, config.headKeyDim()),
        cacheState(prefix, "v", batch, config.keyHeads, config.headKeyDim())};
  }
  SmallVector<Port> finalState(StringRef, int64_t) override { return {}; }

  func::FuncOp buildLayer(const LayerShape &shape) override {
    llvm::StringMap<Value> in;
    func::FuncOp function = openLayer(shape, in);
    OpBuilder &b = builder;
    auto at = [&](StringRef part) { return named("layer." + part); };
    FloatAttr eps = b.getF64FloatAttr(config.normEps);
    auto norm = [&](StringRef part, Value x) -> Value {
      return RmsNormOp::create(b, at(part), x, in[join(part, ".weight")], eps,
                               b.getUnitAttr());
    };
    auto linear = [&](StringRef part, Value x) -> Value {
      return LinearOp::create(b, at(part), x, in[join(part, ".weight")],
                              Value());
    };
    // A sequence is one chunk, as long as the cache: positions never restart,
    // and attention inside the chunk is attention to everything before.
    Value x = in["x"], count = in["count"], positions = in.lookup("positions");
    auto rotary = [&](Value heads, int64_t number, double scale) -> Value {
      return RotaryOp::create(b, at("attention.rope"), heads, count, positions,
                              b.getI64IntegerAttr(number),
                              b.getF64FloatAttr(config.ropeBase),
                              b.getI64IntegerAttr(config.chunkSize), UnitAttr(),
                              b.getF64FloatAttr(scale));
    };

    Value normalized = norm("attention_norm", x);
    Value q = rotary(linear("attention.wq", normalized), config.numHeads,
                     1 / std::sqrt(static_cast<double>(config.headKeyDim())));
    Value k = rotary(linear("attention.wk", normalized), config.keyHeads, 1);
    Value v = linear("attention.wv", normalized);
    auto attention = ChunkAttentionOp::create(
        b, at("attention"), q, k, v, in["k"], in["v"], count, positions,
        b.getI64IntegerAttr(config.numHeads),
        AttentionFunctionAttr::get(b.getContext(), AttentionFunction::Softmax));
    Value mixed = AddOp::create(
        b, at("attention.residual"), x.getType(),
        ValueRange{x, linear("attention.wo", attention.getResult())});

    normalized = norm("ffn_norm", mixed);
    Value gate = linear("feed_forward.w1", normalized);
    Value hidden = GateOp::create(b, at("feed_forward.gate"),
                                  linear("feed_forward.w3", normalized), gate);
    Value out =
        AddOp::create(b, at("feed_forward.residual"), x.getType(),
                      ValueRange{mixed, linear("feed_forward.w2", hidden)});

    Value cacheK = CacheAppendOp::create(b, at("attention.cache"), in["k"], k,
                                         count, positions);
    Value cacheV = CacheAppendOp::create(b, at("attention.cache"), in["v"], v,
                                         count, positions);
    Value newCount =
        AdvanceCountOp::create(b, at("attention.count"), count, x, positions);
    func::ReturnOp::create(b, at("out"),
                           ValueRange{out, newCount, cacheK, cacheV});
    return function;
  }

  Value buildFinalNorm(Value x, llvm::StringMap<Value> &in,
                       SmallVectorImpl<Value> &) override {
    return RmsNormOp::create(
        builder, named("output.norm"), x, in["norm.weight"],
        builder.getF64FloatAttr(config.normEps), builder.getUnitAttr());
  }
};

} // namespace

std::unique_ptr<Importer> mlir::megalodon::createLlamaImporter(
    MLIRContext &context, const ::megalodon::Config &config,
    StringRef precision, ArrayRef<::megalodon::EntrySpec> entries) {
  return std::make_unique<LlamaImporter>(context, config, precision, entries);
}
