#include "runtime/parallel/Nccl.h"
#include "runtime/core/Error.h"
#include "runtime/parallel/NcclApi.h"
#include <algorithm>
#include <dlfcn.h>
#include <exception>
#include <thread>
#include <utility>

namespace megalodon {

namespace {

void *open(const char *name, const char *advice) {
  void *handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = ::dlerror();
    throw Error(str("ranks on GPUs need ", name, ": ",
                    reason ? reason : "not found", "; install ", advice));
  }
  return handle;
}

template <typename Function>
void find(Function *&into, void *library, const char *name) {
  into = reinterpret_cast<Function *>(::dlsym(library, name));
  if (!into)
    throw Error(str("the library for ranks on GPUs has no ", name));
}

class Library {
public:
  /// Loads the libraries once a process.
  static const Library &get() {
    static const Library library;
    return library;
  }

  nccl::AllGather *allGather;
  nccl::AllReduce *allReduce;
  nccl::Broadcast *broadcast;
  nccl::CommAbort *commAbort;
  nccl::CommDestroy *commDestroy;
  nccl::CommGetAsyncError *commGetAsyncError;
  nccl::CommInitRank *commInitRank;
  nccl::GetErrorString *getErrorString;
  nccl::GetUniqueId *getUniqueId;
  nccl::GroupEnd *groupEnd;
  nccl::GroupStart *groupStart;
  nccl::Recv *recv;
  nccl::ReduceScatter *reduceScatter;
  nccl::Send *send;
  nccl::EventCreate *eventCreate;
  nccl::EventDestroy *eventDestroy;
  nccl::EventQuery *eventQuery;
  nccl::EventRecord *eventRecord;
  nccl::DriverErrorString *driverErrorString;

  void check(int result, const char *call) const {
    if (result != nccl::kSuccess)
      throw Error(str(call, ": ", getErrorString(result)));
  }

  void checkDriver(int result, const char *call) const {
    const char *text = nullptr;
    if (result != nccl::kSuccess &&
        (driverErrorString(result, &text) != nccl::kSuccess || !text))
      text = "unknown error";
    if (text)
      throw Error(str(call, ": ", text));
  }

private:
  Library() {
    void *driver = open("libcuda.so.1", "NVIDIA's driver");
    find(eventCreate, driver, "cuEventCreate");
    find(eventDestroy, driver, "cuEventDestroy_v2");
    find(eventQuery, driver, "cuEventQuery");
    find(eventRecord, driver, "cuEventRecord");
    find(driverErrorString, driver, "cuGetErrorString");
    void *nccl = open("libnccl.so.2", "NVIDIA's package libnccl2");
    find(allGather, nccl, "ncclAllGather");
    find(allReduce, nccl, "ncclAllReduce");
    find(broadcast, nccl, "ncclBroadcast");
    find(commAbort, nccl, "ncclCommAbort");
    find(commDestroy, nccl, "ncclCommDestroy");
    find(commGetAsyncError, nccl, "ncclCommGetAsyncError");
    find(commInitRank, nccl, "ncclCommInitRank");
    find(getErrorString, nccl, "ncclGetErrorString");
    find(getUniqueId, nccl, "ncclGetUniqueId");
    find(groupEnd, nccl, "ncclGroupEnd");
    find(groupStart, nccl, "ncclGroupStart");
    find(recv, nccl, "ncclRecv");
    find(reduceScatter, nccl, "ncclReduceScatter");
    find(send, nccl, "ncclSend");
  }
};

int typeOf(ElementType type) {
  switch (type) {
  case ElementType::F32:
    return nccl::kFloat32;
  case ElementType::F64:
    return nccl::kFloat64;
  case ElementType::I32:
    return nccl::kInt32;
  case ElementType::I64:
    return nccl::kInt64;
  case ElementType::BF16:
    return nccl::kBfloat16;
  case ElementType::I8:
    return nccl::kInt8;
  }
  return nccl::kInt8;
}

/// A mark on the stream.
struct Mark {
  Mark() {
    const Library &library = Library::get();
    library.checkDriver(library.eventCreate(&event, nccl::kEventDisableTiming),
                        "cuEventCreate");
  }
  ~Mark() { Library::get().eventDestroy(event); }
  Mark(const Mark &) = delete;
  Mark &operator=(const Mark &) = delete;

  nccl::Event event = nullptr;
  bool recorded = false;
};

/// The library's group, which ends with the last request or communicator.
struct Group {
  ~Group() {
    if (!comm)
      return;
    // Destroying waits for the others, which a rank that fails must not.
    if (std::uncaught_exceptions())
      Library::get().commAbort(comm);
    else
      Library::get().commDestroy(comm);
  }
  nccl::Comm comm = nullptr;
};

class NcclRequest : public Request {
public:
  NcclRequest(std::shared_ptr<const Membership> membership,
              std::shared_ptr<Group> group, std::shared_ptr<Mark> mark)
      : Request(std::move(membership)), group(std::move(group)),
        mark(std::move(mark)) {}

