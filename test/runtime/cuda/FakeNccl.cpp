// Stands in for libnccl.so.2 beside FakeCuda.cpp: groups of ranks that are
// threads of one process and have a GPU of the stand-in each. An operation
// holds its stream up until all ranks have come, and reads what they send at
// that moment, the last that is legal. Refuses what the real one would refuse.
#include "test/runtime/cuda/FakeCuda.h"
#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

namespace {

enum { kSuccess = 0, kSystem = 2, kInvalid = 4, kUsage = 5, kRemote = 6 };
enum { kSum = 0, kMax = 2 };
enum class Kind { AllReduce, AllGather, ReduceScatter, Broadcast };

struct Id {
  char bytes[128];
};

/// What all ranks of an operation must call alike.
struct Shape {
  Kind kind;
  size_t bytes; ///< of one rank's block
  int type, operation, root;
  bool operator==(const Shape &other) const {
    auto fields = [](const Shape &s) {
      return std::tie(s.kind, s.bytes, s.type, s.operation, s.root);
    };
    return fields(*this) == fields(other);
  }
};

/// One collective operation of a group.
struct Meeting {
  Shape shape;
  std::vector<const char *> send;      ///< by rank
  std::vector<std::vector<char>> data; ///< what each receives
  int here = 0, left = 0;
};
struct Message {
  const char *from;
  size_t bytes;
  bool taken = false;
};
struct Group {
  int ranks;
  std::map<int64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> messages;
};
struct Comm {
  std::shared_ptr<Group> group;
  int rank;
  int64_t sent = 0, received = 0; ///< operations that the stream came to
  std::atomic<int> asyncError{kSuccess};
  std::atomic<bool> aborted{false}; ///< waits for nobody any more
};

std::mutex mutex;
std::map<int64_t, std::shared_ptr<Group>> groups; ///< by id
int64_t ids = 0;

/// The calls between ncclGroupStart and ncclGroupEnd.
struct Call {
  std::shared_ptr<Comm> comm;
  const char *from; ///< null: receives
  char *to;
  size_t bytes;
  int peer;
  std::shared_ptr<Message> message;
};
thread_local int depth = 0;
thread_local std::vector<Call> calls;
thread_local void *callStream = nullptr;

/// A group's handle: what NCCL's pointer points to.
struct Handle {
  std::shared_ptr<Comm> comm;
};

decltype(&fakeCudaEnqueue) enqueue;
decltype(&fakeCudaTranslate) translate;
decltype(&fakeCudaFault) fault;

size_t widthOf(int type) {
  static const size_t widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return type >= 0 && type < 10 ? widths[type] : 0;
}

float widen(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T> T combine(T a, T b, int operation) {
  return operation == kSum ? T(a + b) : std::max(a, b);
}
template <typename T>
void addTo(char *into, const char *from, size_t bytes, int operation) {
  for (size_t i = 0; i + sizeof(T) <= bytes; i += sizeof(T)) {
    T a, b;
    std::memcpy(&a, into + i, sizeof(T));
    std::memcpy(&b, from + i, sizeof(T));
    a = combine(a, b, operation);
    std::memcpy(into + i, &a, sizeof(T));
  }
}
void addTo(char *into, const char *from, size_t bytes, const Shape &shape) {
  switch (shape.type) {
  case 2:
    return addTo<int32_t>(into, from, bytes, shape.operation);
  case 4:
    return addTo<int64_t>(into, from, bytes, shape.operation);
  case 7:
    return addTo<float>(into, from, bytes, shape.operation);
  case 8:
    return addTo<double>(into, from, bytes, shape.operation);
  default: // bfloat16
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
      uint16_t a, b;
      std::memcpy(&a, into + i, 2);
      std::memcpy(&b, from + i, 2);
      a = narrow(combine(widen(a), widen(b), shape.operation));
      std::memcpy(into + i, &a, 2);
    }
  }
}

/// All ranks are here: what each of them will receive.
void meet(Meeting &meeting) {
  const Shape &shape = meeting.shape;
  const size_t ranks = meeting.send.size(), bytes = shape.bytes;
  auto sumOf = [&](size_t offset) {
    std::vector<char> sum(meeting.send[0] + offset,
                          meeting.send[0] + offset + bytes);
    for (size_t rank = 1; rank < ranks; ++rank)
      addTo(sum.data(), meeting.send[rank] + offset, bytes, shape);
    return sum;
  };
  std::vector<char> same;
  if (shape.kind == Kind::AllReduce)
    same = sumOf(0);
  else if (shape.kind == Kind::Broadcast)
    same.assign(meeting.send[size_t(shape.root)],
                meeting.send[size_t(shape.root)] + bytes);
  else if (shape.kind == Kind::AllGather)
    for (const char *block : meeting.send)
      same.insert(same.end(), block, block + bytes);
  for (size_t rank = 0; rank < ranks; ++rank)
    meeting.data.push_back(
        shape.kind == Kind::ReduceScatter ? sumOf(rank * bytes) : same);
}

struct Operation {
  std::shared_ptr<Comm> comm;
  Shape shape;
  const char *send;
  char *receive;
};

void arrive(void *data) {
  const auto &[comm, shape, send, receive] = *static_cast<Operation *>(data);
  Group &group = *comm->group;
  Meeting &meeting = group.meetings[comm->sent++];
  if (meeting.here == 0) {
    meeting.shape = shape;
    meeting.send.resize(size_t(group.ranks));
  }
  // The real one hangs, or worse.
  if (!(meeting.shape == shape))
    fault();
  meeting.send[size_t(comm->rank)] = send;
  if (++meeting.here == group.ranks)
    meet(meeting);
}
int isMet(void *data) {
  const Comm &comm = *static_cast<Operation *>(data)->comm;
  return comm.aborted ||
         comm.group->meetings.at(comm.received).here == comm.group->ranks;
}
void leave(void *data) {
  const auto &[comm, shape, send, receive] = *static_cast<Operation *>(data);
  Group &group = *comm->group;
  if (comm->aborted)
    return;
  const int64_t number = comm->received++;
  Meeting &meeting = group.meetings.at(number);
  const std::vector<char> &result = meeting.data[size_t(comm->rank)];
  std::copy(result.begin(), result.end(), receive);
  if (++meeting.left == group.ranks)
    group.meetings.erase(number);
}

template <typename T> void drop(void *data) { delete static_cast<T *>(data); }

char *locate(const void *at, size_t bytes) {
  static char nothing;
  return bytes == 0 ? &nothing
                    : static_cast<char *>(translate(
                          reinterpret_cast<unsigned long long>(at), bytes));
}

int start(Handle *handle, void *stream, Kind kind, const void *send,
          size_t sendBlocks, void *receive, size_t receiveBlocks, size_t count,
          int type, int operation, int root) {
  const size_t bytes = count * widthOf(type);
  if (!handle || !widthOf(type) || depth > 0)
    return kInvalid;
  const bool adds = kind == Kind::AllReduce || kind == Kind::ReduceScatter;
  if (adds && ((operation != kSum && operation != kMax) ||
               (type != 2 && type != 4 && type < 7)))
    return kInvalid;
  if (root < 0 || root >= handle->comm->group->ranks)
    return kInvalid;
  Operation work{handle->comm,
                 {kind, bytes, type, operation, root},
                 locate(send, sendBlocks * bytes),
                 locate(receive, receiveBlocks * bytes)};
  if (!work.send || !work.receive)
    return kInvalid;
  int result =
      enqueue(stream, nullptr, arrive, new Operation(work), drop<Operation>);
  if (result == kSuccess)
    result =
        enqueue(stream, isMet, leave, new Operation(work), drop<Operation>);
  return result == kSuccess ? kSuccess : kInvalid;
}

using Calls = std::vector<Call>;
void post(void *data) {
  for (Call &call : *static_cast<Calls *>(data))
    if (call.from)
      call.comm->group->messages[{call.comm->rank, call.peer}].push_back(
          call.message);
}
int havePosted(void *data) {
  std::map<std::pair<int, int>, size_t> wanted;
  for (Call &call : *static_cast<Calls *>(data)) {
    if (call.from)
      continue;
    const std::pair<int, int> way{call.peer, call.comm->rank};
    if (call.comm->group->messages[way].size() < ++wanted[way])
      return 0;
  }
  return 1;
}
void take(void *data) {
  for (Call &call : *static_cast<Calls *>(data)) {
    if (call.from)
      continue;
    auto &queue = call.comm->group->messages[{call.peer, call.comm->rank}];
    Message &message = *queue.front();
    if (message.bytes != call.bytes)
      fault();
    std::memcpy(call.to, message.from, std::min(message.bytes, call.bytes));
    message.taken = true;
    queue.pop_front();
  }
}
int areTaken(void *data) {
  const Calls &all = *static_cast<Calls *>(data);
  return std::all_of(all.begin(), all.end(), [](const Call &call) {
    return !call.from || call.message->taken;
  });
}
void nothing(void *) {}

int addCall(Handle *handle, void *stream, const void *from, void *to,
            size_t count, int type, int peer) {
  const size_t bytes = count * widthOf(type);
  if (!handle || !widthOf(type) || peer < 0 ||
      peer >= handle->comm->group->ranks)
    return kInvalid;
  // Alone a message to oneself would wait for ever.
  if (depth == 0 && peer == handle->comm->rank)
    return kInvalid;
  Call call{handle->comm,
            from ? locate(from, bytes) : nullptr,
            to ? locate(to, bytes) : nullptr,
            bytes,
            peer,
            nullptr};
  if (!(from ? static_cast<const char *>(call.from) : call.to))
    return kInvalid;
  if (from)
    call.message = std::make_shared<Message>(Message{call.from, bytes});
  calls.push_back(call);
  callStream = stream;
  return kSuccess;
}

int flush() {
  const Calls all = std::exchange(calls, {});
  if (all.empty())
    return kSuccess;
  int result = enqueue(callStream, nullptr, post, new Calls(all), drop<Calls>);
  if (result == kSuccess)
    result = enqueue(callStream, havePosted, take, new Calls(all), drop<Calls>);
  if (result == kSuccess)
    result =
        enqueue(callStream, areTaken, nothing, new Calls(all), drop<Calls>);
  return result == kSuccess ? kSuccess : kInvalid;
}

} // namespace

