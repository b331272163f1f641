#include "runtime/train/Checkpoint.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/core/Sha256.h"
#include "runtime/io/Json.h"
#include "runtime/io/Weights.h"
#include "runtime/train/Agreement.h"
#include "runtime/train/SpreadTensors.h"
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

using namespace megalodon;
using nlohmann::json;
namespace fs = std::filesystem;

static constexpr int64_t kRecordVersion = 1;
static constexpr std::string_view kPrefix = "checkpoint-",
                                  kHiddenPrefix = ".checkpoint-";

/// The step of a checkpoint folder's name, or nothing for other names.
static std::optional<int64_t> stepOf(const std::string &name) {
  if (name.size() <= kPrefix.size() || name.size() > kPrefix.size() + 18 ||
      name.compare(0, kPrefix.size(), kPrefix) != 0 ||
      name.find_first_not_of("0123456789", kPrefix.size()) != name.npos)
    return std::nullopt;
  return std::stoll(name.substr(kPrefix.size()));
}

static void renameDurably(const fs::path &from, const fs::path &to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code)
    throw Error(str(to.string(), ": cannot rename from ", from.string(), ": ",
                    code.message()));
  syncFolder(to.parent_path().string());
}

/// What lies in a folder. Throws Error, unlike the iterator.
static std::vector<fs::path> entriesOf(const std::string &folder) {
  std::vector<fs::path> entries;
  std::error_code code;
  for (fs::directory_iterator next(folder, code), end; !code && next != end;
       next.increment(code))
    entries.push_back(next->path());
  if (code)
    throw Error(str(folder, ": cannot list the folder: ", code.message()));
  return entries;
}

std::vector<Checkpoint> megalodon::listCheckpoints(const std::string &out) {
  std::vector<Checkpoint> list;
  for (const fs::path &path : entriesOf(out))
    if (std::optional<int64_t> step = stepOf(path.filename().string())) {
      // Not being able to tell must not make an older one the newest.
      std::error_code code;
      if (fs::exists(path / kRecordFile, code))
        list.push_back({*step, path.string()});
      if (code)
        throw Error(str(path.string(), ": cannot read: ", code.message()));
    }
  std::sort(list.begin(), list.end(),
            [](auto &a, auto &b) { return a.step < b.step; });
  return list;
}

std::optional<Checkpoint> megalodon::newestCheckpoint(const std::string &out) {
  std::vector<Checkpoint> list = listCheckpoints(out);
  return list.empty() ? std::nullopt : std::optional(list.back());
}

void megalodon::removePartialFiles(const std::string &out) {
  std::vector<fs::path> partial;
  for (const fs::path &path : entriesOf(out)) {
    std::string name = path.filename().string();
    // Hidden folders of checkpoints, and what AtomicFile leaves beside a file.
    if (name.compare(0, kHiddenPrefix.size(), kHiddenPrefix) == 0 ||
        name.find(".tmp.") != name.npos)
      partial.push_back(path);
  }
  std::error_code code;
  for (const fs::path &path : partial)
    if (fs::remove_all(path, code); code)
      throw Error(str(path.string(), ": cannot remove: ", code.message()));
}

void megalodon::removeOldCheckpoints(const std::string &out, int64_t keep) {
  std::vector<Checkpoint> list = listCheckpoints(out);
  for (size_t i = 0; keep > 0 && i + keep < list.size(); ++i) {
    // Renamed first: a kill in the middle of the removal must not leave a
    // damaged checkpoint under a good name.
    fs::path removed =
        fs::path(out) / str(kHiddenPrefix, list[i].step, ".removed");
    renameDurably(list[i].folder, removed);
    std::error_code code;
    fs::remove_all(removed, code);
    if (code)
      throw Error(str(removed.string(), ": cannot remove: ", code.message()));
  }
}

static std::string digestOf(const json &record) {
  json body = record;
  body.erase("digest");
  std::string text = body.dump();
  return Sha256::hex(Sha256::of(text.data(), text.size()));
}

static json describe(const std::string &path) {
  MappedFile file(path);
  return {{"bytes", file.size()},
          {"sha256", Sha256::hex(Sha256::of(file.data(), file.size()))}};
}

Checkpoint megalodon::saveCheckpoint(const std::string &out, int64_t step,
                                     const CheckpointTensors &tensors,
                                     World &world, json record) {
  fs::path final = fs::path(out) / str(kPrefix, step),
           partial = fs::path(out) / str(kHiddenPrefix, step, ".partial");
  const WaitContext context{"saving a checkpoint", step};
  const bool first = world.rank() == 0;
  const std::pair<const char *, const std::vector<SpreadTensor> *> sets[] = {
      {kModelFile, &tensors.model},
      {kOptimizerFile, &tensors.optimizer},
      {kStateFile, &tensors.state}};
  try {
    together(world, context, [&] {
      // The finite weights of an older checkpoint are worth more than these.
      for (auto [name, list] : sets)
        for (const SpreadTensor &tensor : *list)
          requireFinite(name, tensor);
      if (first)
        fs::create_directory(partial);
    });
    std::vector<std::string> written;
    for (auto [name, list] : sets)
      if (!list->empty())
        for (std::string &file :
             writeSpread(partial.string(), name, *list, world, step))
          written.push_back(std::move(file));
    json files = json::object();
    together(world, context, [&] {
      for (const std::string &name : written)
        files[name] = describe((partial / name).string());
    });
    for (const std::string &text : gatherTexts(world, context, files.dump()))
      record["files"].update(json::parse(text));
    together(world, context, [&] {
      if (!first)
        return;
      record["version"] = kRecordVersion;
      record["step"] = step;
      record["digest"] = digestOf(record);
      writeText((partial / kRecordFile).string(), record.dump(2) + "\n");
      renameDurably(partial, final);
    });
  } catch (const std::exception &error) {
    std::error_code ignored;
    if (first)
      fs::remove_all(partial, ignored);
    throw Error(str(final.string(), ": cannot save: ", error.what()));
  }
  return {step, final.string()};
}

