#include "runtime/convert/Ports.h"
#include "runtime/core/Error.h"
#include "runtime/core/Sha256.h"
#include <cmath>
#include <cstring>

namespace megalodon::convert {

using Type = StoredTensor::Type;

static const char *kOutput = "output.output.weight",
                  *kEmbedding = "embed.weight", *kHead = "lm_head.weight";

static bool endsWith(const std::string &text, const char *end) {
  const size_t bytes = std::strlen(end);
  return text.size() >= bytes &&
         text.compare(text.size() - bytes, bytes, end) == 0;
}

/// Both ports rename in the same way; gamma of CEMA is two tensors there.
static std::string portName(const std::string &name) {
  if (name == kEmbedding)
    return "model.embed.weight";
  if (name == kOutput)
    return kHead;
  for (const auto &[ours, theirs] :
       {std::pair<std::string, std::string>{"output.final_norm.",
                                            "model.norm."},
        {".mega.rmsnorm.weight", ".attn.rmsnorm.gamma"},
        {".mega.", ".attn."},
        {".nffn.", ".ffn."}}) {
    const size_t at = name.find(ours);
    if (at != std::string::npos)
      return (at == 0 ? "" : "model.") + name.substr(0, at) + theirs +
             name.substr(at + ours.size());
  }
  throw Error(str("tensor '", name, "' has no counterpart"));
}

/// Where a row of q and k stands in the port's halves [re.., im..] of a head,
/// given its place in the original's pairs (re, im).
static int64_t halfOfPair(int64_t row, int64_t dim) {
  const int64_t inHead = row % dim;
  return row - inHead + inHead / 2 + (inHead % 2 ? dim / 2 : 0);
}

/// Reorders what stands along the dimension of q's and k's channels; `source`
/// gives the old place of a new one.
template <typename Source>
static Tensor permute(const Tensor &tensor, size_t dimension, Source source) {
  const int64_t count = tensor.shape[dimension];
  int64_t outer = 1;
  for (size_t i = 0; i < dimension; ++i)
    outer *= tensor.shape[i];
  const size_t width =
      tensor.bytes / size_t(std::max<int64_t>(1, outer * count));
  return makeTensor(tensor.name, tensor.type, tensor.shape, [&](std::byte *to) {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(to + size_t(o * count + i) * width,
                    tensor.data.get() + size_t(o * count + source(i)) * width,
                    width);
  });
}

/// The dimension of a parameter that holds q's and k's channels, or -1.
static int rotatedDimension(const std::string &name) {
  if (endsWith(name, ".wz.weight") || endsWith(name, ".wz.bias"))
    return 0;
  return endsWith(name, ".mega.gamma") || endsWith(name, ".mega.beta") ? 1 : -1;
}

/// Of a gain stored as it is (HF's LayerNorm) the original stores what it is
/// above one.
static Tensor shifted(const Tensor &tensor, double by) {
  const Type type = tensor.type == Type::F64 ? Type::F64 : Type::F32;
  return makeFloats(tensor.name, type, tensor.shape,
                    [&](int64_t i) { return element(tensor, i) + by; });
}

static double hfAlpha(int64_t layer) { return 0.1 * std::pow(0.5, layer); }

static int64_t layerOf(const std::string &name) {
  return std::stoll(name.substr(std::strlen("layers.")));
}

namespace {

/// Takes tensors out of a port's set by the original's names.
class Importer {
public:
  Importer(Port port, const TensorSet &set, const ModelConfig &config,
           Notes &notes)
      : port(port), left(set), config(config), notes(notes) {}

  TensorSet run() {
    TensorSet result{left.path, {}, {}};
    for (const Parameter &parameter : parametersOf(config)) {
      Tensor tensor = import(parameter);
      tensor.name = parameter.name;
      if (tensor.shape != parameter.shape)
        throw Error(str(left.path, ": tensor '", portName(parameter.name),
                        "': expected shape ", shapeText(parameter.shape),
                        " as the config says, got ", shapeText(tensor.shape)));
      result.tensors[parameter.name] = std::move(tensor);
    }
    dropRest();
    requireParameters(result, config);
    return result;
  }

private:
  Tensor take(const std::string &name) {
    auto found = left.tensors.find(name);
    if (found == left.tensors.end())
      throw Error(str(left.path, ": expected tensor '", name, "', got none"));
    Tensor tensor = found->second;
    left.tensors.erase(found);
    if (tensor.type > Type::BF16)
      throw Error(str(left.path, ": tensor '", name,
                      "': expected a floating type, got ",
                      typeName(tensor.type)));
    return tensor;
  }

