// Groups of GPUs against the stand-ins of the libraries: the suite that every
// communicator passes, and what only these promise. And the declarations
// against the real header where there is one.
#include "runtime/parallel/Nccl.h"
#include "runtime/core/Error.h"
#include "runtime/cuda/Driver.h"
#include "runtime/parallel/NcclApi.h"
#include "test/runtime/Conformance.h"
#include "test/runtime/Messages.h"
#include <cstdlib>
#include <cstring>
#include <thread>
#include <tuple>
#include <type_traits>

#if __has_include(<nccl.h>) && __has_include(<cuda.h>)
#include <cuda.h>
#include <nccl.h>
#endif

using namespace megalodon;
using namespace megalodon::test;
using namespace std::chrono_literals;

#ifdef NCCL_H_

/// How a type is passed: two types of one kind look the same to a call.
template <typename T>
using Passed = std::conditional_t<
    std::is_pointer_v<T>, void *,
    std::conditional_t<
        std::is_enum_v<T>, int,
        std::conditional_t<std::is_class_v<T>, char[sizeof(T)], T>>>;
template <typename Function> struct Signature;
template <typename Result, typename... Arguments>
struct Signature<Result(Arguments...)> {
  using Kind = std::tuple<Passed<Result>, std::decay_t<Passed<Arguments>> *...>;
};
template <typename Ours, typename Real>
constexpr bool alike = std::is_same_v<typename Signature<Ours>::Kind,
                                      typename Signature<Real>::Kind>;

static_assert(sizeof(nccl::UniqueId) == sizeof(ncclUniqueId));
static_assert(alike<nccl::AllGather, decltype(ncclAllGather)>);
static_assert(alike<nccl::AllReduce, decltype(ncclAllReduce)>);
static_assert(alike<nccl::Broadcast, decltype(ncclBroadcast)>);
static_assert(alike<nccl::CommAbort, decltype(ncclCommAbort)>);
static_assert(alike<nccl::CommDestroy, decltype(ncclCommDestroy)>);
static_assert(alike<nccl::CommGetAsyncError, decltype(ncclCommGetAsyncError)>);
static_assert(alike<nccl::CommInitRank, decltype(ncclCommInitRank)>);
static_assert(alike<nccl::GetErrorString, decltype(ncclGetErrorString)>);
static_assert(alike<nccl::GetUniqueId, decltype(ncclGetUniqueId)>);
static_assert(alike<nccl::GroupEnd, decltype(ncclGroupEnd)>);
static_assert(alike<nccl::GroupStart, decltype(ncclGroupStart)>);
static_assert(alike<nccl::Recv, decltype(ncclRecv)>);
static_assert(alike<nccl::ReduceScatter, decltype(ncclReduceScatter)>);
static_assert(alike<nccl::Send, decltype(ncclSend)>);
static_assert(alike<nccl::EventCreate, decltype(cuEventCreate)>);
static_assert(alike<nccl::EventDestroy, decltype(cuEventDestroy)>);
static_assert(alike<nccl::EventQuery, decltype(cuEventQuery)>);
static_assert(alike<nccl::EventRecord, decltype(cuEventRecord)>);
static_assert(alike<nccl::DriverErrorString, decltype(cuGetErrorString)>);
static_assert(int(nccl::kSuccess) == int(ncclSuccess) &&
              int(nccl::kInProgress) == int(ncclInProgress));
static_assert(int(nccl::kInt8) == int(ncclInt8) &&
              int(nccl::kInt32) == int(ncclInt32) &&
              int(nccl::kInt64) == int(ncclInt64) &&
              int(nccl::kFloat32) == int(ncclFloat32) &&
              int(nccl::kFloat64) == int(ncclFloat64) &&
              int(nccl::kBfloat16) == int(ncclBfloat16));
static_assert(int(nccl::kSum) == int(ncclSum) &&
              int(nccl::kMax) == int(ncclMax));
static_assert(nccl::kEventDisableTiming == CU_EVENT_DISABLE_TIMING &&
              nccl::kErrorNotReady == CUDA_ERROR_NOT_READY);

#endif

namespace {

/// GPUs of the stand-in, one a rank.
constexpr int kGpus = 4;
const bool areThere = ::setenv("FAKE_CUDA_DEVICES", str(kGpus).c_str(), 1) == 0;

/// A rank's GPU with memory that tests fill and look at.
struct Gpu {
  explicit Gpu(int rank)
      : context(
            std::make_shared<cuda::Context>(cuda::listGpus().at(size_t(rank)))),
        stream(context) {}

