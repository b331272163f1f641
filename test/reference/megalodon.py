"""MEGALODON in float64 numpy: small, slow, independent of the compiler. The oracle of the numerics tests.

Names and shapes are those of the checkpoint and of the entries: parameters `layers.0.mega.wz.weight`, state
`state.layers.0.mean`. Every parameter and state tensor may carry extra leading axes (as [V, 1, ...] against activations
[V, B, L, ...]); they broadcast, which is how many perturbed copies of the model run at once.

Notation: B rows, L tokens of the call, D model_dim, N cema_ndim, G norm groups, H heads, Z z_dim, V value_dim, C chunk_size.
"""
import dataclasses
import math

import numpy as np


@dataclasses.dataclass
class Config:
    """The fields of a config file that change the function computed; defaults as in the original."""
    vocab_size: int
    num_layers: int = 8
    model_dim: int = 1024
    z_dim: int = 256
    value_dim: int = 2048
    num_heads: int = 1
    ffn_hidden_dim: int = 2048
    cema_ndim: int = 16
    chunk_size: int = 2048
    output_size: int = -1
    norm_num_groups: int = 32
    norm_affine: bool = True
    norm_eps: float = 1e-5
    rope_base: float = None
    swiglu: bool = False
    rescale_nffn: bool = False
    scale_emb: bool = False
    share_emb: bool = False

    def __post_init__(self):
        self.output_size = self.vocab_size if self.output_size == -1 else self.output_size
        self.rope_base = self.rope_base or 10000.0

    @classmethod
    def of(cls, fields):
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})


def parameter_shapes(config):
    """Every trainable tensor under its checkpoint name."""
    D, N, Z, V, F = config.model_dim, config.cema_ndim, config.z_dim, config.value_dim, config.ffn_hidden_dim
    shapes = {"embed.weight": (config.vocab_size, D)}
    for i in range(config.num_layers):
        mega, nffn = f"layers.{i}.mega.", f"layers.{i}.nffn."
        shapes.update({
            mega + "timenorm.weight": (D,), mega + "timenorm.bias": (D,),
            mega + "cema.alpha": (D, N, 1), mega + "cema.delta": (D, N, 1), mega + "cema.theta": (D, 1, 1),
            mega + "cema.gamma": (D, N, 2), mega + "cema.omega": (D, 1),
        })
        if config.norm_affine:
            shapes[mega + "rmsnorm.weight"] = (D,)
        for name, (rows, columns) in {"wv": (V, D), "wz": (Z, D), "wr": (V, D), "wh1": (D, D)}.items():
            shapes[f"{mega}{name}.weight"], shapes[f"{mega}{name}.bias"] = (rows, columns), (rows,)
        shapes.update({mega + "wh2.weight": (D, V), mega + "gamma": (2, Z), mega + "beta": (2, Z)})
        if config.norm_affine:
            shapes.update({nffn + "norm.weight": (D,), nffn + "norm.bias": (D,)})
        shapes.update({nffn + "fc1.weight": (F, D), nffn + "fc2.weight": (D, F)})
        if config.swiglu:
            shapes[nffn + "fc3.weight"] = (F, D)
        if config.rescale_nffn:
            shapes[nffn + "alpha"] = (D,)
    shapes.update({"output.final_norm.weight": (D,), "output.final_norm.bias": (D,)})
    if not config.share_emb:
        shapes["output.output.weight"] = (config.output_size, D)
    return shapes


def random_parameters(config, generator):
    """Parameters for tests: no tensor is zero or constant, so that every term of the model shows in the output."""
    def draw(name, shape):
        if name.endswith("cema.theta"):
            return generator.normal(-1.0, 1.0, shape)
        if "cema." in name:
            return generator.normal(0.0, 0.6, shape)
        if len(shape) == 2 and name.endswith("weight"):
            return generator.normal(0.0, 1.0 / np.sqrt(shape[1]), shape)
        return generator.normal(0.0, 0.3, shape)
    return {name: draw(name, shape) for name, shape in parameter_shapes(config).items()}


