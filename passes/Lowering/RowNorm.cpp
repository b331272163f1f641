// Norms over the last dimension (rms_norm, layer_norm, the per-head norm of
// normalized_qk) and their gradients: one row after the other, each read once
// from memory and then from cache. Gradients of gains and biases go through
// partial rows.
#include "passes/Lowering/Mega.h"
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

/// Terms of a sum of squares.
void addSquares(KernelBuilder &k, Value vector, Value &sum) {
  sum = k.fma(vector, vector, sum);
}

/// vector times the gain, which is stored as its distance from 1 unless it is
/// `plain`.
Value applyGain(KernelBuilder &k, Value vector, Value gain, bool plain) {
  return plain ? k.mul(vector, gain) : k.fma(vector, gain, vector);
}

struct RmsNormLowering : LoweringPattern<RmsNormOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(RmsNormOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "rms_norm");
    Value x = k.read(op.getX(), View::Rows);
    Value weight = op.getWeight() ? k.read(op.getWeight()) : Value();
    Value y = k.write(op.getType(), View::Rows);
    forTokens(k, rows, [&](Value t) {
      Value squares =
          sumRow(k, width, element, 1,
                 [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                   addSquares(k, k.load(x, {t, i}, mask), sums[0]);
                 })[0];
      Value scale = k.splat(
          inverseRoot(k, squares, width, op.getEps().convertToDouble()));
      k.forLanes(width, element, [&](Value i, Value mask) {
        Value normalized = k.mul(k.load(x, {t, i}, mask), scale);
        if (weight)
          normalized = applyGain(k, normalized, k.load(weight, {i}, mask),
                                 op.getPlain());
        k.store(normalized, y, {t, i}, mask);
      });
    });
    double elements = op.getType().getNumElements();
    rewriter.replaceOp(op,
                       k.finish(tokenGrid(rows), 5 * elements, bytesOf(op)));
    return success();
  }
};

/// A token's sums over the whole row, f64 scalars.
SmallVector<Value> wholeRow(KernelBuilder &k, Value sums, Value t) {
  SmallVector<Value> values;
  for (int64_t i = 0, e = cast<MemRefType>(sums.getType()).getDimSize(1); i < e;
       ++i)
    values.push_back(k.loadScalar(sums, {t, k.index(i)}));
  return values;
}

/// rms_norm_grad_sums: x^2 and u x; layer_norm_grad_sums: also x and u.
template <typename OpType>
struct NormGradSumsLowering : LoweringPattern<OpType> {
  using LoweringPattern<OpType>::LoweringPattern;
  using LoweringPattern<OpType>::options;

  LogicalResult matchAndRewrite(OpType op,
                                PatternRewriter &rewriter) const override {
    constexpr bool isLayerNorm = std::is_same_v<OpType, LayerNormGradSumsOp>;
    bool plain = false;
    if constexpr (!isLayerNorm)
      plain = op.getPlain();
    RankedTensorType type = tensorOf(op.getX());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op,
                    isLayerNorm ? "layer_norm_grad_sums"
                                : "rms_norm_grad_sums");
    Type f64 = k.b.getF64Type();
    Value dy = k.read(op.getDy(), View::Rows),
          x = k.read(op.getX(), View::Rows);
    Value weight = op.getWeight() ? k.read(op.getWeight()) : Value();
    Value sums = k.write(op.getType(), View::Rows);
    Value zero = k.constant(0, VectorType::get({k.lanes(element)}, f64));
    SmallVector<Value> zeros(isLayerNorm ? 4 : 2, zero);
    forTokens(k, rows, [&](Value t) {
      SmallVector<SmallVector<Value>> sets = accumulateRow(
          k, width, element, zeros,
          [&](Value i, Value mask, MutableArrayRef<Value> partial) {
            Value entry = k.toFloat(k.load(x, {t, i}, mask), f64),
                  u = k.toFloat(k.load(dy, {t, i}, mask), f64);
            if (weight)
              u = applyGain(k, u, k.toFloat(k.load(weight, {i}, mask), f64),
                            plain);
            if (isLayerNorm) {
              partial[0] = k.add(partial[0], entry);
              partial[2] = k.add(partial[2], u);
            }
            Value &squares = partial[isLayerNorm ? 1 : 0];
            addSquares(k, entry, squares);
            partial.back() = k.fma(u, entry, partial.back());
          });
      for (size_t i = 0; i < zeros.size(); ++i) {
        Value total = sets[0][i];
        for (const SmallVector<Value> &set : llvm::drop_begin(sets))
          total = k.add(total, set[i]);
        k.storeScalar(k.sum(total), sums, {t, k.index(i)});
      }
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    2.0 * zeros.size() * type.getNumElements(),
                                    bytesOf(op)));
    return success();
  }
};

