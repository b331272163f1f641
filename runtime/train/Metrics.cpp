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

/// Plots of training and of validation stand in groups of their own.
static std::string tagOf(const std::string &name) {
  constexpr std::string_view validation = "validation_";
  return name.compare(0, validation.size(), validation) == 0
             ? "validation/" + name.substr(validation.size())
             : "train/" + name;
}

/// Whether it is a line that add() wrote, whole.
static bool isLine(const json &line) {
  if (!line.is_object() || !line.contains("step") ||
      !line["step"].is_number_integer())
    return false;
  for (const char *field : {"loss", "validation_loss"})
    if (line.contains(field) && !line[field].is_number())
      return false;
  return true;
}

Metrics::Metrics(const std::string &folder, int64_t step)
    : path(folder + "/metrics.jsonl"), events(folder, step) {
  std::string kept;
  if (std::filesystem::exists(path)) {
    std::istringstream lines(readText(path));
    for (std::string text; std::getline(lines, text);) {
      json line =
          json::parse(text, nullptr, false); // a killed run leaves half a line
      if (!isLine(line) || line["step"] > step)
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
  writeAll(descriptor, line.dump() + "\n", path);
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto &[name, value] : line.items())
    if (value.is_number() && name != "step")
      scalars.emplace_back(tagOf(name), value);
  events.add(line["step"], scalars);
}

void Metrics::sync() { syncFile(descriptor, path); }

int64_t megalodon::residentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}
