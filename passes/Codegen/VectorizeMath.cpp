// Vector math functions: inline polynomials for f32, libmvec for f64 and for
// erfc, which has no polynomial of its own here.
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "passes/Codegen/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_VECTORIZEMATH
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;

namespace {
/// math.NAME on vectors of f64, or of the element `bits` given -> the vector
/// function of libmvec (glibc's naming: _ZGV, ISA letter, N, lanes, a `v` an
/// argument; names of f32 end in f).
template <typename MathOp> struct ToLibmvec : OpRewritePattern<MathOp> {
  ToLibmvec(MLIRContext *context, StringRef function, unsigned vectorBytes,
            unsigned bits = 64)
      : OpRewritePattern<MathOp>(context, /*benefit=*/2), function(function),
        vectorBytes(vectorBytes), bits(bits) {}

  LogicalResult matchAndRewrite(MathOp op,
                                PatternRewriter &rewriter) const override {
    auto type = dyn_cast<VectorType>(op.getType());
    if (!type || type.getRank() != 1 || type.getElementTypeBitWidth() != bits ||
        type.getDimSize(0) * bits != 8 * vectorBytes)
      return failure();
    char isa = vectorBytes == 64 ? 'e' : vectorBytes == 32 ? 'd' : 'b';
    std::string symbol = "_ZGV" + std::string(1, isa) + "N" +
                         std::to_string(type.getDimSize(0)) +
                         std::string(op->getNumOperands(), 'v') + "_" +
                         function;
    auto module = op->template getParentOfType<ModuleOp>();
    auto callee = module.template lookupSymbol<func::FuncOp>(symbol);
    if (!callee) {
      OpBuilder::InsertionGuard guard(rewriter);
      rewriter.setInsertionPointToStart(module.getBody());
      SmallVector<Type> operands(op->getNumOperands(), type);
      callee = func::FuncOp::create(rewriter, op.getLoc(), symbol,
                                    rewriter.getFunctionType(operands, {type}));
      callee.setPrivate();
    }
    rewriter.replaceOpWithNewOp<func::CallOp>(op, callee, op->getOperands());
    return success();
  }

  std::string function;
  unsigned vectorBytes, bits;
};

struct VectorizeMath : mlir::megalodon::impl::VectorizeMathBase<VectorizeMath> {
  using VectorizeMathBase::VectorizeMathBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    populateMathPolynomialApproximationPatterns(patterns);
    patterns.add<ToLibmvec<math::ExpOp>>(&getContext(), "exp", vectorBytes);
    patterns.add<ToLibmvec<math::LogOp>>(&getContext(), "log", vectorBytes);
    patterns.add<ToLibmvec<math::SinOp>>(&getContext(), "sin", vectorBytes);
    patterns.add<ToLibmvec<math::CosOp>>(&getContext(), "cos", vectorBytes);
    patterns.add<ToLibmvec<math::TanhOp>>(&getContext(), "tanh", vectorBytes);
    patterns.add<ToLibmvec<math::PowFOp>>(&getContext(), "pow", vectorBytes);
    patterns.add<ToLibmvec<math::ErfcOp>>(&getContext(), "erfc", vectorBytes);
    patterns.add<ToLibmvec<math::ErfcOp>>(&getContext(), "erfcf", vectorBytes,
                                          /*bits=*/32);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
