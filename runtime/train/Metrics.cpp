#include "runtime/train/Metrics.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace megalodon;
using nlohmann::json;

Metrics::Metrics(const std::string &path, int64_t step) : path(path) {
  std::string kept;
  if (std::filesystem::exists(path)) {
    std::istringstream lines(readText(path));
    for (std::string text; std::getline(lines, text);) {
      json line =
          json::parse(text, nullptr, false); // a killed run leaves half a line
      if (!line.is_object() || !line.contains("step") || line["step"] > step)
        continue;
      kept += text + "\n";
      remember(line);
    }
  }
  writeText(path, kept);
  descriptor = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor < 0)
    throw Error(str(path, ": cannot open: ", std::strerror(errno)));
}

Metrics::~Metrics() { ::close(descriptor); }

void Metrics::remember(const json &line) {
  if (line.contains("loss"))
    training.push_back({line["step"], line["loss"]});
  if (line.contains("validation_loss"))
    validation.push_back({line["step"], line["validation_loss"]});
}

void Metrics::add(const json &line) {
  remember(line);
  std::string text = line.dump() + "\n";
  for (size_t done = 0; done < text.size();) {
    ssize_t written =
        ::write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR)
      throw Error(str(path, ": cannot write: ", std::strerror(errno)));
    done += std::max<ssize_t>(written, 0);
  }
}

void Metrics::sync() {
  if (::fsync(descriptor) != 0)
    throw Error(str(path, ": cannot sync: ", std::strerror(errno)));
}

int64_t megalodon::residentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}
