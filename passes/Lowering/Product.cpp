// Linear layers and their gradients: library products, or generated kernels of
// register tiles.
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/RowKernel.h"
#include "passes/Lowering/TileProduct.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {
namespace {

/// c[m, n] = op(a) op(b) as plan.product writes it: an extent of -1 is the
/// number of tokens of the call.
struct Product {
  Value a, b;
  bool transposeA = false, transposeB = false;
  int64_t m, n, k;
  Value bias; // [n], may be null
  RankedTensorType result;

  double flops() const;
  double bytes() const;
};

RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

int64_t lastDimension(Value value) { return typeOf(value).getShape().back(); }

/// Rows of an operand whose leading dimensions are tokens ([B, L, width]: -1)
/// or batch rows ([B, width]: B, all of them).
int64_t leadingExtent(Value value) {
  RankedTensorType type = typeOf(value);
  return type.getRank() == 3 ? -1 : type.getDimSize(0);
}

View viewOf(Type type) {
  return cast<RankedTensorType>(type).getRank() == 3 ? View::Rows : View::Plain;
}

double elements(Type type) {
  return double(cast<RankedTensorType>(type).getNumElements());
}

double Product::flops() const {
  // Of the three extents c, a and b hold each pair once.
  double mn = elements(result), ka = elements(a.getType()),
         kb = elements(b.getType());
  return 2.0 * std::sqrt(mn * ka * kb);
}

double Product::bytes() const {
  return bytesOf(result) + bytesOf(a.getType()) + bytesOf(b.getType());
}

/// The tensor's extent behind an extent that may be "the number of tokens".
int64_t compiledExtent(int64_t extent, Value operand) {
  if (extent >= 0)
    return extent;
  RankedTensorType type = typeOf(operand);
  return type.getDimSize(0) * type.getDimSize(1);
}

/// Cuts a product into enough tiles for the cores. Columns are cut first: a
/// call of a single token then still has several tiles, and the library loses
/// nothing as long as a tile keeps many rows.
std::pair<int64_t, int64_t> libraryTile(int64_t m, int64_t n, unsigned cores) {
  constexpr int64_t kFewestRows = 128, kFewestColumns = 96;
  const int64_t wanted = 4 * cores;
  int64_t tileM = m, tileN = n;
  auto tiles = [&] {
    return int64_t(llvm::divideCeil(m, tileM) * llvm::divideCeil(n, tileN));
  };
  auto halve = [](int64_t side) {
    return int64_t(llvm::alignTo(llvm::divideCeil(side, 2), 16));
  };
  while (tiles() < wanted && tileN >= 2 * kFewestColumns)
    tileN = halve(tileN);
  while (tiles() < wanted && tileM >= 2 * kFewestRows)
    tileM = halve(tileM);
  return {tileM, tileN};
}

/// y += bias in every row.
Value addBias(PatternRewriter &rewriter, const LoweringOptions &options,
              Operation *source, Value product, Value bias) {
  auto type = typeOf(product);
  Type element = computeType(type.getElementType());
  const bool tokens = type.getRank() == 3;
  const int64_t width = lastDimension(product),
                rows = rowsPerWorkgroup(options, width);
  KernelBuilder k(rewriter, options, source, "add_bias");
  Value b = k.read(bias);
  Value y = k.update(product, viewOf(type));
  auto addToRow = [&](Value row) {
    k.forLanes(width, element, [&](Value column, Value mask) {
      k.store(k.add(k.load(y, {row, column}, mask), k.load(b, {column}, mask)),
              y, {row, column}, mask);
    });
  };
  Grid grid = tokenGrid(rows);
  if (tokens) {
    forTokens(k, rows, addToRow);
  } else {
    grid = {type.getDimSize(0)};
    addToRow(k.workgroup());
  }
  const double count = elements(type);
  return k
      .finish(grid, count, 2.0 * count * (type.getElementTypeBitWidth() / 8))
      .front();
}

/// The product as tiles of generated code. A workgroup computes a block of rows
/// and columns.
Value generatedProduct(PatternRewriter &rewriter,
                       const LoweringOptions &options, Operation *source,
                       const Product &p) {
  Type element = computeType(p.result.getElementType());
  KernelBuilder k(rewriter, options, source, source->getName().stripDialect());
  const TileShape tile = TileShape::of(options);
  const int64_t lanes = k.lanes(element), width = tile.vectors * lanes;

  // Packing the right operand is repaid by the rows of a block.
  const int64_t m = compiledExtent(p.m, p.a);
  const int64_t rowBlock =
      std::min<int64_t>(128, llvm::alignTo(m, std::max(tile.rows, lanes)));
  const int64_t columnBlock =
      std::min<int64_t>(llvm::alignTo(256, width), llvm::alignTo(p.n, width));
  const int64_t columnBlocks = llvm::divideCeil(p.n, columnBlock);

  Value a = k.read(p.a, viewOf(p.a.getType()));
  Value b = k.read(p.b, viewOf(p.b.getType()));
  Value bias = p.bias ? k.read(p.bias) : Value();
  Value c = k.write(p.result, viewOf(p.result));

  Value rowBegin =
      k.mul(k.div(k.workgroup(), k.index(columnBlocks)), k.index(rowBlock));
  Value columnBegin =
      k.mul(k.rem(k.workgroup(), k.index(columnBlocks)), k.index(columnBlock));
  Value rowEnd = p.m < 0 ? k.tokens() : k.index(p.m);
  Value zero = k.index(0);

  BlockProduct block;
  block.rows = k.min(k.index(rowBlock), k.sub(rowEnd, rowBegin));
  block.columnBegin = columnBegin;
  block.columnEnd =
      k.min(k.index(p.n), k.add(columnBegin, k.index(columnBlock)));
  block.wholePanels = p.n % width == 0;
  block.depth = p.k < 0 ? k.tokens() : k.index(p.k);
  block.out = {c, {}, rowBegin, {}};

  MatrixView right{b, {}, {}, {}};
  const bool wholeDepth = p.k > 0 && p.k % lanes == 0;
  block.pack = [&](Value t, Value count, Value column, Value panel) {
    if (p.transposeB)
      packTransposed(k, tile.vectors, right, column, block.columnEnd, t, count,
                     wholeDepth, panel, {});
    else
      packRows(k, tile.vectors, right, t, count, column,
               block.wholePanels ? Value() : block.columnEnd, panel, zero,
               zero);
  };
  if (p.transposeA) {
    // The rows of a tile are columns of `a`: packed, they lie in one line
    // whatever the stride.
    Value packed = k.scratch({kDepthBlock, rowBlock}, element, 2048);
    const bool wholeRows = p.m % lanes == 0;
    block.enterDepthBlock = [&k, packed, a, rowBegin, rowEnd, lanes, wholeRows,
                             rows = block.rows, zero](Value t, Value count) {
      k.loop(zero, rows, lanes, [&](Value row) {
        packRows(k, 1, MatrixView{a, {}, {}, {}}, t, count,
                 k.add(rowBegin, row), wholeRows ? Value() : rowEnd, packed,
                 zero, row);
      });
    };
    block.left = [&k, packed](Value row, Value) {
      return [&k, packed, row](int64_t i, Value s) {
        return k.loadScalar(packed, {s, k.add(row, k.index(i))});
      };
    };
  } else {
    Value lastRow = k.sub(block.rows, k.index(1));
    block.left = [&k, a, rowBegin, lastRow, rows = tile.rows](Value row,
                                                              Value t) {
      SmallVector<Value> at;
      for (int64_t i = 0; i < rows; ++i)
        at.push_back(k.add(rowBegin, k.min(k.add(row, k.index(i)), lastRow)));
      return [&k, a, at, t](int64_t i, Value s) {
        return k.loadScalar(a, {at[i], k.add(t, s)});
      };
    };
  }
  if (bias)
    block.finish = [&k, bias](Value sums, Value, Value column, Value mask) {
      return k.add(sums, k.load(bias, {column}, mask));
    };
  block.emit(k, element);

  Grid grid;
  if (p.m < 0)
    grid = {columnBlocks, plan::Outer::One, plan::Inner::Tokens, rowBlock};
  else
    grid = {columnBlocks * int64_t(llvm::divideCeil(p.m, rowBlock))};
  return k.finish(grid, p.flops(), p.bytes()).front();
}

Value libraryProduct(PatternRewriter &rewriter, const LoweringOptions &options,
                     Operation *source, const Product &p) {
  const int64_t m = compiledExtent(p.m, p.a);
  const bool cuda = options.gemm == "cublaslt";
  // A GPU's library cuts a product itself.
  auto [tileM, tileN] =
      cuda ? std::pair(m, p.n) : libraryTile(m, p.n, options.cores);
  Value c = plan::ProductOp::create(
      rewriter, source->getLoc(), p.result, p.a, p.b, p.transposeA,
      p.transposeB, p.m, p.n, p.k, tileM, tileN, cuda ? "cublaslt" : "onednn",
      llvm::APFloat(p.flops()), llvm::APFloat(p.bytes()));
  return p.bias ? addBias(rewriter, options, source, c, p.bias) : c;
}

/// The operand in bf16. Operands that several products read are rounded once:
/// CSE finds the equal dispatches.
Value roundOperand(PatternRewriter &rewriter, const LoweringOptions &options,
                   Operation *source, Value operand) {
  RankedTensorType type = typeOf(operand);
  if (type.getElementType().isBF16())
    return operand;
  auto rounded = RankedTensorType::get(type.getShape(), rewriter.getBF16Type());
  KernelBuilder k(rewriter, options, source, "round");
  const bool tokens = type.getRank() == 3;
  const View view = tokens ? View::Rows : View::Flat;
  Value from = k.read(operand, view), to = k.write(rounded, view);
  Type element = computeType(type.getElementType());
  const int64_t width = lastDimension(operand),
                rows = rowsPerWorkgroup(options, width);
  if (tokens)
    forTokens(k, rows, [&](Value t) {
      k.forLanes(width, element, [&](Value i, Value mask) {
        k.store(k.load(from, {t, i}, mask), to, {t, i}, mask);
      });
    });
  else
    forElements(k, type.getNumElements(), element, [&](Value i, Value mask) {
      k.store(k.load(from, {i}, mask), to, {i}, mask);
    });
  return k
      .finish(tokens ? tokenGrid(rows) : flatGrid(type.getNumElements()), 0,
              bytesOf(type) + bytesOf(rounded))
      .front();
}

Value lowerProduct(PatternRewriter &rewriter, const LoweringOptions &options,
                   Operation *source, Product product) {
  auto isRounded = [](Type type) {
    return cast<RankedTensorType>(type).getElementType().isBF16();
  };
  if (isRounded(product.a.getType()) || isRounded(product.b.getType()) ||
      isRounded(product.result)) {
    product.a = roundOperand(rewriter, options, source, product.a);
    product.b = roundOperand(rewriter, options, source, product.b);
  }
  const bool library =
      !product.result.getElementType().isF64() && options.gemm != "generated";
  return library ? libraryProduct(rewriter, options, source, product)
                 : generatedProduct(rewriter, options, source, product);
}

template <typename OpTy> struct ProductLowering : OpRewritePattern<OpTy> {
  const LoweringOptions &options;
  ProductLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern<OpTy>(context), options(options) {}

  LogicalResult matchAndRewrite(OpTy op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op, lowerProduct(rewriter, options, op, product(op)));
    return success();
  }

