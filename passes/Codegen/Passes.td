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

def ExpandBfloat16 : Pass<"megalodon-expand-bf16"> {
  let summary = "expand conversions between bf16 and f32 into integer arithmetic";
  let description = [{
    Rounds to nearest, ties to even, on every CPU alike: the instruction that some have flushes numbers below the smallest normal one to 0, and without
    it LLVM calls a library function for each number.

    ```mlir
    %wide = arith.extf %x : vector<16xbf16> to vector<16xf32>
    // becomes
    %bits = arith.bitcast %x : vector<16xbf16> to vector<16xi16>
    %long = arith.extui %bits : vector<16xi16> to vector<16xi32>
    %high = arith.shli %long, %sixteen : vector<16xi32>
    %wide = arith.bitcast %high : vector<16xi32> to vector<16xf32>
    ```
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::vector::VectorDialect"];
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

def GpuToNvvm : Pass<"megalodon-gpu-to-nvvm", "::mlir::gpu::GPUModuleOp"> {
  let summary = "turn kernels for GPUs into the NVVM and LLVM dialects";
  let description = [{
    Before: kernels (`gpu.func`) without scf and without math functions. After: `llvm.func` with `nvvm.kernel`, one pointer an argument of memref type. Like
    upstream's convert-gpu-to-nvvm, but math ops become LLVM's intrinsics and never calls of device functions; workgroup memory is dynamic
    (`.extern .shared`, so that it may exceed 48 KiB); barriers of blocks of one warp become barriers of the warp.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect", "::mlir::arith::ArithDialect", "::mlir::vector::VectorDialect",
                           "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect", "::mlir::cf::ControlFlowDialect"];
}

def CompileGpuKernels : Pass<"megalodon-compile-gpu-kernels", "::mlir::ModuleOp"> {
  let summary = "compile the outlined kernels to PTX and cubins";
  let description = [{
    Before: `@kernels` holds declarations and a `gpu.module` of kernels (`gpu.func`). After: only the declarations, and as attribute `plan.images` one image
    an architecture: a cubin where there is a ptxas that knows it, else PTX; and always PTX of the lowest architecture, for GPUs without a cubin of their own.
    Kernels are compiled in parallel, one LLVM context each; their PTX becomes one module in the order of the kernels. PTX that calls a function which nobody
    defines is refused: it would fail only when it is loaded.

    ```mlir
    module @kernels attributes {plan.images = [{arch = "sm_80", data = dense<...>}, {arch = "sm_80", data = dense<...>, ptx}, {arch = "sm_90a", data = dense<...>} ] }
    ```
  }];
  let options = [
    Option<"gpuArch", "gpu-arch", "std::string", "\"sm_80,sm_90a,sm_100a\"", "architectures to compile for, separated by commas">,
    Option<"cudaPath", "cuda-path", "std::string", "\"\"", "CUDA toolkit whose ptxas is used; empty: look for one; none: PTX only">,
    Option<"saveAssembly", "save-assembly", "std::string", "\"\"", "folder that gets each kernel's PTX and LLVM IR, and resources.txt">];
  let statistics = [Statistic<"cubinBytes", "cubin-bytes", "bytes of all cubins">];
  let dependentDialects = ["::mlir::gpu::GPUDialect", "::mlir::plan::PlanDialect"];
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

def DistributeToThreads : Pass<"megalodon-distribute-to-threads", "::mlir::func::FuncOp"> {
  let summary = "let the threads of a warp share the vectors of a kernel";
  let description = [{
    Before: a kernel in vector form: what one workgroup does, on vectors. After: what one of `threads` threads does; the function has the attribute
    `plan.threads`. A vector of n lanes is n / threads lanes of each thread, in order, so what lies side by side in memory is loaded together. Scalars are
    computed by all threads and stored by the first. Scratch becomes shared memory, reductions end in shuffles, and barriers stand where one thread
    reads what another wrote. Kernels in thread form (which have `plan.threads` already) stay as they are.

    ```mlir
    %x = vector.load %memory[%row, %i] : memref<64x256xf32>, vector<128xf32>
    %sum = vector.reduction <add>, %x : vector<128xf32> into f32
    // becomes
    %x = vector.load %memory[%row, %i + 4 * %thread] {alignment = 16} : memref<64x256xf32>, vector<4xf32>
    %own = vector.reduction <add>, %x : vector<4xf32> into f32
    %other, %valid = gpu.shuffle xor %own, 16, 32 : f32
    ...
    ```
  }];
  let options = [Option<"threads", "threads", "int64_t", "32", "threads of a workgroup">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::gpu::GPUDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

def OutlineGpuKernels : Pass<"megalodon-outline-gpu-kernels", "::mlir::ModuleOp"> {
  let summary = "make the kernels functions that a GPU launches";
  let description = [{
    Before: `@kernels` holds functions in which every kernel says what a thread does. After: it holds their declarations and a `gpu.module` of `gpu.func`s with
    the same names. The words of the parameter block that a kernel reads are its first arguments, by value (`plan.words` many), then come the buffers; the
    workgroup is the block's number, scratch is a workgroup attribution. This is the IR that tests execute on a CPU, and the last before NVVM.

    ```mlir
    func.func @silu(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<0xi8, #gpu.address_space<workgroup>>, %x: memref<16x8xf32>)
    // becomes
    gpu.func @silu(%batch: i64, %length: i64, %tokens: i64, %x: memref<16x8xf32>) kernel attributes {known_block_size = array<i32: 32, 1, 1>}
    ```
  }];
  let dependentDialects = ["::mlir::gpu::GPUDialect"];
}

#endif
