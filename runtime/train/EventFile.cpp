// Layouts: a record is u64 length, u32 check of it, the bytes, u32 check of
// them (TensorFlow's TFRecord); a message is tensorflow.Event of
// tensorflow/core/util/event.proto, encoded here field by field.
#include "runtime/train/EventFile.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

using namespace megalodon;

//===-- Checks ------------------------------------------------------------===//

static constexpr std::array<uint32_t, 256> crcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit)
      value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
    table[byte] = value;
  }
  return table;
}

uint32_t megalodon::crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> table = crcTable();
  uint32_t value = ~0u;
  for (unsigned char byte : bytes)
    value = value >> 8 ^ table[(value ^ byte) & 255];
  return ~value;
}

/// Records hold their checks rotated, so that a record inside another does not
/// check by chance.
static uint32_t maskedCrc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

//===-- Messages ----------------------------------------------------------===//

namespace {
enum class WireType : uint8_t {
  Varint = 0,
  Fixed64 = 1,
  Bytes = 2,
  Fixed32 = 5
};

/// A protocol-buffer message under construction.
class Message {
public:
  Message &varint(int field, uint64_t value) {
    tag(field, WireType::Varint);
    number(value);
    return *this;
  }
  Message &real(int field, double value) {
    tag(field, WireType::Fixed64);
    return raw(value);
  }
  Message &real32(int field, float value) {
    tag(field, WireType::Fixed32);
    return raw(value);
  }
  Message &bytes(int field, std::string_view value) {
    tag(field, WireType::Bytes);
    number(value.size());
    text += value;
    return *this;
  }
  const std::string &str() const { return text; }

private:
  void tag(int field, WireType type) {
    number(uint64_t(field) << 3 | uint64_t(type));
  }
  void number(uint64_t value) {
    for (; value >= 128; value >>= 7)
      text += char(value | 128);
    text += char(value);
  }
  template <typename T> Message &raw(T value) {
    text.append(reinterpret_cast<const char *>(&value), sizeof(value));
    return *this;
  }

  std::string text;
};

// Numbers of the fields.
namespace event {
enum { WallTime = 1, Step = 2, FileVersion = 3, Summary = 5, SessionLog = 7 };
}
namespace summary {
enum { Value = 1 };
}
namespace value {
enum { Tag = 1, SimpleValue = 2 };
}
namespace sessionLog {
enum { Status = 1 };
enum { Start = 1 };
} // namespace sessionLog

Message newEvent(int64_t step) {
  const double now = std::chrono::duration<double>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  Message message;
  message.real(event::WallTime, now).varint(event::Step, uint64_t(step));
  return message;
}
} // namespace

//===-- Files -------------------------------------------------------------===//

EventFile::EventFile(const std::string &folder, int64_t step) {
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  // TensorBoard reads files in the order of their names.
  file = str(folder, "/events.out.tfevents.", now, ".", host, ".", getpid());
  descriptor =
      ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw Error(str(file, ": cannot create: ", std::strerror(errno)));
  append(newEvent(0).bytes(event::FileVersion, "brain.Event:2").str());
  if (step > 0)
    append(
        newEvent(step + 1)
            .bytes(
                event::SessionLog,
                Message().varint(sessionLog::Status, sessionLog::Start).str())
            .str());
}

EventFile::~EventFile() { ::close(descriptor); }

void EventFile::add(
    int64_t step, const std::vector<std::pair<std::string, double>> &scalars) {
  Message all;
  for (const auto &[tag, number] : scalars)
    all.bytes(summary::Value, Message()
                                  .bytes(value::Tag, tag)
                                  .real32(value::SimpleValue, float(number))
                                  .str());
  append(newEvent(step).bytes(event::Summary, all.str()).str());
}

void EventFile::append(std::string_view event) {
  const uint64_t length = event.size();
  std::string record(reinterpret_cast<const char *>(&length), sizeof(length));
  auto check = [&](std::string_view bytes) {
    const uint32_t crc = maskedCrc(bytes);
    record.append(reinterpret_cast<const char *>(&crc), sizeof(crc));
  };
  check(std::string(record));
  record += event;
  check(event);
  writeAll(descriptor, record, file);
}
