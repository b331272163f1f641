"""LLaMA-2 in float64 numpy: the oracle of the baseline's tests, with the interface of megalodon.py, whose notation and ops it shares.

K = n_kv_heads; a sequence is one chunk of max_seq_len tokens.
"""
import dataclasses

import numpy as np

from megalodon import append, below, cross_entropy, embedding, linear, rotary, silu


@dataclasses.dataclass
class Config:
    """The fields of a config file that change the function computed."""
    vocab_size: int
    num_layers: int = 32
    dim: int = 4096
    n_heads: int = 32
    n_kv_heads: int = None
    ffn_hidden_dim: int = 11008
    max_seq_len: int = 4096
    norm_eps: float = 1e-5
    rope_base: float = 10000.0
    share_emb: bool = False

    def __post_init__(self):
        self.n_kv_heads = self.n_kv_heads or self.n_heads

    @property
    def head_dim(self):
        return self.dim // self.n_heads

    # What the tests ask of any model.
    @property
    def chunk_size(self):
        return self.max_seq_len

    @property
    def output_size(self):
        return self.vocab_size

    @classmethod
    def of(cls, fields):
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})


def parameter_shapes(config):
    """Every trainable tensor under its checkpoint name."""
    D, F, keys = config.dim, config.ffn_hidden_dim, config.n_kv_heads * config.head_dim
    shapes = {"tok_embeddings.weight": (config.vocab_size, D)}
    for i in range(config.num_layers):
        layer = f"layers.{i}."
        shapes.update({f"{layer}attention.{name}.weight": (rows, D) for name, rows in (("wq", D), ("wk", keys), ("wv", keys), ("wo", D))})
        shapes.update({f"{layer}feed_forward.{name}.weight": shape for name, shape in (("w1", (F, D)), ("w2", (D, F)), ("w3", (F, D)))})
        shapes.update({f"{layer}attention_norm.weight": (D,), f"{layer}ffn_norm.weight": (D,)})
    shapes["norm.weight"] = (D,)
    if not config.share_emb:
        shapes["output.weight"] = (config.vocab_size, D)
    return shapes


def random_parameters(config, generator):
    """Parameters for tests: no tensor is constant, so that every term of the model shows in the output."""
    return {name: generator.normal(0.0, 1.0 / np.sqrt(shape[1]), shape) if len(shape) == 2 else generator.normal(1.0, 0.3, shape)
            for name, shape in parameter_shapes(config).items()}


def fresh_state(config, batch):
    """The state of rows that have seen nothing."""
    cache = np.zeros((batch, config.max_seq_len, config.n_kv_heads, config.head_dim))
    return {f"state.layers.{i}.{name}": value.copy() for i in range(config.num_layers)
            for name, value in (("count", np.zeros(batch, np.int64)), ("k", cache), ("v", cache))}


def rms_norm(x, weight, eps):
    """The gain is stored as it is."""
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight[..., None, :]


def causal_attention(q, k, v, k_cache, v_cache, count):
    """q [..., B, L, H, d] rotated and scaled; k, v [..., B, L, K, d]; caches [..., B, C, K, d] hold the first count tokens.

    Head j of k and v serves the query heads j H/K .. (j+1) H/K - 1.
    """
    share = q.shape[-2] // k.shape[-2]
    rows = []
    for b, start in enumerate(count):
        row_q, row_k, row_v, cached_k, cached_v = (x[..., b, :, :, :] for x in (q, k, v, k_cache, v_cache))
        keys, values = (np.repeat(append(*pair, start), share, -2) for pair in ((cached_k, row_k), (cached_v, row_v)))
        visible = np.arange(keys.shape[-3]) <= start + np.arange(row_q.shape[-3])[:, None]
        scores = np.where(visible, np.einsum("...qhd,...khd->...hqk", row_q, keys), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        rows.append(np.einsum("...hqk,...khd->...qhd", weights, values))
    return np.stack(rows, -4)


def remember(cache, new, count):
    """The cache after a call with rows `new` [..., B, L, K, d]; zero beyond them."""
    rows = []
    for b, start in enumerate(count):
        both = append(cache[..., b, :, :, :], new[..., b, :, :, :], start)
        row = np.zeros(both.shape[:-3] + cache.shape[-3:])
        row[..., :both.shape[-3], :, :] = both
        rows.append(row)
    return np.stack(rows, -4)


def layer(config, params, x, state):
    """Params and state without the prefix of the layer. Returns the layer's output and its new state."""
    heads = lambda u: u.reshape(*u.shape[:-1], -1, config.head_dim)
    count, length = state["count"], x.shape[-2]
    if count.max() + length > config.max_seq_len:
        raise ValueError(f"expected at most {config.max_seq_len} tokens, got {count.max() + length}")
    positions = count[:, None] + np.arange(length)
    n = rms_norm(x, params["attention_norm.weight"], config.norm_eps)
    q, k, v = (heads(linear(n, params[f"attention.{name}.weight"])) for name in ("wq", "wk", "wv"))
    q, k = rotary(q, positions, config.rope_base) / np.sqrt(config.head_dim), rotary(k, positions, config.rope_base)
    a = causal_attention(q, k, v, state["k"], state["v"], count)
    x = x + linear(a.reshape(*a.shape[:-2], -1), params["attention.wo.weight"])
    n = rms_norm(x, params["ffn_norm.weight"], config.norm_eps)
    w1, w2, w3 = (params[f"feed_forward.{name}.weight"] for name in ("w1", "w2", "w3"))
    x = x + linear(silu(linear(n, w1)) * linear(n, w3), w2)
    return x, {"count": count + length, "k": remember(state["k"], k, count), "v": remember(state["v"], v, count)}


def forward(config, params, tokens, state=None):
    """Logits [..., B, L, vocab] of tokens [B, L] and the state after them."""
    state = state or fresh_state(config, tokens.shape[0])
    after = {}
    x = embedding(params["tok_embeddings.weight"], tokens)
    for i in range(config.num_layers):
        x, new = layer(config, below(f"layers.{i}.", params), x, below(f"state.layers.{i}.", state))
        after.update({f"state.layers.{i}.{name}": value for name, value in new.items()})
    x = rms_norm(x, params["norm.weight"], config.norm_eps)
    return linear(x, params["tok_embeddings.weight" if config.share_emb else "output.weight"]), after


def loss(config, params, tokens, targets, state=None):
    """What `grad` differentiates: the mean over all positions, ignored ones counted in the denominator."""
    logits, _ = forward(config, params, tokens, state)
    return cross_entropy(logits, targets).mean((-2, -1))