extern "C" {

const char *ncclGetErrorString(int result) {
  return result == kRemote    ? "remote process exited"
         : result == kInvalid ? "invalid argument"
                              : "unhandled error";
}
int ncclGetVersion(int *version) {
  *version = 22000;
  return kSuccess;
}
int ncclGetUniqueId(Id *id) {
  const std::lock_guard lock(mutex);
  std::memset(id->bytes, 0, sizeof(id->bytes));
  const int64_t number = ++ids;
  std::memcpy(id->bytes, &number, sizeof(number));
  return kSuccess;
}
int ncclCommInitRank(Handle **handle, int ranks, Id id, int rank) {
  const std::lock_guard lock(mutex);
  void *driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver)
    return kSystem;
  auto find = [&](auto &into, const char *name) {
    into =
        reinterpret_cast<std::decay_t<decltype(into)>>(::dlsym(driver, name));
  };
  find(enqueue, "fakeCudaEnqueue");
  find(translate, "fakeCudaTranslate");
  find(fault, "fakeCudaFault");
  int64_t number;
  std::memcpy(&number, id.bytes, sizeof(number));
  if (number < 1 || number > ids || rank < 0 || rank >= ranks)
    return kInvalid;
  std::shared_ptr<Group> &group = groups[number];
  if (!group) {
    group = std::make_shared<Group>();
    group->ranks = ranks;
  }
  if (group->ranks != ranks)
    return kInvalid;
  auto comm = std::make_shared<Comm>();
  comm->group = group;
  comm->rank = rank;
  *handle = new Handle{comm};
  return kSuccess;
}
int ncclCommDestroy(Handle *handle) {
  delete handle;
  return kSuccess;
}
int ncclCommAbort(Handle *handle) {
  handle->comm->aborted = true;
  delete handle;
  return kSuccess;
}
int ncclCommGetAsyncError(Handle *handle, int *error) {
  *error = handle->comm->asyncError.exchange(kSuccess);
  return kSuccess;
}
int ncclGroupStart() {
  ++depth;
  return kSuccess;
}
int ncclGroupEnd() {
  return depth <= 0 ? kUsage : --depth ? kSuccess : flush();
}

