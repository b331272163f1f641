// Ranks that are threads of this process. Whoever comes last to an operation
// does it for all, while the others sleep.
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "runtime/parallel/Communicator.h"
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>

namespace megalodon {

namespace {

/// What a member brings to an operation. Members of one operation must agree.
struct Call {
  enum Kind { AllReduce, AllGather, ReduceScatter, Broadcast, Message } kind;
  size_t count; ///< elements, or bytes where there is no type
  ElementType type = ElementType::I8;
  Reduction reduction = Reduction::Sum;
  int root = 0;

  bool operator==(const Call &other) const {
    return kind == other.kind && count == other.count && type == other.type &&
           reduction == other.reduction && root == other.root;
  }
};

std::string describe(const Call &call) {
  static constexpr const char *names[] = {
      "all_reduce", "all_gather", "reduce_scatter", "broadcast", "message"};
  std::string text = names[call.kind];
  if (call.kind == Call::AllReduce)
    text += call.reduction == Reduction::Sum ? " (sum)" : " (max)";
  text += str(" of ", call.count);
  if (call.kind == Call::AllReduce || call.kind == Call::ReduceScatter)
    return text + " " + elementName(call.type);
  text += " bytes";
  return call.kind == Call::Broadcast ? str(text, " from ", call.root) : text;
}

struct Place {
  const void *send = nullptr;
  void *recv = nullptr;
  bool here = false;
};

/// One operation under way, for all its members. A message has two, the sender
/// first.
struct Exchange {
  Call call;
  std::vector<int> ranks; ///< of the world
  std::vector<Place> places;
  enum { Gathering, Working, Done } state = Gathering;
};

/// The type in which elements are reduced: sums of BF16 are rounded once.
template <typename T> T wide(T value) { return value; }
float wide(BFloat16 value) { return widen(value); }
template <typename T> using Wide = decltype(wide(T()));

template <typename T>
void reduce(Wide<T> *into, const T *from, size_t count, Reduction reduction) {
  if (reduction == Reduction::Sum)
    for (size_t i = 0; i < count; ++i)
      into[i] += wide(from[i]);
  else
    for (size_t i = 0; i < count; ++i)
      into[i] = std::max(into[i], wide(from[i]));
}

void copy(void *to, const void *from, size_t bytes) {
  if (bytes && to != from)
    std::memcpy(to, from, bytes);
}

/// Elements [first, first + count) of every member's send, reduced in order of
/// rank, block by block, and handed to store(block, offset, elements).
template <typename T, typename Store>
void reduceBlocks(const Exchange &exchange, size_t first, size_t count,
                  const Store &store) {
  Wide<T> block[1024];
  for (size_t done = 0; done < count; done += std::size(block)) {
    const size_t now = std::min(std::size(block), count - done);
    for (size_t member = 0; member < exchange.places.size(); ++member) {
      const T *from =
          static_cast<const T *>(exchange.places[member].send) + first + done;
      if (member == 0)
        std::transform(from, from + now, block, [](T x) { return wide(x); });
      else
        reduce(block, from, now, exchange.call.reduction);
    }
    store(block, done, now);
  }
}

template <typename T> void reduceAs(const Exchange &exchange) {
  const std::vector<Place> &places = exchange.places;
  const size_t count = exchange.call.count;
  auto storeAt = [](const Place &place, const Wide<T> *block, size_t at,
                    size_t now) {
    T *to = static_cast<T *>(place.recv) + at;
    if constexpr (std::is_same_v<T, BFloat16>)
      narrow(block, now, to);
    else
      std::copy_n(block, now, to);
  };
  if (exchange.call.kind == Call::AllReduce)
    return reduceBlocks<T>(exchange, 0, count,
                           [&](const Wide<T> *block, size_t at, size_t now) {
                             for (const Place &place : places)
                               storeAt(place, block, at, now);
                           });
  for (size_t member = 0; member < places.size(); ++member)
    reduceBlocks<T>(exchange, member * count, count,
                    [&](const Wide<T> *block, size_t at, size_t now) {
                      storeAt(places[member], block, at, now);
                    });
}

void perform(const Exchange &exchange) {
  const std::vector<Place> &places = exchange.places;
  const Call &call = exchange.call;
  switch (call.kind) {
  case Call::AllReduce:
  case Call::ReduceScatter:
    switch (call.type) {
    case ElementType::F32:
      return reduceAs<float>(exchange);
    case ElementType::F64:
      return reduceAs<double>(exchange);
    case ElementType::BF16:
      return reduceAs<BFloat16>(exchange);
    case ElementType::I32:
      return reduceAs<int32_t>(exchange);
    default:
      return reduceAs<int64_t>(exchange);
    }
  case Call::AllGather:
    for (const Place &to : places)
      for (size_t from = 0; from < places.size(); ++from)
        copy(static_cast<std::byte *>(to.recv) + from * call.count,
             places[from].send, call.count);
    return;
  case Call::Broadcast:
    for (const Place &to : places)
      copy(to.recv, places[size_t(call.root)].send, call.count);
    return;
  case Call::Message:
    return copy(places[1].recv, places[0].send, call.count);
  }
}

struct Group {
  std::map<uint64_t, std::shared_ptr<Exchange>> collectives; ///< by number
  /// By sender, receiver and tag; one side's calls that wait for the other's.
  std::map<std::tuple<int, int, int>, std::deque<std::shared_ptr<Exchange>>>
      messages;
};

/// What the ranks of one world share. Everything is guarded by `mutex`, but
/// for the memory of an exchange that is Working: that is its worker's.
struct Hub {
  explicit Hub(int ranks) : wake(size_t(ranks)), ended(size_t(ranks)) {}

