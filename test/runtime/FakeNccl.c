// Stands in for libnccl.so.2 and libcuda.so.1 on machines without a GPU: groups
// of one rank do in host memory what the real ones do on the device, larger
// groups only meet. Refuses what the real ones would refuse.
#include <stddef.h>
#include <string.h>

struct Id {
  char bytes[128];
};
struct Comm {
  int asyncError;
};
struct Event {
  int queries; // until it is reached
};
struct Work {
  void *to;
  const void *from;
  size_t bytes;
};

enum { kUnhandled = 1, kInvalid = 4, kRemote = 6, kNotReady = 600 };

/// The one stream there is.
static void *const stream = (void *)0x1000;

static struct Comm comm;
static struct Event events[64];
static int usedEvents, grouped, queued;
static struct Work queue[16];
static struct Work sent;

static size_t sizeOf(int type) {
  static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return type >= 0 && type < 10 ? sizes[type] : 0;
}

static void flush(void) {
  for (int i = 0; i < queued; ++i)
    memmove(queue[i].to, queue[i].from, queue[i].bytes);
  queued = 0;
}

static int start(void *to, const void *from, size_t count, int type,
                 struct Comm *group, void *on) {
  if (group != &comm || on != stream || !sizeOf(type))
    return kInvalid;
  queue[queued++] = (struct Work){to, from, count * sizeOf(type)};
  if (!grouped)
    flush();
  return 0;
}

const char *ncclGetErrorString(int result) {
  return result == kRemote    ? "remote process exited"
         : result == kInvalid ? "invalid argument"
                              : "unhandled error";
}
int ncclGetUniqueId(struct Id *id) {
  memset(id->bytes, 0x5a, sizeof(id->bytes));
  return 0;
}
int ncclCommInitRank(struct Comm **group, int ranks, struct Id id, int rank) {
  for (size_t i = 0; i < sizeof(id.bytes); ++i)
    if (id.bytes[i] != 0x5a)
      return kInvalid;
  if (rank < 0 || rank >= ranks)
    return kInvalid;
  *group = &comm;
  return 0;
}
int ncclCommDestroy(struct Comm *group) {
  return group == &comm ? 0 : kInvalid;
}
int ncclCommAbort(struct Comm *group) { return group == &comm ? 0 : kInvalid; }
int ncclCommGetAsyncError(struct Comm *group, int *error) {
  *error = group->asyncError;
  group->asyncError = 0;
  return 0;
}
int ncclGroupStart(void) {
  ++grouped;
  return 0;
}
int ncclGroupEnd(void) {
  if (--grouped == 0)
    flush();
  return 0;
}

int ncclAllReduce(const void *send, void *recv, size_t count, int type,
                  int operation, struct Comm *group, void *on) {
  if (operation != 0 && operation != 2)
    return kInvalid;
  if (count == 99) // a peer is lost while the operation runs
    group->asyncError = kRemote;
  return start(recv, send, count, type, group, on);
}
int ncclAllGather(const void *send, void *recv, size_t count, int type,
                  struct Comm *group, void *on) {
  return start(recv, send, count, type, group, on);
}
int ncclReduceScatter(const void *send, void *recv, size_t count, int type,
                      int operation, struct Comm *group, void *on) {
  return operation ? kInvalid : start(recv, send, count, type, group, on);
}
int ncclBroadcast(const void *send, void *recv, size_t count, int type,
                  int root, struct Comm *group, void *on) {
  return root ? kInvalid : start(recv, send, count, type, group, on);
}
int ncclSend(const void *data, size_t count, int type, int peer,
             struct Comm *group, void *on) {
  if (!grouped || peer) // alone it would wait for ever
    return kInvalid;
  sent = (struct Work){NULL, data, count * sizeOf(type)};
  return 0;
}
int ncclRecv(void *data, size_t count, int type, int peer, struct Comm *group,
             void *on) {
  if (!sent.from || peer || sent.bytes != count * sizeOf(type))
    return kInvalid;
  return start(data, sent.from, count, type, group, on);
}

int cuEventCreate(struct Event **event, unsigned flags) {
  *event = &events[usedEvents++ % 64];
  (*event)->queries = -1;
  return flags == 2 ? 0 : kUnhandled;
}
int cuEventDestroy_v2(struct Event *event) { return 0; }
int cuEventRecord(struct Event *event, void *on) {
  event->queries = 3;
  return on == stream ? 0 : kUnhandled;
}
int cuEventQuery(struct Event *event) {
  if (event->queries < 0)
    return kUnhandled;
  return event->queries && --event->queries ? kNotReady : 0;
}
int cuGetErrorString(int result, const char **text) {
  *text = "invalid value";
  return 0;
}
