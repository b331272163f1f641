// Groups of ranks that each have a GPU, over NCCL, behind the interface of
// Communicator. Tested against a stand-in of the library only: no GPU has run
// this yet.
#pragma once
#include "runtime/parallel/Communicator.h"

namespace megalodon {

/// Pointers are device memory of the calling thread's current CUDA context, and
/// operations stand in the order of one stream. What differs from the
/// interface:
/// * work put on the stream later sees an operation's result without a wait;
///   such a request may be dropped, and must be where the stream is being
///   captured to a graph: mark() says when the graph is through;
/// * tags are not looked at: the messages of two ranks match in order;
/// * a message holds the stream up until its peer has come, so messages in both
///   directions must go together().
class NcclCommunicator : public Communicator {
public:
  /// Starts the operations that body() calls as one.
  virtual void together(const std::function<void()> &body) = 0;

  /// What was put on a stream so far, operations of the group in a graph among
  /// it: complete when the stream gets here, and fails as the group does.
  virtual std::unique_ptr<Request> mark(void *stream) = 0;

protected:
  using Communicator::Communicator;
};

/// A group of the members of `host`, made by all of them; `host` must outlive
/// it. `stream` is a CUstream. Throws Error with a next step when NCCL or the
/// driver is missing.
std::unique_ptr<NcclCommunicator>
ncclCommunicator(Communicator &host, void *stream,
                 std::chrono::milliseconds timeout);

} // namespace megalodon
