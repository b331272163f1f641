// Files are replaced whole or not at all, and errors name the file.
#include "runtime/core/File.h"
#include "runtime/core/Error.h"
#include "runtime/core/FolderLock.h"
#include "runtime/core/MapErrors.h"
#include "test/runtime/TestPlan.h"
#include <csignal>
#include <filesystem>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace megalodon;
using namespace megalodon::test;

TEST(AtomicFile, ReplacesOnCommitOnly) {
  const std::string path = temporaryPath("file");
  writeText(path, "old");
  {
    AtomicFile file(path);
    file.write(std::string(3 << 20, 'x'));
  }
  EXPECT_EQ(readText(path), "old");
  writeText(path, "new");
  EXPECT_EQ(readText(path), "new");
  for (const auto &entry : std::filesystem::directory_iterator(
           std::filesystem::path(path).parent_path()))
    EXPECT_EQ(entry.path().string().find(path + ".tmp"), std::string::npos)
        << entry.path();
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  // A limit on the size of files stands for the full disk.
  const std::string path = temporaryPath("file");
  writeText(path, "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1 << 16, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      messageOf([&] { writeText(path, std::string(1 << 20, 'x')); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(message, path + ": cannot write: File too large");
  EXPECT_EQ(readText(path), "old");
}

TEST(AtomicFile, NamesWhatItCannotWrite) {
  EXPECT_ERROR(
      writeText("/nonexistent/folder/file", "x"),
      "/nonexistent/folder/file: cannot write: No such file or directory");
}

TEST(Folders, AreCreatedWithThoseAbove) {
  const std::string path = temporaryPath("new");
  createFolders(path + "/a//b/");
  EXPECT_TRUE(std::filesystem::is_directory(path + "/a/b"));
  createFolders(path + "/a/b"); // is there
  writeText(path + "/file", "");
  EXPECT_ERROR(createFolders(path + "/file"),
               path + "/file: cannot create the folder: File exists");
  EXPECT_ERROR(createFolders(path + "/file/x"),
               path + "/file/x: cannot create the folder: Not a directory");
}

TEST(Folders, AreLockedByOneProcess) {
  const std::string path = temporaryPath("locked");
  createFolders(path);
  {
    const FolderLock lock(path);
    EXPECT_ERROR(FolderLock second(path),
                 str("this folder: process ", getpid(), " on "));
  }
  // What a killed process left behind holds nothing.
  EXPECT_NE(readText(path + "/lock"), "");
  const FolderLock again(path);
}

TEST(MappedFile, IsReportedWhenItCannotBeReadAfterAll) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string path = temporaryPath("short");
  writeText(path, std::string(1 << 16, 'x'));
  EXPECT_EXIT(
      {
        reportMapErrors();
        const MappedFile file(path);
        std::filesystem::resize_file(path, 10);
        volatile std::byte last = file.data()[file.size() - 1];
        (void)last;
      },
      testing::ExitedWithCode(1), "cannot read: the disk failed");
}

TEST(MappedFile, DoesNotWaitForAPipe) {
  const std::string path = temporaryPath("pipe");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_ERROR(MappedFile file(path), path + ": expected a regular file");
  EXPECT_ERROR(readText(path), path + ": expected a regular file");
}

TEST(MappedFile, NamesWhatItCannotRead) {
  EXPECT_ERROR(MappedFile("/nonexistent"),
               "/nonexistent: cannot open: No such file or directory");
  EXPECT_ERROR(MappedFile("/"), "/: expected a regular file");
  const std::string path = temporaryPath("empty");
  writeText(path, "");
  EXPECT_EQ(MappedFile(path).size(), 0u);
}
