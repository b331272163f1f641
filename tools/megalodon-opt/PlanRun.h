// Runs a plan inside the compiler, through the runtime library. The runtime
// knows no MLIR and reports errors as exceptions, which end here.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace megalodon {

/// Elements of a tensor; one of both lists is empty.
struct HostNumbers {
  std::vector<double> reals;
  std::vector<int64_t> integers;
};

/// A tensor of a file.
struct FileTensor {
  std::vector<int64_t> shape;
  HostNumbers numbers;
};

class PlanRun {
public:
  /// What a rank finds in its part of an input, or makes of its part of an
  /// output. Ranks call one at a time.
  using Read = std::function<HostNumbers(int rank, const std::string &name)>;
  using Write = std::function<void(int rank, const std::string &name,
                                   const HostNumbers &numbers)>;

  /// A plan in memory. Null with an error message if it cannot run here.
  static std::unique_ptr<PlanRun> open(const std::vector<uint8_t> &plan,
                                       std::string &error);
  ~PlanRun();

  /// Runs a function once at its largest shape, on all ranks of the plan's
  /// mesh. Returns an error message, empty if all went well.
  std::string run(const std::string &function, const Read &read,
                  const Write &write);

private:
  struct Impl;
  explicit PlanRun(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl;
};

/// All tensors of a safetensors file.
std::map<std::string, FileTensor> readTensors(const std::string &path,
                                              std::string &error);

} // namespace megalodon