int ncclAllReduce(const void *send, void *receive, size_t count, int type,
                  int operation, Handle *handle, void *stream) {
  if (count == 99) // a peer is lost while the operation runs
    handle->comm->asyncError = kRemote;
  return start(handle, stream, Kind::AllReduce, send, 1, receive, 1, count,
               type, operation, 0);
}
int ncclAllGather(const void *send, void *receive, size_t count, int type,
                  Handle *handle, void *stream) {
  return start(handle, stream, Kind::AllGather, send, 1, receive,
               size_t(handle->comm->group->ranks), count, type, 0, 0);
}
int ncclReduceScatter(const void *send, void *receive, size_t count, int type,
                      int operation, Handle *handle, void *stream) {
  return start(handle, stream, Kind::ReduceScatter, send,
               size_t(handle->comm->group->ranks), receive, 1, count, type,
               operation, 0);
}
int ncclBroadcast(const void *send, void *receive, size_t count, int type,
                  int root, Handle *handle, void *stream) {
  return start(handle, stream, Kind::Broadcast, send, 1, receive, 1, count,
               type, 0, root);
}
int ncclSend(const void *data, size_t count, int type, int peer, Handle *handle,
             void *stream) {
  const int result = addCall(handle, stream, data, nullptr, count, type, peer);
  return result || depth ? result : flush();
}
int ncclRecv(void *data, size_t count, int type, int peer, Handle *handle,
             void *stream) {
  const int result = addCall(handle, stream, nullptr, data, count, type, peer);
  return result || depth ? result : flush();
}
}