def fresh_state(config, batch):
    """The state of rows that have seen nothing. Caches have the capacity of one chunk."""
    G, H, C = config.norm_num_groups, config.num_heads, config.chunk_size
    norm = {"count": np.zeros(batch, np.int64), "mean": np.zeros((batch, G)), "var": np.zeros((batch, G))}
    layer = {**norm, "h": np.zeros((batch, config.model_dim, config.cema_ndim, 2)),
             "k": np.zeros((batch, C, H, config.z_dim // H)), "v": np.zeros((batch, C, H, config.value_dim // H))}
    state = {f"state.layers.{i}.{name}": value.copy() for i in range(config.num_layers) for name, value in layer.items()}
    return {**state, **{f"state.final.{name}": value.copy() for name, value in norm.items()}}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def embedding(weight, tokens):
    """Rows of weight [vocab, D], or of [V, 1, vocab, D] (the only parameter that is indexed rather than broadcast)."""
    return weight[tokens] if weight.ndim == 2 else weight[:, 0][:, tokens]


def linear(x, weight, bias=None):
    y = x @ np.swapaxes(weight, -1, -2)
    return y if bias is None else y + bias[..., None, :]


def gain(weight):
    """Norms store their gain minus one."""
    return 1.0 if weight is None else 1.0 + weight[..., None, :]


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * gain(weight)


def layer_norm(x, weight, bias, eps):
    centred = x - np.mean(x, -1, keepdims=True)
    y = centred / np.sqrt(np.mean(centred * centred, -1, keepdims=True) + eps) * gain(weight)
    return y if bias is None else y + bias[..., None, :]


def timestep_norm(x, weight, bias, count, mean, var, groups, eps):
    """x [..., B, L, D], count [B], mean and var [..., B, G] over everything a row has seen. Returns y and the new state."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    token_mean, token_var = grouped.mean(-1), grouped.var(-1)
    outputs = []
    for t in range(x.shape[-2]):
        before = count[:, None].astype(np.float64)
        after = before + 1.0
        delta = token_mean[..., t, :] - mean
        mean = mean + delta / after
        var = before / after * var + token_var[..., t, :] / after + before / after**2 * delta**2
        outputs.append((grouped[..., t, :, :] - mean[..., None]) / np.sqrt(var + eps)[..., None])
        count = count + 1
    y = np.stack(outputs, -3)
    return y.reshape(*y.shape[:-2], -1) * gain(weight) + bias[..., None, :], count, mean, var


def cema_coefficients(alpha, delta, theta, gamma):
    """p [..., D, N] real; q and g [..., D, N] complex."""
    alpha, delta, theta = alpha[..., 0], delta[..., 0], theta[..., 0]
    N = alpha.shape[-1]
    p = sigmoid(alpha)
    phase = np.arange(1, N + 1) * sigmoid(theta) * 2.0 * np.pi / N
    q = (1.0 - p * sigmoid(delta)) * np.exp(1j * phase)
    g = (gamma[..., 0] + 1j * gamma[..., 1]) / np.sqrt(N)
    return p, q, g


def cema(x, p, q, g, omega, h):
    """Complex exponential moving average of x [..., B, L, D] from the state h [..., B, D, N, 2]. Returns y and h after the call."""
    hidden = h[..., 0] + 1j * h[..., 1]
    outputs = []
    for t in range(x.shape[-2]):
        hidden = q * hidden + p * x[..., t, :, None]
        outputs.append(np.sum(g * hidden, -1).real)
    y = np.stack(outputs, -2) + np.swapaxes(omega, -1, -2) * x
    return y, np.stack([hidden.real, hidden.imag], -1)


def normalized_qk(z, gamma, beta, heads, eps):
    """Per-head RMS normalisation of z [..., L, Z], then one gain and bias each for queries and keys."""
    split = z.reshape(*z.shape[:-1], heads, -1)
    normed = rms_norm(split, None, eps).reshape(z.shape)
    scale = 1.0 / np.sqrt(split.shape[-1])
    return tuple(normed * gain(gamma[..., i, :]) * scale + beta[..., i, :][..., None, :] for i in range(2))


def rotary(x, positions, base):
    """Rotates adjacent pairs of x [..., L, H, d] by position * base^(-2j/d); positions [L] or [B, L]."""
    d = x.shape[-1]
    angle = positions[..., None, None] * base ** (-np.arange(0, d, 2) / d)
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = np.stack([even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)], -1)
    return rotated.reshape(x.shape)


def chunk_positions(count, length, chunk):
    """Position in its chunk of every token of a call, [B, L]."""
    return (count[:, None] + np.arange(length)) % chunk


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def laplace(scores):
    """The attention function of MEGA (arXiv 2209.10655): a normal distribution's; its tail is a complement of erf, which keeps digits."""
    mean, deviation = np.sqrt(0.5), np.sqrt(0.25 / np.pi)
    return 0.5 * np.vectorize(math.erfc, otypes=[float])((mean - scores) / (deviation * np.sqrt(2)))


def chunk_attention(q, k, v, k_cache, v_cache, count, chunk, weigh=softmax):
    """q, k [..., B, L, H, dz] rotated, v [..., B, L, H, dv]; caches [..., B, C, H, d] hold count mod C rows of the open chunk.

    A token sees the tokens of its own chunk up to itself, whether they came with this call or with an earlier one.
    """
    rows = []
    for b, start in enumerate(count % chunk):
        row_q, row_k, row_v, cached_k, cached_v = (x[..., b, :, :, :] for x in (q, k, v, k_cache, v_cache))
        keys, values = append(cached_k, row_k, start), append(cached_v, row_v, start)
        position = np.arange(start, start + row_q.shape[-3])
        key_position = np.arange(keys.shape[-3])
        visible = (key_position <= position[:, None]) & (key_position // chunk == position[:, None] // chunk)
        scores = np.where(visible, np.einsum("...qhd,...khd->...hqk", row_q, keys), -np.inf)
        rows.append(np.einsum("...hqk,...khd->...qhd", weigh(scores), values))
    return np.stack(rows, -4)


def cache_append(cache, new, count, chunk):
    """The cache of the open chunk after a call with rows `new` [..., B, L, H, d]; zero beyond the open chunk."""
    rows = []
    for b, start in enumerate(count % chunk):
        both = append(cache[..., b, :, :, :], new[..., b, :, :, :], start)
        rows.append(open_chunk(both, both.shape[-3] // chunk * chunk, chunk))
    return np.stack(rows, -4)


def append(cache, new, start):
    """The first `start` rows of a cache, then the new rows."""
    leading = np.broadcast_shapes(cache.shape[:-3], new.shape[:-3])
    return np.concatenate([np.broadcast_to(x, leading + x.shape[-3:]) for x in (cache[..., :start, :, :], new)], -3)


def open_chunk(x, closed, chunk):
    """The rows after `closed`, in a zero cache of one chunk."""
    cache = np.zeros(x.shape[:-3] + (chunk,) + x.shape[-2:])
    cache[..., :x.shape[-3] - closed, :, :] = x[..., closed:, :, :]
    return cache


def gated_attention(config, params, x, state, trace):
    """Params and state without the prefix of the layer. Returns x plus the block, and the new state of the layer."""
    eps, heads, chunk = config.norm_eps, config.num_heads, config.chunk_size
    per_head = lambda u: u.reshape(*u.shape[:-1], heads, -1)
    positions = chunk_positions(state["count"], x.shape[-2], chunk)
    xt, count, mean, var = timestep_norm(x, params["timenorm.weight"], params["timenorm.bias"], state["count"], state["mean"],
                                         state["var"], config.norm_num_groups, eps)
    coefficients = cema_coefficients(*(params["cema." + name] for name in ("alpha", "delta", "theta", "gamma")))
    u, h = cema(xt, *coefficients, params["cema.omega"], state["h"])
    mx = rms_norm(u, params.get("rmsnorm.weight"), eps)
    z = linear(mx, params["wz.weight"], params["wz.bias"])
    q, k = normalized_qk(z, params["gamma"], params["beta"], heads, eps)
    v = silu(linear(xt, params["wv.weight"], params["wv.bias"]))
    r = silu(linear(mx, params["wr.weight"], params["wr.bias"]))
    queries, keys = (rotary(per_head(u), positions, config.rope_base) for u in (q, k))
    a = chunk_attention(queries, keys, per_head(v), state["k"], state["v"], state["count"], chunk)
    a = a.reshape(*a.shape[:-2], -1)
    y = x + linear(mx, params["wh1.weight"], params["wh1.bias"]) + linear(a * r, params["wh2.weight"])
    trace.update(timenorm=xt, cema=u, mx=mx, z=z, q=q, k=k, v=v, r=r, attn=a, mega=y)
    return y, {"count": count, "mean": mean, "var": var, "h": h, "k": cache_append(state["k"], keys, state["count"], chunk),
               "v": cache_append(state["v"], per_head(v), state["count"], chunk)}


def feed_forward(config, params, y, x):
    """Feed-forward network of y; its residual is x, the input of the whole block (two hops)."""
    n = layer_norm(y, params.get("norm.weight"), params.get("norm.bias"), config.norm_eps)
    hidden = silu(linear(n, params["fc1.weight"]))
    if config.swiglu:
        hidden = hidden * linear(n, params["fc3.weight"])
    out = linear(hidden, params["fc2.weight"])
    return x + (out * params["alpha"][..., None, :] if config.rescale_nffn else out)


def below(prefix, tensors):
    """The tensors whose names begin with a prefix, without it."""
    return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}


def forward(config, params, tokens, state=None, trace=None):
    """Logits [..., B, L, out] of tokens [B, L] and the state after them. `trace` collects activations by name."""
    state = state or fresh_state(config, tokens.shape[0])
    trace = {} if trace is None else trace
    after = {}
    x = embedding(params["embed.weight"], tokens)
    if config.scale_emb:
        x = x * np.sqrt(config.model_dim)
    trace["embed"] = x
    for i in range(config.num_layers):
        inner = {}
        layer = below(f"layers.{i}.", params)
        y, new = gated_attention(config, below("mega.", layer), x, below(f"state.layers.{i}.", state), inner)
        x = feed_forward(config, below("nffn.", layer), y, x)
        after.update({f"state.layers.{i}.{name}": value for name, value in new.items()})
        trace.update({f"layers.{i}.{name}": value for name, value in {**inner, "out": x}.items()})
    final = below("state.final.", state)
    x, count, mean, var = timestep_norm(x, params["output.final_norm.weight"], params["output.final_norm.bias"], final["count"],
                                        final["mean"], final["var"], config.norm_num_groups, config.norm_eps)
    after.update({"state.final.count": count, "state.final.mean": mean, "state.final.var": var})
    trace["final_norm"] = x
    head = params["embed.weight" if config.share_emb else "output.output.weight"]
    return linear(x, head), after


def cross_entropy(logits, targets, ignore_index=-100):
    """Natural-log loss of every token, 0 where the target is ignored."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1))
    kept = targets != ignore_index
    index = np.broadcast_to(np.where(kept, targets, 0)[..., None], logits.shape[:-1] + (1,))
    return np.where(kept, log_sum - np.take_along_axis(shifted, index, -1)[..., 0], 0.0)


def loss(config, params, tokens, targets, state=None):
    """What `grad` differentiates: the mean over all positions, ignored ones counted in the denominator."""
    logits, _ = forward(config, params, tokens, state)
    return cross_entropy(logits, targets).mean((-2, -1))