json megalodon::readRecord(const std::string &folder) {
  std::string path = (fs::path(folder) / kRecordFile).string();
  json record = parseJson(path, "record", readText(path));
  auto version = record.find("version");
  if (version == record.end() || !version->is_number_integer())
    throw Error(str(path, ": version: missing"));
  if (*version != kRecordVersion)
    throw Error(str(path, ": version: expected ", kRecordVersion, ", got ",
                    version->dump()));
  auto digest = record.find("digest");
  if (digest == record.end() || !digest->is_string())
    throw Error(str(path, ": digest: missing"));
  if (std::string expected = digestOf(record); *digest != expected)
    throw Error(str(path, ": digest: expected ", expected, ", got ",
                    digest->get<std::string>(), ": the file was altered"));
  return record;
}

const json &megalodon::recordField(const std::string &folder,
                                   const json &record,
                                   const std::string &name) {
  auto field = record.find(name);
  if (field == record.end())
    throw Error(str((fs::path(folder) / kRecordFile).string(), ": ", name,
                    ": missing"));
  return *field;
}

void megalodon::verifyCheckpointFile(const std::string &folder,
                                     const json &record,
                                     const std::string &name, Trust trust) {
  std::string path = (fs::path(folder) / name).string();
  const json &expected =
      recordField(folder, recordField(folder, record, "files"), name);
  auto compare = [&](const char *field, const json &got) {
    if (const json &value = recordField(folder, expected, field); value != got)
      throw Error(str(path, ": ", field, ": expected ", value.dump(), ", got ",
                      got.dump(), ": the file was truncated or altered"));
  };
  if (trust == Trust::Assume)
    return compare("bytes", MappedFile(path).size());
  const json got = describe(path);
  for (const char *field : {"bytes", "sha256"})
    compare(field, got.at(field));
}

std::vector<std::string> megalodon::checkpointFiles(const std::string &folder,
                                                    const json &record,
                                                    const std::string &set) {
  const json &files = recordField(folder, record, "files");
  for (const auto &item : files.items())
    if (item.key().empty() || item.key().find('/') != std::string::npos)
      throw Error(str((fs::path(folder) / kRecordFile).string(),
                      ": files: expected the name of a file beside this one, "
                      "got '",
                      item.key(), "'"));
  if (!files.contains(indexOfSet(set)))
    return {set};
  std::vector<std::string> list = {indexOfSet(set)};
  const std::string part = set.substr(0, set.rfind('.')) + "-";
  for (const auto &item : files.items())
    if (item.key().compare(0, part.size(), part) == 0)
      list.push_back(item.key());
  return list;
}

/// Verifies the files of a set, each on one rank, and reads this rank's parts.
static void loadSet(const std::string &folder, const json &record,
                    const std::string &set, const plan::LoadedPlan &plan,
                    const std::vector<SpreadTensor> &tensors, World &world,
                    Trust trust) {
  together(world, {str("reading ", set, " of a checkpoint"), -1}, [&] {
    const std::vector<std::string> files = checkpointFiles(folder, record, set);
    for (size_t i = size_t(world.rank()); i < files.size();
         i += size_t(world.size()))
      verifyCheckpointFile(folder, record, files[i], trust);
    readVariables(plan, tensors,
                  SafetensorsFile((fs::path(folder) / files[0]).string()));
  });
}

void megalodon::loadCheckpoint(const std::string &folder, const json &record,
                               const plan::LoadedPlan &plan,
                               const CheckpointTensors &tensors, World &world,
                               Trust trust) {
  loadSet(folder, record, kModelFile, plan, tensors.model, world, trust);
  loadSet(folder, record, kOptimizerFile, plan, tensors.optimizer, world,
          trust);
  if (!tensors.state.empty())
    loadSet(folder, record, kStateFile, plan, tensors.state, world, trust);
}

std::string megalodon::findWeights(const std::string &path) {
  fs::path place = path;
  if (!fs::exists(place) && place.filename() == "latest" &&
      fs::is_directory(place.parent_path()))
    place = place.parent_path();
  if (!fs::exists(place))
    throw Error(str(path, ": no such file or folder"));
  if (!fs::is_directory(place))
    return place.string();
  auto modelIn = [](const fs::path &folder) {
    for (const std::string &name :
         {std::string(kModelFile), indexOfSet(kModelFile)})
      if (fs::exists(folder / name))
        return (folder / name).string();
    return std::string();
  };
  if (std::string model = modelIn(place); !model.empty())
    return model;
  if (std::optional<Checkpoint> newest = newestCheckpoint(place.string())) {
    const std::string model = modelIn(newest->folder);
    return model.empty() ? (fs::path(newest->folder) / kModelFile).string()
                         : model;
  }
  throw Error(str(path, ": expected ", kModelFile,
                  " or a checkpoint in this folder, got neither"));
}

void megalodon::loadWeights(const std::string &path, Session &session,
                            Trust trust) {
  std::string file = findWeights(path);
  std::string folder = fs::path(file).parent_path().string();
  const std::string name = fs::path(file).filename().string();
  if ((name == kModelFile || name == indexOfSet(kModelFile)) &&
      fs::exists(fs::path(folder) / kRecordFile))
    return loadSet(folder, readRecord(folder), kModelFile, session.plan(),
                   spreadVariables(session, plan::Role::Parameter),
                   session.world(), trust);
  together(session.world(), {"reading weights", -1},
           [&] { readWeights(session, SafetensorsFile(file)); });
}