struct RmsNormGradLowering : LoweringPattern<RmsNormGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(RmsNormGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width),
            whole = op.getWidth().value_or(width);
    KernelBuilder k(rewriter, options, op,
                    op.getSums() ? "rms_norm_grad_slice" : "rms_norm_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          x = k.read(op.getX(), View::Rows);
    Value weight = op.getWeight() ? k.read(op.getWeight()) : Value();
    Value given = op.getSums() ? k.read(op.getSums(), View::Rows) : Value();
    Value dx = k.write(type, View::Rows);
    Value partial =
        weight ? k.write(partialRowsType(type, rows, width)) : Value();
    if (weight)
      clearPartialRow(k, partial);
    auto scaled = [&](Value t, Value i, Value mask) {
      Value u = k.load(dy, {t, i}, mask);
      return weight ? applyGain(k, u, k.load(weight, {i}, mask), op.getPlain())
                    : u;
    };
    forTokens(k, rows, [&](Value t) {
      SmallVector<Value> sums =
          given ? wholeRow(k, given, t)
                : sumRow(k, width, element, 2,
                         [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                           Value vector = k.load(x, {t, i}, mask);
                           addSquares(k, vector, sums[0]);
                           sums[1] = k.fma(scaled(t, i, mask), vector, sums[1]);
                         });
      Value root =
          inverseRoot(k, sums[0], whole, op.getEps().convertToDouble());
      Value cube = k.mul(k.mul(root, root), root),
            share = k.constant(-1.0 / whole, root.getType());
      Value scale = k.splat(k.toFloat(root, element)),
            pull =
                k.splat(k.toFloat(k.mul(k.mul(cube, sums[1]), share), element));
      k.forLanes(width, element, [&](Value i, Value mask) {
        Value vector = k.load(x, {t, i}, mask);
        if (weight)
          addToPartialRow(k, partial, i,
                          k.mul(k.mul(k.load(dy, {t, i}, mask), vector), scale),
                          mask);
        k.store(k.fma(pull, vector, k.mul(scale, scaled(t, i, mask))), dx,
                {t, i}, mask);
      });
    });
    double elements = type.getNumElements();
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), 12 * elements, bytesOf(op));
    if (weight)
      results[1] =
          reducePartialRows(rewriter, options, op, results[1],
                            op.getDweight().getType(), tokenGrid(rows));
    rewriter.replaceOp(op, results);
    return success();
  }
};

/// Mean of row t of x, as a vector.
Value rowMean(KernelBuilder &k, Value x, Value t, int64_t width, Type element) {
  Value total = sumRow(k, width, element, 1,
                       [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                         sums[0] = k.add(sums[0], k.load(x, {t, i}, mask));
                       })[0];
  return k.splat(k.mul(total, k.constant(1.0 / width, element)));
}

/// x - mean at column i of row t, 0 in masked lanes.
Value centered(KernelBuilder &k, Value x, Value t, Value i, Value mask,
               Value mean) {
  return k.sub(fillMasked(k, k.load(x, {t, i}, mask), mask, mean), mean);
}

struct LayerNormLowering : LoweringPattern<LayerNormOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LayerNormOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "layer_norm");
    Value x = k.read(op.getX(), View::Rows);
    Value weight = op.getWeight() ? k.read(op.getWeight()) : Value();
    Value bias = op.getBias() ? k.read(op.getBias()) : Value();
    Value y = k.write(op.getType(), View::Rows);
    forTokens(k, rows, [&](Value t) {
      Value mean = rowMean(k, x, t, width, element);
      // Around the mean: a large mean costs the variance no digits.
      Value squares =
          sumRow(k, width, element, 1,
                 [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                   addSquares(k, centered(k, x, t, i, mask, mean), sums[0]);
                 })[0];
      Value scale = k.splat(
          inverseRoot(k, squares, width, op.getEps().convertToDouble()));
      k.forLanes(width, element, [&](Value i, Value mask) {
        Value normalized = k.mul(k.sub(k.load(x, {t, i}, mask), mean), scale);
        if (weight)
          normalized =
              k.add(k.fma(normalized, k.load(weight, {i}, mask), normalized),
                    k.load(bias, {i}, mask));
        k.store(normalized, y, {t, i}, mask);
      });
    });
    double elements = op.getType().getNumElements();
    rewriter.replaceOp(op,
                       k.finish(tokenGrid(rows), 8 * elements, bytesOf(op)));
    return success();
  }
};

