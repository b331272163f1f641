// The plan dialect: functions as lists of dispatches, products and calls on tensors. What the plan file holds, still in SSA form.
#ifndef MEGALODON_PLAN_OPS_TD
#define MEGALODON_PLAN_OPS_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Plan_Dialect : Dialect {
  let name = "plan";
  let cppNamespace = "::mlir::plan";
  let summary = "dispatches, products and memory of a compiled function";
  let description = [{
    After lowering a function holds only `plan` ops and calls. Values are still tensors; the schedule phase gives each a place in memory.
    Kernels are functions of the nested module `@kernels`: `(parameters: memref<Nxi64>, workgroup: index, scratch: memref<Sxi8>, buffers...)`.
  }];
  let useDefaultAttributePrinterParser = 1;
}

def Plan_Outer : I32EnumAttr<"Outer", "outer factor of a grid", [I32EnumAttrCase<"One", 0, "one">, I32EnumAttrCase<"Batch", 1, "batch">]> {
  let cppNamespace = "::mlir::plan";
  let genSpecializedAttr = 0;
}
def Plan_Inner : I32EnumAttr<"Inner", "extent a grid cuts into blocks", [
    I32EnumAttrCase<"One", 0, "one">, I32EnumAttrCase<"Length", 1, "length">, I32EnumAttrCase<"Tokens", 2, "tokens">]> {
  let cppNamespace = "::mlir::plan";
  let genSpecializedAttr = 0;
}

def Plan_GridAttr : AttrDef<Plan_Dialect, "Grid"> {
  let mnemonic = "grid";
  let summary = "number of workgroups: factor * outer * ceil(inner / divisor), of the call's actual batch and length";
  let parameters = (ins "int64_t":$factor, EnumParameter<Plan_Outer>:$outer, EnumParameter<Plan_Inner>:$inner, "int64_t":$divisor);
  let assemblyFormat = "`<` $factor `*` $outer `*` $inner `by` $divisor `>`";
}

class Plan_Op<string mnemonic, list<Trait> traits = []> : Op<Plan_Dialect, mnemonic, traits>;

