// Passes of the lower phase.
#ifndef MEGALODON_LOWERING_PASSES_TD
#define MEGALODON_LOWERING_PASSES_TD

include "mlir/Pass/PassBase.td"

def LowerToKernels : Pass<"megalodon-lower-to-kernels", "::mlir::ModuleOp"> {
  let summary = "replace megalodon ops by dispatches of generated kernels and by library products";
  let description = [{
    Before: functions of `megalodon` ops on tensors, differentiated and with their optimizer. After: functions hold only `plan` ops, calls and constants;
    the loops live in functions of the nested module `@kernels`, each once however many ops and layers use it.

    ```mlir
    %y = megalodon.silu %x : tensor<2x24x40xf32>
    // becomes
    %y = plan.dispatch @kernels::@silu grid<1 * one * tokens by 16>(%x) {...} : (tensor<2x24x40xf32>) -> tensor<2x24x40xf32>
    ```
  }];
  let options = [
    Option<"vectorBytes", "vector-bytes", "unsigned", "64", "bytes of the CPU's widest vector register">,
    Option<"vectorRegisters", "vector-registers", "unsigned", "32", "number of vector registers">,
    Option<"cema", "cema", "std::string", "\"auto\"", "CEMA form: auto, sequential or two-level">,
    Option<"gemm", "gemm", "std::string", "\"auto\"", "matrix products: auto, onednn or generated">,
    Option<"cores", "cores", "unsigned", "2", "cores the cost rules assume">];
  let statistics = [Statistic<"numKernels", "kernels", "kernels built">, Statistic<"numDispatches", "dispatches", "dispatches created">];
  let dependentDialects = ["::mlir::plan::PlanDialect", "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect", "::mlir::math::MathDialect",
                           "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

#endif
