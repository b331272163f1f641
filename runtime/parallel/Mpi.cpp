// Ranks that are processes of an Open MPI job. The library is loaded when it is
// asked for, so that one rank runs without it; its header is needed to build.
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "runtime/parallel/Communicator.h"

#ifndef MEGALODON_MPI

namespace megalodon {

std::unique_ptr<World> openMpiWorld(size_t) {
  throw Error("this build cannot talk over MPI; install Debian's packages "
              "libopenmpi-dev and openmpi-bin, configure and build again");
}

} // namespace megalodon

#else

#define OMPI_SKIP_MPICXX 1
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <exception>
#include <mpi.h>
#include <numeric>
#include <thread>

namespace megalodon {

namespace {

float addBf16(float x, float y) { return x + y; }
float maximumBf16(float x, float y) { return std::max(x, y); }

/// into = combine(into, from), as MPI calls it.
template <float (*combine)(float, float)>
void reduceBf16(void *from, void *into, int *count, MPI_Datatype *) {
  const auto *terms = static_cast<const BFloat16 *>(from);
  auto *results = static_cast<BFloat16 *>(into);
  for (int i = 0; i < *count; ++i)
    results[i] = narrow(combine(widen(results[i]), widen(terms[i])));
}

class Library {
public:
  /// Loads the library once a process.
  static const Library &get() {
    static const Library library;
    return library;
  }

#define MEGALODON_MPI_FUNCTIONS(F)                                             \
  F(Abort)                                                                     \
  F(Comm_create_group)                                                         \
  F(Comm_dup)                                                                  \
  F(Comm_free)                                                                 \
  F(Comm_group)                                                                \
  F(Comm_rank)                                                                 \
  F(Comm_set_errhandler)                                                       \
  F(Comm_size)                                                                 \
  F(Error_string)                                                              \
  F(Finalize)                                                                  \
  F(Get_count)                                                                 \
  F(Group_free)                                                                \
  F(Group_incl)                                                                \
  F(Iallgather)                                                                \
  F(Iallreduce)                                                                \
  F(Ibcast)                                                                    \
  F(Init_thread)                                                               \
  F(Initialized)                                                               \
  F(Irecv)                                                                     \
  F(Ireduce)                                                                   \
  F(Ireduce_scatter_block)                                                     \
  F(Isend)                                                                     \
  F(Op_create)                                                                 \
  F(Test)                                                                      \
  F(Type_commit)                                                               \
  F(Type_contiguous)                                                           \
  F(Type_create_resized)                                                       \
  F(Type_free)
#define F(name) decltype(&MPI_##name) name = nullptr;
  MEGALODON_MPI_FUNCTIONS(F)
#undef F

  MPI_Comm world = nullptr;
  MPI_Errhandler errorsReturn = nullptr;
  MPI_Datatype byte = nullptr, f32 = nullptr, f64 = nullptr, i32 = nullptr,
               i64 = nullptr, bf16 = nullptr;
  MPI_Op sum = nullptr, max = nullptr;

  /// MPI has no bf16, so its sums and maxima are operations of our own on words
  /// of 16 bits: added in f32, rounded after each addition. Made once MPI runs.
  MPI_Op operation(ElementType type, Reduction reduction) const {
    if (type != ElementType::BF16)
      return reduction == Reduction::Sum ? sum : max;
    static const auto make = [](const Library &mpi,
                                MPI_User_function *function) {
      MPI_Op made;
      mpi.check(mpi.Op_create(function, /*commute=*/1, &made), "MPI_Op_create");
      return made;
    };
    static const MPI_Op bf16Sum = make(*this, reduceBf16<addBf16>),
                        bf16Max = make(*this, reduceBf16<maximumBf16>);
    return reduction == Reduction::Sum ? bf16Sum : bf16Max;
  }

  /// Throws Error with MPI's text unless a call succeeded.
  void check(int code, const char *call) const {
    if (code == MPI_SUCCESS)
      return;
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;
    Error_string(code, text, &length);
    throw Error(str(call, ": ", text));
  }

