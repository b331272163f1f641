// The megalodon dialect: base definitions, attributes and interfaces.
#ifndef MEGALODON_BASE_TD
#define MEGALODON_BASE_TD

include "dialect/Megalodon/MegalodonInterfaces.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Megalodon_Dialect : Dialect {
  let name = "megalodon";
  let cppNamespace = "::mlir::megalodon";
  let summary = "blocks of the MEGALODON architecture, their gradients and the optimizer";
  let description = [{
    Ops on ranked tensors of static shape that read like the figures of the MEGALODON paper (arXiv 2404.08801), the ops their gradients are
    made of, clip and AdamW, and what ranks need to share the work. All ops are free of side effects: what the model remembers of the past
    is an explicit operand and result.

    Notation used in the descriptions: B batch rows, L tokens in the call, D model dimension, N CEMA states a channel, G norm groups,
    H heads, Z and V width of queries/keys and of values over all heads, dz = Z/H, dv = V/H, C chunk size.

    F is the compute type: f32 or f64. A is the type in which activations, their cotangents and the attention's caches are stored: F, or bf16
    where F is f32. Arithmetic is in F (or wider where an op says so) and a result of type A is rounded once, to nearest with ties to even.
    What is not an activation (parameters, norm and CEMA state, statistics, losses, gradients of parameters) has type F. A matrix that only
    products read, and the embedding table, may have type A as well: inference keeps them so.
    `C<n>` numbers the constraints a verifier checks.
  }];
  let useDefaultAttributePrinterParser = 1;
  let hasConstantMaterializer = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::func::FuncDialect"];
}

//===-- Attributes ------------------------------------------------------------------------------------------------------------===//

def Megalodon_Role : I32EnumAttr<"Role", "what an entry's argument or result is to the outside", [
    I32EnumAttrCase<"Parameter", 0, "parameter">, I32EnumAttrCase<"FirstMoment", 1, "first_moment">,
    I32EnumAttrCase<"SecondMoment", 2, "second_moment">, I32EnumAttrCase<"Gradient", 3, "gradient">,
    I32EnumAttrCase<"Input", 4, "input">, I32EnumAttrCase<"Output", 5, "output">, I32EnumAttrCase<"State", 6, "state">,
    I32EnumAttrCase<"Residual", 7, "residual">]> {
  let cppNamespace = "::mlir::megalodon";
  let genSpecializedAttr = 0;
}
def Megalodon_RoleAttr : EnumAttr<Megalodon_Dialect, Megalodon_Role, "role"> { let assemblyFormat = "`<` $value `>`"; }

def Megalodon_InitKind : I32EnumAttr<"InitKind", "how a parameter is initialised; a and b are the numbers of the initialiser", [
    I32EnumAttrCase<"Zero", 0, "zero">, I32EnumAttrCase<"Constant", 1, "constant">, I32EnumAttrCase<"Normal", 2, "normal">,
    I32EnumAttrCase<"TruncatedNormal", 3, "truncated_normal">, I32EnumAttrCase<"Uniform", 4, "uniform">,
    I32EnumAttrCase<"ComplexNormal", 5, "complex_normal">, I32EnumAttrCase<"CemaTheta", 6, "cema_theta">,
    I32EnumAttrCase<"Untouched", 7, "untouched">]> {
  let cppNamespace = "::mlir::megalodon";
  let genSpecializedAttr = 0;
}

class Megalodon_Attr<string name, string attrMnemonic> : AttrDef<Megalodon_Dialect, name> { let mnemonic = attrMnemonic; }

def Megalodon_InitAttr : Megalodon_Attr<"Init", "init"> {
  let summary = "initialiser of a parameter";
  let description = [{ `#megalodon.init<truncated_normal, 0.0625 : f64, 0.1875 : f64>`: kind and its numbers a and b as runtime/plan/Plan.fbs lists them. }];
  let parameters = (ins EnumParameter<Megalodon_InitKind>:$kind, "::mlir::FloatAttr":$a, "::mlir::FloatAttr":$b);
  let assemblyFormat = "`<` $kind `,` $a `,` $b `>`";
}

def Megalodon_AttentionFunction : I32EnumAttr<"AttentionFunction", "what makes weights of the scores of attention", [
    I32EnumAttrCase<"Softmax", 0, "softmax">, I32EnumAttrCase<"Laplace", 1, "laplace">]> {
  let cppNamespace = "::mlir::megalodon";
  let genSpecializedAttr = 0;
}
def Megalodon_AttentionFunctionAttr : EnumAttr<Megalodon_Dialect, Megalodon_AttentionFunction, "attention_function"> {
  let assemblyFormat = "`<` $value `>`";
}

