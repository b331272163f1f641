"""MEGA in float64 numpy: the oracle of that baseline's tests, with the interface of megalodon.py, whose notation and ops it shares.

N = ema_ndim; C = chunk_size, or max_seq_len with full attention, where a sequence is one chunk.
"""
import dataclasses
import math

import numpy as np

from megalodon import (append, below, cache_append, chunk_positions, cross_entropy, embedding, layer_norm, linear, rms_norm, rotary, sigmoid,
                       silu)

# The mean and deviation of the Laplace function, which the original rounds to six digits.
LAPLACE_MEAN, LAPLACE_DEVIATION = math.sqrt(1 / 2), math.sqrt(1 / (4 * math.pi))


@dataclasses.dataclass
class Config:
    """The fields of a config file that change the function computed."""
    vocab_size: int
    num_layers: int = 12
    model_dim: int = 512
    z_dim: int = 128
    value_dim: int = 1024
    ffn_hidden_dim: int = 1024
    ema_ndim: int = 16
    chunk_size: int = 2048
    max_seq_len: int = 0
    attention_function: str = "softmax"
    rope_base: float = 10000.0
    norm_type: str = "layernorm"
    norm_affine: bool = True
    final_norm_affine: bool = False
    norm_eps: float = 1e-5
    scale_emb: bool = True
    share_emb: bool = True

    def __post_init__(self):
        if self.chunk_size == -1:  # full attention: one chunk
            self.chunk_size = self.max_seq_len

    # What the tests ask of any model.
    @property
    def output_size(self):
        return self.vocab_size

    @classmethod
    def of(cls, fields):
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})


def norm_shapes(config, part, affine):
    names = ("weight", "bias") if config.norm_type == "layernorm" else ("weight",)
    return {f"{part}.{name}": (config.model_dim,) for name in names} if affine else {}


def parameter_shapes(config):
    """Every trainable tensor by its name."""
    D, N, Z, V, F = config.model_dim, config.ema_ndim, config.z_dim, config.value_dim, config.ffn_hidden_dim
    shapes = {"embed.weight": (config.vocab_size, D)}
    for i in range(config.num_layers):
        mega, nffn = f"layers.{i}.mega.", f"layers.{i}.nffn."
        shapes.update(norm_shapes(config, mega + "norm", config.norm_affine))
        shapes.update({mega + "ema." + name: (D, N, 1) for name in ("alpha", "delta", "beta")})
        shapes.update({mega + "ema.gamma": (D, N), mega + "ema.omega": (D, 1)})
        shapes.update({mega + name: (2, Z) for name in ("gamma", "beta", "relative")})
        shapes.update(norm_shapes(config, nffn + "norm", config.norm_affine))
        for name, (rows, columns) in {mega + "wv": (V, D), mega + "wu": (D, D), mega + "wz": (Z, D), mega + "wr": (V, D), mega + "wh1": (D, D),
                                      mega + "wh2": (D, V), nffn + "fc1": (F, D), nffn + "fc2": (D, F)}.items():
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)
    shapes.update(norm_shapes(config, "output.final_norm", config.final_norm_affine))
    if not config.share_emb:
        shapes["output.output.weight"] = (config.vocab_size, D)
    return shapes


def random_parameters(config, generator):
    """Parameters for tests: no tensor is zero or constant, so that every term of the model shows in the output."""
    def draw(name, shape):
        if ".ema." in name:
            return generator.normal(0.0, 0.8, shape)
        if name.endswith(("mega.gamma", "mega.beta", "mega.relative")):
            return generator.normal(0.0, 0.7, shape)
        if len(shape) == 2:
            return generator.normal(0.0, 1.0 / np.sqrt(shape[1]), shape)
        return generator.normal(0.0, 0.3, shape)
    return {name: draw(name, shape) for name, shape in parameter_shapes(config).items()}


def fresh_state(config, batch):
    """The state of rows that have seen nothing. States of the moving average are complex numbers whose imaginary part stays 0."""
    D, C = config.model_dim, config.chunk_size
    layer = {"count": np.zeros(batch, np.int64), "h": np.zeros((batch, D, config.ema_ndim, 2)),
             "k": np.zeros((batch, C, 1, 2 * config.z_dim)), "v": np.zeros((batch, C, 1, config.value_dim))}
    return {f"state.layers.{i}.{name}": value.copy() for i in range(config.num_layers) for name, value in layer.items()}


def ema_coefficients(alpha, delta, beta, gamma):
    """p, q, g [..., D, N], all real: h_t = q h_{t-1} + p x_t, and the output is the sum of g h over the states."""
    step = sigmoid(delta[..., 0])
    return step * beta[..., 0], 1.0 - step * sigmoid(alpha[..., 0]), gamma / np.sqrt(gamma.shape[-1])


def moving_average(x, p, q, g, omega, h):
    """Damped moving average of x [..., B, L, D] from the state h [..., B, D, N], before its silu. Returns the output and the state."""
    outputs = []
    for t in range(x.shape[-2]):
        h = q * h + p * x[..., t, :, None]
        outputs.append(np.sum(g * h, -1))
    return np.stack(outputs, -2) + np.swapaxes(omega, -1, -2) * x, h