  MPI_Datatype type(ElementType element) const {
    switch (element) {
    case ElementType::F32:
      return f32;
    case ElementType::F64:
      return f64;
    case ElementType::BF16:
      return bf16;
    case ElementType::I32:
      return i32;
    default:
      return i64;
    }
  }

private:
  Library() {
    // Open MPI's plugins look for its symbols in the whole process.
    void *handle = ::dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    if (!handle) {
      const char *reason = ::dlerror();
      throw Error(str("several ranks need Open MPI (libmpi.so.40): ",
                      reason ? reason : "not found",
                      "; install Debian's packages libopenmpi3 and "
                      "openmpi-bin"));
    }
    auto find = [&](auto &into, const char *name) {
      into = reinterpret_cast<std::remove_reference_t<decltype(into)>>(
          ::dlsym(handle, name));
      if (!into)
        throw Error(str("libmpi.so.40 has no ", name));
    };
#define F(name) find(name, "MPI_" #name);
    MEGALODON_MPI_FUNCTIONS(F)
#undef F
    find(world, "ompi_mpi_comm_world");
    find(errorsReturn, "ompi_mpi_errors_return");
    find(byte, "ompi_mpi_byte");
    find(f32, "ompi_mpi_float");
    find(f64, "ompi_mpi_double");
    find(i32, "ompi_mpi_int32_t");
    find(i64, "ompi_mpi_int64_t");
    find(bf16, "ompi_mpi_uint16_t");
    find(sum, "ompi_mpi_op_sum");
    find(max, "ompi_mpi_op_max");
  }
};

/// Whether the job can still end in good order: not when an operation was left
/// half way, since MPI_Finalize waits for it.
struct Job {
  bool running = true, broken = false;
};

/// One operation, as one or several of MPI's.
class MpiRequest : public Request {
public:
  MpiRequest(std::shared_ptr<const Membership> membership,
             std::shared_ptr<Job> job)
      : Request(std::move(membership)), job(std::move(job)) {}

  ~MpiRequest() override {
    if (done < parts.size())
      job->broken = true;
  }

  /// The handle of the next part; `bytes` of a receive, to be checked.
  MPI_Request *add(int bytes = -1) {
    parts.push_back({nullptr, bytes});
    return &parts.back().handle;
  }

  bool test() override {
    const Library &mpi = Library::get();
    if (!failure.empty())
      throw Error(failure);
    while (done < parts.size()) {
      const Part &part = parts[done];
      int complete = 0;
      MPI_Status status;
      MPI_Request handle = part.handle;
      const int code = mpi.Test(&handle, &complete, &status);
      if (code == MPI_SUCCESS && !complete)
        return false;
      ++done; // MPI is through with it, well or not
      try {
        mpi.check(code, "MPI_Test");
        if (part.bytes >= 0)
          checkBytes(status, part.bytes);
      } catch (const Error &error) {
        failure = error.what();
        throw;
      }
    }
    return true;
  }

protected:
  bool testUntil(Clock::time_point until) override {
    // Ranks may share processors: look a few times, then sleep. Yielding would
    // hand a whole time slice to whoever computes; a sleeper gets the processor
    // back when it wakes. Long messages move only while somebody tests, so
    // sleeps stay short.
    constexpr int looks = 50;
    constexpr std::chrono::microseconds shortest{10}, longest{500};
    std::chrono::microseconds sleep = shortest;
    for (int tries = 1; !test(); ++tries) {
      if (Clock::now() >= until)
        return false;
      if (tries > looks) {
        std::this_thread::sleep_for(sleep);
        sleep = std::min(2 * sleep, longest);
      }
    }
    return true;
  }

private:
  static void checkBytes(const MPI_Status &status, int expected) {
    const Library &mpi = Library::get();
    int bytes = 0;
    mpi.check(mpi.Get_count(&status, mpi.byte, &bytes), "MPI_Get_count");
    if (bytes != expected)
      throw Error(
          str("expected a message of ", expected, " bytes, got ", bytes));
  }

  struct Part {
    MPI_Request handle;
    int bytes;
  };
  const std::shared_ptr<Job> job;
  std::vector<Part> parts;
  size_t done = 0;
  std::string failure;
};

class MpiCommunicator : public Communicator {
public:
  MpiCommunicator(Membership members, MPI_Comm handle, std::shared_ptr<Job> job,
                  size_t piece)
      : Communicator(std::move(members)), mpi(Library::get()), handle(handle),
        job(std::move(job)), piece(piece) {
    mpi.check(mpi.Comm_set_errhandler(handle, mpi.errorsReturn),
              "MPI_Comm_set_errhandler");
  }

  ~MpiCommunicator() override {
    if (job->running && !job->broken && !std::uncaught_exceptions())
      mpi.Comm_free(&handle);
  }

  std::unique_ptr<Request> allReduce(void *data, size_t count, ElementType type,
                                     Reduction reduction) override {
    checkReducible(type);
    auto request = make();
    inPieces(count, piece, [&](size_t first, int now) {
      mpi.check(mpi.Iallreduce(MPI_IN_PLACE, at(data, first, type), now,
                               mpi.type(type), mpi.operation(type, reduction),
                               handle, request->add()),
                "MPI_Iallreduce");
    });
    return request;
  }

