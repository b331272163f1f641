#include "runtime/train/Data.h"
#include "runtime/core/Error.h"
#include "runtime/train/Random.h"
#include <algorithm>
#include <cstring>
#include <filesystem>

using namespace megalodon;
namespace fs = std::filesystem;

TokenType megalodon::parseTokenType(const std::string &name) {
  if (name == "auto")
    return TokenType::Automatic;
  if (name == "bytes")
    return TokenType::Bytes;
  if (name == "uint16")
    return TokenType::Uint16;
  if (name == "uint32")
    return TokenType::Uint32;
  throw Error(str("--data-type: expected auto, bytes, uint16 or uint32, got '",
                  name, "'"));
}

Order megalodon::parseOrder(const std::string &name) {
  if (name == "stream")
    return Order::Stream;
  if (name == "random")
    return Order::Random;
  throw Error(str("--order: expected stream or random, got '", name, "'"));
}

static void listFolder(const fs::path &folder, std::vector<DataFile> &files) {
  size_t before = files.size();
  for (const fs::directory_entry &entry :
       fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.file_size() > 0)
      files.push_back(
          {entry.path().string(),
           entry.path().lexically_relative(folder).generic_string()});
  if (files.size() == before)
    throw Error(
        str(folder.string(),
            ": expected at least one file that is not empty, got none"));
  std::sort(files.begin() + before, files.end(),
            [](auto &a, auto &b) { return a.relative < b.relative; });
}

std::vector<DataFile>
megalodon::listDataFiles(const std::vector<std::string> &arguments) {
  std::vector<DataFile> files;
  for (const std::string &argument : arguments) {
    try {
      fs::file_status status = fs::status(argument);
      if (!fs::exists(status))
        throw Error(str(argument, ": no such file or folder"));
      if (fs::is_directory(status))
        listFolder(argument, files);
      else if (!fs::is_regular_file(status))
        throw Error(
            str(argument,
                ": expected a regular file or a folder, got something else"));
      else if (fs::file_size(argument) == 0)
        throw Error(str(argument, ": expected data, got an empty file"));
      else
        files.push_back({argument, fs::path(argument).filename().string()});
    } catch (const fs::filesystem_error &error) {
      throw Error(str(error.path1().empty() ? argument : error.path1().string(),
                      ": ", error.code().message()));
    }
  }
  if (files.empty())
    throw Error("--data: expected at least one file or folder, got none");
  return files;
}

DataSplit megalodon::splitDataFiles(const std::vector<DataFile> &files,
                                    double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    throw Error(
        str("--validation-fraction: expected a number from 0 to below 1, got ",
            fraction));
  DataSplit split;
  for (const DataFile &file : files) {
    // The last bytes of a path hardly reach the high bits of its FNV hash; one
    // Philox block mixes them.
    bool held = CounterRandom(0, hashName(file.relative)).uniform(0) < fraction;
    (held ? split.validation : split.training).push_back(file);
  }
  if (fraction > 0 && split.validation.empty())
    throw Error(str("--validation-fraction: ", fraction, " of ", files.size(),
                    " files leaves no validation file: give more files, a "
                    "larger fraction or --validation"));
  if (split.training.empty())
    throw Error(str("--validation-fraction: ", fraction, " of ", files.size(),
                    " files leaves no training file"));
  return split;
}

static TokenType typeOf(const std::string &path, TokenType type) {
  if (type != TokenType::Automatic)
    return type;
  std::string extension = fs::path(path).extension().string();
  return extension == ".u16"   ? TokenType::Uint16
         : extension == ".u32" ? TokenType::Uint32
                               : TokenType::Bytes;
}

static size_t bytesPerToken(TokenType type) {
  return type == TokenType::Uint32 ? 4 : type == TokenType::Uint16 ? 2 : 1;
}

/// Calls body with a pointer to the file's tokens in their own type.
template <typename Body>
static void withTokens(const MappedFile &file, TokenType type, Body body) {
  if (type == TokenType::Uint16)
    body(reinterpret_cast<const uint16_t *>(file.data()));
  else if (type == TokenType::Uint32)
    body(reinterpret_cast<const uint32_t *>(file.data()));
  else
    body(reinterpret_cast<const uint8_t *>(file.data()));
}

/// Not cryptographic: it notices changed data at the speed of memory.
static uint64_t mixContent(uint64_t hash, const std::byte *data, size_t bytes) {
  auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 29;
  };
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    mix(word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, data, bytes);
  mix(rest);
  mix(bytes);
  return hash;
}

