// Stands in for libcuda.so.1 on machines without a GPU. "Device memory" is
// memory of the host at addresses that no processor can follow, so that a mixup
// of host and device addresses shows. Work happens as late as it may (or, with
// FAKE_CUDA_ORDER=random:SEED in the environment, at any time it may), so that
// a wait that is missing shows. Kernels are host code, see FakeCuda.h.
//
//   FAKE_CUDA_CAPABILITY=9.0   compute capability (default 8.0)
//   FAKE_CUDA_DRIVER=13000     CUDA version of the driver (default 13000)
//   FAKE_CUDA_MEMORY=BYTES     device memory (default 4 GiB)
//   FAKE_CUDA_DEVICES=N        GPUs (default 1)
#include "test/runtime/cuda/FakeCuda.h"
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

enum {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinary = 209,
  kUnsupportedPtx = 222,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kCaptureUnsupported = 900,
  kCaptureUnjoined = 904,
  kCaptureIsolation = 905,
  kCapturedEvent = 907
};

using Address = unsigned long long;
/// Set in every device address: no processor follows such an address.
constexpr Address kTag = Address(1) << 62;
constexpr int kDevices = 8;

/// One call at a time, of whatever thread; kernels too. Who waits for what only
/// another thread can bring waits for `changed`.
std::mutex mutex;
std::condition_variable changed;
using Lock = std::unique_lock<std::mutex>;

std::string setting(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value && *value ? value : otherwise;
}

struct Stream;

/// One recording of an event.
struct Graph;
struct Mark {
  Stream *stream = nullptr;
  bool done = false;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<Graph> capture;
  std::vector<size_t> nodes;
};
struct Event {
  std::shared_ptr<Mark> mark;
  bool timing;
};

struct Work {
  std::function<void()> run;
  std::function<bool()> ready = {}; ///< empty: always
};
struct Node {
  Work work;
  std::vector<size_t> after;
};
struct Graph {
  std::vector<Node> nodes;
  std::thread::id thread;
};

/// A launch of a graph under way: its nodes in an order that it allows.
struct Launch {
  explicit Launch(std::shared_ptr<const Graph> of)
      : graph(std::move(of)), waiting(graph->nodes.size()),
        next(graph->nodes.size()), left(graph->nodes.size()) {
    for (size_t i = 0; i < graph->nodes.size(); ++i) {
      waiting[i] = graph->nodes[i].after.size();
      for (size_t before : graph->nodes[i].after)
        next[before].push_back(i);
      if (waiting[i] == 0)
        open.push_back(i);
    }
  }
  bool step();

  std::shared_ptr<const Graph> graph;
  std::vector<size_t> waiting;
  std::vector<std::vector<size_t>> next;
  std::vector<size_t> open; ///< nodes whose predecessors are done
  size_t left;
};

/// What stands on a stream: work, a launch, or a wait for a mark.
struct Item {
  Work work;
  std::shared_ptr<Launch> launch;
  std::shared_ptr<Mark> awaited;
};
struct Stream {
  std::deque<Item> pending;
  std::shared_ptr<Graph> capture;
  std::vector<size_t> after; ///< nodes that the next captured node follows
  int device;
};

using KernelFunction = void (*)(void *const *, int64_t);
struct Kernel {
  KernelFunction code;
  int words, buffers;
  unsigned threads;
  int mostShared = 48 << 10;
};
struct Module {
  void *library;
  std::map<std::string, Kernel> kernels;
};

struct State {
  std::set<Stream *> streams;
  std::map<Address, size_t> device; ///< real addresses
  std::map<Address, size_t> pinned;
  FakeCudaCounts counts{};
  bool fault = false;
  std::mt19937 random;
} state;
char contexts[kDevices];
thread_local int current = -1; ///< device

bool isRandom() {
  static const bool random = [] {
    const std::string order = setting("FAKE_CUDA_ORDER", FAKE_CUDA_ORDER);
    if (order.rfind("random:", 0) == 0)
      state.random.seed(unsigned(std::stoul(order.substr(7))));
    return order.rfind("random", 0) == 0;
  }();
  return random;
}

bool contains(const std::map<Address, size_t> &ranges, Address at,
              size_t bytes) {
  auto next = ranges.upper_bound(at);
  if (next == ranges.begin())
    return false;
  --next;
  return at + bytes <= next->first + next->second;
}

