// The import phase: a model config becomes megalodon ops, one function an entry
// and one a layer body.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "passes/Import/Config.h"
#include "passes/Import/Entries.h"

namespace megalodon {

/// Builds the module of `config` for `entries`. `precision` is "f32", "f64" or
/// "bf16": then activations and the attention's caches are bf16, and so are the
/// matrices of products if no entry trains; all else is f32.
///
/// The body of a layer is a private function `@layer`, called once a layer
/// with that layer's parameters and state. Entries of different shapes have
/// their own, `@layer_BxL`.
mlir::OwningOpRef<mlir::ModuleOp>
importConfig(mlir::MLIRContext &context, const Config &config,
             llvm::StringRef precision, llvm::ArrayRef<EntrySpec> entries);

} // namespace megalodon
