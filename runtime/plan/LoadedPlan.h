// A plan file, checked: digest, FlatBuffers verification, and every index,
// range and extent, so that running it cannot leave its buffers. Mirrors
// runtime/plan/Plan.fbs in plain structs.
#pragma once
#include "runtime/core/ElementType.h"
#include <array>
#include <cstdint>
#include <memory>
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
  State
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

struct Variable {
  std::string name;
  ElementType type;
  Role role;
  std::vector<int64_t> shape; ///< compiled maxima
  Dynamic dynamic;
  Initializer init; ///< parameters only
  int parameter =
      -1; ///< moments and parameter gradients: index of the parameter
  bool optional = false;
  double defaultValue = 0;

  int64_t elements() const;
  size_t bytes() const { return size_t(elements()) * elementBytes(type); }
};

/// Storage of a function: bytes of a variable (index >= 0) or of the arena,
/// from `offset` on.
struct Buffer {
  int variable = -1;
  uint64_t offset = 0, bytes = 0;
  std::string name;
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

struct Command {
  std::variant<Dispatch, Product, CopyStart, Wait> operation;
  std::string location;
};

struct Function {
  std::string name;
  std::vector<uint32_t> inputs, outputs; ///< indices of variables
  int64_t batch, length;                 ///< compiled maxima
  bool exact;
  std::vector<Buffer> buffers;
  uint64_t arenaBytes;
  std::vector<Command> commands;
  size_t updateBegin;
  double modelFlops;
};

class LoadedPlan {
public:
  /// Reads and checks a plan file. Throws Error naming the file and what is
  /// wrong with it.
  static std::shared_ptr<const LoadedPlan> open(const std::string &path);
  /// The same for a file already in memory; `path` only names it.
  static std::shared_ptr<const LoadedPlan>
  parse(const std::string &path, const uint8_t *data, size_t bytes);

  std::string path;
  std::string digest; ///< hexadecimal
  std::string producer, config, model, precision, target, cpu;
  std::vector<std::string> cpuFeatures;
  int64_t vocabSize, outputSize, chunkSize, numLayers;
  std::vector<Variable> variables;
  std::vector<Kernel> kernels;
  std::vector<Function> functions;
  std::vector<uint8_t> object; ///< ELF shared object
  uint64_t features;

  /// Index of a function, or -1.
  int findFunction(std::string_view name) const;
  /// Sum of the elements of all parameters.
  int64_t parameterCount() const;
};

/// Names of the features the plan needs that this machine lacks. Empty: the
/// plan runs here.
std::vector<std::string> missingCpuFeatures(const LoadedPlan &plan);

} // namespace megalodon::plan