  Block upload(const void *from, size_t bytes) const {
    Block block = context->allocate(bytes, "a test");
    if (bytes)
      context->driver.check(
          context->driver.cuMemcpyHtoDAsync_v2(cuda::addressOf(block.data()),
                                               from, bytes, stream.handle),
          "cuMemcpyHtoDAsync");
    return block;
  }
  void download(void *to, const Block &block, size_t bytes) const {
    if (bytes)
      context->driver.check(
          context->driver.cuMemcpyDtoHAsync_v2(
              to, cuda::addressOf(block.data()), bytes, stream.handle),
          "cuMemcpyDtoHAsync");
  }
  template <typename T> std::vector<T> read(const Block &block) const {
    std::vector<T> data(block.bytes() / sizeof(T));
    download(data.data(), block, block.bytes());
    stream.synchronize();
    return data;
  }
  template <typename T> Block write(const std::vector<T> &data) const {
    return upload(data.data(), data.size() * sizeof(T));
  }

  const std::shared_ptr<cuda::Context> context;
  const cuda::Stream stream;
};

/// An operation on a GPU whose result goes to the host.
class Fetched : public Request {
public:
  Fetched(std::shared_ptr<const Membership> membership, const Gpu &gpu,
          std::unique_ptr<Request> operation, std::vector<Block> memory,
          void *to, size_t bytes)
      : Request(std::move(membership)), operation(std::move(operation)),
        memory(std::move(memory)), to(to), bytes(bytes),
        host(gpu.context->allocatePinned(bytes, "a test")),
        fetched(gpu.context) {
    gpu.download(host.data(), this->memory.back(), bytes);
    gpu.stream.record(fetched);
  }

  bool test() override {
    if (!operation)
      return true;
    if (!operation->test())
      return false;
    operation = nullptr;
    fetched.synchronize();
    if (bytes)
      std::memcpy(to, host.data(), bytes);
    return true;
  }

protected:
  bool testUntil(Clock::time_point until) override {
    while (!test()) {
      if (Clock::now() >= until)
        return false;
      std::this_thread::sleep_for(20us);
    }
    return true;
  }

private:
  std::unique_ptr<Request> operation;
  const std::vector<Block> memory; ///< the result is the last
  void *const to;
  const size_t bytes;
  const Block host;
  const cuda::Event fetched;
};

/// A group as the cuda device uses it: collectives over NCCL on its memory,
/// messages between two ranks over the host.
class GpuGroup : public Communicator {
public:
  GpuGroup(const Gpu &gpu, Communicator &host,
           std::unique_ptr<Communicator> own = nullptr)
      : Communicator({host.ranks(), host.rank()}), gpu(gpu),
        own(std::move(own)), host(host),
        group(ncclCommunicator(host, gpu.stream.handle, 60s)) {}

  std::unique_ptr<Request> allReduce(void *data, size_t count, ElementType type,
                                     Reduction reduction) override {
    const size_t bytes = count * elementBytes(type);
    const Block block = gpu.upload(data, bytes);
    return fetch(group->allReduce(block.data(), count, type, reduction),
                 {block}, data, bytes);
  }
  std::unique_ptr<Request> allGather(const void *send, void *receive,
                                     size_t bytes) override {
    const size_t all = bytes * size_t(size());
    const auto *from = static_cast<const std::byte *>(send),
               *to = static_cast<const std::byte *>(receive);
    const Block result = gpu.upload(receive, all);
    if (from >= to && from < to + all)
      return fetch(
          group->allGather(result.data() + (from - to), result.data(), bytes),
          {result}, receive, all);
    const Block block = gpu.upload(send, bytes);
    return fetch(group->allGather(block.data(), result.data(), bytes),
                 {block, result}, receive, all);
  }
  std::unique_ptr<Request> reduceScatter(const void *send, void *receive,
                                         size_t count,
                                         ElementType type) override {
    const size_t bytes = count * elementBytes(type);
    const Block block = gpu.upload(send, bytes * size_t(size())),
                result = gpu.upload(receive, bytes);
    return fetch(group->reduceScatter(block.data(), result.data(), count, type),
                 {block, result}, receive, bytes);
  }
  std::unique_ptr<Request> broadcast(void *data, size_t bytes,
                                     int root) override {
    const Block block = gpu.upload(data, bytes);
    return fetch(group->broadcast(block.data(), bytes, root), {block}, data,
                 bytes);
  }
  std::unique_ptr<Request> send(const void *data, size_t bytes, int peer,
                                int tag) override {
    return host.send(data, bytes, peer, tag);
  }
  std::unique_ptr<Request> receive(void *data, size_t bytes, int peer,
                                   int tag) override {
    return host.receive(data, bytes, peer, tag);
  }
  void barrier(const WaitContext &context,
               std::chrono::milliseconds timeout) override {
    group->barrier(context, timeout);
  }

private:
  std::unique_ptr<Request> fetch(std::unique_ptr<Request> operation,
                                 std::vector<Block> memory, void *to,
                                 size_t bytes) {
    return std::make_unique<Fetched>(membership, gpu, std::move(operation),
                                     std::move(memory), to, bytes);
  }