def Plan_DispatchOp : Plan_Op<"dispatch", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "runs a kernel over a grid of workgroups";
  let description = [{
    The kernel's buffers are the inputs, then the results that are not tied. `tied[i] = j` makes result i the updated input j: the kernel gets one
    buffer for both; if the input is still needed afterwards, the schedule copies it first. `immediates` follow the fixed words of the parameter block.
    `flops` and `bytes` are the work at the compiled shape, for the bench table.

    * C1: `tied` has one entry a result, negative or the index of an input of the same type.
    * C2: no input is tied twice.
    * C3: `kernel` names a function of `@kernels` that takes the parameter block, the workgroup, the scratch, the inputs and the results that are not tied.

    Example:

    ```mlir
    %y = plan.dispatch @kernels::@silu grid<1 * one * tokens by 16>(%x) {tied = array<i64: -1>, flops = 1.0e3 : f64, bytes = 2.0e3 : f64}
        : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins SymbolRefAttr:$kernel, Variadic<AnyRankedTensor>:$inputs, Plan_GridAttr:$grid, DenseI64ArrayAttr:$tied,
                       DefaultValuedAttr<DenseI64ArrayAttr, "{}">:$immediates, F64Attr:$flops, F64Attr:$bytes);
  let results = (outs Variadic<AnyRankedTensor>:$outputs);
  let assemblyFormat = "$kernel `grid` `` $grid `(` $inputs `)` attr-dict `:` functional-type($inputs, results)";
  let hasVerifier = 1;
}

def Plan_ProductOp : Plan_Op<"product", [Pure]> {
  let summary = "c = op(a) op(b) by a library, one single-threaded call a tile";
  let description = [{
    a [m,k] or with trans_a [k,m]; b [k,n] or with trans_b [n,k]; c [m,n]; row-major, leading dimensions flattened. An extent of -1 is the call's number of tokens.

    * C1: at most one extent is -1.
    * C2: tiles are positive.
    * C3: a, b, c have one element type, or a and b bf16 and c f32. Sums of bf16 products are formed in f32.

    Example:

    ```mlir
    %c = plan.product %x, %weight transposed {m = -1, n = 24, k = 16, tile_m = 64, tile_n = 24, library = "onednn", flops = 1.0e4 : f64, bytes = 3.0e3 : f64}
        : (tensor<2x8x16xf32>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
    ```
  }];
  let arguments = (ins AnyRankedTensor:$a, AnyRankedTensor:$b, UnitAttr:$trans_a, UnitAttr:$trans_b, I64Attr:$m, I64Attr:$n, I64Attr:$k,
                       I64Attr:$tile_m, I64Attr:$tile_n, StrAttr:$library, F64Attr:$flops, F64Attr:$bytes);
  let results = (outs AnyRankedTensor:$c);
  let assemblyFormat = "$a (`transposed` $trans_a^)? `,` $b (`transposed` $trans_b^)? attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Plan_CollectiveKind : I32EnumAttr<"CollectiveKind", "what a message between ranks does", [
    I32EnumAttrCase<"AllReduce", 0, "all_reduce">, I32EnumAttrCase<"AllGather", 1, "all_gather">,
    I32EnumAttrCase<"ReduceScatter", 2, "reduce_scatter">]> {
  let cppNamespace = "::mlir::plan";
  let genSpecializedAttr = 0;
}
def Plan_CollectiveKindAttr : EnumAttr<Plan_Dialect, Plan_CollectiveKind, "collective_kind">;

def Plan_CollectiveOp : Plan_Op<"collective", [Pure]> {
  let summary = "one message between the ranks that differ along some axes of the mesh";
  let description = [{
    Each result belongs to the input of the same number. `all_reduce` adds up over the ranks; `all_gather` sets the ranks' inputs side by side along
    `dimension`; `reduce_scatter` adds up and leaves each rank its part of `dimension`. `over` lists axes of the mesh (0 data, 1 pipeline, 2 chunk,
    3 tensor), the first one slowest. With `stages` only ranks at these places of the pipeline take part. `last`: the message is only sent where the
    accumulation of a training step ends; before, the results are unspecified.

    The message begins here and is complete before the first op that needs it: the schedule phase puts the wait there. The sum of an input that dies here
    is formed in place.

    * C1: there is an input, and a result for each.
    * C2: inputs and results have one element type.
    * C3: the axes are those of the mesh, none twice.
    * C4: all_reduce: an input and its result have one type.
    * C5: all_gather, reduce_scatter: an input and its result differ in `dimension` only, by one factor for all of them.

    Example:

    ```mlir
    %h = plan.collective all_gather(%x) over [3] {dimension = 2 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x64xf32>
    %s:2 = plan.collective all_reduce(%a, %b) over [0, 2] {last} : (tensor<16xf32>, tensor<4x4xf32>) -> (tensor<16xf32>, tensor<4x4xf32>)
    ```
  }];
  let arguments = (ins Plan_CollectiveKindAttr:$kind, Variadic<AnyRankedTensor>:$inputs, DenseI64ArrayAttr:$axes,
                       DefaultValuedAttr<I64Attr, "0">:$dimension, OptionalAttr<DenseI64ArrayAttr>:$stages, UnitAttr:$last);
  let results = (outs Variadic<AnyRankedTensor>:$outputs);
  let assemblyFormat = "$kind `(` $inputs `)` `over` $axes attr-dict `:` functional-type($inputs, results)";
  let hasVerifier = 1;
}

def Plan_PipelineOp : Plan_Op<"pipeline", [Symbol, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "an entry as the functions of its stages and the order in which each rank runs them";
  let description = [{
    With R ranks (the length of `work`) stage s runs on rank s mod R as that rank's chunk s / R. `forward`, `backward` and `weight` hold one function a stage;
    `backward` is empty where no gradients are asked for, `weight` unless weight gradients run by themselves. `finish` (once a call, behind all
    microbatches) and `update` (once a training step) hold one function a rank, or none.

    `work` lists what each rank runs, one word a function: `F`, `B` or `W` for forward, backward or weight, then the microbatch, and with several chunks
    `.` and the chunk. What moves between ranks stands at the functions' arguments and results: `plan.to` and `plan.from` name the stage at the other end.
    The value that stage s sends to s + 1 is the result with `plan.to = s + 1` of its forward function and the argument with `plan.from = s` of the other's;
    cotangents go the other way between backward functions.

    * C1: every named function exists.
    * C2: the lists of functions have one entry a stage or rank, or none where that is allowed.

    Example:

    ```mlir
    plan.pipeline @grad {entry = "grad", microbatches = 2 : i64, chunks = 1 : i64, forward = [@grad.stage0.forward, @grad.stage1.forward],
        backward = [@grad.stage0.backward, @grad.stage1.backward], weight = [], finish = [@grad.rank0.finish, @grad.rank1.finish], update = [],
        work = ["F0 F1 B0 B1", "F0 B0 F1 B1"]}
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$entry, I64Attr:$microbatches, I64Attr:$chunks, FlatSymbolRefArrayAttr:$forward,
                       FlatSymbolRefArrayAttr:$backward, FlatSymbolRefArrayAttr:$weight, FlatSymbolRefArrayAttr:$finish,
                       FlatSymbolRefArrayAttr:$update, StrArrayAttr:$work);
  let assemblyFormat = "$sym_name attr-dict";
  let extraClassDeclaration = [{
    int64_t getNumRanks() { return getWork().size(); }
    int64_t getNumStages() { return getNumRanks() * getChunks(); }
  }];
  let hasVerifier = 1;
}

def Plan_UndefinedOp : Plan_Op<"undefined", [Pure]> {
  let summary = "a tensor of unspecified content, to be updated in place by a dispatch";
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = "attr-dict `:` type($result)";
}

#endif