//===-- Operand types ---------------------------------------------------------------------------------------------------------===//

def Megalodon_Float : AnyTypeOf<[F32, F64]>;
class Megalodon_Ranked<list<Type> elements, list<int> ranks> : ConfinedType<RankedTensorOf<elements>,
    [CPred<"::llvm::is_contained(::llvm::ArrayRef<int64_t>{" # !interleave(ranks, ",") # "}, ::llvm::cast<::mlir::ShapedType>($_self).getRank())">,
     CPred<"::llvm::cast<::mlir::ShapedType>($_self).hasStaticShape()">],
    "static tensor of " # !interleave(!foreach(e, elements, e.summary), " or ") # " of rank " # !interleave(ranks, " or ")>;
class Megalodon_FloatRank<list<int> ranks> : Megalodon_Ranked<[F32, F64], ranks>;
class Megalodon_ActivationRank<list<int> ranks> : Megalodon_Ranked<[F32, F64, BF16], ranks>;
def AMatrix : Megalodon_ActivationRank<[2]>;           // [B, channels], or a product's weight
def ATokens : Megalodon_ActivationRank<[3]>;           // [B, L, channels]
def ATokensOrRows : Megalodon_ActivationRank<[2, 3]>;  // [B, channels] or [B, L, channels]
def AAny : ConfinedType<RankedTensorOf<[F32, F64, BF16]>, [CPred<"::llvm::cast<::mlir::ShapedType>($_self).hasStaticShape()">], "static tensor of f32, f64 or bf16">;
def FScalar : Megalodon_FloatRank<[0]>;
def FVector : Megalodon_FloatRank<[1]>;
def FMatrix : Megalodon_FloatRank<[2]>;
def FTokens : Megalodon_FloatRank<[3]>;            // [B, L, channels]
def FStatistics : Megalodon_FloatRank<[4]>;        // [B, R, 2, G]
def FStates : Megalodon_FloatRank<[5]>;            // [B, R, D, N, 2]
def FAny : ConfinedType<RankedTensorOf<[F32, F64]>, [CPred<"::llvm::cast<::mlir::ShapedType>($_self).hasStaticShape()">], "static tensor of f32 or f64">;
def F64Scalar : Megalodon_Ranked<[F64], [0]>;
def F64Tokens : Megalodon_Ranked<[F64], [3]>;      // [B, L, numbers]
def F64Matrix : Megalodon_Ranked<[F64], [2]>;      // [D, N]
def F64Complex : Megalodon_Ranked<[F64], [3]>;     // [D, N, 2]
def FState : Megalodon_FloatRank<[4]>;             // [B, D, N, 2]
def I64Rows : Megalodon_Ranked<[I64], [1]>;        // [B]
def I64Scalar : Megalodon_Ranked<[I64], [0]>;
def I32Tokens : Megalodon_Ranked<[I32], [2]>;      // [B, L]
def I64Tokens : Megalodon_Ranked<[I64], [2]>;      // [B, L]

//===-- Op classes ------------------------------------------------------------------------------------------------------------===//

class Megalodon_Op<string mnemonic, list<Trait> traits = []> : Op<Megalodon_Dialect, mnemonic, !listconcat([Pure], traits)>;
/// An op of the forward pass.
class Megalodon_ForwardOp<string mnemonic, list<Trait> traits = []> :
    Megalodon_Op<mnemonic, !listconcat([DeclareOpInterfaceMethods<DifferentiableOpInterface>], traits)> { let hasVerifier = 1; }
class Megalodon_CheapForwardOp<string mnemonic, list<Trait> traits = []> :
    Megalodon_Op<mnemonic, !listconcat([DeclareOpInterfaceMethods<DifferentiableOpInterface, ["isCheapToRecompute"]>], traits)> {
  let hasVerifier = 1;
  let extraClassDefinition = [{ bool $cppClass::isCheapToRecompute() { return true; } }];
}
/// An op of the backward pass: corresponds to one forward op.
class Megalodon_GradientOp<string mnemonic, list<Trait> traits = []> : Megalodon_Op<mnemonic, traits> { let hasVerifier = 1; }
/// An op that works on one rank's share.
class Megalodon_ParallelOp<string mnemonic, list<Trait> traits = []> : Megalodon_Op<mnemonic, traits> { let hasVerifier = 1; }

#endif