  static Product product(LinearOp op) {
    return {op.getX(),
            op.getWeight(),
            /*transposeA=*/false,
            /*transposeB=*/true,
            leadingExtent(op.getX()),
            lastDimension(op.getResult()),
            lastDimension(op.getX()),
            op.getBias(),
            typeOf(op.getResult())};
  }
  static Product product(LinearGradInputOp op) {
    return {op.getDy(),
            op.getWeight(),
            /*transposeA=*/false,
            /*transposeB=*/false,
            leadingExtent(op.getDy()),
            lastDimension(op.getDx()),
            lastDimension(op.getDy()),
            /*bias=*/{},
            typeOf(op.getDx())};
  }
  static Product product(LinearGradWeightOp op) {
    return {op.getDy(),
            op.getX(),
            /*transposeA=*/true,
            /*transposeB=*/false,
            lastDimension(op.getDy()),
            lastDimension(op.getX()),
            leadingExtent(op.getX()),
            /*bias=*/{},
            typeOf(op.getDweight())};
  }
};

} // namespace

void populateProductLowering(RewritePatternSet &patterns,
                             const LoweringOptions &options) {
  patterns.add<ProductLowering<LinearOp>, ProductLowering<LinearGradInputOp>,
               ProductLowering<LinearGradWeightOp>>(patterns.getContext(),
                                                    options);
}

} // namespace mlir::megalodon
