// NVIDIA's driver, loaded when the first plan asks for it: GPUs, their memory,
// streams and events.
#pragma once
#include "runtime/cuda/DriverApi.h"
#include "runtime/device.h"
#include <string>
#include <vector>

namespace megalodon::cuda {

class Driver : public DriverApi {
public:
  /// Loads and starts the driver once a process. Throws Error with a next step
  /// when there is none.
  static const Driver &get();

  /// 13000: CUDA 13.0
  int version() const { return cudaVersion; }
  std::string versionText() const;

  /// "CUDA_ERROR_OUT_OF_MEMORY: out of memory"
  std::string text(int result) const;
  /// Throws Error that names the call unless the result is success.
  void check(int result, const char *call) const;

private:
  Driver();
  int cudaVersion = 0;
};

struct Gpu {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0; ///< compute capability
  int multiprocessors = 0, clockKilohertz = 0, sharedBytes = 0;
  size_t memoryBytes = 0;
  Uuid uuid{};

  /// "sm_90"
  std::string arch() const;
};

/// Throws Error when there is none.
std::vector<Gpu> listGpus();

/// A GPU's memory and work, as this process sees it. Streams, events and blocks
/// keep it alive.
class Context : public std::enable_shared_from_this<Context> {
public:
  explicit Context(Gpu gpu);
  ~Context();
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;

  /// Calls of this thread are about this GPU.
  void makeCurrent() const;

  /// Throws Error with the numbers asked for, free and there. The memory is not
  /// cleared.
  Block allocate(size_t bytes, const std::string &purpose);
  /// Zeroed memory that the GPU copies from and to by itself.
  Block allocatePinned(size_t bytes, const std::string &purpose);

  const Gpu gpu;
  const Driver &driver;

private:
  ContextHandle handle = nullptr;
};

class Event {
public:
  explicit Event(std::shared_ptr<Context> context, bool timing = false);
  ~Event();
  Event(const Event &) = delete;
  Event &operator=(const Event &) = delete;

  /// Seconds since another event; both have happened.
  double since(const Event &begin) const;
  void synchronize() const;

  EventHandle handle = nullptr;

private:
  const std::shared_ptr<Context> context;
};

/// Work in order.
class Stream {
public:
  explicit Stream(std::shared_ptr<Context> context);
  ~Stream();
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;

  void record(const Event &event) const;
  void wait(const Event &event) const;
  void synchronize() const;

  StreamHandle handle = nullptr;

private:
  const std::shared_ptr<Context> context;
};

inline Address addressOf(const void *pointer) {
  return reinterpret_cast<Address>(pointer);
}

} // namespace megalodon::cuda
