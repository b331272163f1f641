// Passes of the codegen phase.
#ifndef MEGALODON_CODEGEN_PASSES_TD
#define MEGALODON_CODEGEN_PASSES_TD

include "mlir/Pass/PassBase.td"

def VectorizeMath : Pass<"megalodon-vectorize-math"> {
  let summary = "give vector math functions an implementation";
  let description = [{
    f32: polynomials inline (1 to 3 ulp). f64: calls of libmvec's vector variants for the width compiled for, the C library's scalar ones otherwise.
    What stays in the math dialect afterwards lowers to LLVM intrinsics without a call (fma, sqrt, abs).
  }];
  let options = [Option<"vectorBytes", "vector-bytes", "unsigned", "64", "bytes of the CPU's widest vector register">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::func::FuncDialect", "::mlir::vector::VectorDialect", "::mlir::LLVM::LLVMDialect"];
}

def ExpandGpuMath : Pass<"megalodon-expand-gpu-math"> {
  let summary = "expand math functions of GPU kernels into polynomials";
  let description = [{
    exp, exp2, log, log1p, sin, cos, tanh and rsqrt of f32 and f64, scalars and vectors, become `arith` and `math.fma`, so that PTX needs no library of device functions.
    What is one instruction (fma, sqrt, absf, floor, ...) stays; any other op of the math dialect is an error. Errors are within 1.5 ulp (tanh: 2.5); sin and cos
    keep them for angles beyond 1e5. A result of exp too small for a normal number is 0.

    ```mlir
    %y = math.sin %x : vector<2xf64>
    // becomes
    %k = ...                                           // the integer next to 2/pi x
    %r = math.fma %minus_k, %half_pi_0, %x             // x - k pi/2, in three parts
    ...
    %y = arith.bitcast %signed : vector<2xi64> to vector<2xf64>
    ```
  }];
  let statistics = [Statistic<"numExpanded", "expanded", "ops expanded">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::math::MathDialect"];
}

def CompileKernels : Pass<"megalodon-compile-kernels", "::mlir::ModuleOp"> {
  let summary = "compile the module @kernels to one ELF shared object";
  let description = [{
    Before: `@kernels` holds kernels of scf, vector, memref, arith and math. After: it holds their declarations and, as attribute `plan.object`, an ELF shared object
    that exports `void NAME(void *const *args, int64_t workgroup)` for each. The module gets `plan.cpu` and `plan.cpu_features`.
    Kernels are compiled in parallel, one LLVM context each; their order in the object is the module's, so the bytes are reproducible.
  }];
  let options = [
    Option<"cpu", "cpu", "std::string", "\"native\"", "CPU to compile for, as LLVM names it">,
    Option<"saveAssembly", "save-assembly", "std::string", "\"\"", "folder that gets each kernel's assembly and LLVM IR">];
  let statistics = [Statistic<"objectBytes", "object-bytes", "bytes of the shared object">];
  let dependentDialects = ["::mlir::plan::PlanDialect"];
}

#endif
