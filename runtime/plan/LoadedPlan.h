// A plan file, checked: digest, FlatBuffers verification, and every index,
// range and extent, so that running it cannot leave its buffers. Mirrors
// runtime/plan/Plan.fbs in plain structs.
#pragma once
#include "runtime/core/ElementType.h"
#include "runtime/core/Trust.h"
#include "runtime/parallel/Mesh.h"
#include "runtime/plan/Header.h"
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace megalodon::plan {

enum class Role : uint8_t {
  Parameter,
  FirstMoment,
  SecondMoment,
  Gradient,
  Input,
  Output,
  State,
  Residual
};
enum class Dynamic : uint8_t { None, Batch, BatchLength };
enum class InitKind : uint8_t {
  Zero,
  Constant,
  Normal,
  TruncatedNormal,
  Uniform,
  ComplexNormal,
  CemaTheta,
  Untouched
};

struct Initializer {
  InitKind kind = InitKind::Zero;
  double a = 0, b = 0;
};

/// A dimension of which each rank holds one of `parts` equal parts, padded at
/// the end; the first of the axes counts slowest.
struct Split {
  uint32_t dimension;
  std::vector<Axis> axes;
  int64_t parts; ///< product of the axes' sizes
};

struct Variable {
  std::string name;
  ElementType type;
  Role role;
  std::vector<int64_t> shape; ///< of the whole tensor, compiled maxima
  Dynamic dynamic;
  Initializer init; ///< parameters only
  int parameter =
      -1; ///< moments and parameter gradients: index of the parameter
  bool optional = false;
  double defaultValue = 0;
  std::vector<Split> splits;
  std::vector<uint32_t> stages;    ///< that hold it; empty: all
  std::vector<int64_t> localShape; ///< of a rank's part, padding included

  int64_t elements() const; ///< of the whole tensor
  size_t bytes() const { return size_t(elements()) * elementBytes(type); }
  size_t localBytes() const;
  /// Into how many parts a dimension is cut.
  int64_t parts(uint32_t dimension) const;
  /// Whether the ranks of a pipeline coordinate hold (a part of) it.
  bool isHeldBy(uint32_t stage) const;
};

/// Which of several copies of its memory a buffer means.
enum class Indexed : uint8_t { None, Microbatch, Slot };

/// Storage of a program: bytes of a variable (index >= 0) or of the arena, from
/// `offset` + index * `stride` on.
struct Buffer {
  int variable = -1;
  uint64_t offset = 0, bytes = 0;
  std::string name;
  uint64_t stride = 0;
  Indexed index = Indexed::None;
};

enum class Outer : uint8_t { One, Batch };
enum class Inner : uint8_t { One, Length, Tokens };

struct Grid {
  int64_t factor = 1, divisor = 1;
  Outer outer = Outer::One;
  Inner inner = Inner::One;

  int64_t workgroups(int64_t batch, int64_t length) const;
};

struct Kernel {
  std::string symbol;
  uint64_t scratchBytes = 0;
  std::string source;
  uint32_t threads = 0; ///< cuda: of a workgroup
  uint32_t words = 0;   ///< cuda: of the parameter block, given by value
};

/// The kernels for one GPU architecture.
struct GpuImage {
  std::string arch; ///< "sm_90a"
  bool ptx;         ///< text, which ends with a zero; otherwise a cubin
  std::vector<uint8_t> data;
};

struct Dispatch {
  uint32_t kernel;
  std::vector<uint32_t> args;
  std::vector<int64_t> immediates;
  Grid grid;
  double flops = 0, bytes = 0; ///< at the compiled shape
};

struct Product {
  uint32_t a, b, c;
  bool transA, transB;
  int64_t m, n, k; ///< -1: the call's number of tokens
  int64_t tileM, tileN;
  bool accumulate;
  std::string source;
  ElementType type, resultType; ///< of a and b, and of c
};

struct CopyStart {
  uint32_t from, to;
  uint64_t bytes; ///< for the whole call, a row or a token as `dynamic` says
  Dynamic dynamic;
  uint32_t event;
};

struct Wait {
  uint32_t event;
};

/// A group of ranks: those that differ along the axes only, or of these the
/// ones of some pipeline ranks.
struct Communicator {
  std::vector<Axis> axes;
  std::vector<uint32_t> stages;       ///< empty: all
  int64_t size;                       ///< ranks of a group
  std::optional<uint32_t> queue = {}; ///< of its messages; none: it has none

  bool isMember(uint32_t stage) const;
};

enum class CollectiveKind : uint8_t { AllReduce, AllGather, ReduceScatter };

/// One tensor of a message; Plan.fbs says what its rows are.
struct CollectiveItem {
  uint32_t from, to;
  int64_t rows;
  Dynamic dynamic;
  uint64_t rowBytes;

  /// Of a call of that shape, on one rank.
  uint64_t rowsOf(int64_t batch, int64_t length) const;
};

struct CollectiveStart {
  CollectiveKind kind;
  uint32_t communicator;
  ElementType type;
  std::vector<CollectiveItem> items;
  uint32_t event;
  bool last; ///< only where a step's accumulation ends

  /// Bytes of one rank's share of the message.
  uint64_t shareBytes(int64_t batch, int64_t length) const;
};

struct Command {
  std::variant<Dispatch, Product, CopyStart, Wait, CollectiveStart> operation;
  std::string location;
  uint32_t queue = 0;
};

struct Segment {
  std::string name;
  std::vector<Command> commands;
};

enum class ActionKind : uint8_t { Run, Send, Receive };

/// One step of a program: a segment to run, or a message to or from the rank
/// that differs in the pipeline coordinate only.
struct Action {
  ActionKind kind;
  uint32_t segment;       ///< Run
  uint32_t buffer;        ///< Send, Receive
  uint32_t peer, channel; ///< Send, Receive
  uint32_t microbatch, slot;
  Dynamic dynamic; ///< Send, Receive: how the message shrinks with the call
};

/// What the ranks of one pipeline coordinate do.
struct Program {
  uint32_t stage;
  std::vector<Buffer> buffers;
  uint64_t arenaBytes;
  uint32_t microbatches, slots;
  std::vector<Segment> segments;
  std::vector<Action> actions, updateActions;

  size_t commandCount() const;
};

struct Function {
  std::string name;
  std::vector<uint32_t> inputs, outputs; ///< indices of variables
  int64_t batch, length; ///< compiled maxima, of all ranks together
  /// Into how many parts the ranks cut a call's rows and tokens of a row.
  int64_t dataParts = 1, chunkParts = 1;
  bool exact;
  std::vector<Program> programs; ///< one a pipeline rank
  double modelFlops;

  uint32_t microbatches() const { return programs.front().microbatches; }
  /// The largest batch and length of one microbatch on one rank.
  int64_t localBatch() const { return batch / (dataParts * microbatches()); }
  int64_t localLength() const { return length / chunkParts; }

  /// Whether it ends with an optimizer.
  bool hasUpdate() const;
};

/// Name of the input that says which tokens begin a document, 1 or 0. Only
/// functions whose rows may hold several documents have it.
inline constexpr const char *kResets = "resets";

class LoadedPlan {
public:
  /// Reads and checks a plan file. Throws Error naming the file and what is
  /// wrong with it.
  static std::shared_ptr<const LoadedPlan> open(const std::string &path,
                                                Trust trust = Trust::Verify);
  /// The same for a file already in memory; `path` only names it.
  static std::shared_ptr<const LoadedPlan> parse(const std::string &path,
                                                 const uint8_t *data,
                                                 size_t bytes,
                                                 Trust trust = Trust::Verify);

  /// Whether rows of a function may hold several documents.
  bool isPacked(const Function &function) const;

  std::string path;
  std::string digest; ///< hexadecimal
  std::string producer, config, model, precision, target, cpu;
  std::vector<std::string> cpuFeatures;
  int64_t vocabSize, outputSize, chunkSize, numLayers;
  /// Tokens that a sequence may have; 0: any number.
  int64_t context;
  std::vector<Variable> variables;
  Mesh mesh;
  std::vector<Communicator> communicators;
  std::vector<Kernel> kernels;
  std::vector<Function> functions;
  std::vector<uint8_t> object;  ///< cpu: ELF shared object
  std::vector<GpuImage> images; ///< cuda
  uint64_t features;

  bool isCuda() const { return features & kFeatureCuda; }

  /// Index of a function, or -1.
  int findFunction(std::string_view name) const;
  /// Sum of the elements of all parameters.
  int64_t parameterCount() const;
};

/// How often what follows the call counts: 1, batch or batch * length.
int64_t timesOf(Dynamic dynamic, int64_t batch, int64_t length);

/// "all_gather tp"
std::string collectiveName(const LoadedPlan &plan,
                           const CollectiveStart &collective);

/// "dp=2,pp=1,cp=4,tp=1"
std::string meshText(const Mesh &mesh);

/// Names of the features the plan needs that this machine lacks. Empty: the
/// plan runs here.
std::vector<std::string> missingCpuFeatures(const LoadedPlan &plan);

} // namespace megalodon::plan