  std::mutex mutex;
  std::vector<std::condition_variable> wake; ///< one a rank
  std::vector<char> ended;                   ///< ranks whose body has returned
  int failedRank = -1;
  std::string failure;

  /// A group that not all members have asked for yet.
  struct Forming {
    std::shared_ptr<Group> group;
    size_t members = 0;
  };
  std::map<std::pair<std::vector<int>, uint64_t>, Forming> groups;

  void fail(int rank, const std::string &message) {
    std::lock_guard lock(mutex);
    if (failedRank >= 0)
      return;
    failedRank = rank;
    failure = message;
    wakeAll();
  }

  void end(int rank) {
    std::lock_guard lock(mutex);
    ended[size_t(rank)] = true;
    wakeAll();
  }

  void wakeAll() {
    for (std::condition_variable &one : wake)
      one.notify_all();
  }

  void throwIfFailed() const {
    if (failedRank >= 0)
      throw Error(str("ended because rank ", failedRank, " failed: ", failure));
  }

  /// With the lock held: puts a member's memory in its place. The last one to
  /// come does the work.
  void arrive(std::unique_lock<std::mutex> &lock, Exchange &exchange,
              size_t place, const void *send, void *recv) {
    exchange.places[place] = {send, recv, true};
    for (const Place &other : exchange.places)
      if (!other.here)
        return;
    exchange.state = Exchange::Working;
    lock.unlock();
    perform(exchange);
    lock.lock();
    exchange.state = Exchange::Done;
    for (int rank : exchange.ranks)
      wake[size_t(rank)].notify_all();
  }
};

class VirtualRequest : public Request {
public:
  VirtualRequest(std::shared_ptr<const Membership> membership,
                 std::shared_ptr<Hub> hub, std::shared_ptr<Exchange> exchange,
                 size_t place)
      : Request(std::move(membership)), hub(std::move(hub)),
        exchange(std::move(exchange)), place(place) {}

  /// Takes the memory out of an operation that is not complete, so that nobody
  /// touches it any more.
  ~VirtualRequest() override {
    std::unique_lock lock(hub->mutex);
    wake().wait(lock, [&] { return exchange->state != Exchange::Working; });
    if (exchange->state == Exchange::Gathering)
      exchange->places[place] = {};
  }

