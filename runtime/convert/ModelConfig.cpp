#include "runtime/convert/ModelConfig.h"
#include "runtime/core/Error.h"
#include "runtime/io/Json.h"
#include "runtime/io/Weights.h"
#include <set>

namespace megalodon::convert {

using nlohmann::ordered_json;

/// The original's fields and their defaults.
static const ordered_json &defaults() {
  static const ordered_json made = {{"num_layers", 8},
                                    {"model_dim", 1024},
                                    {"z_dim", 256},
                                    {"value_dim", 2048},
                                    {"num_heads", 1},
                                    {"ffn_hidden_dim", 2048},
                                    {"cema_ndim", 16},
                                    {"chunk_size", 2048},
                                    {"efficient_attn", {}},
                                    {"init_mode", "he"},
                                    {"vocab_size", -1},
                                    {"output_size", -1},
                                    {"norm_num_groups", 32},
                                    {"norm_affine", true},
                                    {"norm_eps", 1e-5},
                                    {"rope_base", {}},
                                    {"dropout", 0.0},
                                    {"hidden_dropout", 0.0},
                                    {"attention_dropout", 0.0},
                                    {"swiglu", false},
                                    {"rescale_nffn", false},
                                    {"scale_emb", false},
                                    {"share_emb", false},
                                    {"layerwise_ckpt", false}};
  return made;
}

ModelConfig parseConfig(const std::string &path, const std::string &text) {
  nlohmann::json given = parseJson(path, "config", text);
  if (given.contains("model"))
    given = nlohmann::json(given["model"]);
  if (!given.is_object())
    throw Error(str(path, ": expected a config, got ", given.type_name()));
  if (auto type = given.find("model_type");
      type != given.end() && (*type == "llama" || *type == "mega"))
    throw Error(str(path,
                    ": field 'model_type': convert knows the weights of "
                    "megalodon, got ",
                    type->dump()));
  ModelConfig config{defaults()};
  for (auto &item : config.fields.items()) {
    auto found = given.find(item.key());
    if (found == given.end())
      continue;
    const ordered_json &old = item.value();
    const bool fits = old.is_boolean()  ? found->is_boolean()
                      : old.is_string() ? found->is_string()
                      : old.is_number_integer()
                          ? found->is_number_integer()
                          : found->is_number() || found->is_null() ||
                                (old.is_null() && found->is_string());
    if (!fits)
      throw Error(str(path, ": field '", item.key(),
                      "': expected a value like ", old.dump(), ", got ",
                      found->dump()));
    item.value() = *found;
  }
  if (config.fields["output_size"] == -1)
    config.fields["output_size"] = config.fields["vocab_size"];
  for (const char *field :
       {"num_layers", "model_dim", "z_dim", "value_dim", "num_heads",
        "ffn_hidden_dim", "cema_ndim", "chunk_size", "vocab_size",
        "output_size", "norm_num_groups"})
    if (config.integer(field) < 1 || config.integer(field) > INT32_MAX)
      throw Error(str(path, ": field '", field,
                      "': expected a number from 1 on, got ",
                      config.integer(field)));
  if (config.integer("z_dim") % (2 * config.integer("num_heads")))
    throw Error(str(path, ": field 'z_dim': expected a multiple of twice the ",
                    config.integer("num_heads"), " heads, got ",
                    config.integer("z_dim")));
  if (config.integer("model_dim") % config.integer("norm_num_groups"))
    throw Error(str(path, ": field 'norm_num_groups': expected a divisor of ",
                    config.integer("model_dim"), ", got ",
                    config.integer("norm_num_groups")));
  return config;
}

ModelConfig readConfig(const std::string &path) {
  return parseConfig(path, readText(path));
}

std::vector<Parameter> parametersOf(const ModelConfig &config) {
  const int64_t d = config.integer("model_dim"), z = config.integer("z_dim"),
                v = config.integer("value_dim"),
                f = config.integer("ffn_hidden_dim"),
                n = config.integer("cema_ndim");
  const bool affine = config.flag("norm_affine");
  std::vector<Parameter> list;
  list.push_back({"embed.weight", {config.integer("vocab_size"), d}, 1});
  for (int64_t i = 0; i < config.integer("num_layers"); ++i) {
    const std::string layer = str("layers.", i, ".");
    auto add = [&](const char *name, std::vector<int64_t> shape,
                   std::optional<size_t> split) {
      list.push_back({layer + name, std::move(shape), split});
    };
    add("mega.timenorm.weight", {d}, 0);
    add("mega.timenorm.bias", {d}, 0);
    add("mega.cema.alpha", {d, n, 1}, 0);
    add("mega.cema.delta", {d, n, 1}, 0);
    add("mega.cema.theta", {d, 1, 1}, 0);
    add("mega.cema.gamma", {d, n, 2}, 0);
    add("mega.cema.omega", {d, 1}, 0);
    if (affine)
      add("mega.rmsnorm.weight", {d}, std::nullopt);
    add("mega.wv.weight", {v, d}, 0);
    add("mega.wv.bias", {v}, 0);
    add("mega.wz.weight", {z, d}, 0);
    add("mega.wz.bias", {z}, 0);
    add("mega.wr.weight", {v, d}, 0);
    add("mega.wr.bias", {v}, 0);
    add("mega.wh1.weight", {d, d}, 0);
    add("mega.wh1.bias", {d}, 0);
    add("mega.wh2.weight", {d, v}, 1);
    add("mega.gamma", {2, z}, 1);
    add("mega.beta", {2, z}, 1);
    if (affine) {
      add("nffn.norm.weight", {d}, std::nullopt);
      add("nffn.norm.bias", {d}, std::nullopt);
    }
    add("nffn.fc1.weight", {f, d}, 0);
    add("nffn.fc2.weight", {d, f}, 1);
    if (config.flag("swiglu"))
      add("nffn.fc3.weight", {f, d}, 0);
    if (config.flag("rescale_nffn"))
      add("nffn.alpha", {d}, std::nullopt);
  }
  list.push_back({"output.final_norm.weight", {d}, 0});
  list.push_back({"output.final_norm.bias", {d}, 0});
  if (!config.flag("share_emb"))
    list.push_back(
        {"output.output.weight", {config.integer("output_size"), d}, 1});
  return list;
}

void requireParameters(const TensorSet &set, const ModelConfig &config) {
  std::vector<std::string> missing, surplus;
  std::set<std::string> known;
  for (const Parameter &parameter : parametersOf(config)) {
    known.insert(parameter.name);
    auto found = set.tensors.find(parameter.name);
    if (found == set.tensors.end()) {
      missing.push_back(parameter.name);
      continue;
    }
    const Tensor &tensor = found->second;
    if (tensor.shape != parameter.shape)
      throw Error(str(set.path, ": tensor '", parameter.name,
                      "': expected shape ", shapeText(parameter.shape),
                      " as the config says, got ", shapeText(tensor.shape)));
    if (tensor.type > StoredTensor::Type::BF16)
      throw Error(str(set.path, ": tensor '", parameter.name,
                      "': expected a floating type, got ",
                      typeName(tensor.type)));
  }
  for (const auto &item : set.tensors)
    if (!known.count(item.first))
      surplus.push_back(item.first);
  if (!missing.empty())
    throw Error(str(set.path, ": expected the ", known.size(),
                    " parameters of the config, missing ", nameList(missing)));
  if (!surplus.empty())
    throw Error(str(set.path,
                    ": expected the parameters of the config and "
                    "nothing else, got ",
                    nameList(surplus)));
}

} // namespace megalodon::convert
