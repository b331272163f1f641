// Builds one kernel (loops over vectors and memrefs, outlined into @kernels)
// and the plan.dispatch that runs it. Every lowering of a megalodon op that is
// not a library product goes through this class.
#pragma once
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/PatternMatch.h"
#include <string>

namespace mlir::megalodon {

/// What kernels are made for.
enum class Target {
  Cpu, ///< a workgroup is a task of one thread
  Cuda ///< a workgroup is a block of threads
};

/// Threads that run in step on a GPU, and that run one workgroup of a kernel in
/// vector form.
inline constexpr int64_t kWarpThreads = 32;

/// Choices that hold for a whole compilation. Filled from the command line of
/// megalodon-opt (passes/Pipeline/Options.h).
struct LoweringOptions {
  Target target = Target::Cpu;
  /// Bytes of a vector of a kernel in vector form. On cpu those of the widest
  /// register: 16, 32 or 64. On cuda 512: 16 for each thread of a warp.
  unsigned vectorBytes = 64;
  /// Number of registers of that width: 16 or 32.
  unsigned vectorRegisters = 32;
  /// CEMA form: "auto", "sequential", "two-level" or, on cuda, "matrix".
  std::string cema = "auto";
  /// Scans of the timestep norm: "auto", "sequential" or "two-level".
  std::string timestepNorm = "auto";
  /// Chunk attention on cuda: "auto", "stored" (weights of the causal half in a
  /// workspace) or "recomputed".
  std::string attention = "auto";
  /// Products: "auto" (oneDNN for f32, generated tiles for f64; cuBLASLt on
  /// cuda), "onednn", "cublaslt" or "generated".
  std::string gemm = "auto";
  /// Shared memory that a workgroup may use on every GPU compiled for, bytes.
  int64_t sharedBytes = 163 * 1024;
  /// Cores the cost rules assume; never changes results, only which form is
  /// chosen.
  unsigned cores = 2;
};

/// How a kernel sees a tensor's buffer.
enum class View {
  Plain, ///< memref of the tensor's shape; only right when no leading dimension
         ///< shrinks at run time
  Rows,  ///< the leading dimensions [B, L] (or [B, L, ...]) of an activation
         ///< merged: memref<(B*L) x rest>
  Flat   ///< memref<number of elements>
};

/// Number of workgroups: factor * outer * ceil(inner / divisor), of the call's
/// actual sizes.
struct Grid {
  int64_t factor = 1;
  plan::Outer outer = plan::Outer::One;
  plan::Inner inner = plan::Inner::One;
  int64_t divisor = 1;
};

/// Builds kernels in one of two forms:
///
/// * vector form: the code of a workgroup, on vectors of `vectorBytes`. A cpu
///   runs it as it stands; for cuda megalodon-distribute-to-threads gives each
///   thread of a warp its share of every vector.
/// * thread form (cuda only): the code of one of `threads` threads, with
///   barriers; scratch is the workgroup's shared memory, a vector is what one
///   thread loads at once (16 bytes).
///
/// Usage:
///   KernelBuilder k(rewriter, options, op, "silu");
///   Value x = k.read(op.getX(), View::Rows), y = k.write(op.getType(),
///   View::Rows); k.loop(...){ ... }                                // body;
///   `k.b` is the builder inside the kernel rewriter.replaceOp(op,
///   k.finish({.inner = plan::Inner::Tokens, .divisor = 32}, flops, bytes));
class KernelBuilder {
public:
  KernelBuilder(PatternRewriter &rewriter, const LoweringOptions &options,
                Operation *source, StringRef name);
  /// A kernel in thread form.
  KernelBuilder(PatternRewriter &rewriter, const LoweringOptions &options,
                Operation *source, StringRef name, int64_t threads);

  //===-- Arguments
  //---------------------------------------------------------------------------------------------------===//
  /// A buffer the kernel only reads.
  Value read(Value tensor, View view = View::Plain);
  /// A buffer the kernel writes; becomes the dispatch's next result. Its
  /// content before the dispatch is undefined.
  Value write(Type tensorType, View view = View::Plain);
  /// A buffer the kernel reads and writes; becomes the dispatch's next result,
  /// tied to `tensor`.
  Value update(Value tensor, View view = View::Plain);
  /// Per-worker scratch, 64-byte aligned, shifted by `skewBytes` (so that two
  /// scratch arrays do not meet in one cache set). In thread form the
  /// workgroup's shared memory, 128-byte aligned.
  Value scratch(ArrayRef<int64_t> shape, Type element, int64_t skewBytes = 0);
  /// A number that differs between dispatches of one kernel (index type).
  Value immediate(int64_t value);

  //===-- The call's sizes and this workgroup (index type)
  //---------------------------------------------------------------===//
  Value workgroup() const { return workgroupValue; }
  Value batch();
  Value length();
  Value tokens();
  /// An op's `rank` operand: a constant, else this rank's place on the chunk or
  /// the tensor axis.
  Value chunkRank(Value operand);
  Value tensorRank(Value operand);
  Value rankAlong(int64_t axis); ///< by the axis's number in the mesh
  /// i1: whether the call adds gradients to those of earlier microbatches.
  Value accumulating();