  bool test() override {
    std::unique_lock lock(hub->mutex);
    return settled();
  }

protected:
  bool testUntil(Clock::time_point until) override {
    std::unique_lock lock(hub->mutex);
    while (!settled())
      if (wake().wait_until(lock, until) == std::cv_status::timeout)
        return settled();
    return true;
  }

  std::string missing() override {
    std::unique_lock lock(hub->mutex);
    std::string text;
    for (size_t i = 0; i < exchange->places.size(); ++i)
      if (!exchange->places[i].here)
        text +=
            str(text.empty() ? "not there: rank " : ", ", exchange->ranks[i]);
    return text;
  }

private:
  std::condition_variable &wake() {
    return hub->wake[size_t(membership->worldRank())];
  }

  /// With the lock held: true when complete; throws when it never will be.
  bool settled() const {
    if (exchange->state == Exchange::Done)
      return true;
    if (exchange->state == Exchange::Working)
      return false;
    hub->throwIfFailed();
    for (size_t i = 0; i < exchange->places.size(); ++i)
      if (!exchange->places[i].here && hub->ended[size_t(exchange->ranks[i])])
        throw Error(
            str("rank ", exchange->ranks[i], " has ended without taking part"));
    return false;
  }

  const std::shared_ptr<Hub> hub;
  const std::shared_ptr<Exchange> exchange;
  const size_t place;
};

class VirtualCommunicator : public Communicator {
public:
  VirtualCommunicator(Membership members, std::shared_ptr<Hub> hub,
                      std::shared_ptr<Group> group)
      : Communicator(std::move(members)), hub(std::move(hub)),
        group(std::move(group)) {}

  std::unique_ptr<Request> allReduce(void *data, size_t count, ElementType type,
                                     Reduction reduction) override {
    checkReducible(type);
    return collective({Call::AllReduce, count, type, reduction}, data, data);
  }

  std::unique_ptr<Request> allGather(const void *send, void *recv,
                                     size_t bytesPerRank) override {
    return collective({Call::AllGather, bytesPerRank}, send, recv);
  }

  std::unique_ptr<Request> reduceScatter(const void *send, void *recv,
                                         size_t countPerRank,
                                         ElementType type) override {
    checkReducible(type);
    return collective({Call::ReduceScatter, countPerRank, type}, send, recv);
  }

  std::unique_ptr<Request> broadcast(void *data, size_t bytes,
                                     int root) override {
    checkMember(root);
    return collective(
        {Call::Broadcast, bytes, ElementType::I8, Reduction::Sum, root}, data,
        data);
  }

  std::unique_ptr<Request> send(const void *data, size_t bytes, int peer,
                                int tag) override {
    return message(bytes, rank(), peer, tag, 0, data, nullptr);
  }

  std::unique_ptr<Request> receive(void *data, size_t bytes, int peer,
                                   int tag) override {
    return message(bytes, peer, rank(), tag, 1, nullptr, data);
  }

private:
  std::unique_ptr<Request> collective(const Call &call, const void *send,
                                      void *recv) {
    std::unique_lock lock(hub->mutex);
    hub->throwIfFailed();
    const uint64_t number = calls++;
    std::shared_ptr<Exchange> exchange = group->collectives[number];
    if (!exchange) {
      exchange = std::make_shared<Exchange>(
          Exchange{call, ranks(), std::vector<Place>(ranks().size())});
      group->collectives[number] = exchange;
    } else if (!(exchange->call == call)) {
      throw Error(str("expected the operation the others of the group call, ",
                      describe(exchange->call), ", got ", describe(call)));
    }
    // Nobody else comes to a full exchange.
    const auto missing =
        std::count_if(exchange->places.begin(), exchange->places.end(),
                      [](const Place &place) { return !place.here; });
    if (missing == 1)
      group->collectives.erase(number);
    hub->arrive(lock, *exchange, size_t(rank()), send, recv);
    return std::make_unique<VirtualRequest>(membership, hub, exchange,
                                            size_t(rank()));
  }

