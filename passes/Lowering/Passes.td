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
    Option<"target", "target", "std::string", "\"cpu\"", "what kernels are made for: cpu or cuda">,
    Option<"vectorBytes", "vector-bytes", "unsigned", "64", "bytes of the CPU's widest vector register; 512 on cuda">,
    Option<"vectorRegisters", "vector-registers", "unsigned", "32", "number of vector registers">,
    Option<"cema", "cema", "std::string", "\"auto\"", "CEMA form: auto, sequential, two-level or (cuda only) matrix">,
    Option<"timestepNorm", "timestep-norm", "std::string", "\"auto\"", "scans of the timestep norm: auto, sequential or two-level">,
    Option<"attention", "attention", "std::string", "\"auto\"", "chunk attention on cuda: auto, stored or recomputed">,
    Option<"gemm", "gemm", "std::string", "\"auto\"", "matrix products: auto, onednn, cublaslt or generated">,
    Option<"sharedBytes", "shared-bytes", "int64_t", "163 * 1024", "shared memory that a workgroup may use on cuda">,
    Option<"cores", "cores", "unsigned", "2", "cores the cost rules assume">];
  let statistics = [Statistic<"numKernels", "kernels", "kernels built">, Statistic<"numDispatches", "dispatches", "dispatches created">];
  let dependentDialects = ["::mlir::plan::PlanDialect", "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect", "::mlir::math::MathDialect",
                           "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect", "::mlir::gpu::GPUDialect",
                           "::mlir::nvgpu::NVGPUDialect", "::mlir::NVVM::NVVMDialect", "::mlir::LLVM::LLVMDialect"];
}

def FuseRows : Pass<"megalodon-fuse-rows", "::mlir::ModuleOp"> {
  let summary = "join dispatches whose workgroups own the same rows";
  let description = [{
    Before: functions of dispatches; kernels with the attribute `plan.rows` promise that a workgroup touches, of every activation, only the tokens of its block
    of the grid. After: of two such dispatches over one grid, the second reading what the first makes, one remains, whose kernel does a block's rows of the
    first and then of the second. What only the second reads moves to scratch. Kernels that nobody runs any more are gone.

    ```mlir
    %0 = plan.dispatch @kernels::@add grid<1 * one * tokens by 64>(%x, %y) ...
    %1 = plan.dispatch @kernels::@layer_norm grid<1 * one * tokens by 64>(%0, %weight, %bias) ...
    // becomes, when %0 has no other use
    %1 = plan.dispatch @kernels::@add.layer_norm grid<1 * one * tokens by 64>(%x, %y, %weight, %bias) ...
    ```
  }];
  let options = [Option<"largestScratch", "largest-scratch", "int64_t", "512 * 1024",
                        "scratch that intermediates of one kernel may take, bytes; the default is half of a usual second-level cache">];
  let statistics = [Statistic<"numJoined", "joined", "pairs of dispatches joined">];
  let dependentDialects = ["::mlir::plan::PlanDialect", "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect", "::mlir::memref::MemRefDialect"];
}

def BucketCollectives : Pass<"megalodon-bucket-collectives", "::mlir::func::FuncOp"> {
  let summary = "put tensors that travel the same way into one message";
  let description = [{
    Collectives of one kind, over the same axes, that nobody waits for yet become one with several tensors, where the last of them stands, up to `bytes`
    a message: so gradients are reduced in buckets while backward runs, and a layer's sharded parameters arrive in one message. Along the tensor axis,
    where results are needed soon, only collectives that start in the same place are joined.

    ```mlir
    %0 = plan.collective all_reduce(%a) over [0] {last} : (tensor<16xf32>) -> tensor<16xf32>
    ...
    %1 = plan.collective all_reduce(%b) over [0] {last} : (tensor<4x4xf32>) -> tensor<4x4xf32>
    // becomes
    ...
    %0:2 = plan.collective all_reduce(%a, %b) over [0] {last} : (tensor<16xf32>, tensor<4x4xf32>) -> (tensor<16xf32>, tensor<4x4xf32>)
    ```
  }];
  let options = [Option<"bucketBytes", "bytes", "int64_t", "25 << 20", "largest size of a message's inputs">];
  let statistics = [Statistic<"numMerged", "merged", "collectives that share a message">, Statistic<"numBuckets", "buckets", "messages made of several">];
}

#endif