  Tensor import(const Parameter &parameter) {
    const std::string &name = parameter.name, theirs = portName(name);
    if (endsWith(name, ".cema.gamma"))
      return joinGamma(theirs, parameter.shape);
    if (endsWith(name, ".cema.omega")) {
      Tensor omega = take(theirs);
      omega.shape.push_back(1);
      return omega;
    }
    const bool hf = port == Port::Hf;
    if (hf && endsWith(name, ".nffn.alpha"))
      return makeFloats(name, Type::F32, parameter.shape,
                        [&](int64_t) { return hfAlpha(layerOf(name)); });
    // Without affine norms HF's timestep norm has no gain either.
    if (hf && !left.tensors.count(theirs) && !config.flag("norm_affine") &&
        name.find("norm.") != std::string::npos)
      return makeFloats(name, Type::F32, parameter.shape,
                        [](int64_t) { return 0; });
    if (name == kOutput && !left.tensors.count(kHead)) {
      if (!hf)
        take(kHead);
      Tensor head = left.tensors.count("model.embed.weight")
                        ? left.tensors.at("model.embed.weight")
                        : embedding;
      return head; // safetensors of tied weights leave the copy out
    }
    Tensor tensor = take(theirs);
    if (name == kEmbedding)
      embedding = tensor;
    if (!hf)
      return tensor;
    if (endsWith(name, ".nffn.norm.weight"))
      return shifted(tensor, -1);
    const int dimension = rotatedDimension(name);
    const int64_t dim = config.headKeyDim();
    if (dimension < 0 || tensor.shape.size() <= size_t(dimension) ||
        tensor.shape[size_t(dimension)] != config.integer("z_dim"))
      return tensor; // a wrong shape is refused by the caller
    return permute(tensor, size_t(dimension),
                   [&](int64_t row) { return halfOfPair(row, dim); });
  }

  Tensor joinGamma(const std::string &name, const std::vector<int64_t> &shape) {
    const Tensor parts[2] = {take(name + "_real"), take(name + "_imag")};
    const std::vector<int64_t> wanted = {shape[0], shape[1]};
    for (const Tensor &part : parts)
      if (part.shape != wanted || part.type != parts[0].type)
        throw Error(str(left.path, ": tensor '", part.name,
                        "': expected shape ", shapeText(wanted),
                        " and one type with its counterpart, got ",
                        shapeText(part.shape)));
    const size_t width = typeBytes(parts[0].type);
    return makeTensor(name, parts[0].type, shape, [&](std::byte *to) {
      const int64_t count = shape[0] * shape[1];
      for (int64_t i = 0; i < 2 * count; ++i)
        std::memcpy(to + size_t(i) * width,
                    parts[i % 2].data.get() + size_t(i / 2) * width, width);
    });
  }

  /// What HF has and the original's model does not: biases that must be zero,
  /// and the head that repeats the embeddings.
  void dropRest() {
    for (auto at = left.tensors.begin();
         port == Port::Hf && at != left.tensors.end();) {
      const auto &[name, tensor] = *at;
      if (name == kHead && config.flag("share_emb")) {
        if (tensor.type != embedding.type || tensor.bytes != embedding.bytes ||
            std::memcmp(tensor.data.get(), embedding.data.get(), tensor.bytes))
          throw Error(str(left.path, ": tensor '", name,
                          "': expected the values of 'model.embed.weight', "
                          "which the config shares, got others"));
        at = left.tensors.erase(at);
        continue;
      }
      bool extra = false;
      for (const char *bias : {".attn.wh2.bias", ".ffn.fc1.bias",
                               ".ffn.fc2.bias", ".ffn.fc3.bias"})
        extra |= endsWith(name, bias);
      if (!extra) {
        ++at;
        continue;
      }
      for (int64_t i = 0; i < tensor.elements(); ++i)
        if (element(tensor, i) != 0)
          throw Error(str(left.path, ": tensor '", name, "': expected zeros, ",
                          "since the original's model has no such bias, got ",
                          element(tensor, i), " at [", i, "]"));
      at = left.tensors.erase(at);
    }
    if (!left.tensors.empty())
      throw Error(str(left.path, ": tensor '", left.tensors.begin()->first,
                      "' has no counterpart in the model of the config"));
    if (port == Port::Hf)
      notes.push_back("megalodon-hf's timestep norm leaves out the variance "
                      "within a token: logits will differ from its own");
  }

