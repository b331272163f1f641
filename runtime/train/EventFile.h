// Writes TensorBoard's event files: scalars by step, as checked records of
// protocol-buffer messages.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace megalodon {

class EventFile {
public:
  /// Creates a file of a new name in `folder`. A run that continues from `step`
  /// tells TensorBoard to forget what earlier files say of later steps.
  EventFile(const std::string &folder, int64_t step);
  ~EventFile();
  EventFile(const EventFile &) = delete;
  EventFile &operator=(const EventFile &) = delete;

  /// Appends scalars, by tag, that were measured at a step.
  void add(int64_t step,
           const std::vector<std::pair<std::string, double>> &scalars);

  const std::string &path() const { return file; }

private:
  void append(std::string_view event);

  std::string file;
  int descriptor = -1;
};

/// The CRC-32C (Castagnoli) of some bytes, for tests.
uint32_t crc32c(std::string_view bytes);

} // namespace megalodon
