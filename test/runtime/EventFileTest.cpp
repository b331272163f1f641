// TensorBoard's event files: records that check, and the messages in them.
#include "runtime/train/EventFile.h"
#include "runtime/core/File.h"
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>

using namespace megalodon;

namespace {
struct Folder {
  Folder() { EXPECT_TRUE(::mkdtemp(path.data())); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path = testing::TempDir() + "megalodon-events.XXXXXX";
};

/// The events of a file, whose lengths and checks must be right.
std::vector<std::string> eventsOf(const std::string &path) {
  std::string text = readText(path);
  std::vector<std::string> events;
  auto check = [](std::string_view bytes, const char *at) {
    uint32_t stored;
    std::memcpy(&stored, at, sizeof(stored));
    uint32_t rotated = stored - 0xa282ead8u;
    EXPECT_EQ(rotated >> 17 | rotated << 15, crc32c(bytes));
  };
  for (size_t at = 0; at < text.size();) {
    uint64_t length;
    std::memcpy(&length, &text[at], sizeof(length));
    check({&text[at], 8}, &text[at + 8]);
    events.push_back(text.substr(at + 12, length));
    check(events.back(), &text[at + 12 + length]);
    at += 16 + length;
  }
  return events;
}
} // namespace

TEST(EventFile, ChecksumIsCastagnolis) {
  // The check value of the CRC-32C catalogue, and RFC 3720's 32 zero bytes.
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
}

TEST(EventFile, WritesScalarsByStep) {
  Folder folder;
  EventFile file(folder.path, 0);
  file.add(300, {{"train/loss", 1.5}, {"train/lr", 0.25}});
  auto events = eventsOf(file.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NE(events[0].find("\x1a\x0d"
                           "brain.Event:2"),
            std::string::npos);
  // wall_time (fixed64), step 300 as a varint, then the summary: two values of
  // a tag and a fixed32.
  const std::string &event = events[1];
  EXPECT_EQ(event[0], 1 << 3 | 1);
  EXPECT_EQ(event.substr(9, 3), "\x10\xac\x02");
  EXPECT_EQ(event.substr(12), std::string("\x2a\x24"
                                          "\x0a\x11\x0a\x0a"
                                          "train/loss"
                                          "\x15\x00\x00\xc0\x3f"
                                          "\x0a\x0f\x0a\x08"
                                          "train/lr"
                                          "\x15\x00\x00\x80\x3e",
                                          38));
}

TEST(EventFile, ContinuedRunsSayFromWhichStep) {
  Folder folder;
  EventFile file(folder.path, 6);
  auto events = eventsOf(file.path());
  ASSERT_EQ(events.size(), 2u);
  // step 7, SessionLog { status = START }
  EXPECT_EQ(events[1].substr(9), "\x10\x07\x3a\x02\x08\x01");
}