Corpus::Corpus(const std::vector<DataFile> &files, TokenType wanted,
               int64_t vocabulary) {
  for (const DataFile &entry : files) {
    TokenType type = typeOf(entry.path, wanted);
    MappedFile file(entry.path);
    if (file.size() == 0)
      throw Error(str(entry.path, ": expected data, got an empty file"));
    if (type == TokenType::Bytes && vocabulary > 256)
      throw Error(
          str(entry.path, ": bytes need a vocabulary of 256, the plan has ",
              vocabulary, ": give token ids (*.u16, *.u32 or --data-type)"));
    size_t width = bytesPerToken(type);
    if (file.size() % width)
      throw Error(str(entry.path, ": expected a multiple of ", width,
                      " bytes, got ", file.size()));
    int64_t count = static_cast<int64_t>(file.size() / width);
    withTokens(file, type, [&](auto *tokens) {
      // The maximum first: a loop without exits is vectorised, and data is
      // nearly always sound.
      uint32_t largest = 0;
      for (int64_t i = 0; i < count; ++i)
        largest = std::max<uint32_t>(largest, tokens[i]);
      if (largest < vocabulary)
        return;
      for (int64_t i = 0; i < count; ++i)
        if (tokens[i] >= vocabulary)
          throw Error(str(entry.path, ": token ", i, ": expected an id below ",
                          vocabulary, ", got ", +tokens[i]));
    });
    hash = mixContent(hash ^ hashName(entry.relative) ^ width, file.data(),
                      file.size());
    onlyBytes &= type == TokenType::Bytes;
    sources.push_back({std::move(file), type, total, count});
    total += count;
  }
}

void Corpus::read(int64_t begin, int64_t count, int32_t *into) const {
  begin %= total;
  auto source = std::upper_bound(sources.begin(), sources.end(), begin,
                                 [](int64_t position, const Source &s) {
                                   return position < s.begin;
                                 }) -
                1;
  while (count > 0) {
    int64_t first = begin - source->begin,
            piece = std::min(count, source->count - first);
    withTokens(source->file, source->type,
               [&](auto *tokens) { std::copy_n(tokens + first, piece, into); });
    into += piece;
    count -= piece;
    begin += piece;
    if (++source == sources.end()) {
      source = sources.begin();
      begin = 0;
    }
  }
}

BatchOrder::BatchOrder(const Corpus &corpus, Order order, uint64_t seed,
                       int64_t batch, int64_t length)
    : corpus(corpus), order(order), seed(seed), batch(batch), length(length),
      callsPerLap(corpus.size() / (batch * length)) {
  int64_t needed = order == Order::Stream ? batch * length : length + 1;
  if (corpus.size() < needed)
    throw Error(str("training data: expected at least ", needed, " tokens for ",
                    batch, " rows of ", length, ", got ", corpus.size()));
}

int64_t BatchOrder::begin(int64_t call, int64_t row) const {
  CounterRandom random(seed, hashName("data order"));
  if (order == Order::Random)
    return static_cast<int64_t>(
        random.below(corpus.size() - length, call * batch + row));
  int64_t lap = call / callsPerLap, piece = call % callsPerLap;
  int64_t offset = static_cast<int64_t>(random.below(corpus.size(), lap));
  return (offset + (row * callsPerLap + piece) * length) % corpus.size();
}

void BatchOrder::read(int64_t call, int32_t *tokens, int32_t *targets) const {
  read(call, Box::whole({batch, length}), tokens, targets);
}

void BatchOrder::read(int64_t call, const Box &box, int32_t *tokens,
                      int32_t *targets) const {
  const int64_t rows = box.valid({batch, length}, 0),
                count = box.valid({batch, length}, 1);
  if (tokens)
    std::fill_n(tokens, box.elements(), 0);
  if (targets)
    std::fill_n(targets, box.elements(), kIgnoredTarget);
  std::vector<int32_t> window(count + 1);
  for (int64_t row = 0; row < rows && count > 0; ++row) {
    corpus.read(begin(call, box.offset[0] + row) + box.offset[1], count + 1,
                window.data());
    if (tokens)
      std::copy_n(window.data(), count, tokens + row * box.extent[1]);
    if (targets)
      std::copy_n(window.data() + 1, count, targets + row * box.extent[1]);
  }
}

bool BatchOrder::startsFresh(int64_t call) const {
  return order == Order::Random || call % callsPerLap == 0;
}
