// The safetensors of the two community ports, megalodon-hf and megalodon-jax:
// their names, and where their numbers differ from the original's.
#pragma once
#include "runtime/convert/Original.h"

namespace megalodon::convert {

enum class Port { Hf, Jax };

/// The original's parameters of a port's. Throws Error naming the file and the
/// tensor that the original's model cannot represent.
TensorSet fromPort(Port port, const TensorSet &set, const ModelConfig &config,
                   Notes &notes);

/// The port's parameters of the original's. Throws Error naming the tensor that
/// the port's model cannot represent.
TensorSet toPort(Port port, const TensorSet &set, const ModelConfig &config,
                 Notes &notes);

/// The port's config, as text.
std::string portConfig(Port port, const ModelConfig &config);

} // namespace megalodon::convert
