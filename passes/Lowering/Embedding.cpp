// The embedding table: rows gathered forward, gradients scattered in token
// order; and the last token of every row.
#include "passes/Lowering/RowKernel.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {
namespace {

/// The row of a table that holds a token. Of a table of `rows` rows that is one
/// rank's part of the vocabulary, the token may be another rank's; of a part of
/// `partRows` rows from `partFirst` on, another workgroup's.
struct TableRows {
  TableRows(KernelBuilder &k, Value rank, int64_t rows)
      : k(k), rows(k.index(rows)),
        first(rank ? k.mul(k.tensorRank(rank), this->rows) : Value()) {}
  TableRows(KernelBuilder &k, Value rank, int64_t rows, Value partFirst,
            Value partRows)
      : TableRows(k, rank, rows) {
    this->rows = partRows;
    first = first ? k.add(first, partFirst) : partFirst;
  }

  /// Runs `here` with the row of the part, or `elsewhere` if the token is not
  /// there.
  void visit(Value tokens, Value t, function_ref<void(Value row)> here,
             function_ref<void()> elsewhere = nullptr) {
    Value row = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                           k.loadScalar(tokens, {t}));
    if (!first)
      return here(row);
    row = k.sub(row, first); // wraps around if the token comes before
    k.when(k.less(row, rows), [&] { here(row); }, elsewhere);
  }

  KernelBuilder &k;
  Value rows, first;
};

struct EmbeddingLowering : LoweringPattern<EmbeddingOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(EmbeddingOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getWeight());
    int64_t width = widthOf(op.getWeight()),
            rows = rowsPerWorkgroup(options, width);
    double scale = op.getScale().convertToDouble();
    KernelBuilder k(rewriter, options, op, "embedding");
    Value tokens = k.read(op.getTokens(), View::Rows),
          weight = k.read(op.getWeight()),
          y = k.write(op.getType(), View::Rows);
    TableRows table(k, op.getRank(), tensorOf(op.getWeight()).getDimSize(0));
    forTokens(k, rows, [&](Value t) {
      table.visit(
          tokens, t,
          [&](Value row) {
            k.forLanes(width, element, [&](Value i, Value mask) {
              Value vector = k.load(weight, {row, i}, mask);
              k.store(scale == 1
                          ? vector
                          : k.mul(vector, k.constant(scale, vector.getType())),
                      y, {t, i}, mask);
            });
          },
          [&] {
            k.forLanes(width, element, [&](Value i, Value mask) {
              k.store(k.constant(0, k.vectorType(element)), y, {t, i}, mask);
            });
          });
    });
    double elements = op.getType().getNumElements();
    rewriter.replaceOp(op, k.finish(tokenGrid(rows), scale == 1 ? 0 : elements,
                                    2 * bytesOf(op.getType())));
    return success();
  }
};

/// A workgroup owns a block of columns of a part of the table and walks all
/// tokens in order: nothing is shared, the order of sums is fixed.
struct EmbeddingGradLowering : LoweringPattern<EmbeddingGradOp> {
  using LoweringPattern::LoweringPattern;

  /// Tables up to this many rows are summed in f64 scratch (many tokens meet in
  /// one row); larger ones in place.
  static constexpr int64_t kLargestWideTable = 1024;

  /// Columns a workgroup owns: whole cache lines, and whole vectors.
  static int64_t columnsOf(Type element, const KernelBuilder &k) {
    return std::max<int64_t>(64, k.lanes(element));
  }
  /// Rows of the table a workgroup owns. The few cores of a cpu share the
  /// columns alone; on a GPU the parts of a table are walked side by side.
  int64_t rowsOf(int64_t vocabulary) const {
    if (options.target == Target::Cpu)
      return vocabulary;
    return std::min<int64_t>(vocabulary,
                             vocabulary <= kLargestWideTable ? 64 : 512);
  }

  LogicalResult matchAndRewrite(EmbeddingGradOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getType());
    Type element = elementOf(op.getResult());
    int64_t vocabulary = type.getDimSize(0), width = type.getDimSize(1);
    double scale = op.getScale().convertToDouble();
    bool wide = vocabulary <= kLargestWideTable;
    KernelBuilder k(rewriter, options, op, "embedding_grad");
    Type f64 = k.b.getF64Type(), sumElement = wide ? f64 : element;
    const int64_t columns = columnsOf(element, k),
                  partRows = rowsOf(vocabulary),
                  columnBlocks = llvm::divideCeil(width, columns),
                  parts = llvm::divideCeil(vocabulary, partRows);
    Value tokens = k.read(op.getTokens(), View::Rows),
          dy = k.read(op.getDy(), View::Rows), dweight = k.write(type);
    Value sums = wide ? k.scratch({partRows, columns}, f64) : dweight;

