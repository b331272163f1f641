// megalodon-run convert: takes weights from one implementation to another.
#include "runtime/convert/Ports.h"
#include "runtime/core/Error.h"
#include "runtime/train/Checkpoint.h"
#include "tools/megalodon-run/Commands.h"
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

namespace fs = std::filesystem;

namespace megalodon {

using namespace convert;

namespace {

struct ConvertOptions {
  std::string input, output, from, to = "megalodon", config;
  int64_t shards = 1;
};

bool endsWith(const std::string &text, const std::string &end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// The file of a folder of tensors, or the file itself.
std::string tensorFile(const std::string &path) {
  for (const char *name : {kModelFile, "model.safetensors.index.json"})
    if (fs::is_directory(path) && fs::exists(path + "/" + name))
      return path + "/" + name;
  return findWeights(path);
}

bool isOriginal(const std::string &path) {
  if (!fs::is_directory(path))
    return endsWith(path, ".pth") || endsWith(path, ".pt");
  for (const char *name :
       {"consolidate_config.json", "consolidated.pth", "consolidated.00.pth"})
    if (fs::exists(path + "/" + name))
      return true;
  return false;
}

std::string formatOf(const TensorSet &set) {
  auto format = set.metadata.find("format");
  if (format != set.metadata.end() && format->second == "megalodon-jax")
    return "jax";
  return set.tensors.count("model.embed.weight") ? "hf" : "megalodon";
}

ModelConfig configOf(const ConvertOptions &options, const TensorSet *set) {
  if (!options.config.empty())
    return readConfig(options.config);
  if (set && set->metadata.count("config_json"))
    return parseConfig(set->path + ": field '__metadata__.config_json'",
                       set->metadata.at("config_json"));
  const fs::path beside = (fs::is_directory(options.input)
                               ? fs::path(options.input)
                               : fs::path(options.input).parent_path()) /
                          "config.json";
  if (!fs::exists(beside))
    throw Error(str(options.input, ": expected a config.json beside it, got "
                                   "none; give --config"));
  return readConfig(beside.string());
}

/// Our config: the original's fields that have a value, and the model's type.
std::string ourConfig(const ModelConfig &config) {
  nlohmann::ordered_json out = {{"model_type", "megalodon"}};
  for (const auto &item : config.fields.items())
    if (!item.value().is_null())
      out[item.key()] = item.value();
  return out.dump(2) + "\n";
}

/// Checks that megalodon-jax's notes of its own format are the ones known.
void requireJaxFormat(const TensorSet &set) {
  for (const auto &[key, expected] :
       {std::pair<const char *, const char *>{"format_version", "2"},
        {"rope_layout", "adjacent_pair"},
        {"normalization_storage", "plus_one"},
        {"bias_schema", "upstream"}}) {
    auto found = set.metadata.find(key);
    if (found == set.metadata.end() || found->second != expected)
      throw Error(str(set.path, ": field '__metadata__.", key, "': expected ",
                      expected, ", got ",
                      found == set.metadata.end() ? "nothing" : found->second));
  }
}

/// The parameters under the original's names.
TensorSet readParameters(const ConvertOptions &options, ModelConfig &config,
                         Notes &notes) {
  if (options.from == "original" ||
      (options.from.empty() && isOriginal(options.input))) {
    config = configOf(options, nullptr);
    return readOriginal(options.input, config);
  }
  TensorSet set = readSafetensors(tensorFile(options.input));
  const std::string format =
      options.from.empty() ? formatOf(set) : options.from;
  config = configOf(options, &set);
  if (format == "jax")
    requireJaxFormat(set);
  if (format != "megalodon")
    return fromPort(format == "jax" ? Port::Jax : Port::Hf, set, config, notes);
  if (config.flag("share_emb"))
    set.tensors.erase("output.output.weight");
  set.metadata.clear();
  requireParameters(set, config);
  return set;
}

void writeParameters(const ConvertOptions &options, TensorSet set,
                     const ModelConfig &config, Notes &notes) {
  if (options.to == "original")
    return writeOriginal(options.output, set, config, options.shards, notes);
  if (options.shards != 1)
    throw Error(str("--shards: expected 1 with --to ", options.to, ", got ",
                    options.shards));
  std::string text = ourConfig(config);
  if (options.to != "megalodon") {
    const Port port = options.to == "jax" ? Port::Jax : Port::Hf;
    set = toPort(port, set, config, notes);
    text = portConfig(port, config);
  }
  if (endsWith(options.output, ".safetensors"))
    return writeSafetensors(options.output, set);
  fs::create_directories(options.output);
  writeSafetensors(options.output + "/" + kModelFile, set);
  writeText(options.output + "/config.json", text);
}

void runConvert(const ConvertOptions &options) {
  Notes notes;
  ModelConfig config;
  TensorSet set = readParameters(options, config, notes);
  const size_t count = set.tensors.size();
  writeParameters(options, std::move(set), config, notes);
  for (const std::string &note : notes)
    std::cerr << "megalodon-run: note: " << note << '\n';
  std::cerr << "megalodon-run: wrote " << count << " parameters to "
            << options.output << '\n';
}

} // namespace

void addConvert(CLI::App &app) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App *command = app.add_subcommand(
      "convert", "takes weights from one implementation to another");
  const auto formats = CLI::IsMember(
      std::set<std::string>{"megalodon", "original", "hf", "jax"});
  command
      ->add_option("input", options->input,
                   "safetensors file, .pth file, or the folder with them")
      ->required();
  command
      ->add_option("output", options->output,
                   "folder to write, or a .safetensors file")
      ->required();
  command
      ->add_option("--from", options->from,
                   "format of the input (default: found out)")
      ->check(formats);
  command->add_option("--to", options->to, "format of the output")
      ->check(formats)
      ->capture_default_str();
  command->add_option("--config", options->config,
                      "the model's config (default: config.json beside the "
                      "input)");
  command
      ->add_option("--shards", options->shards,
                   "model-parallel ranks to write for (--to original)")
      ->capture_default_str();
  command->callback([options] { runConvert(*options); });
}

} // namespace megalodon
