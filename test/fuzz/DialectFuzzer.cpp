// Text of the megalodon and plan dialects: refused with a diagnostic, or a
// module that verifies and that prints to what parses again. An input may hold
// several modules with the separator of lit tests between them.
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "test/fuzz/Fuzz.h"
#include "llvm/Support/raw_ostream.h"
#include <optional>

using namespace mlir;

namespace {
/// A context without threads. What it interns stays with it, so each serves a
/// number of inputs only.
struct Context {
  MLIRContext context{MLIRContext::Threading::DISABLED};
  int left = 500;

  Context() {
    context
        .loadDialect<mlir::megalodon::MegalodonDialect, mlir::plan::PlanDialect,
                     arith::ArithDialect, func::FuncDialect>();
    context.printOpOnDiagnostic(false);
    context.getDiagEngine().registerHandler(
        [](Diagnostic &) { return success(); });
  }
};
} // namespace

static void parse(const std::string &text, MLIRContext *context) {
  OwningOpRef<ModuleOp> module =
      parseSourceString<ModuleOp>(text, ParserConfig(context));
  if (!module)
    return;
  std::string printed;
  llvm::raw_string_ostream(printed) << **module;
  ::megalodon::fuzz::require(
      bool(parseSourceString<ModuleOp>(printed, ParserConfig(context))),
      "what was printed does not parse");
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static std::optional<Context> current;
  if (!current || current->left-- == 0)
    current.emplace();
  const llvm::StringRef text(reinterpret_cast<const char *>(data), size);
  llvm::SmallVector<llvm::StringRef> modules;
  text.split(modules, "// -----");
  for (llvm::StringRef module : modules)
    parse(module.str(), &current->context); // the lexer wants a zero behind it
  return 0;
}
