// What a plan runs on: the memory of its variables, and the execution of its
// segments. The cpu device stands behind it, and the cuda device.
#pragma once
#include "runtime/parallel/Mesh.h"
#include "runtime/plan/Trace.h"
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace megalodon {

class Communicator;
class World;
struct SessionOptions;

/// A piece of memory that goes back to where it came from.
class Block {
public:
  Block() = default;
  Block(std::shared_ptr<std::byte> base, size_t bytes)
      : base(std::move(base)), size(bytes) {}

  std::byte *data() const { return base.get(); }
  size_t bytes() const { return size; }

private:
  std::shared_ptr<std::byte> base;
  size_t size = 0;
};

/// One run of a segment.
struct SegmentCall {
  int64_t batch, length; ///< of this rank and microbatch
  bool accumulate;       ///< gradients are added to what is there
  bool last;             ///< nothing more will be added
  Coordinates place;
  int64_t step; ///< of training, for messages about waits; negative: none
  uint32_t microbatch = 0, slot = 0;
};

/// What a kernel reads of a call and its dispatch (plan::ParameterWord).
std::vector<int64_t> parameterBlock(const plan::Dispatch &dispatch,
                                    const SegmentCall &call);

/// What a machine can do at most, measured on the spot.
struct DeviceLimits {
  double bytesPerSecond;    ///< streaming through the device's memory
  double flopsPerSecond;    ///< of its arithmetic in the plan's precision
  double productsPerSecond; ///< operations a second of the library's large
                            ///< products; 0: the plan has none
};

/// One rank's device. Addresses are those of the device's own memory: where
/// isHost() is false only the device may follow them, and a run, a fill and an
/// upload have been put in order when they return but not happened yet.
class Device {
public:
  /// A moment in the device's order of work.
  using Ticket = std::shared_ptr<void>;

  virtual ~Device();
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  /// Whether the host reads and writes the device's memory as its own.
  virtual bool isHost() const = 0;

  /// Zeroed memory of the device. Throws Error that says what it was for.
  virtual Block allocate(size_t bytes, const std::string &purpose) = 0;
  /// Memory of the host which the device copies to and from by itself.
  virtual Block allocateHost(size_t bytes, const std::string &purpose) = 0;

  virtual void fill(std::byte *at, uint8_t value, size_t bytes) = 0;
  /// `from` must stay as it is until the ticket's moment.
  virtual Ticket upload(std::byte *to, const std::byte *from, size_t bytes) = 0;
  /// The same beside the work in order: it waits for the moment `after` only.
  virtual Ticket uploadBeside(std::byte *to, const std::byte *from,
                              size_t bytes, const Ticket &after) = 0;
  /// A copy within the device, in order, but not before the moment `after`.
  virtual Ticket copyAfter(std::byte *to, const std::byte *from, size_t bytes,
                           const Ticket &after) = 0;
  /// Returns when the bytes are there.
  virtual void download(std::byte *to, const std::byte *from, size_t bytes) = 0;
  /// Returns when the moment has come; null has come.
  virtual void await(const Ticket &ticket) = 0;

  /// What the plan's communicators are here, in the plan's order; null where
  /// this rank is no member. They must outlive the device's runs.
  virtual void connect(std::vector<Communicator *> communicators,
                       std::chrono::milliseconds timeout) = 0;

  /// `buffers` holds the address of each of the program's buffers. To
  /// `seconds`, if not null, each command's time is added.
  virtual void run(const plan::Segment &segment,
                   const std::vector<std::byte *> &buffers,
                   const SegmentCall &call, std::vector<double> *seconds) = 0;

  /// Returns when everything has happened. Throws Error when something went
  /// wrong on the way.
  virtual void finish() = 0;

  /// From now on every command is added to `to`; null: no longer.
  virtual void record(plan::Trace *to) = 0;

  /// Memory that messages took on their way, between runs.
  virtual size_t stagingBytes() const = 0;

  /// Workers on the host, the caller included.
  virtual int threads() const = 0;

  /// Takes about a second.
  virtual DeviceLimits measure() = 0;

  /// "cpu", "NVIDIA H100 80GB HBM3 (GPU 0)"
  virtual std::string name() const = 0;

protected:
  Device() = default;
};

/// The device that the plan was compiled for, on this rank. Throws Error with a
/// next step when the plan cannot run here.
std::unique_ptr<Device> openDevice(std::shared_ptr<const plan::LoadedPlan> plan,
                                   const SessionOptions &options, World &world);

} // namespace megalodon
