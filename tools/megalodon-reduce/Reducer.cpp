#include "tools/megalodon-reduce/Reducer.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Verifier.h"
#include "tools/megalodon-reduce/Edits.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {
class Reducer {
public:
  Reducer(ModuleOp module, llvm::function_ref<bool(ModuleOp)> isInteresting)
      : best(module.clone()), isInteresting(isInteresting) {}

  Reduction run() {
    bool changed = true;
    while (changed) {
      changed = false;
      for (const Edit &edit : edits())
        changed |= reduceBy(edit);
    }
    return {std::move(best), tests};
  }

private:
  /// Tries an edit on all sites, then on halves, down to single ones.
  bool reduceBy(const Edit &edit) {
    bool changed = false;
    size_t group = sites(*best, edit).size();
    for (; group > 0; group /= 2) {
      // From the end: what nothing uses goes first, and takes its operands'
      // last uses with it.
      size_t end = sites(*best, edit).size();
      while (end > 0) {
        size_t begin = end > group ? end - group : 0;
        if (tryEdit(edit, begin, end)) {
          changed = true;
          end = std::min(begin, sites(*best, edit).size());
        } else {
          end = begin;
        }
      }
    }
    return changed;
  }

  bool tryEdit(const Edit &edit, size_t begin, size_t end) {
    OwningOpRef<ModuleOp> candidate = best->clone();
    SmallVector<Operation *> where = sites(*candidate, edit);
    // A later site first: an edit may end what made an earlier one apply, never
    // a later one's op.
    for (size_t i = end; i-- > begin;)
      if (edit.applies(where[i]))
        edit.apply(where[i]);
    eraseDeadCode(*candidate);
    // What does not verify is no test case.
    ScopedDiagnosticHandler silence(candidate->getContext(),
                                    [](Diagnostic &) { return success(); });
    if (failed(verify(*candidate)))
      return false;
    ++tests;
    if (!isInteresting(*candidate))
      return false;
    best = std::move(candidate);
    return true;
  }

  OwningOpRef<ModuleOp> best;
  llvm::function_ref<bool(ModuleOp)> isInteresting;
  unsigned tests = 0;
};
} // namespace

Reduction
mlir::megalodon::reduce(ModuleOp module,
                        llvm::function_ref<bool(ModuleOp)> isInteresting) {
  return Reducer(module, isInteresting).run();
}