  const Gpu &gpu;
  const std::unique_ptr<Communicator> own;
  Communicator &host;
  const std::unique_ptr<NcclCommunicator> group;
};

class GpuWorld : public World {
public:
  explicit GpuWorld(World &host)
      : host(host), gpu(host.rank()), everybody(gpu, host.all()) {}

  Communicator &all() override { return everybody; }
  std::unique_ptr<Communicator> group(const std::vector<int> &ranks) override {
    auto own = host.group(ranks);
    Communicator &members = *own;
    return std::make_unique<GpuGroup>(gpu, members, std::move(own));
  }

private:
  World &host;
  const Gpu gpu;
  GpuGroup everybody;
};

Backend gpus(int n) {
  return {"Gpus" + std::to_string(n), [n](const auto &body) {
            runVirtualRanks(n, [&](World &host) {
              GpuWorld world(host);
              body(world);
            });
          }};
}

INSTANTIATE_TEST_SUITE_P(Nccl, Conformance,
                         ::testing::Values(gpus(1), gpus(2), gpus(3),
                                           gpus(kGpus)),
                         nameOf);

} // namespace

TEST(Nccl, OperationsFollowTheStream) {
  const Gpu gpu(0);
  auto world = singleWorld();
  auto group = ncclCommunicator(world->all(), gpu.stream.handle, 60s);
  const WaitContext context{"test operation"};
  const std::vector<double> from = {1, 2, 3, 4, 5};
  const Block send = gpu.write(from), receive = gpu.write<double>({0, 0, 0, 0});
  auto request =
      group->reduceScatter(send.data(), receive.data(), 4, ElementType::F64);
  request->wait(context, 60s);
  EXPECT_EQ(gpu.read<double>(receive), (std::vector<double>{1, 2, 3, 4}));
  // Memory of the host is none of the GPU's.
  std::vector<double> host(5);
  EXPECT_ERROR(group->broadcast(host.data(), 40, 0),
               "ncclBroadcast: invalid argument");
  EXPECT_ERROR(group->broadcast(receive.data(), 40, 0), // longer than it is
               "ncclBroadcast: invalid argument");
}

TEST(Nccl, MessagesGoTogether) {
  runVirtualRanks(3, [](World &world) {
    const Gpu gpu(world.rank());
    auto group = ncclCommunicator(world.all(), gpu.stream.handle, 60s);
    const int next = (world.rank() + 1) % 3, last = (world.rank() + 2) % 3;
    const Block own = gpu.write<int64_t>({world.rank() + 7});
    const Block fromLast = gpu.write<int64_t>({0}),
                fromNext = gpu.write<int64_t>({0});
    std::vector<std::unique_ptr<Request>> requests;
    group->together([&] {
      requests.push_back(group->send(own.data(), 8, next, 0));
      requests.push_back(group->receive(fromLast.data(), 8, last, 0));
      requests.push_back(group->send(own.data(), 8, last, 0));
      requests.push_back(group->receive(fromNext.data(), 8, next, 0));
      EXPECT_FALSE(requests.back()->test());
    });
    for (auto &request : requests)
      request->wait({"message"}, 60s);
    EXPECT_EQ(gpu.read<int64_t>(fromLast)[0], last + 7);
    EXPECT_EQ(gpu.read<int64_t>(fromNext)[0], next + 7);
    EXPECT_ERROR(group->together([] { throw Error("no such buffer"); }),
                 "no such buffer");
    group->allReduce(own.data(), 1, ElementType::I64)->wait({"sum"}, 60s);
    EXPECT_EQ(gpu.read<int64_t>(own)[0], 7 + 8 + 9);
  });
}

TEST(Nccl, ErrorsAreText) {
  const Gpu gpu(0);
  auto world = singleWorld();
  auto group = ncclCommunicator(world->all(), gpu.stream.handle, 60s);
  const Block data = gpu.write(std::vector<float>(99));
  EXPECT_ERROR(group->allReduce(data.data(), 1, ElementType::I8),
               "expected F32, F64, BF16, I32 or I64 to reduce, got I8");
  EXPECT_ERROR(group->send(data.data(), 4, 0, 0), "ncclSend: invalid argument");
  // The stand-in loses a peer of sums of 99 numbers.
  EXPECT_ERROR(group->allReduce(data.data(), 99, ElementType::F32)
                   ->wait({"all_reduce of gradients", 3}, 60s),
               "all_reduce of gradients, step 3, on rank 0: NCCL: remote "
               "process exited");
  auto wrongStream = ncclCommunicator(world->all(), nullptr, 60s);
  EXPECT_ERROR(wrongStream->broadcast(data.data(), 4, 0),
               "ncclBroadcast: invalid argument");
}
