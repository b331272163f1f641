"""Modules that hold every op of the dialect once or more, on shapes and numbers drawn at random; what they should give is the interpreter's to say."""
import numpy as np

import op_cases
from module_text import Function
from op_cases import EPS, NARROW_EPS, of

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
# Neither 1 nor divided by a vector's 4 to 16 numbers, beside the primes.
ODD = (9, 15, 18, 21, 33, 45, 50)


class Draw:
    """A function @test of ops on `B` rows of `L` tokens. `extents` are what other dimensions are drawn from; `aligned`
    asks for what CEMA's matrix form is made for."""

    def __init__(self, rng, precision, B, L, extents=(1,) + PRIMES + ODD, aligned=False):
        self.rng, self.precision, self.B, self.L, self.extents, self.aligned = rng, precision, B, L, extents, aligned
        self.function, self.tensors = Function(precision), {}
        self.add("tokens", np.zeros((B, L), np.int32))

    def size(self, least=1):
        return max(least, int(self.rng.choice(self.extents)))

    def any(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def normal(self, *shape, mean=0.0, deviation=1.0):
        return self.rng.normal(mean, deviation, shape)

    def add(self, name, value, role="input", element=None):
        """An input; names are made different from each other."""
        value, name = np.asarray(value), name if name == "tokens" else f"in{len(self.tensors)}.{name}"
        element = element or {"i": f"i{8 * value.itemsize}", "f": self.precision}[value.dtype.kind]
        self.tensors[name] = value.astype({"f64": np.float64, "i32": np.int32, "i64": np.int64}.get(element, np.float32))
        return self.function.input(name, value.shape, element, role)

    def weight(self, name, value, element=None):
        return self.add(name, value, "parameter", element)

    def give(self, *values):
        """Every result is an output, or nobody would compute it."""
        for value in values:
            if value is not None:
                self.function.output(f"out{len(self.function.outputs)}", value)

    def op(self, name, operands, results, **more):
        made = self.function.op(name, operands, results, **more)
        self.give(*(made if isinstance(made, list) else [made]))
        return made

    def case(self, op, inputs, **attributes):
        """An op of op_cases.py and its gradient."""
        role = lambda name: "parameter" if name in op.weights and not op.exact else "input"
        values = {name: self.add(name, value, role(name), "f64" if name in op.double else None) for name, value in inputs.items()}
        outputs, _ = op.build(self.function, values, attributes, None)
        self.give(*outputs.values())
        if not op.with_gradient(inputs):
            return
        cotangents = {name: self.add("cotangent." + name, self.normal(*outputs[name].shape), element=outputs[name].element)
                      for name in op.cotangents}
        _, gradients = op.build(self.function, values, attributes, cotangents)
        self.give(*gradients.values())


def eps_of(width):
    return EPS if width > 2 else NARROW_EPS


def embedding(d):
    V, D = d.size(), d.size()
    d.case(op_cases.Embedding(), {"tokens": d.rng.integers(0, V, (d.B, d.L)).astype(np.int32), "weight": d.normal(V, D)}, scale=d.any(1.0, 2.5))
    # The slice of a rank.
    rank, ids, weight = d.function.index(1), d.add("ids", d.rng.integers(0, 3 * V, (d.B, d.L)).astype(np.int32)), d.weight("weight", d.normal(V, D))
    y = d.op("embedding", [ids, weight, rank], [((d.B, d.L, D), d.precision)], scale=1.0)
    d.op("embedding_grad", [ids, d.add("dy", d.normal(*y.shape)), rank], [of(weight)], scale=1.0)


def linear(d):
    for bias in (False, True):
        inputs, outputs = d.size(), d.size()
        weights = {"weight": d.normal(outputs, inputs) / np.sqrt(inputs), **({"bias": d.normal(outputs)} if bias else {})}
        d.case(op_cases.Linear(), {"x": d.normal(d.B, d.L, inputs), **weights})
    # What has one row a sequence.
    d.op("linear", [d.add("x", d.normal(d.B, inputs)), d.weight("weight", weights["weight"])], [((d.B, outputs), d.precision)])


def running_moments(d, G):
    count = d.rng.integers(0, 50, d.B) * d.rng.integers(0, 2, d.B)
    seen = count[:, None] > 0
    return {"count": count, "mean": d.normal(d.B, G) * seen, "var": d.rng.uniform(0.5, 2.0, (d.B, G)) * seen}


def timestep_norm(d):
    G, width = d.any(1, 2, 3, 5), d.size(2)
    D = G * width
    x, weights = d.normal(d.B, d.L, D, mean=0.5, deviation=2.0), {"weight": d.normal(D), "bias": d.normal(D)}
    d.case(op_cases.TimestepNorm(), {"x": x, **weights, **running_moments(d, G)}, eps=eps_of(width))
    moments = running_moments(d, G)
    positions = op_cases.packed_positions(d.rng, d.B, d.L, d.any(1, 3, 12, 80), moments["count"])
    d.case(op_cases.TimestepNorm(), {"x": x, **weights, **moments, "positions": positions}, eps=eps_of(width))
    resets = (d.rng.random((d.B, d.L)) < 0.2).astype(np.int32)
    d.op("document_positions", [d.add("resets", resets), d.add("count", moments["count"])], [((d.B, d.L), "i64")])

    ranks, rank = 3, d.function.index(d.any(0, 1, 2))
    value, state = d.add("x", x), [d.add(name, array) for name, array in running_moments(d, G).items()]
    types = [of(one) for one in state]
    d.op("timestep_statistics", [value], [((d.B, 1, 2, G), d.precision)], groups=G)
    summaries = np.stack([d.normal(d.B, ranks, G), d.rng.uniform(0.5, 2.0, (d.B, ranks, G))], 2)
    d.op("timestep_prefix", [d.add("summaries", summaries), *state, rank], types * 2)
    local = d.op("local_count", [state[0], rank], [types[0]])
    running_mean = d.add("running_mean", d.normal(d.B, d.L, G))
    dmean, dvar = (d.add(name, d.normal(d.B, G)) for name in ("dmean", "dvar"))
    d.op("timestep_moments_grad", [dmean, dvar, value, local, running_mean], [((d.B, 1, 2, G), d.precision)])
    shares = d.add("shares", d.normal(d.B, ranks, 2, G))
    d.op("timestep_suffix_grad", [d.add("dx", d.normal(*x.shape)), value, shares, local, running_mean, rank], [of(value), *types[1:]])


def coefficients(d, D, N):
    radius, phase = d.rng.uniform(0.3, 0.999, (D, N)), d.rng.uniform(0, 2 * np.pi, (D, N))
    return {"p": d.rng.uniform(0.1, 0.9, (D, N)), "q": np.stack([radius * np.cos(phase), radius * np.sin(phase)], -1), "g": d.normal(D, N, 2)}


def cema(d):
    D, N, block = d.size(), d.any(1, 2, 3, 5, 7, 11, 13, 16, 17), d.any(1, 2, 7, 8, 16, 33, 64)
    if d.aligned:  # what CEMA's matrix form is made for
        D, N, block = 8 * d.any(1, 2, 3, 5), d.any(8, 16), d.any(64, 128)
    logits = {"alpha": d.normal(D, N, 1), "delta": d.normal(D, N, 1), "theta": d.normal(D, 1, 1, mean=-1.0), "gamma": d.normal(D, N, 2)}
    d.case(op_cases.CemaCoefficients(), logits)
    x, omega, state = d.normal(d.B, d.L, D), d.normal(D, 1), d.normal(d.B, D, N, 2)
    inputs = {"x": x, **coefficients(d, D, N), "omega": omega, "h": state}
    d.case(op_cases.Cema(), inputs, block=block)
    d.case(op_cases.Cema(), {**inputs, "positions": op_cases.packed_positions(d.rng, d.B, d.L, d.any(1, 3, 12, 80))}, block=block)

    rank, summary = d.function.index(d.any(0, 1, 2)), ((d.B, 1, D, N, 2), d.precision)
    p, q, g = (d.weight(name, value, "f64") for name, value in coefficients(d, D, N).items())
    value, h, summaries = d.add("x", x), d.add("h", state), d.add("summaries", d.normal(d.B, 3, D, N, 2))
    d.op("cema_summary", [value, p, q], [summary])
    d.op("cema_grad_summary", [value, q, g], [summary])
    for reverse in (False, True):
        d.op("cema_prefix", [summaries, q, h, rank], [of(h), of(h)], reverse=reverse)


def row_norms(d):
    for norm in (op_cases.RmsNorm(), op_cases.LayerNorm()):
        layer = isinstance(norm, op_cases.LayerNorm)
        for affine in (False, True):
            D = d.size(2 if layer else 1)
            weights = {"weight": d.normal(D), **({"bias": d.normal(D)} if layer else {})} if affine else {}
            d.case(norm, {"x": d.normal(d.B, d.L, D, mean=0.5), **weights}, eps=eps_of(D))
        slice_of_row_norm(d, "layer_norm" if layer else "rms_norm", 3)


def slice_of_row_norm(d, kind, ranks):
    """Backward of the channels that one of `ranks` ranks has."""
    layer, D = kind == "layer_norm", d.size()
    x, dy, gain = (d.normal(d.B, d.L, ranks, D), d.normal(d.B, d.L, ranks, D), d.normal(ranks, D))
    u = dy * (1 + gain)
    sums = np.stack([part.sum((2, 3)) for part in ((x, x * x, u, u * x) if layer else (x * x, u * x))], -1)
    dy, x, gain = d.add("dy", dy[:, :, 0]), d.add("x", x[:, :, 0]), d.weight("weight", gain[0])
    d.op(kind + "_grad_sums", [dy, x, gain], [(sums.shape, "f64")])
    d.op(kind + "_grad", [dy, x, gain, d.add("sums", sums, element="f64")], [of(x), *[of(gain)] * (2 if layer else 1)],
         operand_groups=[1, 1, 1, 1], eps=EPS, width=ranks * D)


def normalized_qk(d):
    heads, width = d.any(1, 2, 3), 2 * d.size()
    Z = heads * width
    d.case(op_cases.NormalizedQK(), {"z": d.normal(d.B, d.L, Z), "gamma": d.normal(2, Z), "beta": d.normal(2, Z)}, heads=heads, eps=EPS)


def rotary(d):
    heads, width = d.any(1, 2, 3), 2 * d.size()
    for options in ({}, {"scale": 0.3}):
        d.case(op_cases.Rotary(), {"x": d.normal(d.B, d.L, heads * width), "count": d.rng.integers(0, 99, d.B)},
               heads=heads, base=1e4, chunk=d.size(), **options)
    d.case(op_cases.AdvanceCount(), {"x": d.normal(d.B, d.L, 3), "count": d.rng.integers(0, 99, d.B)})


def attention(d):
    for groups, shared in ((d.any(1, 2, 3), 1), (d.any(1, 2), d.any(2, 3, 5))):
        keys, values, chunk = d.size(), d.size(), d.size(2)
        widths = {"q": groups * shared * keys, "k": groups * keys, "v": groups * values}
        inputs = {name: d.normal(d.B, d.L, width) for name, width in widths.items()}
        inputs.update({"cache_" + name: d.normal(d.B, chunk, widths[name]) for name in "kv"})
        # Never at a chunk's begin: one key alone has weight 1, and gradients that are rounding and nothing else.
        inputs["count"] = chunk * d.rng.integers(0, 5, d.B) + d.rng.integers(1, chunk, d.B)
        heads = {"heads": groups * shared, "groups": groups}
        for row, start in enumerate(inputs["count"] % chunk):  # what is beyond the open chunk must not matter
            inputs["cache_k"][row, start:], inputs["cache_v"][row, start:] = 1e3, -1e3
        d.case(op_cases.ChunkAttention(), inputs, **heads)
        d.case(op_cases.ChunkAttention(), inputs, **heads, laplace=True)
        positions = op_cases.packed_positions(d.rng, d.B, d.L, d.any(1, 3, 12, 80), inputs["count"])
        d.case(op_cases.ChunkAttention(), {**inputs, "positions": positions}, **heads)


def elementwise(d):
    size = d.size()
    x = lambda: d.normal(d.B, d.L, size, deviation=2.0)
    d.case(op_cases.Silu(), {"x": x()})
    d.case(op_cases.Gate(), {"value": x(), "gate": x()})
    d.case(op_cases.Add(), {name: x() for name in "abc"[:d.any(2, 3)]})
    d.case(op_cases.TwoHopResidual(), {"x": x(), "branch": x()})
    d.case(op_cases.TwoHopResidual(), {"x": x(), "branch": x(), "alpha": d.normal(size)})
    d.case(op_cases.LastToken(), {"x": x()})


def mega(d):
    D, N, Z = d.size(), d.any(1, 2, 3, 5, 16), 2 * d.size()
    d.case(op_cases.EmaCoefficients(), {**{name: d.normal(D, N, 1) for name in ("alpha", "delta", "beta")}, "gamma": d.normal(D, N)})
    d.case(op_cases.UpdateGate(), {name: d.normal(d.B, d.L, D, deviation=2.0) for name in ("x", "candidate", "gate")})
    d.case(op_cases.MegaQK(), {"z": d.normal(d.B, d.L, Z), **{name: d.normal(2, Z) for name in ("gamma", "beta", "relative")},
                               "count": d.rng.integers(0, 99, d.B)}, base=1e4, chunk=d.size(), per_key=d.any(False, True))


def targets_of(d, classes):
    targets = d.rng.integers(0, classes, (d.B, d.L)).astype(np.int32)
    targets[d.rng.random((d.B, d.L)) < 0.2] = -100
    return targets


def loss(d):
    V, ranks = d.size(2), 3
    targets = targets_of(d, V)
    d.case(op_cases.CrossEntropy(), {"logits": d.normal(d.B, d.L, V, deviation=4.0), "targets": targets})
    d.case(op_cases.Mean(), {"x": d.normal(d.B, d.L, mean=3.0)})
    d.case(op_cases.LossSum(), {"nll": d.rng.uniform(1, 3, (d.B, d.L)) * (targets >= 0), "targets": targets})

    width, rank, labels = -(-V // ranks), d.function.index(d.any(0, 1, 2)), d.add("targets", targets)
    logits, dnll = d.add("logits", d.normal(d.B, d.L, width, deviation=4.0)), d.add("dnll", d.normal(d.B, d.L))
    d.op("cross_entropy_summary", [logits, labels, rank], [((d.B, d.L, 2), d.precision)], vocabulary=V)
    _, lse = d.op("cross_entropy_combine", [d.add("summaries", d.normal(d.B, d.L, 2 * ranks)), labels], [of(dnll)] * 2)
    lse = d.add("lse", d.normal(d.B, d.L, mean=9.0))
    d.op("cross_entropy_grad", [dnll, logits, labels, lse, rank], [of(logits)], vocabulary=V)
    share = d.op("mean", [dnll], [((), d.precision)], parts=ranks)
    d.op("mean_grad", [share], [of(dnll)], parts=ranks)


def optimizer(d):
    shape = tuple(d.size() for _ in range(d.any(1, 2, 3)))
    gradient = d.normal(*shape)
    d.case(op_cases.Accumulate(), {"gradient": gradient, "into": d.normal(*shape)})
    d.case(op_cases.GlobalNorm(), {"a": gradient, "b": d.normal(d.size())})
    d.case(op_cases.Clip(), {"norm": np.array(d.any(0.3, 3.7))}, max_norm=1.0)
    d.case(op_cases.AdamW(), {"parameter": d.normal(*shape), "first_moment": d.normal(*shape), "second_moment": d.rng.uniform(size=shape),
                              "gradient": gradient, "step": np.array(3), "lr": np.array(1e-2), "clip": np.array(0.7)},
           beta1=0.9, beta2=0.98, epsilon=1e-8, weight_decay=0.1)
    squares = d.op("sum_of_squares", [d.add(name, d.normal(d.size(), d.size()), "parameter") for name in "gh"], [((), "f64")])
    d.op("norm_of_squares", [squares, squares], [((), d.precision)])


FAMILIES = (embedding, linear, timestep_norm, cema, row_norms, normalized_qk, rotary, attention, mega, elementwise, loss, optimizer)