char *translate(Address at, size_t bytes) {
  if (!(at & kTag) || !contains(state.device, at & ~kTag, bytes))
    return nullptr;
  return reinterpret_cast<char *>(at & ~kTag);
}

/// Host memory, rather than an address of the device's in either guise.
bool isHost(const void *at) {
  const auto address = reinterpret_cast<Address>(at);
  return at && !(address & kTag) && !contains(state.device, address, 1);
}
bool isPinned(const void *at, size_t bytes) {
  return contains(state.pinned, reinterpret_cast<Address>(at), bytes);
}

size_t pick(size_t count) { return isRandom() ? state.random() % count : 0; }

/// Runs one node. The latest that may, or in random order any.
bool Launch::step() {
  const size_t first = open.empty() ? 0 : pick(open.size());
  for (size_t i = 0; i < open.size(); ++i) {
    const size_t at = open.size() - 1 - (first + i) % open.size();
    const size_t node = open[at];
    const Work &work = graph->nodes[node].work;
    if (work.ready && !work.ready())
      continue;
    open.erase(open.begin() + std::ptrdiff_t(at));
    work.run();
    --left;
    for (size_t after : next[node])
      if (--waiting[after] == 0)
        open.push_back(after);
    return true;
  }
  return false;
}

/// Gets on with a stream by one piece of work; false: it cannot.
bool step(Stream &stream) {
  if (stream.pending.empty())
    return false;
  Item &item = stream.pending.front();
  if (item.launch) {
    if (item.launch->left > 0 && !item.launch->step())
      return false;
    if (item.launch->left == 0)
      stream.pending.pop_front();
  } else if (item.awaited) {
    if (!item.awaited->done)
      return false;
    stream.pending.pop_front();
  } else {
    if (item.work.ready && !item.work.ready())
      return false;
    const Work work = std::move(item.work);
    stream.pending.pop_front();
    work.run();
  }
  changed.notify_all();
  return true;
}

/// Does one piece of work that the stream cannot get on without, if possible.
bool advance(Stream &stream) {
  if (step(stream))
    return true;
  if (stream.pending.empty())
    return false;
  if (const std::shared_ptr<Mark> mark = stream.pending.front().awaited)
    return advance(*mark->stream);
  // It waits for other GPUs.
  for (Stream *other : state.streams)
    if (other->device != stream.device && step(*other))
      return true;
  return false;
}

/// As one that waits for the GPU; other threads may put work there meanwhile.
void advanceUntil(Lock &lock, Stream &stream,
                  const std::function<bool()> &enough) {
  while (!enough())
    if (!advance(stream))
      changed.wait(lock);
}
void drain(Lock &lock, Stream &stream) {
  advanceUntil(lock, stream, [&] { return stream.pending.empty(); });
}

/// In random order somebody may get on now.
void stir() {
  if (!isRandom() || state.streams.empty())
    return;
  auto it = state.streams.begin();
  std::advance(it, state.random() % state.streams.size());
  for (size_t left = state.random() % 4; left > 0 && step(**it); --left)
    continue;
}

bool isCapturing() {
  for (Stream *stream : state.streams)
    if (stream->capture &&
        stream->capture->thread == std::this_thread::get_id())
      return true;
  return false;
}

int enqueue(Stream *stream, Item item) {
  if (!state.streams.count(stream))
    return kInvalidHandle;
  if (stream->capture) {
    if (item.launch || item.awaited)
      return kCaptureUnsupported;
    Graph &graph = *stream->capture;
    graph.nodes.push_back({std::move(item.work), stream->after});
    stream->after = {graph.nodes.size() - 1};
    return kSuccess;
  }
  stream->pending.push_back(std::move(item));
  changed.notify_all();
  stir();
  return kSuccess;
}
int enqueue(Stream *stream, std::function<void()> work) {
  return enqueue(stream, Item{{std::move(work)}, nullptr, nullptr});
}

/// What waited for went wrong, once.
int outcome() {
  return std::exchange(state.fault, false) ? kIllegalAddress : kSuccess;
}

bool follows(const Graph &graph, const std::vector<size_t> &ends, size_t node) {
  std::vector<size_t> open = ends;
  std::set<size_t> seen;
  while (!open.empty()) {
    const size_t at = open.back();
    open.pop_back();
    if (at == node)
      return true;
    if (seen.insert(at).second)
      open.insert(open.end(), graph.nodes[at].after.begin(),
                  graph.nodes[at].after.end());
  }
  return false;
}

