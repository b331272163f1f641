// One rank of an MPI job: the common suite over MPI, and jobs that go wrong
// (mpi_test.py looks at what the launcher prints then).
#include "runtime/core/Error.h"
#include "test/runtime/Conformance.h"
#include "test/runtime/Messages.h"
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <thread>

using namespace megalodon;
using namespace megalodon::test;
using namespace std::chrono_literals;

static World *job = nullptr;

INSTANTIATE_TEST_SUITE_P(Mpi, Conformance,
                         ::testing::Values(Backend{
                             "Job", [](const auto &body) { body(*job); }}),
                         nameOf);

TEST(Mpi, StartsOnce) {
  EXPECT_TRUE(underLauncher());
  EXPECT_ERROR(openMpiWorld(), "MPI was started already");
}

TEST(Mpi, ReceiveNoticesTheSize) {
  if (job->size() < 2 || job->rank() > 1)
    return;
  const int64_t sent[2] = {1, 2};
  int64_t received[2] = {};
  for (size_t bytes : {8, 16}) {
    if (job->rank() == 0) {
      job->all().send(sent, bytes, 1, 3)->wait({"send"}, 60s);
      continue;
    }
    auto request = job->all().receive(received, 24 - bytes, 0, 3);
    const std::string message =
        messageOf([&] { request->wait({"receive"}, 60s); });
    EXPECT_NE(message.find("receive, on rank 1: "), std::string::npos);
    EXPECT_NE(message.find(bytes == 8 ? "expected a message of 16 bytes, got 8"
                                      : "truncated"),
              std::string::npos)
        << message;
  }
}

/// Prints only what fails, with the rank.
class FailurePrinter : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult &result) override {
    if (result.failed())
      std::cerr << "rank " << job->rank() << ": " << result.file_name() << ':'
                << result.line_number() << ": " << result.message()
                << std::endl;
  }
};

/// The ranks make a group and add up again and again until rank 1 goes wrong.
static int goWrong(const std::string &how) {
  std::signal(SIGTERM, [](int) { requestStop(); });
  try {
    if (how == "other-group")
      job->group(job->rank() == 1 ? std::vector<int>{0, 2, 1}
                                  : std::vector<int>{0, 1, 2});
    if (how != "no-group" || job->rank() != 1)
      job->group({0, 1});
    for (int64_t step = 0; step < 1000; ++step) {
      if (job->rank() == 1 && step == 5) {
        if (how == "error")
          throw Error("the disk is full");
        if (how == "killed")
          std::raise(SIGKILL);
        while (true)
          std::this_thread::sleep_for(10ms);
      }
      double sum = 1;
      job->all()
          .allReduce(&sum, 1, ElementType::F64)
          ->wait({"all_reduce of gradients", step}, job->timeout);
    }
  } catch (const Error &error) {
    std::cerr << "rank " << job->rank() << ": " << error.what() << std::endl;
    job->abort(3);
  }
  return 0;
}

int main(int argc, char **argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto value = [&](const char *name) -> const char * {
    const size_t length = std::strlen(name);
    for (int i = 1; i < argc; ++i)
      if (std::strncmp(argv[i], name, length) == 0)
        return argv[i] + length;
    return nullptr;
  };
  try {
    const char *piece = value("--piece=");
    auto world =
        piece ? openMpiWorld(size_t(std::atoi(piece))) : openMpiWorld();
    job = world.get();
    if (const char *how = value("--go-wrong="))
      return goWrong(how);
    if (job->rank() != 0) {
      auto &listeners = ::testing::UnitTest::GetInstance()->listeners();
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new FailurePrinter);
    }
    const int result = RUN_ALL_TESTS();
    job->all().barrier({"end of the tests"}, 60s);
    return result;
  } catch (const Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