  const Port port;
  TensorSet left;
  const ModelConfig &config;
  Notes &notes;
  Tensor embedding{};
};

} // namespace

TensorSet fromPort(Port port, const TensorSet &set, const ModelConfig &config,
                   Notes &notes) {
  return Importer(port, set, config, notes).run();
}

/// Half `part` (0: real, 1: imaginary) of CEMA's gamma.
static Tensor gammaPart(const Tensor &gamma, size_t part,
                        const std::string &name) {
  const size_t width = typeBytes(gamma.type);
  return makeTensor(
      name, gamma.type, {gamma.shape[0], gamma.shape[1]}, [&](std::byte *to) {
        const size_t count = size_t(gamma.elements() / 2);
        for (size_t i = 0; i < count; ++i)
          std::memcpy(to + i * width, gamma.data.get() + (2 * i + part) * width,
                      width);
      });
}

static std::string hexDigest(const std::string &text) {
  return Sha256::hex(Sha256::of(text.data(), text.size()));
}

static std::string jaxConfig(const ModelConfig &config) {
  // nlohmann's json sorts keys, as the port's fingerprint wants them.
  nlohmann::json out = {{"attention_window", nullptr},
                        {"attention_dropout_mode", "post_softmax"},
                        {"pad_token_id", nullptr},
                        {"bos_token_id", 1},
                        {"eos_token_id", 2},
                        {"use_checkpoint", false},
                        {"use_associative_segment_scan", true}};
  for (const char *field :
       {"num_layers",     "model_dim",         "z_dim",       "value_dim",
        "num_heads",      "ffn_hidden_dim",    "cema_ndim",   "chunk_size",
        "init_mode",      "vocab_size",        "output_size", "norm_num_groups",
        "norm_affine",    "norm_eps",          "rope_base",   "dropout",
        "hidden_dropout", "attention_dropout", "swiglu",      "rescale_nffn",
        "scale_emb",      "share_emb"})
    out[field] = nlohmann::json(config.fields.at(field));
  for (const char *field : {"param_dtype", "compute_dtype", "accum_dtype",
                            "attention_softmax_dtype", "loss_softmax_dtype"})
    out[field] = "float32";
  return out.dump();
}

/// What megalodon-jax's loader requires beside the tensors.
static void addJaxMetadata(TensorSet &set, const ModelConfig &config) {
  std::string manifest = "[";
  for (const auto &[name, tensor] : set.tensors) {
    manifest += str(manifest.size() > 1 ? "," : "", "[\"", name, "\",[");
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      manifest += str(i ? "," : "", tensor.shape[i]);
    manifest += "],\"float32\"]";
  }
  manifest += "]";
  const std::string text = jaxConfig(config);
  set.metadata = {{"format", "megalodon-jax"},
                  {"format_version", "2"},
                  {"config_json", text},
                  {"config_fingerprint", hexDigest(text)},
                  {"parameter_manifest_sha256", hexDigest(manifest)},
                  {"rope_layout", "adjacent_pair"},
                  {"normalization_storage", "plus_one"},
                  {"bias_schema", "upstream"},
                  {"initializer_schema", "split-boundary-internal-v1"},
                  {"tying", config.flag("share_emb") ? "tied" : "untied"},
                  {"dtype_policy", "fp32-params-fp32-or-bf16-compute"}};
}

/// Refuses what HF's model cannot be.
static void requireHf(const TensorSet &set, const ModelConfig &config) {
  for (const auto &item : set.tensors) {
    const std::string &name = item.first;
    const Tensor &tensor = item.second;
    auto require = [&](double expected, const char *why) {
      for (int64_t i = 0; i < tensor.elements(); ++i)
        if (element(tensor, i) != expected)
          throw Error(str(set.path, ": tensor '", name, "': expected ",
                          expected, why, ", got ", element(tensor, i), " at [",
                          i, "]"));
    };
    if (endsWith(name, ".nffn.alpha"))
      require(double(float(hfAlpha(layerOf(name)))),
              ", a constant of megalodon-hf");
    else if (!config.flag("norm_affine") &&
             name.find("norm.") != std::string::npos)
      require(0, " without affine norms in megalodon-hf");
  }
  auto output = set.tensors.find(kOutput);
  if (output == set.tensors.end() ||
      config.fields.at("output_size") != config.fields.at("vocab_size"))
    return;
  const Tensor &embed = set.tensors.at(kEmbedding);
  if (embed.type != output->second.type ||
      std::memcmp(embed.data.get(), output->second.data.get(), embed.bytes))
    throw Error(str(set.path, ": tensor '", kOutput,
                    "': expected the values of 'embed.weight', which "
                    "megalodon-hf always shares, got others"));
}

TensorSet toPort(Port port, const TensorSet &set, const ModelConfig &config,
                 Notes &notes) {
  const bool hf = port == Port::Hf;
  if (hf)
    requireHf(set, config);
  TensorSet result{set.path, {}, {}};
  for (const Parameter &parameter : parametersOf(config)) {
    const std::string &name = parameter.name;
    Tensor tensor = set.tensors.at(name);
    if (!hf && tensor.type != Type::F32)
      throw Error(str(set.path, ": tensor '", name,
                      "': expected type F32, as "
                      "megalodon-jax stores, got ",
                      typeName(tensor.type)));
    std::string theirs = portName(name);
    if (endsWith(name, ".cema.gamma")) {
      for (size_t part : {0, 1}) {
        const std::string half = theirs + (part ? "_imag" : "_real");
        result.tensors[half] = gammaPart(tensor, part, half);
      }
      continue;
    }
    if (endsWith(name, ".cema.omega"))
      tensor.shape.pop_back();
    if (hf) {
      if (endsWith(name, ".nffn.alpha") ||
          (!config.flag("norm_affine") &&
           name.find("norm.") != std::string::npos))
        continue;
      const int dimension = rotatedDimension(name);
      const int64_t dim = config.headKeyDim();
      if (endsWith(name, ".nffn.norm.weight"))
        tensor = shifted(tensor, 1);
      else if (dimension >= 0)
        tensor = permute(tensor, size_t(dimension), [&](int64_t row) {
          const int64_t inHead = row % dim, half = dim / 2;
          return row - inHead +
                 (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
        });
      for (const char *layer :
           {".mega.wh2.", ".nffn.fc1.", ".nffn.fc2.", ".nffn.fc3."})
        if (name.find(layer) != std::string::npos) {
          const std::string bias =
              theirs.substr(0, theirs.size() - std::strlen("weight")) + "bias";
          const Type type = tensor.type == Type::F16 ? Type::F32 : tensor.type;
          result.tensors[bias] = makeFloats(bias, type, {tensor.shape[0]},
                                            [](int64_t) { return 0; });
        }
    }
    tensor.name = theirs;
    result.tensors[theirs] = std::move(tensor);
  }
  if (hf) {
    result.metadata = {{"format", "pt"}};
    notes.push_back("megalodon-hf's timestep norm leaves out the variance "
                    "within a token: its logits will differ");
  } else {
    addJaxMetadata(result, config);
  }
  return result;
}

std::string portConfig(Port port, const ModelConfig &config) {
  if (port == Port::Jax)
    return jaxConfig(config) + "\n";
  nlohmann::ordered_json out = {{"model_type", "megalodon"},
                                {"architectures", {"MegalodonForCausalLM"}}};
  out.update(config.fields);
  out.erase("layerwise_ckpt");
  out["share_emb"] =
      config.fields.at("output_size") == config.fields.at("vocab_size");
  return out.dump(2) + "\n";
}

} // namespace megalodon::convert
