#include "passes/Partition/LayoutTable.h"
#include "dialect/Megalodon/Mega.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::megalodon;

//===-- Named tensors -----------------------------------------------------===//

/// The dimension of a parameter that the tensor axis splits; -1: none, every
/// rank along the axis holds the whole. `name` is relative to the layer.
static int tensorDimension(StringRef name, bool tied) {
  // The embedding is split by channels like the residual stream it feeds,
  // unless it is the head as well, which is split by vocabulary.
  if (name == "embed.weight" || name == "tok_embeddings.weight")
    return tied ? 0 : 1;
  if (name == "output.output.weight")
    return 0;
  if (name == "mega.rmsnorm.weight" || name.starts_with("nffn.norm.") ||
      name == "attention_norm.weight" || name == "ffn_norm.weight" ||
      name == "norm.weight")
    return -1; // these norms see whole rows
  if (name == "mega.wh2.weight" || name == "nffn.fc2.weight" ||
      name == "attention.wo.weight" || name == "feed_forward.w2.weight" ||
      name == "mega.gamma" || name == "mega.beta")
    return 1;
  return 0; // the outputs of every other projection, channels of the rest
}

Layout mlir::megalodon::layoutOfPort(StringRef name, Role role, int64_t rank,
                                     bool tied, const MeshShape &mesh) {
  Layout layout = Layout::whole(rank);
  auto split = [&](int64_t dimension, Axis axis) {
    if (mesh[axis] > 1 && dimension >= 0 && dimension < rank)
      layout.dimensions[dimension].push_back(axis);
  };
  name.consume_front("grad.");
  if (name.starts_with("state.")) {
    split(0, Axis::Data);
    // Channels, groups and heads stand second, in the caches third.
    split(name.ends_with(".k") || name.ends_with(".v") ? 2 : 1, Axis::Tensor);
    return layout;
  }
  if (role == Role::Input || role == Role::Output) {
    if (rank >= 2) {
      split(0, Axis::Data);
      split(1, Axis::Chunk);
      split(2, Axis::Tensor); // logits
    }
    return layout;
  }
  for (StringRef prefix : {"exp_avg_sq.", "exp_avg."})
    name.consume_front(prefix);
  if (name.consume_front("layers."))
    name = name.split('.').second;
  split(tensorDimension(name, tied), Axis::Tensor);
  return layout;
}

//===-- Ops ---------------------------------------------------------------===//

/// Reads "*b l d!": `*` marks an operand that may be resharded, `+` a result
/// that is a sum, `!` a dimension that must be whole.
static TensorRule parseRule(StringRef text) {
  TensorRule rule;
  rule.reshardable = text.consume_front("*");
  rule.sum = text.consume_front("+");
  SmallVector<StringRef> letters;
  text.split(letters, ' ', -1, /*KeepEmpty=*/false);
  for (StringRef letter : letters) {
    rule.letters += letter[0];
    if (letter.ends_with("!"))
      rule.whole += letter[0];
  }
  return rule;
}

static OpRule makeRule(ArrayRef<StringRef> operands,
                       ArrayRef<StringRef> results,
                       unsigned linearOperands = 0) {
  OpRule rule;
  rule.operands = llvm::map_to_vector(operands, parseRule);
  rule.results = llvm::map_to_vector(results, parseRule);
  rule.linearOperands = linearOperands;
  return rule;
}

/// The rules of an op's operands, with those of its positions where it has any.
static SmallVector<StringRef> withPositions(ArrayRef<StringRef> operands,
                                            Value positions) {
  SmallVector<StringRef> all(operands);
  if (positions)
    all.push_back("b l");
  return all;
}

