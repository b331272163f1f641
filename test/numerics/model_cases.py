"""Small random models for the numerics tests: configs with every flag, parameters, tokens, and states of rows at any position."""
import dataclasses
import zlib

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import llama
import mega
import megalodon

IGNORED = -100
FAR = 1e3  # fills the unspecified rows of caches


@dataclasses.dataclass
class Model:
    """A config as megalodon-opt reads it, with what a call of it needs."""
    name: str
    fields: dict
    batch: int
    length: int
    starts: list  # tokens each row has seen before a call with carried state

    def __post_init__(self):
        self.fields = {"model_type": "megalodon", "init_mode": "he", **self.fields}
        self.reference = ref = {"llama": llama, "mega": mega, "megalodon": megalodon}[self.fields["model_type"]]
        self.has_end = "max_seq_len" in self.fields  # keeps the keys of all tokens
        self.config = ref.Config.of(self.fields)
        self.rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        self.params = ref.random_parameters(self.config, self.rng)
        self.tokens = self.draw_tokens(self.length)
        self.targets = self.rng.integers(0, self.config.output_size, self.tokens.shape).astype(np.int32)
        self.targets[:, 2::5] = IGNORED

    def draw_tokens(self, length):
        return self.rng.integers(0, self.config.vocab_size, (self.batch, length)).astype(np.int32)

    def state_after(self, starts):
        """The state of rows that have read starts[b] random tokens each."""
        rows = []
        for start in starts:
            row = self.reference.fresh_state(self.config, 1)
            if start:
                _, row = self.reference.forward(self.config, self.params, self.draw_tokens(start)[:1], row)
            rows.append(row)
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def sizes(layers, D, H, Z, V, F, N, C, G, vocab, **flags):
    return {"num_layers": layers, "model_dim": D, "num_heads": H, "z_dim": Z, "value_dim": V, "ffn_hidden_dim": F, "cema_ndim": N,
            "chunk_size": C, "norm_num_groups": G, "vocab_size": vocab, **flags}


def llama_sizes(layers, D, H, K, F, C, vocab, **flags):
    return {"model_type": "llama", "num_layers": layers, "dim": D, "n_heads": H, "n_kv_heads": K, "ffn_hidden_dim": F, "max_seq_len": C,
            "vocab_size": vocab, **flags}


def mega_sizes(layers, D, Z, V, F, N, C, vocab, **flags):
    return {"model_type": "mega", "num_layers": layers, "model_dim": D, "z_dim": Z, "value_dim": V, "ffn_hidden_dim": F, "ema_ndim": N,
            "chunk_size": C, "vocab_size": vocab, **flags}


def models():
    """One to three chunks, odd lengths, shorter than a chunk; widths that are no multiple of a vector."""
    return [
        Model("plain", sizes(2, 12, 1, 6, 10, 14, 3, 8, 3, 23), 2, 24, [0, 13]),
        Model("swiglu_rescale", sizes(2, 20, 2, 12, 8, 17, 4, 5, 4, 19, swiglu=True, rescale_nffn=True), 3, 13, [4, 0, 11]),
        Model("shared_scaled", sizes(2, 16, 2, 8, 16, 16, 2, 16, 4, 29, share_emb=True, scale_emb=True, rope_base=100.0), 2, 33, [16, 7]),
        Model("no_affine_output", sizes(3, 18, 3, 18, 27, 20, 5, 7, 6, 31, norm_affine=False, output_size=11, swiglu=True), 2, 9, [6, 20]),
        Model("below_a_chunk", sizes(1, 8, 1, 4, 6, 5, 1, 64, 2, 7, norm_eps=1e-3), 2, 11, [30, 63]),
        Model("all_flags", sizes(2, 24, 4, 16, 24, 33, 4, 6, 8, 37, swiglu=True, rescale_nffn=True, scale_emb=True, share_emb=True,
                                 norm_affine=False, rope_base=1e5), 1, 17, [5]),
        Model("one_token", sizes(2, 10, 1, 2, 3, 4, 2, 3, 5, 13), 3, 1, [0, 2, 5]),
        Model("chunk_of_one", sizes(1, 12, 2, 4, 4, 9, 3, 1, 4, 17, swiglu=True), 2, 5, [0, 3]),
        Model("llama", llama_sizes(2, 12, 2, 2, 14, 33, 23), 2, 19, [0, 13]),
        Model("llama_grouped", llama_sizes(2, 40, 10, 5, 33, 150, 19, norm_eps=1e-3), 3, 75, [4, 0, 71]),
        Model("llama_shared", llama_sizes(1, 48, 8, 1, 65, 64, 29, share_emb=True, rope_base=100.0), 1, 30, [31]),
        Model("mega", mega_sizes(2, 12, 6, 10, 14, 3, 8, 23), 2, 24, [0, 13]),
        Model("mega_flags", mega_sizes(2, 20, 12, 17, 15, 4, 5, 19, norm_type="rmsnorm", final_norm_affine=True, scale_emb=False,
                                       share_emb=False, rope_base=100.0), 3, 13, [4, 0, 11]),
        Model("mega_laplace", mega_sizes(2, 16, 8, 24, 9, 4, 7, 31, attention_function="laplace"), 2, 17, [3, 12]),
        Model("mega_full_laplace", mega_sizes(1, 12, 4, 18, 13, 2, -1, 17, max_seq_len=33, attention_function="laplace"), 2, 15, [0, 9]),
        Model("mega_full", mega_sizes(1, 24, 18, 36, 33, 5, -1, 29, max_seq_len=40, norm_affine=False, norm_eps=1e-3), 2, 21, [0, 17]),
        Model("wide", sizes(1, 80, 2, 36, 68, 70, 8, 16, 16, 50, swiglu=True), 2, 35, [9, 32]),
    ]


def typed(tensors, precision):
    """Tensors as the function wants them: reals in the compute type."""
    real = np.float64 if precision == "f64" else np.float32
    return {name: value if value.dtype.kind == "i" else value.astype(real) for name, value in tensors.items()}


def with_far_rows(state, chunk):
    """A state whose unspecified cache rows hold numbers that would show."""
    state = {name: np.array(value) for name, value in state.items()}
    for name, value in state.items():
        if name.endswith((".k", ".v")):
            for row, count in enumerate(state[name[:-1] + "count"]):
                value[row, int(count) % chunk:] = FAR
    return state


def specified(state, chunk):
    """A state without the unspecified cache rows, each tensor as [values]."""
    out = {}
    for name, value in state.items():
        if name.endswith((".k", ".v")):
            counts = state[name[:-1] + "count"]
            value = np.concatenate([row[:int(count) % chunk].reshape(-1) for row, count in zip(value, counts)])
        out[name] = value
    return out