int major() {
  return std::atoi(setting("FAKE_CUDA_CAPABILITY", "8.0").c_str());
}
int minor() {
  const std::string text = setting("FAKE_CUDA_CAPABILITY", "8.0");
  return std::atoi(text.c_str() + text.find('.') + 1);
}
int driverVersion() {
  return std::atoi(setting("FAKE_CUDA_DRIVER", "13000").c_str());
}
int deviceCount() {
  return std::min(kDevices,
                  std::atoi(setting("FAKE_CUDA_DEVICES", "1").c_str()));
}
size_t memoryBytes() {
  return std::stoull(setting("FAKE_CUDA_MEMORY", "4294967296"));
}

/// Whether code made for an architecture runs on the device.
bool runsHere(const std::string &arch) {
  const int number = std::atoi(arch.c_str() + 3);
  const bool only = arch.back() == 'a';
  return number / 10 == major() &&
         (only ? number % 10 == minor() : number % 10 <= minor());
}

int loadObject(const std::string &bytes, Module &module, bool checkArch) {
  uint64_t length;
  if (bytes.size() < 16 ||
      std::memcmp(bytes.data() + bytes.size() - 8, kFakeImageMagic, 8) != 0)
    return kInvalidImage;
  std::memcpy(&length, bytes.data() + bytes.size() - 16, 8);
  if (length > bytes.size() - 16)
    return kInvalidImage;
  const std::string lines =
      bytes.substr(bytes.size() - 16 - length, size_t(length));
  const int descriptor = ::memfd_create("fake-cuda", MFD_CLOEXEC);
  if (::write(descriptor, bytes.data(), bytes.size()) != ssize_t(bytes.size()))
    return kInvalidImage;
  module.library =
      ::dlopen(("/proc/self/fd/" + std::to_string(descriptor)).c_str(),
               RTLD_NOW | RTLD_LOCAL);
  ::close(descriptor);
  if (!module.library)
    return kInvalidImage;
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string line = lines.substr(at, end - at);
    at = end + 1;
    char name[512], symbol[512];
    int words = 0, buffers = 0;
    unsigned threads = 0;
    if (std::sscanf(line.c_str(), "arch %500s", name) == 1) {
      if (checkArch && !runsHere(name))
        return kNoBinary;
    } else if (std::sscanf(line.c_str(), "kernel %500s %d %d %u %500s", name,
                           &words, &buffers, &threads, symbol) == 5) {
      if (void *code = ::dlsym(module.library, symbol))
        module.kernels[name] = {reinterpret_cast<KernelFunction>(code), words,
                                buffers, threads};
    } else {
      return kInvalidImage;
    }
  }
  return kSuccess;
}

/// "// object PATH" of a PTX text names the file with its object.
int loadText(const std::string &text, Module &module, char *log,
             size_t logBytes) {
  int ptxMajor = 0, ptxMinor = 0;
  char target[64] = "", path[1024] = "";
  const size_t version = text.find(".version "), at = text.find(".target "),
               object = text.find("// object ");
  if (version == std::string::npos || at == std::string::npos ||
      std::sscanf(text.c_str() + version, ".version %d.%d", &ptxMajor,
                  &ptxMinor) != 2 ||
      std::sscanf(text.c_str() + at, ".target %60s", target) != 1)
    return kInvalidImage;
  // CUDA 12.4 brought PTX 8.4.
  const int newest =
      (driverVersion() / 1000 - 4) * 10 + driverVersion() % 1000 / 10;
  if (10 * ptxMajor + ptxMinor > newest)
    return kUnsupportedPtx;
  if (std::atoi(target + 3) > 10 * major() + minor()) {
    std::snprintf(log, logBytes, "ptxas fatal: %s is too new", target);
    return kNoBinary;
  }
  if (object == std::string::npos ||
      std::sscanf(text.c_str() + object, "// object %1000s", path) != 1)
    return kInvalidImage;
  std::string bytes;
  if (FILE *file = std::fopen(path, "rb")) {
    char piece[4096];
    for (size_t got; (got = std::fread(piece, 1, sizeof(piece), file)) > 0;)
      bytes.append(piece, got);
    std::fclose(file);
  }
  return loadObject(bytes, module, /*checkArch=*/false);
}