  std::unique_ptr<Request> allGather(const void *send, void *recv,
                                     size_t bytesPerRank) override {
    auto request = make();
    const size_t most = pieceOfBlock();
    const bool inPlace =
        bytesPerRank > 0 &&
        send == static_cast<std::byte *>(recv) + size_t(rank()) * bytesPerRank;
    inPieces(bytesPerRank, most, [&](size_t first, int now) {
      // Pieces of a block lie a whole block apart.
      MPI_Datatype contiguous = mpi.byte, spread = mpi.byte;
      const bool whole = bytesPerRank <= most;
      if (!whole) {
        mpi.check(mpi.Type_contiguous(now, mpi.byte, &contiguous),
                  "MPI_Type_contiguous");
        mpi.check(mpi.Type_create_resized(contiguous, 0, MPI_Aint(bytesPerRank),
                                          &spread),
                  "MPI_Type_create_resized");
        mpi.check(mpi.Type_commit(&spread), "MPI_Type_commit");
      }
      mpi.check(mpi.Iallgather(inPlace ? MPI_IN_PLACE
                                       : at(send, first, ElementType::I8),
                               now, mpi.byte, at(recv, first, ElementType::I8),
                               whole ? now : 1, spread, handle, request->add()),
                "MPI_Iallgather");
      if (!whole) { // MPI keeps them until the operation is complete
        mpi.check(mpi.Type_free(&spread), "MPI_Type_free");
        mpi.check(mpi.Type_free(&contiguous), "MPI_Type_free");
      }
    });
    return request;
  }

  std::unique_ptr<Request> reduceScatter(const void *send, void *recv,
                                         size_t countPerRank,
                                         ElementType type) override {
    checkReducible(type);
    auto request = make();
    if (countPerRank <= pieceOfBlock()) {
      mpi.check(mpi.Ireduce_scatter_block(send, recv, int(countPerRank),
                                          mpi.type(type),
                                          mpi.operation(type, Reduction::Sum),
                                          handle, request->add()),
                "MPI_Ireduce_scatter_block");
      return request;
    }
    // A piece of every block would need a type on which MPI has no sum.
    for (int root = 0; root < size(); ++root)
      inPieces(countPerRank, piece, [&](size_t first, int now) {
        mpi.check(
            mpi.Ireduce(at(send, size_t(root) * countPerRank + first, type),
                        root == rank() ? at(recv, first, type) : nullptr, now,
                        mpi.type(type), mpi.operation(type, Reduction::Sum),
                        root, handle, request->add()),
            "MPI_Ireduce");
      });
    return request;
  }

  std::unique_ptr<Request> broadcast(void *data, size_t bytes,
                                     int root) override {
    checkMember(root);
    auto request = make();
    inPieces(bytes, piece, [&](size_t first, int now) {
      mpi.check(mpi.Ibcast(at(data, first, ElementType::I8), now, mpi.byte,
                           root, handle, request->add()),
                "MPI_Ibcast");
    });
    return request;
  }

  std::unique_ptr<Request> send(const void *data, size_t bytes, int peer,
                                int tag) override {
    checkMember(peer);
    checkTag(tag);
    auto request = make();
    inPieces(bytes, piece, [&](size_t first, int now) {
      mpi.check(mpi.Isend(at(data, first, ElementType::I8), now, mpi.byte, peer,
                          tag, handle, request->add()),
                "MPI_Isend");
    });
    return request;
  }

  std::unique_ptr<Request> receive(void *data, size_t bytes, int peer,
                                   int tag) override {
    checkMember(peer);
    checkTag(tag);
    auto request = make();
    inPieces(bytes, piece, [&](size_t first, int now) {
      mpi.check(mpi.Irecv(at(data, first, ElementType::I8), now, mpi.byte, peer,
                          tag, handle, request->add(now)),
                "MPI_Irecv");
    });
    return request;
  }

private:
  std::unique_ptr<MpiRequest> make() {
    return std::make_unique<MpiRequest>(membership, job);
  }

  static void *at(void *data, size_t first, ElementType type) {
    return static_cast<std::byte *>(data) + first * elementBytes(type);
  }
  static const void *at(const void *data, size_t first, ElementType type) {
    return static_cast<const std::byte *>(data) + first * elementBytes(type);
  }

  /// Open MPI multiplies a block's count by the number of blocks in int.
  size_t pieceOfBlock() const {
    return std::max<size_t>(1, piece / size_t(size()));
  }

  /// start(first, count) for pieces of at most `most`; one empty piece of
  /// nothing.
  template <typename Start>
  static void inPieces(size_t count, size_t most, const Start &start) {
    size_t first = 0;
    do {
      const size_t now = std::min(most, count - first);
      start(first, int(now));
      first += now;
    } while (first < count);
  }

