// What a conversion must know of a model: its config under the original's field
// names, and from it the name, shape and split of every parameter.
#pragma once
#include "runtime/convert/Tensor.h"
#include <nlohmann/json.hpp>
#include <optional>

namespace megalodon::convert {

struct ModelConfig {
  nlohmann::ordered_json fields; ///< all of the original's, with defaults

  int64_t integer(const char *field) const { return fields.at(field); }
  bool flag(const char *field) const { return fields.at(field); }
  double ropeBase() const {
    return fields.at("rope_base").is_null() ? 10000.0
                                            : double(fields.at("rope_base"));
  }
  int64_t headKeyDim() const { return integer("z_dim") / integer("num_heads"); }
};

/// Reads a config: ours, a port's, or the original's config.json, whose model
/// stands in the field `model`. Throws Error naming file and field.
ModelConfig readConfig(const std::string &path);
ModelConfig parseConfig(const std::string &path, const std::string &text);

struct Parameter {
  std::string name; ///< the original's
  std::vector<int64_t> shape;
  /// The dimension of which each model-parallel rank holds a part; none: all
  /// hold it whole.
  std::optional<size_t> split;
};

/// All parameters, the output's matrix left out where embeddings are shared.
std::vector<Parameter> parametersOf(const ModelConfig &config);

/// Throws Error unless the set holds the model's parameters, of floating types
/// and nothing else.
void requireParameters(const TensorSet &set, const ModelConfig &config);

} // namespace megalodon::convert