/// From (sum x, sum x^2, sum u, sum u x) of n channels in f64: the sums around
/// the mean of x^2, of u and of u x, and the mean.
SmallVector<Value> centeredSums(KernelBuilder &k, ValueRange sums, int64_t n) {
  Type f64 = k.b.getF64Type();
  Value mean = k.mul(sums[0], k.constant(1.0 / n, f64));
  // Rounding must not make a variance of 0 negative.
  Value squares =
      k.max(k.sub(sums[1], k.mul(mean, sums[0])), k.constant(0, f64));
  return {squares, sums[2], k.sub(sums[3], k.mul(mean, sums[2])), mean};
}

struct LayerNormGradLowering : LoweringPattern<LayerNormGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LayerNormGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width),
            whole = op.getWidth().value_or(width);
    KernelBuilder k(rewriter, options, op,
                    op.getSums() ? "layer_norm_grad_slice" : "layer_norm_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          x = k.read(op.getX(), View::Rows);
    Value weight = op.getWeight() ? k.read(op.getWeight()) : Value();
    Value given = op.getSums() ? k.read(op.getSums(), View::Rows) : Value();
    Value dx = k.write(type, View::Rows), partialWeight, partialBias;
    if (weight) {
      partialWeight = k.write(partialRowsType(type, rows, width));
      partialBias = k.write(partialRowsType(type, rows, width));
      clearPartialRow(k, partialWeight);
      clearPartialRow(k, partialBias);
    }
    forTokens(k, rows, [&](Value t) {
      SmallVector<Value> sums;
      Value mean;
      if (given) {
        sums = centeredSums(k, wholeRow(k, given, t), whole);
        mean = k.splat(k.toFloat(sums[3], element));
      } else {
        mean = rowMean(k, x, t, width, element);
      }
      auto scaled = [&](Value i, Value mask) {
        Value u = k.load(dy, {t, i}, mask);
        return weight ? k.fma(u, k.load(weight, {i}, mask), u) : u;
      };
      if (!given)
        sums = sumRow(k, width, element, 3,
                      [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                        Value offset = centered(k, x, t, i, mask, mean),
                              u = scaled(i, mask);
                        addSquares(k, offset, sums[0]);
                        sums[1] = k.add(sums[1], u);
                        sums[2] = k.fma(u, offset, sums[2]);
                      });
      Value root =
          inverseRoot(k, sums[0], whole, op.getEps().convertToDouble());
      Value share = k.constant(-1.0 / whole, root.getType());
      auto spread = [&](Value value) {
        return k.splat(k.toFloat(value, element));
      };
      Value scale = spread(root), minusMean = spread(k.mul(sums[1], share));
      Value minusPull = spread(k.mul(k.mul(sums[2], root), share));
      k.forLanes(width, element, [&](Value i, Value mask) {
        Value n = k.mul(k.sub(k.load(x, {t, i}, mask), mean), scale);
        if (weight) {
          Value gradient = k.load(dy, {t, i}, mask);
          addToPartialRow(k, partialWeight, i, k.mul(gradient, n), mask);
          addToPartialRow(k, partialBias, i, gradient, mask);
        }
        k.store(k.mul(scale,
                      k.fma(n, minusPull, k.add(scaled(i, mask), minusMean))),
                dx, {t, i}, mask);
      });
    });
    double elements = type.getNumElements();
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), 17 * elements, bytesOf(op));
    if (weight) {
      results[1] =
          reducePartialRows(rewriter, options, op, results[1],
                            op.getDweight().getType(), tokenGrid(rows));
      results[2] = reducePartialRows(rewriter, options, op, results[2],
                                     op.getDbias().getType(), tokenGrid(rows));
    }
    rewriter.replaceOp(op, results);
    return success();
  }
};

//===-- Queries and keys
//---------------------------------------------------------------------------------------------------------------===//

struct NormalizedQKLowering : LoweringPattern<NormalizedQKOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(NormalizedQKOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getZ());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getZ()), head = width / op.getHeads(),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "normalized_qk");
    Value z = k.read(op.getZ(), View::Rows), gamma = k.read(op.getGamma()),
          beta = k.read(op.getBeta());
    Value q = k.write(type, View::Rows), key = k.write(type, View::Rows);
    forTokens(k, rows, [&](Value t) {
      k.loop(k.index(0), k.index(width), head, [&](Value first) {
        Value squares = sumRow(
            k, head, element, 1,
            [&](Value i, Value mask, MutableArrayRef<Value> sums) {
              addSquares(k, k.load(z, {t, k.add(first, i)}, mask), sums[0]);
            })[0];
        Value root =
            inverseRoot(k, squares, head, op.getEps().convertToDouble());
        Value scale = k.splat(
            k.mul(root, k.constant(1.0 / std::sqrt(double(head)), element)));
        k.forLanes(head, element, [&](Value i, Value mask) {
          Value column = k.add(first, i);
          Value normalized = k.mul(k.load(z, {t, column}, mask), scale);
          for (auto [index, output] :
               llvm::enumerate(ArrayRef<Value>{q, key})) {
            Value row = k.index(index);
            Value gained = k.fma(normalized, k.load(gamma, {row, column}, mask),
                                 normalized);
            k.store(k.add(gained, k.load(beta, {row, column}, mask)), output,
                    {t, column}, mask);
          }
        });
      });
    });
    double elements = type.getNumElements();
    rewriter.replaceOp(op,
                       k.finish(tokenGrid(rows), 9 * elements, bytesOf(op)));
    return success();
  }
};