  std::unique_ptr<Request> message(size_t bytes, int from, int to, int tag,
                                   size_t place, const void *send, void *recv) {
    checkMember(from);
    checkMember(to);
    checkTag(tag);
    std::unique_lock lock(hub->mutex);
    hub->throwIfFailed();
    auto &queue = group->messages[{from, to, tag}];
    std::shared_ptr<Exchange> exchange;
    if (!queue.empty() && !queue.front()->places[place].here) {
      exchange = queue.front();
      if (exchange->call.count != bytes)
        throw Error(str("expected the message from rank ",
                        ranks()[size_t(from)], " to rank ", ranks()[size_t(to)],
                        " with tag ", tag, " to have ",
                        place ? bytes : exchange->call.count, " bytes, got ",
                        place ? exchange->call.count : bytes));
      queue.pop_front();
      if (queue.empty())
        group->messages.erase({from, to, tag});
    } else {
      exchange = std::make_shared<Exchange>(
          Exchange{{Call::Message, bytes},
                   {ranks()[size_t(from)], ranks()[size_t(to)]},
                   std::vector<Place>(2)});
      queue.push_back(exchange);
    }
    hub->arrive(lock, *exchange, place, send, recv);
    return std::make_unique<VirtualRequest>(membership, hub, exchange, place);
  }

  const std::shared_ptr<Hub> hub;
  const std::shared_ptr<Group> group;
  uint64_t calls = 0;
};

class VirtualWorld : public World {
public:
  VirtualWorld(std::shared_ptr<Hub> hub, int rank) : hub(std::move(hub)) {
    std::vector<int> ranks(this->hub->wake.size());
    for (size_t i = 0; i < ranks.size(); ++i)
      ranks[i] = int(i);
    everybody = join({std::move(ranks), rank});
  }

  Communicator &all() override { return *everybody; }

  std::unique_ptr<Communicator> group(const std::vector<int> &ranks) override {
    return join(memberOf(ranks));
  }

private:
  std::unique_ptr<Communicator> join(Membership members) {
    std::lock_guard lock(hub->mutex);
    const uint64_t number = asked[members.ranks]++;
    auto entry = hub->groups.try_emplace({members.ranks, number}).first;
    Hub::Forming &forming = entry->second;
    if (!forming.group)
      forming.group = std::make_shared<Group>();
    std::shared_ptr<Group> own = forming.group;
    if (++forming.members == members.ranks.size())
      hub->groups.erase(entry);
    return std::make_unique<VirtualCommunicator>(std::move(members), hub,
                                                 std::move(own));
  }

  const std::shared_ptr<Hub> hub;
  std::map<std::vector<int>, uint64_t> asked; ///< how often for each group
  std::unique_ptr<Communicator> everybody;
};

} // namespace

std::unique_ptr<World> singleWorld() {
  return std::make_unique<VirtualWorld>(std::make_shared<Hub>(1), 0);
}

void runVirtualRanks(int n, const std::function<void(World &)> &body) {
  if (n < 1 || n > 1024)
    throw Error(str("expected between 1 and 1024 ranks, got ", n));
  auto hub = std::make_shared<Hub>(n);
  auto run = [&](int rank) {
    try {
      VirtualWorld world(hub, rank);
      body(world);
    } catch (const std::exception &error) {
      hub->fail(rank, error.what());
    } catch (...) {
      hub->fail(rank, "an error without a message");
    }
    hub->end(rank);
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank)
    threads.emplace_back(run, rank);
  for (std::thread &thread : threads)
    thread.join();
  if (hub->failedRank >= 0)
    throw Error(str("rank ", hub->failedRank, ": ", hub->failure));
}

} // namespace megalodon