    int64_t lanes = k.lanes(element);
    Value zero = k.index(0), first = k.workgroup(), partFirst = zero;
    if (parts > 1) {
      partFirst =
          k.mul(k.div(k.workgroup(), k.index(columnBlocks)), k.index(partRows));
      first = k.rem(k.workgroup(), k.index(columnBlocks));
    }
    first = k.mul(first, k.index(columns));
    Value partEnd = k.index(partRows);
    if (vocabulary % partRows)
      partEnd = k.min(partEnd, k.sub(k.index(vocabulary), partFirst));
    auto forColumns =
        [&](function_ref<void(Value column, Value sumColumn, Value mask)>
                body) {
          for (int64_t at = 0; at < std::min(columns, width); at += lanes) {
            Value column = k.add(first, k.index(at)), mask;
            if (width % columns)
              mask = vector::CreateMaskOp::create(
                  k.b, VectorType::get({lanes}, k.b.getI1Type()),
                  k.sub(k.index(width), column));
            body(column, wide ? k.index(at) : column, mask);
          }
        };
    // Scratch holds the part's rows only.
    auto sumRow = [&](Value row) { return wide ? row : k.add(partFirst, row); };
    auto loadSum = [&](Value row, Value column, Value mask) -> Value {
      if (!wide)
        return k.load(sums, {sumRow(row), column}, mask);
      return vector::LoadOp::create(k.b, VectorType::get({lanes}, f64), sums,
                                    ValueRange{row, column});
    };
    auto storeSum = [&](Value sum, Value row, Value column, Value mask) {
      // Scratch rows are whole vectors, no mask needed.
      k.store(sum, sums, {sumRow(row), column}, wide ? Value() : mask);
    };

    k.loop(zero, partEnd, 1, [&](Value row) {
      forColumns([&](Value, Value column, Value mask) {
        storeSum(k.constant(0, VectorType::get({lanes}, sumElement)), row,
                 column, mask);
      });
    });
    TableRows table =
        parts > 1 ? TableRows(k, op.getRank(), vocabulary, partFirst, partEnd)
                  : TableRows(k, op.getRank(), vocabulary);
    k.loop(zero, k.tokens(), 1, [&](Value t) {
      table.visit(tokens, t, [&](Value row) {
        forColumns([&](Value column, Value sumColumn, Value mask) {
          Value term = k.toFloat(k.load(dy, {t, column}, mask), sumElement);
          if (scale != 1)
            term = k.mul(term, k.constant(scale, term.getType()));
          storeSum(k.add(loadSum(row, sumColumn, mask), term), row, sumColumn,
                   mask);
        });
      });
    });
    if (wide)
      k.loop(zero, partEnd, 1, [&](Value row) {
        forColumns([&](Value column, Value sumColumn, Value mask) {
          k.store(k.toFloat(loadSum(row, sumColumn, mask), element), dweight,
                  {k.add(partFirst, row), column}, mask);
        });
      });
    double elements = tensorOf(op.getDy()).getNumElements();
    rewriter.replaceOp(
        op, k.finish(Grid{columnBlocks * parts}, elements, bytesOf(op)));
    return success();
  }
};

struct LastTokenLowering : LoweringPattern<LastTokenOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LastTokenOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    int64_t width = widthOf(op.getX());
    KernelBuilder k(rewriter, options, op, "last_token");
    Value x = k.read(op.getX(), View::Rows), y = k.write(op.getType());
    Value row = k.workgroup();
    Value t = k.sub(k.mul(k.add(row, k.index(1)), k.length()), k.index(1));
    k.forLanes(width, element, [&](Value i, Value mask) {
      k.store(k.load(x, {t, i}, mask), y, {row, i}, mask);
    });
    rewriter.replaceOp(op, k.finish(Grid{1, plan::Outer::Batch}, 0,
                                    2 * bytesOf(op.getType())));
    return success();
  }
};

} // namespace

void populateEmbeddingLowering(RewritePatternSet &patterns,
                               const LoweringOptions &options) {
  patterns.add<EmbeddingLowering, EmbeddingGradLowering, LastTokenLowering>(
      patterns.getContext(), options);
}

} // namespace mlir::megalodon