struct NormalizedQKGradLowering : LoweringPattern<NormalizedQKGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(NormalizedQKGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getZ());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getZ()), head = width / op.getHeads(),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "normalized_qk_grad");
    Value cotangents[] = {k.read(op.getDq(), View::Rows),
                          k.read(op.getDk(), View::Rows)};
    Value z = k.read(op.getZ(), View::Rows), gamma = k.read(op.getGamma());
    Value dz = k.write(type, View::Rows);
    // Rows of [2, Z] each: what belongs to q, then what belongs to k.
    Value partialGamma = k.write(partialRowsType(type, rows, 2 * width)),
          partialBeta = k.write(partialRowsType(type, rows, 2 * width));
    clearPartialRow(k, partialGamma);
    clearPartialRow(k, partialBeta);
    Value rootOfWidth =
        k.constant(1.0 / std::sqrt(double(head)), k.vectorType(element));
    forTokens(k, rows, [&](Value t) {
      k.loop(k.index(0), k.index(width), head, [&](Value first) {
        auto scaled = [&](Value column, Value mask) {
          Value u;
          for (auto [index, cotangent] : llvm::enumerate(cotangents)) {
            Value d = k.load(cotangent, {t, column}, mask);
            Value gained =
                k.fma(d, k.load(gamma, {k.index(index), column}, mask), d);
            u = u ? k.add(u, gained) : gained;
          }
          return k.mul(u, rootOfWidth);
        };
        SmallVector<Value> sums =
            sumRow(k, head, element, 2,
                   [&](Value i, Value mask, MutableArrayRef<Value> sums) {
                     Value column = k.add(first, i),
                           vector = k.load(z, {t, column}, mask);
                     addSquares(k, vector, sums[0]);
                     sums[1] = k.fma(scaled(column, mask), vector, sums[1]);
                   });
        Value root =
            inverseRoot(k, sums[0], head, op.getEps().convertToDouble());
        Value cube = k.mul(k.mul(root, root), root);
        Value scale = k.splat(root),
              pull = k.splat(k.mul(k.mul(cube, sums[1]),
                                   k.constant(-1.0 / head, element)));
        k.forLanes(head, element, [&](Value i, Value mask) {
          Value column = k.add(first, i), vector = k.load(z, {t, column}, mask);
          Value normalized = k.mul(k.mul(vector, scale), rootOfWidth);
          for (auto [index, cotangent] : llvm::enumerate(cotangents)) {
            Value d = k.load(cotangent, {t, column}, mask),
                  slot = index ? k.add(column, k.index(width)) : column;
            addToPartialRow(k, partialGamma, slot, k.mul(d, normalized), mask);
            addToPartialRow(k, partialBeta, slot, d, mask);
          }
          k.store(k.fma(pull, vector, k.mul(scale, scaled(column, mask))), dz,
                  {t, column}, mask);
        });
      });
    });
    double elements = type.getNumElements();
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), 24 * elements, bytesOf(op));
    results[1] = reducePartialRows(rewriter, options, op, results[1],
                                   op.getDgamma().getType(), tokenGrid(rows));
    results[2] = reducePartialRows(rewriter, options, op, results[2],
                                   op.getDbeta().getType(), tokenGrid(rows));
    rewriter.replaceOp(op, results);
    return success();
  }
};

} // namespace

void populateRowLowering(RewritePatternSet &patterns,
                         const LoweringOptions &options) {
  patterns.add<RmsNormLowering, RmsNormGradLowering, LayerNormLowering,
               LayerNormGradLowering, NormGradSumsLowering<RmsNormGradSumsOp>,
               NormGradSumsLowering<LayerNormGradSumsOp>, NormalizedQKLowering,
               NormalizedQKGradLowering>(patterns.getContext(), options);
  populateElementwiseLowering(patterns, options);
  populateMegaLowering(patterns, options);
}

} // namespace mlir::megalodon