/// The length of an ELF image with its lines: a real driver knows it from the
/// headers. Here the magic ends it. 0: a real GPU's.
size_t imageBytes(const char *image) {
  uint16_t machine;
  std::memcpy(&machine, image + 18, sizeof(machine));
  if (machine == 190) // EM_CUDA
    return 0;
  for (size_t i = 0;; ++i)
    if (image[i] == kFakeImageMagic[0] &&
        std::memcmp(image + i, kFakeImageMagic, 8) == 0)
      return i + 8;
}

} // namespace

extern "C" {

int fakeCudaEnqueue(void *stream, int (*ready)(void *), void (*work)(void *),
                    void *data, void (*drop)(void *)) {
  const Lock lock(mutex);
  std::shared_ptr<void> keep(data, drop);
  Item item{{[=] { work(keep.get()); }}, nullptr, nullptr};
  if (ready)
    item.work.ready = [=] { return ready(keep.get()) != 0; };
  return enqueue(static_cast<Stream *>(stream), std::move(item));
}
void *fakeCudaTranslate(Address address, size_t bytes) {
  const Lock lock(mutex);
  return translate(address, bytes);
}
void fakeCudaFault(void) { state.fault = true; }
void fakeCudaCounts(FakeCudaCounts *counts) {
  const Lock lock(mutex);
  *counts = state.counts;
}

int cuInit(unsigned) { return deviceCount() > 0 ? kSuccess : kNoDevice; }
int cuDriverGetVersion(int *version) {
  *version = driverVersion();
  return kSuccess;
}
int cuGetErrorName(int result, const char **text) {
  *text = result == kInvalidValue     ? "CUDA_ERROR_INVALID_VALUE"
          : result == kOutOfMemory    ? "CUDA_ERROR_OUT_OF_MEMORY"
          : result == kInvalidImage   ? "CUDA_ERROR_INVALID_IMAGE"
          : result == kNoBinary       ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
          : result == kUnsupportedPtx ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
          : result == kIllegalAddress ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : result == kCaptureUnsupported
              ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
          : result == kCaptureUnjoined  ? "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"
          : result == kCaptureIsolation ? "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"
          : result == kCapturedEvent    ? "CUDA_ERROR_CAPTURED_EVENT"
          : result == kInvalidHandle    ? "CUDA_ERROR_INVALID_HANDLE"
          : result == kInvalidContext   ? "CUDA_ERROR_INVALID_CONTEXT"
                                        : nullptr;
  return *text ? kSuccess : kInvalidValue;
}
int cuGetErrorString(int result, const char **text) {
  *text = result == kIllegalAddress ? "an illegal memory access was encountered"
                                    : "as the stand-in has it";
  return kSuccess;
}

int cuDeviceGetCount(int *count) {
  *count = deviceCount();
  return kSuccess;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal >= 0 && ordinal < deviceCount() ? kSuccess : kInvalidDevice;
}
int cuDeviceGetName(char *name, int bytes, int device) {
  std::snprintf(name, size_t(bytes), "Stand-in %d", device);
  return kSuccess;
}
int cuDeviceGetAttribute(int *value, int attribute, int) {
  *value = attribute == 75   ? major()
           : attribute == 76 ? minor()
           : attribute == 97 ? (major() >= 9 ? 227 : 163) << 10
           : attribute == 16 ? 4
                             : 1000000;
  return kSuccess;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) {
  *bytes = memoryBytes();
  return kSuccess;
}
int cuDeviceGetUuid_v2(char *uuid, int device) {
  std::memset(uuid, 0x40 + device, 16);
  return kSuccess;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = contexts + device;
  return kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
int cuCtxSetCurrent(void *context) {
  current = context ? int(static_cast<char *>(context) - contexts) : -1;
  return kSuccess;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
  const Lock lock(mutex);
  *total = memoryBytes();
  *free = *total - size_t(state.counts.allocatedBytes);
  return kSuccess;
}
int cuMemAlloc_v2(Address *address, size_t bytes) {
  const Lock lock(mutex);
  if (current < 0)
    return kInvalidContext;
  if (isCapturing())
    return kCaptureUnsupported;
  if (bytes == 0)
    return kInvalidValue;
  if (size_t(state.counts.allocatedBytes) + bytes > memoryBytes())
    return kOutOfMemory;
  void *memory = nullptr;
  if (::posix_memalign(&memory, 512, bytes) != 0)
    return kOutOfMemory;
  std::memset(memory, 0xcd, bytes);
  state.device[reinterpret_cast<Address>(memory)] = bytes;
  state.counts.allocatedBytes += int64_t(bytes);
  *address = reinterpret_cast<Address>(memory) | kTag;
  return kSuccess;
}
int cuMemFree_v2(Address address) {
  Lock lock(mutex);
  auto found = state.device.find(address & ~kTag);
  if (!(address & kTag) || found == state.device.end())
    return kInvalidValue;
  // As the real one, which waits for the device.
  const std::set<Stream *> streams = state.streams;
  for (Stream *stream : streams)
    if (stream->device == current)
      drain(lock, *stream);
  state.counts.allocatedBytes -= int64_t(found->second);
  std::free(reinterpret_cast<void *>(found->first));
  state.device.erase(found);
  return kSuccess;
}
int cuMemAllocHost_v2(void **address, size_t bytes) {
  const Lock lock(mutex);
  if (isCapturing())
    return kCaptureUnsupported;
  *address = std::malloc(bytes);
  std::memset(*address, 0xcd, bytes);
  state.pinned[reinterpret_cast<Address>(*address)] = bytes;
  return kSuccess;
}
int cuMemFreeHost(void *address) {
  const Lock lock(mutex);
  if (!state.pinned.erase(reinterpret_cast<Address>(address)))
    return kInvalidValue;
  std::free(address);
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes,
                         Stream *stream) {
  const Lock lock(mutex);
  char *target = translate(to, bytes);
  if (!target || !isHost(from))
    return kInvalidValue;
  ++state.counts.uploads;
  state.counts.uploadedBytes += int64_t(bytes);
  if (isPinned(from, bytes))
    return enqueue(stream, [=] { std::memcpy(target, from, bytes); });
  // Other memory is read before the call returns.
  const std::string now(static_cast<const char *>(from), bytes);
  return enqueue(stream, [=] { std::memcpy(target, now.data(), bytes); });
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
  const Lock lock(mutex);
  const char *source = translate(from, bytes);
  if (!source || !isHost(to))
    return kInvalidValue;
  ++state.counts.downloads;
  state.counts.downloadedBytes += int64_t(bytes);
  std::memset(to, 0xcd, bytes);
  return enqueue(stream, [=] { std::memcpy(to, source, bytes); });
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes,
                         Stream *stream) {
  const Lock lock(mutex);
  char *target = translate(to, bytes);
  const char *source = translate(from, bytes);
  if (!target || !source)
    return kInvalidValue;
  return enqueue(stream, [=] { std::memmove(target, source, bytes); });
}
struct Copy2D {
  size_t fromX, fromY;
  int fromType;
  const void *fromHost;
  Address fromDevice;
  void *fromArray;
  size_t fromPitch, toX, toY;
  int toType;
  void *toHost;
  Address toDevice;
  void *toArray;
  size_t toPitch, widthBytes, height;
};
int cuMemcpy2DAsync_v2(const Copy2D *copy, Stream *stream) {
  const Lock lock(mutex);
  const Copy2D c = *copy;
  if (c.fromX || c.fromY || c.toX || c.toY || c.widthBytes > c.fromPitch ||
      c.widthBytes > c.toPitch || !c.height)
    return kInvalidValue;
  const size_t fromBytes = (c.height - 1) * c.fromPitch + c.widthBytes,
               toBytes = (c.height - 1) * c.toPitch + c.widthBytes;
  const char *source = c.fromType == 1 ? static_cast<const char *>(c.fromHost)
                                       : translate(c.fromDevice, fromBytes);
  char *target = c.toType == 1 ? static_cast<char *>(c.toHost)
                               : translate(c.toDevice, toBytes);
  if (!source || !target || (c.fromType == 1 && !isHost(source)) ||
      (c.toType == 1 && !isHost(target)))
    return kInvalidValue;
  return enqueue(stream, [=] {
    for (size_t row = 0; row < c.height; ++row)
      std::memcpy(target + row * c.toPitch, source + row * c.fromPitch,
                  c.widthBytes);
  });
}
int cuMemsetD8Async(Address at, unsigned char value, size_t bytes,
                    Stream *stream) {
  const Lock lock(mutex);
  char *target = translate(at, bytes);
  if (!target)
    return kInvalidValue;
  return enqueue(stream, [=] { std::memset(target, value, bytes); });
}

int cuStreamCreate(Stream **stream, unsigned) {
  const Lock lock(mutex);
  if (current < 0)
    return kInvalidContext;
  *stream = new Stream{{}, nullptr, {}, current};
  state.streams.insert(*stream);
  return kSuccess;
}
int cuStreamDestroy_v2(Stream *stream) {
  Lock lock(mutex);
  if (!state.streams.count(stream))
    return kInvalidHandle;
  drain(lock, *stream);
  state.streams.erase(stream);
  delete stream;
  return kSuccess;
}
int cuStreamSynchronize(Stream *stream) {
  Lock lock(mutex);
  if (!state.streams.count(stream))
    return kInvalidHandle;
  if (stream->capture || isCapturing())
    return kCaptureUnsupported;
  drain(lock, *stream);
  return outcome();
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
  const Lock lock(mutex);
  if (!state.streams.count(stream))
    return kInvalidHandle;
  const std::shared_ptr<Mark> mark = event->mark;
  if (!mark)
    return kSuccess;
  if (mark->capture) {
    if (stream->capture && stream->capture != mark->capture)
      return kCaptureIsolation;
    stream->capture = mark->capture;
    stream->after.insert(stream->after.end(), mark->nodes.begin(),
                         mark->nodes.end());
    return kSuccess;
  }
  if (stream->capture)
    return kCaptureIsolation;
  return enqueue(stream, Item{{}, nullptr, mark});
}
int cuStreamBeginCapture_v2(Stream *stream, int) {
  const Lock lock(mutex);
  if (!state.streams.count(stream) || stream->capture)
    return kInvalidValue;
  stream->capture = std::make_shared<Graph>();
  stream->capture->thread = std::this_thread::get_id();
  stream->after.clear();
  return kSuccess;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
  const Lock lock(mutex);
  if (!state.streams.count(stream) || !stream->capture)
    return kInvalidValue;
  const std::shared_ptr<Graph> captured = stream->capture;
  const std::vector<size_t> ends = stream->after;
  bool joined = true;
  for (Stream *other : state.streams)
    if (other->capture == captured) {
      for (size_t node : other->after)
        joined &= follows(*captured, ends, node);
      other->capture = nullptr;
      other->after.clear();
    }
  ++state.counts.captures;
  *graph = joined ? new Graph(*captured) : nullptr;
  return joined ? kSuccess : kCaptureUnjoined;
}
int cuEventCreate(Event **event, unsigned flags) {
  *event = new Event{nullptr, flags == 0};
  return flags == 0 || flags == 2 ? kSuccess : kInvalidValue;
}
int cuEventDestroy_v2(Event *event) {
  delete event;
  return kSuccess;
}
int cuEventRecord(Event *event, Stream *stream) {
  const Lock lock(mutex);
  if (!state.streams.count(stream))
    return kInvalidHandle;
  auto mark = std::make_shared<Mark>();
  mark->stream = stream;
  event->mark = mark;
  if (stream->capture) {
    mark->capture = stream->capture;
    mark->nodes = stream->after;
    return kSuccess;
  }
  return enqueue(stream, [mark] {
    mark->done = true;
    mark->time = std::chrono::steady_clock::now();
  });
}
int cuEventQuery(Event *event) {
  const Lock lock(mutex);
  if (event->mark && event->mark->capture)
    return kCapturedEvent;
  if (!event->mark || event->mark->done)
    return kSuccess;
  // Who asks again will find it done, unless it waits for another thread.
  while (!event->mark->done && advance(*event->mark->stream))
    continue;
  return kNotReady;
}
int cuEventSynchronize(Event *event) {
  Lock lock(mutex);
  const std::shared_ptr<Mark> mark = event->mark;
  if (mark && mark->capture)
    return kCapturedEvent;
  if (mark && !mark->done)
    advanceUntil(lock, *mark->stream, [&] { return mark->done; });
  return outcome();
}
int cuEventElapsedTime(float *milliseconds, Event *begin, Event *end) {
  const Lock lock(mutex);
  if (!begin->timing || !end->timing || !begin->mark || !end->mark)
    return kInvalidHandle;
  if (!begin->mark->done || !end->mark->done)
    return kNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->mark->time -
                                                           begin->mark->time)
                      .count();
  return kSuccess;
}

int cuGraphInstantiateWithFlags(std::shared_ptr<const Graph> **exec,
                                Graph *graph, unsigned long long) {
  *exec = new std::shared_ptr<const Graph>(new Graph(*graph));
  return kSuccess;
}
int cuGraphLaunch(std::shared_ptr<const Graph> *exec, Stream *stream) {
  const Lock lock(mutex);
  ++state.counts.graphLaunches;
  return enqueue(stream, Item{{}, std::make_shared<Launch>(*exec), nullptr});
}
int cuGraphDestroy(Graph *graph) {
  delete graph;
  return kSuccess;
}
int cuGraphExecDestroy(std::shared_ptr<const Graph> *exec) {
  delete exec;
  return kSuccess;
}

int cuModuleLoadDataEx(Module **module, const void *image, unsigned options,
                       int *names, void **values) {
  const Lock lock(mutex);
  if (isCapturing())
    return kCaptureUnsupported;
  char *log = nullptr;
  size_t logBytes = 0;
  for (unsigned i = 0; i < options; ++i) {
    if (names[i] == 5)
      log = static_cast<char *>(values[i]);
    else if (names[i] == 6)
      logBytes = reinterpret_cast<size_t>(values[i]);
  }
  auto loaded = std::make_unique<Module>();
  const char *bytes = static_cast<const char *>(image);
  const int result = std::memcmp(bytes,
                                 "\x7f"
                                 "ELF",
                                 4) == 0
                         ? loadObject({bytes, imageBytes(bytes)}, *loaded, true)
                         : loadText(bytes, *loaded, log, logBytes);
  if (result == kSuccess)
    *module = loaded.release();
  return result;
}
int cuModuleUnload(Module *module) {
  const Lock lock(mutex);
  ::dlclose(module->library);
  delete module;
  return kSuccess;
}
int cuModuleGetFunction(Kernel **function, Module *module, const char *name) {
  const Lock lock(mutex);
  auto found = module->kernels.find(name);
  if (found == module->kernels.end())
    return kNotFound;
  *function = &found->second;
  return kSuccess;
}
int cuFuncSetAttribute(Kernel *function, int attribute, int value) {
  if (attribute != 8 || value > (major() >= 9 ? 227 : 163) << 10)
    return kInvalidValue;
  function->mostShared = value;
  return kSuccess;
}
int cuLaunchKernel(Kernel *kernel, unsigned gridX, unsigned gridY,
                   unsigned gridZ, unsigned blockX, unsigned blockY,
                   unsigned blockZ, unsigned sharedBytes, Stream *stream,
                   void **parameters, void **) {
  const Lock lock(mutex);
  if (!gridX || gridX > 0x7fffffffu || gridY != 1 || gridZ != 1 ||
      blockX != kernel->threads || blockX > 1024 || blockY != 1 ||
      blockZ != 1 || int(sharedBytes) > kernel->mostShared)
    return kInvalidValue;
  // Words that the kernel does not take are none it may read.
  std::vector<int64_t> words(64, INT64_MIN);
  for (int i = 0; i < kernel->words; ++i)
    words[size_t(i)] = *static_cast<int64_t *>(parameters[i]);
  std::vector<Address> buffers;
  for (int i = 0; i < kernel->buffers; ++i)
    buffers.push_back(*static_cast<Address *>(parameters[kernel->words + i]));
  const KernelFunction code = kernel->code;
  return enqueue(stream, [=]() mutable {
    ++state.counts.launches;
    std::vector<void *> args = {words.data()};
    for (Address buffer : buffers) {
      args.push_back(translate(buffer, 1));
      state.fault |= !args.back();
    }
    void *shared = nullptr;
    if (::posix_memalign(&shared, 128, sharedBytes + 1) != 0)
      return;
    args.push_back(shared);
    // In no particular order, each with shared memory of its own.
    for (unsigned block = gridX; !state.fault && block-- > 0;) {
      std::memset(shared, 0xcd, sharedBytes);
      code(args.data(), block);
    }
    std::free(shared);
  });
}
}
