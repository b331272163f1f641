// Lowers the ops that count tokens: those a row has seen, and the positions of
// packed documents.
#include "passes/Lowering/PackedDocuments.h"
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

Value toIndex(KernelBuilder &k, Value i64) {
  return arith::IndexCastOp::create(k.b, k.b.getIndexType(), i64);
}
Value toI64(KernelBuilder &k, Value index) {
  return arith::IndexCastOp::create(k.b, k.b.getI64Type(), index);
}

/// One workgroup counts for all rows.
struct AdvanceCountLowering : LoweringPattern<AdvanceCountOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(AdvanceCountOp op,
                                PatternRewriter &rewriter) const override {
    KernelBuilder k(rewriter, options, op, "advance_count");
    Value count = k.read(op.getCount());
    PackedDocuments documents(k, readPositions(k, op));
    Value result = k.write(op.getType());
    k.loop(k.index(0), k.batch(), 1, [&](Value row) {
      documents.setRow(row);
      Value one = k.index(1),
            counted =
                documents
                    ? k.add(documents.position(k.sub(k.length(), one)), one)
                    : k.add(toIndex(k, k.loadScalar(count, {row})), k.length());
      k.storeScalar(toI64(k, counted), result, {row});
    });
    rewriter.replaceOp(
        op, k.finish(Grid{1}, 0.0, 16.0 * tensorOf(op).getNumElements()));
    return success();
  }
};

/// A workgroup is a row.
struct DocumentPositionsLowering : LoweringPattern<DocumentPositionsOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(DocumentPositionsOp op,
                                PatternRewriter &rewriter) const override {
    KernelBuilder k(rewriter, options, op, "document_positions");
    Value resets = k.read(op.getResets(), View::Flat),
          count = k.read(op.getCount()),
          positions = k.write(op.getType(), View::Flat);
    Value row = k.workgroup(), first = k.mul(row, k.length()),
          none = arith::ConstantIntOp::create(k.b, 0, 32);
    k.loop(first, k.add(first, k.length()), 1,
           toIndex(k, k.loadScalar(count, {row})),
           [&](Value token, ValueRange carried) -> SmallVector<Value> {
             Value begins =
                 arith::CmpIOp::create(k.b, arith::CmpIPredicate::ne,
                                       k.loadScalar(resets, {token}), none);
             Value position = k.select(begins, k.index(0), carried[0]);
             k.storeScalar(toI64(k, position), positions, {token});
             return {k.add(position, k.index(1))};
           });
    rewriter.replaceOp(op,
                       k.finish(Grid{1, plan::Outer::Batch}, 0.0, bytesOf(op)));
    return success();
  }
};

} // namespace

void populatePositionLowering(RewritePatternSet &patterns,
                              const LoweringOptions &options) {
  patterns.add<AdvanceCountLowering, DocumentPositionsLowering>(
      patterns.getContext(), options);
}

} // namespace mlir::megalodon
