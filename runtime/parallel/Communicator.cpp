#include "runtime/parallel/Communicator.h"
#include "runtime/core/Error.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace megalodon {

/// How often a sleeping wait looks whether the process was asked to stop.
static constexpr std::chrono::milliseconds kSlice{100};

/// How long after requestStop() a wait prints where it stands: before mpirun
/// kills, one second after it has asked to stop.
static constexpr std::chrono::milliseconds kNotice{500};

// In ticks of the steady clock; 0: never.
static std::atomic<int64_t> stopAsked{0}, stopDeadline{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);

void requestStop(std::chrono::milliseconds grace) noexcept {
  const auto now = std::chrono::steady_clock::now();
  int64_t never = 0;
  if (stopAsked.compare_exchange_strong(never, now.time_since_epoch().count()))
    stopDeadline = (now + grace).time_since_epoch().count();
}

void clearStop() noexcept {
  stopDeadline = 0;
  stopAsked = 0;
}

Request::~Request() = default;
Communicator::~Communicator() = default;
World::~World() = default;

static double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

void Request::wait(const WaitContext &context,
                   std::chrono::milliseconds timeout) {
  auto place = [&](const std::string &text) {
    std::string step = context.step >= 0 ? str(", step ", context.step) : "";
    return str(context.operation, step, ", on rank ", membership->worldRank(),
               ": ", text);
  };
  auto late = [&](const std::string &text) {
    std::string group;
    for (int rank : membership->ranks)
      group += str(group.empty() ? "group of ranks " : ", ", rank);
    const std::string known = missing();
    return place(str(text, " (", group, known.empty() ? "" : "; ", known, ")"));
  };
  const Clock::time_point deadline = Clock::now() + timeout;
  bool noticed = false;
  while (true) {
    try {
      if (testUntil(std::min(deadline, Clock::now() + kSlice)))
        return;
    } catch (const Error &error) {
      throw Error(place(error.what()));
    }
    const Clock::time_point now = Clock::now();
    const Clock::time_point stop{Clock::duration(stopDeadline.load())};
    const Clock::time_point asked{Clock::duration(stopAsked.load())};
    if (stop != Clock::time_point{} && now >= stop)
      throw Error(late(str("not complete ", seconds(now - asked),
                           " s after the process was asked to stop")));
    if (now >= deadline)
      throw Error(late(str("not complete after ", seconds(timeout), " s")));
    if (stop != Clock::time_point{} && now >= asked + kNotice && !noticed) {
      noticed = true;
      std::fprintf(stderr, "%s\n",
                   late("asked to stop, still waiting").c_str());
    }
  }
}

void Communicator::barrier(const WaitContext &context,
                           std::chrono::milliseconds timeout) {
  allReduce(&barrierWord, 1, ElementType::I32)->wait(context, timeout);
}

void Communicator::checkReducible(ElementType type) {
  if (type != ElementType::F32 && type != ElementType::F64 &&
      type != ElementType::BF16 && type != ElementType::I32 &&
      type != ElementType::I64)
    throw Error(str("expected F32, F64, BF16, I32 or I64 to reduce, got ",
                    elementName(type)));
}

void Communicator::checkMember(int peer) const {
  if (peer < 0 || peer >= size())
    throw Error(
        str("expected a member of the group below ", size(), ", got ", peer));
}

void Communicator::checkTag(int tag) {
  if (tag < 0)
    throw Error(str("expected a tag of at least 0, got ", tag));
}

World::World() : timeout(std::chrono::seconds(300)) {
  const char *text = std::getenv("MEGALODON_TIMEOUT");
  if (!text)
    return;
  char *end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end || !(value > 0) || value > 1e9)
    throw Error(str("MEGALODON_TIMEOUT: expected a number of seconds, got '",
                    text, "'"));
  timeout = std::chrono::milliseconds(int64_t(value * 1000));
}

Membership World::memberOf(const std::vector<int> &ranks) {
  Membership members{ranks, -1};
  std::set<int> seen;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0 || ranks[i] >= size())
      throw Error(str("expected a rank below ", size(), ", got ", ranks[i]));
    if (!seen.insert(ranks[i]).second)
      throw Error(str("expected distinct ranks in a group, got rank ", ranks[i],
                      " twice"));
    if (ranks[i] == rank())
      members.place = int(i);
  }
  if (members.place < 0)
    throw Error(str("expected rank ", rank(), " in the group it makes"));
  return members;
}

bool underLauncher() {
  for (const char *name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name))
      return true;
  return false;
}

void World::abort(int code) {
  std::fflush(nullptr);
  std::_Exit(code);
}

} // namespace megalodon
