// How ranks talk: groups of ranks, operations that start and are waited for
// later, and the world a rank lives in. The same interface stands before
// threads of one process (virtual ranks) and processes (MPI).
#pragma once
#include "runtime/core/ElementType.h"
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace megalodon {

/// What an error says about a wait that did not end well.
struct WaitContext {
  std::string operation; ///< "all_reduce of gradients"
  int64_t step = -1;     ///< of the training run; negative: none
};

/// The ranks of a group and the one rank that looks at it.
struct Membership {
  std::vector<int> ranks; ///< ranks of the world, in the group's order
  int place = 0;          ///< index of the own rank
  int worldRank() const { return ranks[size_t(place)]; }
};

/// An operation under way. Its memory stays the operation's until test() was
/// true or wait() returned. Dropping one that is not complete leaves the group
/// unusable: only a rank that fails does so.
class Request {
public:
  explicit Request(std::shared_ptr<const Membership> membership)
      : membership(std::move(membership)) {}
  virtual ~Request();
  Request(const Request &) = delete;
  Request &operator=(const Request &) = delete;

  /// Moves the operation on; true when it is complete. Throws Error when it
  /// cannot be completed.
  virtual bool test() = 0;

  /// Sleeps until the operation is complete. Throws Error, with `context` and
  /// the rank, when it fails, when `timeout` has passed, or some time after
  /// requestStop(). The request stays valid: one may wait again.
  void wait(const WaitContext &context, std::chrono::milliseconds timeout);

protected:
  using Clock = std::chrono::steady_clock;

  /// test(), sleeping until `until` at the latest.
  virtual bool testUntil(Clock::time_point until) = 0;

  /// What is known about a wait in vain: "rank 2 has not come".
  virtual std::string missing() { return {}; }

  const std::shared_ptr<const Membership> membership;
};

enum class Reduction : uint8_t { Sum, Max };

/// A fixed group of ranks. All members call the same collective operations in
/// the same order; send() and receive() match by peer and tag, in order.
/// Peers, roots and blocks count in the group's order.
class Communicator {
public:
  virtual ~Communicator();
  Communicator(const Communicator &) = delete;
  Communicator &operator=(const Communicator &) = delete;

  int rank() const { return membership->place; }
  int size() const { return int(membership->ranks.size()); }
  /// The members as ranks of the world.
  const std::vector<int> &ranks() const { return membership->ranks; }

  /// data = the reduction of all members' data. F32, F64, BF16, I32 or I64.
  /// Terms of BF16 are added in F32. The sum is rounded after each addition, or
  /// once: that is the transport's.
  virtual std::unique_ptr<Request>
  allReduce(void *data, size_t count, ElementType type,
            Reduction reduction = Reduction::Sum) = 0;

  /// recv = the members' blocks in their order. `send` may be the own block of
  /// `recv`, then on all members; otherwise they must not overlap.
  virtual std::unique_ptr<Request> allGather(const void *send, void *recv,
                                             size_t bytesPerRank) = 0;

  /// recv = the own block of the sum of all members' `send`, which holds a
  /// block for each member. They must not overlap.
  virtual std::unique_ptr<Request> reduceScatter(const void *send, void *recv,
                                                 size_t countPerRank,
                                                 ElementType type) = 0;

  virtual std::unique_ptr<Request> broadcast(void *data, size_t bytes,
                                             int root) = 0;

  /// A message is received by one receive() of the same tag and size. Tags are
  /// not negative.
  virtual std::unique_ptr<Request> send(const void *data, size_t bytes,
                                        int peer, int tag) = 0;
  virtual std::unique_ptr<Request> receive(void *data, size_t bytes, int peer,
                                           int tag) = 0;

  /// Returns when all members have come.
  virtual void barrier(const WaitContext &context,
                       std::chrono::milliseconds timeout);

protected:
  explicit Communicator(Membership members)
      : membership(std::make_shared<const Membership>(std::move(members))) {}

  /// Throw Error unless the argument is one these operations know.
  static void checkReducible(ElementType type);
  void checkMember(int peer) const;
  static void checkTag(int tag);

  const std::shared_ptr<const Membership> membership;

private:
  int32_t barrierWord = 0;
};

/// All ranks of a job, as one of them sees it. Groups must be gone before it.
class World {
public:
  virtual ~World();
  World(const World &) = delete;
  World &operator=(const World &) = delete;

  /// Every rank of the world.
  virtual Communicator &all() = 0;
  int rank() { return all().rank(); }
  int size() { return all().size(); }

  /// Makes a group of ranks of the world. Called by all its members, in an
  /// order of groups that is the same on all ranks; `ranks` holds the own rank
  /// and is the same list everywhere.
  virtual std::unique_ptr<Communicator>
  group(const std::vector<int> &ranks) = 0;

  /// Ends the whole job at once, all ranks, without unwinding.
  [[noreturn]] virtual void abort(int code);

  /// How long a wait may take: 300 s, or MEGALODON_TIMEOUT seconds.
  std::chrono::milliseconds timeout;

protected:
  World();

  /// `ranks` as seen by this rank. Throws Error when they are not distinct
  /// ranks of the world, the own among them.
  Membership memberOf(const std::vector<int> &ranks);
};

/// One rank, no messages.
std::unique_ptr<World> singleWorld();

/// Runs body() on n ranks, one thread each, that exchange through memory.
/// Reductions go in order of rank in the element type. When a rank throws, the
/// others' waits end; the first error is thrown again with its rank in front.
void runVirtualRanks(int n, const std::function<void(World &)> &body);

/// This process as one rank of an Open MPI job. Loads libmpi and starts it;
/// one thread may use it. Messages of more than `piece` elements travel in
/// pieces, since MPI counts in int. Throws Error with a next step when the
/// library or this build's part of it is missing.
std::unique_ptr<World> openMpiWorld(size_t piece = size_t(1) << 30);

/// True when a launcher (mpirun, srun) started this process as a rank of a job.
bool underLauncher();

/// How long a wait may still take after the process was asked to stop.
inline constexpr std::chrono::seconds kStopGrace{5};

/// Tells waits that this process was asked to stop; the first call counts. A
/// wait that is under way soon after prints where it stands, since a launcher
/// that lost a rank leaves the others a second (mpirun) or some; one that is
/// not complete after `grace` fails. A signal handler may call it.
void requestStop(std::chrono::milliseconds grace = kStopGrace) noexcept;
/// As if requestStop() had not been called.
void clearStop() noexcept;

} // namespace megalodon