def mega_qk(z, gamma, beta, relative, positions, base, per_key):
    """Queries and keys [..., B, L, 2Z] of z [..., B, L, Z]: the last Z columns multiply to the relative bias."""
    Z = z.shape[-1]
    row = lambda matrix, i: matrix[..., i, :][..., None, :]
    scale = 1.0 / (positions[..., None] + 1.0) if per_key else 1.0 / np.sqrt(Z)
    tokens = np.broadcast_shapes(relative.shape[:-2], positions.shape[:-1]) + positions.shape[-1:]
    rotated = [rotary(np.broadcast_to(row(relative, i)[..., None, :], tokens + (1, Z)), positions, base)[..., 0, :] for i in range(2)]
    own = [scale * (z * row(gamma, 0) + row(beta, 0)), z * row(gamma, 1) + row(beta, 1)]
    shape = np.broadcast_shapes(own[0].shape, rotated[0].shape)
    return tuple(np.concatenate([np.broadcast_to(x, shape) for x in pair], -1) for pair in zip(own, rotated))


erf = np.vectorize(math.erf)


def laplace(scores):
    return 0.5 * (1.0 + erf((scores - LAPLACE_MEAN) / (LAPLACE_DEVIATION * np.sqrt(2.0))))


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attention(function, q, k, v, k_cache, v_cache, count, chunk):
    """q, k [..., B, L, 2Z], v [..., B, L, V]; caches [..., B, C, 1, width]. A token sees those of its chunk up to itself."""
    rows = []
    for b, start in enumerate(count % chunk):
        keys, values = (append(cache[..., b, :, :, :], new[..., b, :, None, :], start)[..., 0, :] for cache, new in ((k_cache, k), (v_cache, v)))
        position, key_position = np.arange(start, start + q.shape[-2])[:, None], np.arange(keys.shape[-2])
        visible = (key_position <= position) & (key_position // chunk == position // chunk)
        scores = q[..., b, :, :] @ np.swapaxes(keys, -1, -2)
        weights = softmax(np.where(visible, scores, -np.inf)) if function == "softmax" else np.where(visible, laplace(scores), 0.0)
        rows.append(weights @ values)
    return np.stack(rows, -3)


def norm(config, part, params, x):
    weight = params.get(part + ".weight")
    if config.norm_type == "rmsnorm":
        return rms_norm(x, weight, config.norm_eps)
    return layer_norm(x, weight, params.get(part + ".bias"), config.norm_eps)


def layer(config, params, x, state):
    """Params and state without the prefix of the layer. Returns the layer's output and its new state."""
    project = lambda part, u: linear(u, params[part + ".weight"], params[part + ".bias"])
    count, length, chunk = state["count"], x.shape[-2], config.chunk_size
    if config.max_seq_len and count.max() + length > config.max_seq_len:
        raise ValueError(f"expected at most {config.max_seq_len} tokens, got {count.max() + length}")
    n = norm(config, "mega.norm", params, x)
    v = silu(project("mega.wv", n))
    coefficients = ema_coefficients(*(params["mega.ema." + name] for name in ("alpha", "delta", "beta", "gamma")))
    average, h = moving_average(n, *coefficients, params["mega.ema.omega"], state["h"][..., 0])
    mx = silu(average)
    q, k = mega_qk(silu(project("mega.wz", mx)), *(params["mega." + name] for name in ("gamma", "beta", "relative")),
                   chunk_positions(count, length, chunk), config.rope_base, config.attention_function == "laplace")
    a = attention(config.attention_function, q, k, v, state["k"], state["v"], count, chunk)
    candidate = silu(project("mega.wh1", mx) + project("mega.wh2", a * silu(project("mega.wr", mx))))
    y = x + sigmoid(project("mega.wu", mx)) * (candidate - x)
    out = y + project("nffn.fc2", silu(project("nffn.fc1", norm(config, "nffn.norm", params, y))))
    return out, {"count": count + length, "h": np.stack([h, np.zeros_like(h)], -1), "k": cache_append(state["k"], k[..., None, :], count, chunk),
                 "v": cache_append(state["v"], v[..., None, :], count, chunk)}


def forward(config, params, tokens, state=None):
    """Logits [..., B, L, vocab] of tokens [B, L] and the state after them."""
    state = state or fresh_state(config, tokens.shape[0])
    after = {}
    x = embedding(params["embed.weight"], tokens) * (np.sqrt(config.model_dim) if config.scale_emb else 1.0)
    for i in range(config.num_layers):
        x, new = layer(config, below(f"layers.{i}.", params), x, below(f"state.layers.{i}.", state))
        after.update({f"state.layers.{i}.{name}": value for name, value in new.items()})
    x = norm(config, "output.final_norm", params, x)
    return linear(x, params["embed.weight" if config.share_emb else "output.output.weight"]), after


def loss(config, params, tokens, targets, state=None):
    """What `grad` differentiates: the mean over all positions, ignored ones counted in the denominator."""
    logits, _ = forward(config, params, tokens, state)
    return cross_entropy(logits, targets).mean((-2, -1))