  //===-- Thread form: this thread, and what it has to do with others
  //-------------------------------------------------------------------------------------------------===//
  Value thread(); ///< 0 .. threads - 1
  Value lane();   ///< thread % 32
  Value warp();   ///< thread / 32
  int64_t threadCount() const { return threads; }
  /// All threads of the workgroup wait here, and see each other's stores to
  /// shared memory and buffers. Every thread must come here.
  void barrier();
  /// The value that the lane with number lane ^ `mask` of the same warp has.
  Value shuffleXor(Value scalar, int64_t mask);
  /// The value of one lane of the warp (index).
  Value shuffleFrom(Value scalar, Value lane);
  /// Over the lanes of a warp, in a fixed order; every lane gets the result.
  Value warpSum(Value scalar), warpMaximum(Value scalar);

  //===-- Small builders
  //-------------------------------------------------------------------------------------------------===//
  ImplicitLocOpBuilder b;

  Value index(int64_t value);
  Value constant(double value, Type elementOrVector);
  Value add(Value x, Value y), sub(Value x, Value y), mul(Value x, Value y),
      div(Value x, Value y);   // float or index (div: unsigned)
  Value rem(Value x, Value y); // index
  Value min(Value x, Value y),
      max(Value x, Value y); // index (unsigned) or float (no NaN)
  Value fma(Value x, Value y, Value z);
  Value less(Value x, Value y); ///< index, unsigned
  Value ceilDiv(Value x, int64_t divisor);
  Value select(Value condition, Value x, Value y);
  Value toFloat(Value x, Type type); ///< extend or truncate a float scalar or
                                     ///< vector to the element type `type`
  Value intToFloat(Value x, Type type);

  /// scf.for; the first form has no carried values, the second returns the
  /// carried values.
  void loop(Value from, Value to, int64_t step, function_ref<void(Value)> body);
  SmallVector<Value>
  loop(Value from, Value to, int64_t step, ValueRange carried,
       function_ref<SmallVector<Value>(Value, ValueRange)> body);
  void when(Value condition, function_ref<void()> then,
            function_ref<void()> otherwise = nullptr);

  /// Lanes of a vector of numbers of this element type, and the vector type.
  /// bf16 is a type of memory only: loads widen it to f32 and stores round it,
  /// so a vector of bf16 elements has the lanes, and the type, of one of f32.
  int64_t lanes(Type element) const;
  VectorType vectorType(Type element) const;
  /// Visits 0, W, 2W, ... < n (n static, W lanes). `mask` is null for whole
  /// vectors and a constant mask for the last, partial one.
  void forLanes(int64_t n, Type element,
                function_ref<void(Value index, Value mask)> body);
  /// The same with carried values.
  SmallVector<Value>
  forLanes(int64_t n, Type element, ValueRange carried,
           function_ref<SmallVector<Value>(Value index, Value mask, ValueRange)>
               body);
  /// Vector load and store of lanes(element) elements at the indices; masked
  /// lanes load 0 and are not stored. What is loaded from bf16 is f32, and what
  /// is stored to it is rounded to nearest, ties to even.
  Value load(Value memref, ValueRange indices, Value mask = {});
  void store(Value vector, Value memref, ValueRange indices, Value mask = {});
  /// Scalars.
  Value loadScalar(Value memref, ValueRange indices);
  void storeScalar(Value value, Value memref, ValueRange indices);
  Value splat(Value scalar);   ///< scalar to vector
  Value sum(Value vector);     ///< horizontal, fixed order
  Value maximum(Value vector); ///< horizontal
  /// Elementwise on scalars or vectors.
  Value exp(Value x), log(Value x), sqrt(Value x), sigmoid(Value x);

  const LoweringOptions &getOptions() const { return options; }

  /// Promises that a workgroup of a grid over tokens touches, of every
  /// activation, only the tokens of its block, and of partial rows only its own
  /// row. megalodon-fuse-rows joins such kernels.
  void ownsRows() { kernel->setAttr(plan::kRowsAttr, b.getUnitAttr()); }

  /// Ends the kernel and creates the dispatch; returns its results in the order
  /// of write()/update() calls.
  SmallVector<Value> finish(const Grid &grid, double flops, double bytes);

private:
  Value argument(MemRefType type);
  MemRefType viewed(Type tensorType, View view);
  MemRefType scratchType(int64_t bytes);
  Value parameterWord(int64_t word);
  Value rank(Value operand, int64_t word);
  Value warpReduce(Value scalar, function_ref<Value(Value, Value)> combine);

  PatternRewriter &rewriter;
  const LoweringOptions &options;
  Operation *source;
  std::string name;
  int64_t threads = 0; ///< 0: vector form
  func::FuncOp kernel;
  Value parameters, workgroupValue, scratchValue;
  int64_t scratchBytes = 0;
  SmallVector<Value> inputs;
  SmallVector<Value> inputArguments,
      outputArguments; // block arguments, sorted into inputs then untied
                       // results at the end
  SmallVector<Type> resultTypes;
  SmallVector<int64_t> tied;
  SmallVector<int64_t> immediates;
};

/// Puts a free kernel into @kernels as `name` or `name_<n>`, unless it is there
/// already: then erases it. Returns its symbol.
std::string insertKernel(ModuleOp kernels, func::FuncOp kernel, StringRef name);

} // namespace mlir::megalodon