  const Library &mpi;
  MPI_Comm handle;
  const std::shared_ptr<Job> job;
  const size_t piece;
};

class MpiWorld : public World {
public:
  explicit MpiWorld(size_t piece)
      : mpi(Library::get()), job(std::make_shared<Job>()), piece(piece) {
    int running = 0;
    mpi.check(mpi.Initialized(&running), "MPI_Initialized");
    if (running)
      throw Error("MPI was started already, and starts once in a process");
    // Our waits sleep; see MpiRequest::testUntil on yielding.
    ::setenv("OMPI_MCA_mpi_yield_when_idle", "0", /*overwrite=*/0);
    int level = MPI_THREAD_SINGLE;
    mpi.check(mpi.Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level),
              "MPI_Init_thread");
    if (level < MPI_THREAD_FUNNELED)
      throw Error("this MPI does not allow threads beside the one that calls "
                  "it (MPI_THREAD_FUNNELED)");
    mpi.check(mpi.Comm_set_errhandler(mpi.world, mpi.errorsReturn),
              "MPI_Comm_set_errhandler");
    int rank = 0, size = 0;
    mpi.check(mpi.Comm_rank(mpi.world, &rank), "MPI_Comm_rank");
    mpi.check(mpi.Comm_size(mpi.world, &size), "MPI_Comm_size");
    std::vector<int> ranks(static_cast<size_t>(size));
    std::iota(ranks.begin(), ranks.end(), 0);
    auto copyOfWorld = [&] {
      MPI_Comm copy = nullptr;
      mpi.check(mpi.Comm_dup(mpi.world, &copy), "MPI_Comm_dup");
      return std::make_unique<MpiCommunicator>(Membership{ranks, rank}, copy,
                                               job, piece);
    };
    everybody = copyOfWorld();
    control = copyOfWorld();
  }

  ~MpiWorld() override {
    everybody.reset();
    control.reset();
    job->running = false;
    // Ending in good order waits for all ranks. A rank that failed must not:
    // its launcher sees that it leaves and ends the job.
    if (!job->broken && !std::uncaught_exceptions())
      mpi.Finalize();
  }

  Communicator &all() override { return *everybody; }

  std::unique_ptr<Communicator> group(const std::vector<int> &ranks) override {
    Membership members = memberOf(ranks);
    meet(members);
    MPI_Group everyone = nullptr, chosen = nullptr;
    MPI_Comm handle = nullptr;
    mpi.check(mpi.Comm_group(mpi.world, &everyone), "MPI_Comm_group");
    mpi.check(
        mpi.Group_incl(everyone, int(ranks.size()), ranks.data(), &chosen),
        "MPI_Group_incl");
    mpi.check(mpi.Comm_create_group(mpi.world, chosen, 0, &handle),
              "MPI_Comm_create_group");
    mpi.check(mpi.Group_free(&chosen), "MPI_Group_free");
    mpi.check(mpi.Group_free(&everyone), "MPI_Group_free");
    return std::make_unique<MpiCommunicator>(std::move(members), handle, job,
                                             piece);
  }

  void abort(int code) override {
    std::fflush(nullptr);
    mpi.Abort(mpi.world, code);
    World::abort(code);
  }

private:
  /// Returns when all members ask for the same group. MPI's own call would wait
  /// for ever for one that does not come.
  void meet(const Membership &members) {
    const WaitContext context{"start of a group"};
    const std::vector<int> &ranks = members.ranks;
    const size_t bytes = ranks.size() * sizeof(int);
    const int leader = ranks.front();
    int32_t word = 0;
    if (rank() != leader) {
      auto coming = control->send(ranks.data(), bytes, leader, 0);
      auto go = control->receive(&word, sizeof(word), leader, 1);
      coming->wait(context, timeout);
      go->wait(context, timeout);
      return;
    }
    for (size_t i = 1; i < ranks.size(); ++i) {
      std::vector<int> theirs(ranks.size());
      control->receive(theirs.data(), bytes, ranks[i], 0)
          ->wait(context, timeout);
      if (theirs != ranks)
        throw Error(str("expected rank ", ranks[i],
                        " to make the same group as rank ", leader));
    }
    for (size_t i = 1; i < ranks.size(); ++i)
      control->send(&word, sizeof(word), ranks[i], 1)->wait(context, timeout);
  }

  const Library &mpi;
  const std::shared_ptr<Job> job;
  const size_t piece;
  std::unique_ptr<MpiCommunicator> everybody, control;
};

} // namespace

std::unique_ptr<World> openMpiWorld(size_t piece) {
  return std::make_unique<MpiWorld>(piece);
}

} // namespace megalodon

#endif
