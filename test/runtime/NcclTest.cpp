// Groups of GPUs against a stand-in of the libraries (FakeNccl.c), and the
// declarations against the real header where there is one.
#include "runtime/parallel/Nccl.h"
#include "runtime/core/Error.h"
#include "runtime/parallel/NcclApi.h"
#include "test/runtime/Messages.h"
#include <numeric>
#include <tuple>
#include <type_traits>

#if __has_include(<nccl.h>) && __has_include(<cuda.h>)
#include <cuda.h>
#include <nccl.h>
#endif

using namespace megalodon;
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

static void *const kStream = reinterpret_cast<void *>(0x1000);

TEST(Nccl, OperationsReachTheLibrary) {
  auto world = singleWorld();
  auto group = ncclCommunicator(world->all(), kStream, 60s);
  const WaitContext context{"test operation"};
  std::vector<double> from(5), to(5);
  std::iota(from.begin(), from.end(), 1);
  auto request = group->allGather(from.data(), to.data(), 40);
  EXPECT_FALSE(request->test()); // the stream has not got there yet
  request->wait(context, 60s);
  EXPECT_EQ(to, from);
  to.assign(5, 0);
  group->reduceScatter(from.data(), to.data(), 4, ElementType::F64)
      ->wait(context, 60s);
  EXPECT_EQ(to, (std::vector<double>{1, 2, 3, 4, 0}));
  group->allReduce(to.data(), 10, ElementType::BF16, Reduction::Max)
      ->wait(context, 60s);
  group->broadcast(to.data(), 40, 0)->wait(context, 60s);
  EXPECT_EQ(to, (std::vector<double>{1, 2, 3, 4, 0}));
  group->barrier(context, 60s);
}

TEST(Nccl, MessagesGoTogether) {
  auto world = singleWorld();
  auto group = ncclCommunicator(world->all(), kStream, 60s);
  int64_t from = 7, to = 0;
  std::unique_ptr<Request> send, receive;
  group->together([&] {
    send = group->send(&from, 8, 0, 0);
    receive = group->receive(&to, 8, 0, 0);
    EXPECT_FALSE(receive->test());
    EXPECT_EQ(to, 0);
  });
  send->wait({"send"}, 60s);
  receive->wait({"receive"}, 60s);
  EXPECT_EQ(to, 7);
  EXPECT_ERROR(group->together([] { throw Error("no such buffer"); }),
               "no such buffer");
  group->allReduce(&to, 1, ElementType::I64)->wait({"sum"}, 60s);
}

TEST(Nccl, RanksMeetOverTheirHosts) {
  // The stand-in refuses a rank that does not bring the first one's id.
  runVirtualRanks(3, [](World &world) {
    auto group = ncclCommunicator(world.all(), kStream, 60s);
    EXPECT_EQ(group->rank(), world.rank());
    EXPECT_EQ(group->size(), 3);
  });
}

TEST(Nccl, ErrorsAreText) {
  auto world = singleWorld();
  auto group = ncclCommunicator(world->all(), kStream, 60s);
  std::vector<float> data(99);
  EXPECT_ERROR(group->allReduce(data.data(), 1, ElementType::I8),
               "expected F32, F64, BF16, I32 or I64 to reduce, got I8");
  EXPECT_ERROR(group->send(data.data(), 4, 0, 0), "ncclSend: invalid argument");
  EXPECT_ERROR(group->allReduce(data.data(), 99, ElementType::F32)
                   ->wait({"all_reduce of gradients", 3}, 60s),
               "all_reduce of gradients, step 3, on rank 0: NCCL: remote "
               "process exited");
  auto wrongStream = ncclCommunicator(world->all(), nullptr, 60s);
  EXPECT_ERROR(wrongStream->broadcast(data.data(), 4, 0),
               "ncclBroadcast: invalid argument");
}