// Letters: b rows, l tokens, d channels of the residual stream (and groups,
// which follow them), h heads and their columns, m and k outputs and inputs of
// a projection, v vocabulary; n, c, o, s, t are never split.
std::optional<OpRule> mlir::megalodon::ruleOf(Operation *op) {
  using R = std::optional<OpRule>;
  return llvm::TypeSwitch<Operation *, R>(op)
      .Case(
          [](EmbeddingOp) -> R { return makeRule({"b l", "v d"}, {"+b l d"}); })
      .Case([](LinearOp op) -> R {
        if (op.getBias())
          return makeRule({"*b l k", "m k!", "m"}, {"b l m"});
        return makeRule({"*b l k", "m k"}, {"+b l m"});
      })
      .Case([](TimestepNormOp op) -> R {
        return makeRule(withPositions({"b l d", "d", "d", "b", "b d", "b d"},
                                      op.getPositions()),
                        {"b l d", "b", "b d", "b d", "b l d", "b l d"});
      })
      .Case([](CemaCoefficientsOp) -> R {
        return makeRule({"d n o", "d n o", "d n o", "d n c"},
                        {"d n", "d n c", "d n c"});
      })
      .Case([](CemaOp op) -> R {
        return makeRule(
            withPositions({"b l d", "d n", "d n c", "d n c", "d o", "b d n c"},
                          op.getPositions()),
            {"b l d", "b d n c", "l b d n c"});
      })
      .Case([](RmsNormOp op) -> R {
        if (op.getWeight())
          return makeRule({"*b l d!", "d!"}, {"b l d!"});
        return makeRule({"*b l d!"}, {"b l d!"});
      })
      .Case([](LayerNormOp op) -> R {
        if (op.getWeight())
          return makeRule({"*b l d!", "d!", "d!"}, {"b l d!"});
        return makeRule({"*b l d!"}, {"b l d!"});
      })
      .Case([](NormalizedQKOp) -> R {
        return makeRule({"b l h", "t h", "t h"}, {"b l h", "b l h"});
      })
      .Case([](RotaryOp op) -> R {
        return makeRule(withPositions({"b l h", "b"}, op.getPositions()),
                        {"b l h"});
      })
      .Case([](ChunkAttentionOp op) -> R {
        SmallVector<StringRef> results(op->getNumResults(), "b l h");
        return makeRule(
            withPositions({"b l h", "b l h", "b l h", "b s h", "b s h", "b"},
                          op.getPositions()),
            results);
      })
      .Case([](CacheAppendOp op) -> R {
        return makeRule(
            withPositions({"b s h", "b l h", "b"}, op.getPositions()),
            {"b s h"});
      })
      .Case([](AdvanceCountOp op) -> R {
        return makeRule(withPositions({"b", "b l d"}, op.getPositions()),
                        {"b"});
      })
      .Case([](DocumentPositionsOp) -> R {
        return makeRule({"b l", "b"}, {"b l"});
      })
      .Case([](SiluOp) -> R { return makeRule({"b l d"}, {"b l d"}); })
      .Case([](GateOp) -> R { return makeRule({"b l d", "b l d"}, {"b l d"}); })
      .Case([](TwoHopResidualOp op) -> R {
        if (op.getAlpha())
          return makeRule({"b l d", "*b l d", "d"}, {"b l d"});
        return makeRule({"b l d", "*b l d"}, {"b l d"});
      })
      // MEGA's one head is not split, so columns of queries and keys have
      // letters that never are.
      .Case([](EmaCoefficientsOp) -> R {
        return makeRule({"d n o", "d n o", "d n o", "d n"},
                        {"d n", "d n c", "d n c"});
      })
      .Case([](MegaQKOp op) -> R {
        return makeRule(withPositions({"b l c", "t c", "t c", "t c", "b"},
                                      op.getPositions()),
                        {"b l s", "b l s"});
      })
      .Case([](UpdateGateOp) -> R {
        return makeRule({"b l d", "b l d", "b l d"}, {"b l d"});
      })
      .Case([](EmaCoefficientsGradOp) -> R {
        return makeRule({"d n", "d n c", "d n c", "d n o", "d n o", "d n o"},
                        {"d n o", "d n o", "d n o", "d n"}, 3);
      })
      .Case([](MegaQKGradOp op) -> R {
        return makeRule(withPositions({"b l s", "b l s", "b l c", "t c", "b"},
                                      op.getPositions()),
                        {"b l c", "+t c", "+t c", "+t c"});
      })
      .Case([](UpdateGateGradOp) -> R {
        return makeRule({"b l d", "b l d", "b l d", "b l d"},
                        {"b l d", "b l d", "b l d"});
      })
      .Case([](CrossEntropyOp) -> R {
        return makeRule({"b l v", "b l"}, {"b l", "b l"});
      })
      .Case([](MeanOp) -> R { return makeRule({"b l"}, {"+"}); })
      .Case([](LossSumOp) -> R { return makeRule({"b l", "b l"}, {"+", "+"}); })
      .Case([](EmbeddingGradOp) -> R {
        return makeRule({"b l", "*b l d"}, {"+v d"});
      })
      .Case([](LinearGradInputOp) -> R {
        return makeRule({"*b l m", "m k"}, {"+b l k"});
      })
      .Case([](LinearGradWeightOp) -> R {
        return makeRule({"*b l m", "*b l k"}, {"+m k"});
      })
      .Case([](LinearGradBiasOp) -> R { return makeRule({"*b l m"}, {"+m"}); })
      .Case([](TimestepNormGradOp op) -> R {
        SmallVector<StringRef> operands{"*b l d"};
        if (op.getDnewMean())
          operands.append({"b d", "b d"});
        operands.append({"b l d", "d", "b", "b l d", "b l d"});
        operands = withPositions(operands, op.getPositions());
        return makeRule(operands, {"b l d", "+d", "+d", "b d", "b d"});
      })
      .Case([](CemaCoefficientsGradOp) -> R {
        return makeRule({"d n", "d n c", "d n c", "d n o", "d n o", "d n o"},
                        {"d n o", "d n o", "d n o", "d n c"}, 3);
      })
      .Case([](CemaGradOp op) -> R {
        SmallVector<StringRef> operands{"*b l d"};
        if (op.getDnewState())
          operands.push_back("b d n c");
        operands.append({"b l d", "d n", "d n c", "d n c", "d o", "l b d n c"});
        operands = withPositions(operands, op.getPositions());
        return makeRule(
            operands, {"b l d", "+d n", "+d n c", "+d n c", "+d o", "b d n c"});
      })
      .Case([](RmsNormGradOp op) -> R {
        if (op.getWeight())
          return makeRule({"*b l d", "*b l d", "*d"}, {"b l d", "+d"});
        return makeRule({"*b l d", "*b l d"}, {"b l d"});
      })
      .Case([](LayerNormGradOp op) -> R {
        if (op.getWeight())
          return makeRule({"*b l d", "*b l d", "*d"}, {"b l d", "+d", "+d"});
        return makeRule({"*b l d", "*b l d"}, {"b l d"});
      })
      .Case([](NormalizedQKGradOp) -> R {
        return makeRule({"b l h", "b l h", "b l h", "t h"},
                        {"b l h", "+t h", "+t h"});
      })
      .Case([](ChunkAttentionGradOp op) -> R {
        SmallVector<StringRef> operands{"b l h", "b l h", "b l h", "b l h",
                                        "b s h", "b s h", "b"};
        if (op.getLse())
          operands.append({"b l h", "b l h"});
        return makeRule(withPositions(operands, op.getPositions()),
                        {"b l h", "b l h", "b l h"});
      })
      .Case([](SumHeadGroupsOp) -> R { return makeRule({"b l h"}, {"b l h"}); })
      .Case([](SiluGradOp) -> R {
        return makeRule({"b l d", "b l d"}, {"b l d"});
      })
      .Case([](GateGradOp) -> R {
        return makeRule({"b l d", "b l d", "b l d"}, {"b l d", "b l d"});
      })
      .Case([](TwoHopResidualGradOp) -> R {
        return makeRule({"b l d", "*b l d", "d"}, {"b l d", "+d"});
      })
      .Case([](CrossEntropyGradOp) -> R {
        return makeRule({"b l", "b l v", "b l", "b l"}, {"b l v"});
      })
      .Case([](MeanGradOp) -> R { return makeRule({""}, {"b l"}); })
      .Case([](ClipOp) -> R { return makeRule({""}, {""}); })
      .Default([](Operation *) -> R { return std::nullopt; });
}
