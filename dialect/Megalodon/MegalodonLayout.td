// How a tensor is spread over the ranks of a mesh, and the one op that changes it.
#ifndef MEGALODON_LAYOUT_TD
#define MEGALODON_LAYOUT_TD

include "dialect/Megalodon/MegalodonBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"

def Megalodon_Axis : I32EnumAttr<"Axis", "a parallel axis, in the order of the mesh", [
    I32EnumAttrCase<"Data", 0, "dp">, I32EnumAttrCase<"Pipeline", 1, "pp">, I32EnumAttrCase<"Chunk", 2, "cp">,
    I32EnumAttrCase<"Tensor", 3, "tp">]> {
  let cppNamespace = "::mlir::megalodon";
  let genSpecializedAttr = 0;
}

def Megalodon_LayoutAttr : Megalodon_Attr<"Layout", "layout"> {
  let summary = "which axes of the mesh split each dimension of a tensor, and over which axes its values are partial sums";
  let description = [{
    The encoding of a tensor type between layout assignment and partition:

    ```mlir
    tensor<4x64x32xf32, #megalodon.layout<[dp, cp, tp]>>          // every dimension split over one axis
    tensor<96x32xf32, #megalodon.layout<[tp, _]>>                 // rows split, columns whole
    tensor<96x32xf32, #megalodon.layout<[tp + dp, _]>>            // rows split over tp, each part again over dp
    tensor<96x32xf32, #megalodon.layout<[tp, _] sum [dp, cp]>>    // the value is the sum of what the ranks along dp and cp hold
    ```

    The type's shape is that of the whole tensor. A rank holds ceil(extent / parts) of a dimension, the last ones padded. No axis stands twice.
  }];
  let parameters = (ins ArrayRefParameter<"::mlir::DenseI32ArrayAttr", "axes of each dimension, major first">:$dimensions,
                       "::mlir::DenseI32ArrayAttr":$sum);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Megalodon_Layouts : OpDocGroup {
  let summary = "Layouts";
  let description = [{ Where tensors lie on a mesh of ranks. }];
}

let opDocGroup = Megalodon_Layouts in {

def Megalodon_ReshardOp : Megalodon_Op<"reshard"> {
  let summary = "the same tensor in another layout";
  let description = [{
    The only op that changes a layout. Partition turns it into collectives of the `shard` dialect: gathering a split dimension is an all_gather,
    resolving a sum an all_reduce, resolving a sum into a split dimension a reduce_scatter, splitting a whole dimension a local slice.

    * C1: shape and element type of operand and result agree.
    * C2: both types have a layout.

    Example:

    ```mlir
    %whole = megalodon.reshard %slice
        : tensor<2x8x16xf32, #megalodon.layout<[dp, cp, tp]>> -> tensor<2x8x16xf32, #megalodon.layout<[dp, cp, _]>>
    ```
  }];
  let arguments = (ins AnyRankedTensor:$input);
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = "$input attr-dict `:` type($input) `->` type($result)";
  let hasVerifier = 1;
}

} // Megalodon_Layouts

#endif
