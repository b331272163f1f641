#include "runtime/plan/LoadedPlan.h"
#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace megalodon::plan {

/// One spelling for LLVM's "sse4.2", "avx512bf16" and the kernel's "sse4_2",
/// "avx512_bf16".
static std::string plain(const std::string &name) {
  std::string text;
  for (char c : name)
    if (c != '_' && c != '.' && c != '-')
      text += c;
  return text;
}

/// The kernel's name of an LLVM feature where they differ by more than
/// punctuation.
static std::string kernelName(const std::string &feature) {
  static const std::map<std::string, std::string> names = {
      {"64bit", "lm"},
      {"bmi", "bmi1"},
      {"crc32", "sse4_2"},
      {"evex512", "avx512f"},
      {"lzcnt", "abm"},
      {"pclmul", "pclmulqdq"},
      {"prfchw", "3dnowprefetch"},
      {"rdrnd", "rdrand"},
      {"sahf", "lahf_lm"},
      {"sha", "sha_ni"},
      {"shstk", "user_shstk"},
      {"sse3", "pni"},
      {"x87", "fpu"},
      {"cmpxchg8b", "cx8"},
      {"cmpxchg16b", "cx16"}};
  auto found = names.find(feature);
  return plain(found == names.end() ? feature : found->second);
}

std::vector<std::string> missingCpuFeatures(const LoadedPlan &plan) {
  std::set<std::string> present;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0)
      continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      present.insert(plain(word));
    break;
  }
  std::vector<std::string> missing;
  for (const std::string &feature : plan.cpuFeatures)
    if (!present.count(kernelName(feature)))
      missing.push_back(feature);
  return missing;
}

} // namespace megalodon::plan
