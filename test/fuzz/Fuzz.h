// What the fuzzers share: the one way to refuse an input, and files that live
// in memory only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

/// One input; defined by each fuzzer, called by libFuzzer or by Replay.cpp.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace megalodon::fuzz {

/// Ends the process, so that the input counts as a finding, unless `ok`.
void require(bool ok, const char *what);

/// A file in memory whose content changes from input to input.
class MemoryFile {
public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile &) = delete;
  MemoryFile &operator=(const MemoryFile &) = delete;

  void assign(const void *data, size_t bytes);
  /// Under which this process can open it.
  std::string path() const;

private:
  int descriptor;
};

/// A folder of its own; what lies in it goes when the process ends.
class Folder {
public:
  Folder();
  ~Folder();
  Folder(const Folder &) = delete;
  Folder &operator=(const Folder &) = delete;

  const std::string &path() const { return name; }
  /// Gives `file` a name in the folder.
  void link(const std::string &file, const MemoryFile &content) const;

private:
  std::string name;
};

} // namespace megalodon::fuzz