  bool test() override {
    const Library &library = Library::get();
    int error = nccl::kSuccess;
    library.check(library.commGetAsyncError(group->comm, &error),
                  "ncclCommGetAsyncError");
    if (error != nccl::kInProgress)
      library.check(error, "NCCL");
    if (!mark->recorded)
      return false;
    const int result = library.eventQuery(mark->event);
    if (result == nccl::kErrorNotReady)
      return false;
    library.checkDriver(result, "cuEventQuery");
    return true;
  }

protected:
  bool testUntil(Clock::time_point until) override {
    constexpr std::chrono::microseconds shortest{10}, longest{500};
    for (auto sleep = shortest; !test(); sleep = std::min(2 * sleep, longest)) {
      if (Clock::now() >= until)
        return false;
      std::this_thread::sleep_for(sleep);
    }
    return true;
  }

private:
  const std::shared_ptr<Group> group;
  const std::shared_ptr<Mark> mark;
};

class Implementation : public NcclCommunicator {
public:
  Implementation(Communicator &host, void *stream,
                 std::chrono::milliseconds timeout)
      : NcclCommunicator({host.ranks(), host.rank()}), host(host),
        stream(stream), library(Library::get()) {
    nccl::UniqueId id = {};
    if (host.rank() == 0)
      library.check(library.getUniqueId(&id), "ncclGetUniqueId");
    host.broadcast(&id, sizeof(id), 0)
        ->wait({"start of a group of GPUs"}, timeout);
    library.check(
        library.commInitRank(&group->comm, host.size(), id, host.rank()),
        "ncclCommInitRank");
  }

  std::unique_ptr<Request> allReduce(void *data, size_t count, ElementType type,
                                     Reduction reduction) override {
    checkReducible(type);
    return start(
        library.allReduce(data, data, count, typeOf(type),
                          reduction == Reduction::Sum ? nccl::kSum : nccl::kMax,
                          group->comm, stream),
        "ncclAllReduce");
  }

  std::unique_ptr<Request> allGather(const void *send, void *recv,
                                     size_t bytesPerRank) override {
    return start(library.allGather(send, recv, bytesPerRank, nccl::kInt8,
                                   group->comm, stream),
                 "ncclAllGather");
  }

  std::unique_ptr<Request> reduceScatter(const void *send, void *recv,
                                         size_t countPerRank,
                                         ElementType type) override {
    checkReducible(type);
    return start(library.reduceScatter(send, recv, countPerRank, typeOf(type),
                                       nccl::kSum, group->comm, stream),
                 "ncclReduceScatter");
  }

  std::unique_ptr<Request> broadcast(void *data, size_t bytes,
                                     int root) override {
    checkMember(root);
    return start(library.broadcast(data, data, bytes, nccl::kInt8, root,
                                   group->comm, stream),
                 "ncclBroadcast");
  }

  std::unique_ptr<Request> send(const void *data, size_t bytes, int peer,
                                int tag) override {
    checkMember(peer);
    checkTag(tag);
    return start(
        library.send(data, bytes, nccl::kInt8, peer, group->comm, stream),
        "ncclSend");
  }

  std::unique_ptr<Request> receive(void *data, size_t bytes, int peer,
                                   int tag) override {
    checkMember(peer);
    checkTag(tag);
    return start(
        library.recv(data, bytes, nccl::kInt8, peer, group->comm, stream),
        "ncclRecv");
  }

  void barrier(const WaitContext &context,
               std::chrono::milliseconds timeout) override {
    host.barrier(context, timeout);
  }

  void together(const std::function<void()> &body) override {
    library.check(library.groupStart(), "ncclGroupStart");
    open = true;
    std::exception_ptr failure;
    try {
      body();
    } catch (...) {
      failure = std::current_exception();
    }
    open = false;
    const int result = library.groupEnd();
    const auto started = std::exchange(marks, {});
    if (failure)
      std::rethrow_exception(failure);
    library.check(result, "ncclGroupEnd");
    for (const std::shared_ptr<Mark> &mark : started)
      record(*mark, stream);
  }

  std::unique_ptr<Request> mark(void *on) override {
    auto mark = std::make_shared<Mark>();
    record(*mark, on);
    return std::make_unique<NcclRequest>(membership, group, std::move(mark));
  }

private:
  /// The request of an operation that was put on the stream, or will be when
  /// together() ends.
  std::unique_ptr<Request> start(int result, const char *call) {
    library.check(result, call);
    auto mark = std::make_shared<Mark>();
    if (open)
      marks.push_back(mark);
    else
      record(*mark, stream);
    return std::make_unique<NcclRequest>(membership, group, std::move(mark));
  }

  void record(Mark &mark, void *on) {
    library.checkDriver(library.eventRecord(mark.event, on), "cuEventRecord");
    mark.recorded = true;
  }

  Communicator &host;
  void *const stream;
  const Library &library;
  const std::shared_ptr<Group> group = std::make_shared<Group>();
  bool open = false;
  std::vector<std::shared_ptr<Mark>> marks; ///< of operations not started yet
};

} // namespace

std::unique_ptr<NcclCommunicator>
ncclCommunicator(Communicator &host, void *stream,
                 std::chrono::milliseconds timeout) {
  return std::make_unique<Implementation>(host, stream, timeout);
}

} // namespace megalodon
