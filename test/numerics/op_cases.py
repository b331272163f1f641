"""Every op of the dialect as the numerics tests see it: its reference, how to write it and its gradient in IR, and random inputs.

An Op has
  weights      inputs without batch dimension (parameters); states: inputs with a batch but no token dimension
  double       inputs that are always f64
  exact        true: runs only at the compiled shape
  cotangents   outputs which take part in the gradient, differentiable: inputs whose gradient the gradient op gives
  random       yields (label, attributes, inputs); activations begin with [B, L]
  reference    outputs from inputs; inputs may carry leading axes as in the reference (weights [V, 1, ...], others [V, B, ...])
  build        adds the forward ops, and with cotangents the gradient ops, to a function; returns outputs and gradients by name
  comparable   the part of an output that is specified; with_gradient: the inputs given that have a gradient op
"""
import numpy as np

import llama
import mega
import megalodon as ref

# (B, L, scale of the other extents): ones, primes, more than a vector and not a multiple of it.
SIZES = {"one": (1, 1, 1), "prime": (3, 7, 13), "wide": (2, 19, 37)}
EPS = 1e-5
NARROW_EPS = 0.5  # norms over one or two entries: without it only eps keeps the gradient from 0, and f32 has nothing left of it


def of(value):
    """Type of a value, for a result like it."""
    return (value.shape, value.element)


def split_heads(x, heads):
    return x.reshape(*x.shape[:-1], heads, -1)


def merge_heads(x):
    return x.reshape(*x.shape[:-2], -1)


class Op:
    weights, states, double, differentiable, cotangents, exact, narrow = (), (), (), (), (), False, False

    def comparable(self, name, value, inputs, attributes):
        return value

    def with_gradient(self, inputs):
        return [name for name in self.differentiable if name in inputs]


class Embedding(Op):
    weights, differentiable, cotangents = ("weight",), ("weight",), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            tokens = rng.integers(0, size, (B, L)).astype(np.int32)
            yield label, {"scale": 1.0 if label == "prime" else 2.5}, {"tokens": tokens, "weight": rng.normal(size=(size, 2 * size + 1))}
        yield "table", {"scale": 1.0}, {"tokens": rng.integers(0, 1100, (2, 40)).astype(np.int32), "weight": rng.normal(size=(1100, 5))}

    def reference(self, v, a):
        return {"y": ref.embedding(v["weight"], v["tokens"]) * a["scale"]}

    def build(self, f, v, a, cot):
        y = f.op("embedding", [v["tokens"], v["weight"]], [(v["tokens"].shape + v["weight"].shape[1:], f.precision)], **a)
        return {"y": y}, cot and {"weight": f.op("embedding_grad", [v["tokens"], cot["y"]], [of(v["weight"])], **a)}


class Linear(Op):
    weights, differentiable, cotangents = ("weight", "bias"), ("x", "weight", "bias"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in {**SIZES, "square": (2, 64, 64), "tiles": (1, 131, 70)}.items():
            rows, columns = (size, size + 2)
            inputs = {"x": rng.normal(size=(B, L, columns)), "weight": rng.normal(size=(rows, columns)) / np.sqrt(columns)}
            yield label, {}, inputs
            yield label + "_bias", {}, {**inputs, "bias": rng.normal(size=rows)}
        yield "rows", {}, {"x": rng.normal(size=(3, 17)), "weight": rng.normal(size=(29, 17))}

    def reference(self, v, a):
        return {"y": ref.linear(v["x"], v["weight"], v.get("bias"))}

    def build(self, f, v, a, cot):
        x, weight, bias = v["x"], v["weight"], v.get("bias")
        y = f.op("linear", [x, weight, bias], [(x.shape[:-1] + weight.shape[:1], f.precision)])
        if not cot:
            return {"y": y}, None
        gradients = {"x": f.op("linear_grad_input", [cot["y"], weight], [of(x)]),
                     "weight": f.op("linear_grad_weight", [cot["y"], x], [of(weight)])}
        if bias:
            gradients["bias"] = f.op("linear_grad_bias", [cot["y"]], [of(bias)])
        return {"y": y}, gradients


def runs_of_documents(positions):
    """The runs of tokens of one document in each row, as (row, first, end)."""
    for row, of_row in enumerate(positions):
        cuts = [0, *(np.flatnonzero(of_row[1:] == 0) + 1), len(of_row)]
        yield from ((row, first, end) for first, end in zip(cuts, cuts[1:]))


def packed_positions(rng, B, L, most, count=None):
    """Positions of documents of up to `most` tokens; the first of a row may have begun in an earlier call."""
    positions = np.empty((B, L), np.int64)
    for row in range(B):
        at, position = 0, rng.integers(0, 50) if count is None else count[row]
        while at < L:
            length = min(rng.integers(1, most + 1), L - at)
            positions[row, at:at + length] = position + np.arange(length)
            at, position = at + length, 0
    return positions


class TimestepNorm(Op):
    """With `positions` the documents of a row are normed apart."""
    weights, differentiable = ("weight", "bias"), ("x", "weight", "bias", "mean", "var")
    cotangents, states = ("y", "new_mean", "new_var"), ("count", "mean", "var")

    def random(self, rng):
        shapes = {"one": (1, 1, 2, 1), "prime": (3, 7, 26, 13), "wide": (2, 19, 74, 2), "long": (2, 150, 24, 3), "group3": (1, 9, 45, 15),
                  "lanes": (2, 45, 256, 16), "lane": (1, 33, 128, 32)}
        for label, (B, L, D, G) in shapes.items():
            count = rng.integers(0, 50, B)
            count[0] = 0 if label != "long" else 10**6
            yield label, {"eps": EPS}, {
                "x": rng.normal(0.5, 2.0, (B, L, D)), "weight": rng.normal(size=D), "bias": rng.normal(size=D), "count": count,
                "mean": rng.normal(size=(B, G)) * (count[:, None] > 0), "var": rng.uniform(0.5, 2.0, (B, G)) * (count[:, None] > 0)}
        # Documents of few and of many tokens: several in a segment of the two-level form, and several segments in one.
        for label, B, L, D, G, most in (("packed", 3, 40, 26, 13, 12), ("prime_packed", 3, 7, 24, 2, 3), ("long_packed", 2, 300, 16, 4, 150)):
            count = rng.integers(1, 50, B)
            yield label, {"eps": EPS}, {
                "x": rng.normal(0.5, 2.0, (B, L, D)), "weight": rng.normal(size=D), "bias": rng.normal(size=D), "count": count,
                "mean": rng.normal(size=(B, G)), "var": rng.uniform(0.5, 2.0, (B, G)), "positions": packed_positions(rng, B, L, most, count)}

    def reference(self, v, a):
        if "positions" in v:
            return self.packed_reference(v, a)
        y, count, mean, var = ref.timestep_norm(v["x"], v["weight"], v["bias"], v["count"], v["mean"], v["var"], v["mean"].shape[-1], a["eps"])
        return {"y": y, "new_count": count, "new_mean": mean, "new_var": var}

    def packed_reference(self, v, a):
        """Every document by itself; the first of a row from the row's statistics."""
        ends, y = {}, []
        for row, first, end in runs_of_documents(v["positions"]):
            carried = {name: v[name][..., row:row + 1, :] for name in ("mean", "var")}
            own = {**v, **carried, "x": v["x"][..., row:row + 1, first:end, :], "count": v["positions"][row:row + 1, first]}
            if own["count"][0] == 0:
                own.update({name: np.zeros_like(value) for name, value in carried.items()})
            own.pop("positions")
            ends[row] = self.reference(own, a)
            y.append((row, ends[row].pop("y")))
        rows = [np.concatenate([part for of, part in y if of == row], -2) for row in ends]
        return {"y": np.concatenate(rows, -3), "new_count": np.concatenate([end["new_count"] for end in ends.values()]),
                **{name: np.concatenate([end[name] for end in ends.values()], -2) for name in ("new_mean", "new_var")}}

    def build(self, f, v, a, cot):
        positions = v.get("positions")
        x, weight, bias, count, mean, var = (v[name] for name in ("x", "weight", "bias", "count", "mean", "var"))
        running = (x.shape[:2] + mean.shape[1:], f.precision)
        y, new_count, new_mean, new_var, running_mean, running_rstd = f.op(
            "timestep_norm", [x, weight, bias, count, mean, var, positions], [of(x), of(count), of(mean), of(var), running, running], **a)
        outputs = {"y": y, "new_count": new_count, "new_mean": new_mean, "new_var": new_var}
        if not cot:
            return outputs, None
        ends = [cot.get("new_mean"), cot.get("new_var")]
        groups = [1, *(int(end is not None) for end in ends), 1, 1, 1, 1, 1, int(positions is not None)]
        gradients = f.op("timestep_norm_grad", [cot["y"], *ends, x, weight, count, running_mean, running_rstd, positions],
                         [of(x), of(weight), of(bias), of(mean), of(var)], operand_groups=groups)
        return outputs, dict(zip(("x", "weight", "bias", "mean", "var"), gradients))


class CemaCoefficients(Op):
    weights, differentiable, cotangents = ("alpha", "delta", "theta", "gamma"), ("alpha", "delta", "theta", "gamma"), ("p", "q", "g")
    double = ("cot.p", "cot.q", "cot.g")

    def random(self, rng):
        for label, (D, N) in {"one": (1, 1), "prime": (13, 7), "wide": (37, 16)}.items():
            yield label, {}, {"alpha": rng.normal(size=(D, N, 1)), "delta": rng.normal(size=(D, N, 1)),
                              "theta": rng.normal(-1, 1, (D, 1, 1)), "gamma": rng.normal(size=(D, N, 2))}

    def reference(self, v, a):
        p, q, g = ref.cema_coefficients(v["alpha"], v["delta"], v["theta"], v["gamma"])
        return {"p": p, "q": np.stack([q.real, q.imag], -1), "g": np.stack([g.real, g.imag], -1)}

    def build(self, f, v, a, cot):
        alpha, delta, theta, gamma = (v[name] for name in self.weights)
        D, N = alpha.shape[:2]
        p, q, g = f.op("cema_coefficients", [alpha, delta, theta, gamma], [((D, N), "f64"), ((D, N, 2), "f64"), ((D, N, 2), "f64")])
        outputs = {"p": p, "q": q, "g": g}
        if not cot:
            return outputs, None
        gradients = f.op("cema_coefficients_grad", [cot["p"], cot["q"], cot["g"], alpha, delta, theta],
                         [of(alpha), of(delta), of(theta), of(gamma)])
        return outputs, dict(zip(self.differentiable, gradients))


def build_cema(f, x, p, q, g, omega, h, block, cot, positions=None):
    """cema and cema_grad; gradients by the names of the operands."""
    block_states = ((-(-x.shape[1] // block),) + h.shape, f.precision)
    y, new_h, states = f.op("cema", [x, p, q, g, omega, h, positions], [of(x), of(h), block_states], block=block)
    if not cot:
        return {"y": y, "new_h": new_h}, None
    groups = [1, int("new_h" in cot), 1, 1, 1, 1, 1, 1, int(positions is not None)]
    gradients = f.op("cema_grad", [cot["y"], cot.get("new_h"), x, p, q, g, omega, states, positions],
                     [of(x), of(p), of(q), of(g), of(omega), of(h)], operand_groups=groups, block=block)
    return {"y": y, "new_h": new_h}, dict(zip(("x", "p", "q", "g", "omega", "h"), gradients))


class Cema(Op):
    """With `positions` the documents of a row are averaged apart."""
    weights, states, double = ("p", "q", "g", "omega"), ("h",), ("p", "q", "g")
    differentiable, cotangents = ("x", "p", "q", "g", "omega", "h"), ("y", "new_h")

    def random(self, rng):
        shapes = {"one": (1, 1, 1, 1, 8), "prime": (3, 7, 13, 5, 3), "wide": (2, 37, 35, 16, 16), "block": (1, 32, 16, 4, 8),
                  "long": (1, 300, 9, 8, 64), "rows": (5, 11, 33, 2, 64), "channels": (2, 19, 131, 17, 8),
                  "tiles": (2, 555, 16, 8, 64), "chunks": (1, 1100, 8, 16, 128)}
        packed = {"packed": (3, 40, 35, 5, 8, 12), "prime_packed": (3, 7, 13, 7, 3, 3), "one_packed": (2, 9, 8, 2, 4, 1),
                  "long_packed": (1, 300, 9, 8, 64, 150), "wide_packed": (2, 150, 70, 16, 32, 60)}
        for label, (B, L, D, N, block, *most) in {**shapes, **packed}.items():
            # Over many tokens a |q| close to 1 has derivatives that differences cannot follow.
            radius, phase = rng.uniform(0.3, 0.999 if L < 1000 else 0.98, (D, N)), rng.uniform(0, 2 * np.pi, (D, N))
            yield label, {"block": block}, {
                "x": rng.normal(size=(B, L, D)), "p": rng.uniform(0.1, 0.9, (D, N)),
                "q": np.stack([radius * np.cos(phase), radius * np.sin(phase)], -1), "g": rng.normal(size=(D, N, 2)),
                "omega": rng.normal(size=(D, 1)), "h": rng.normal(size=(B, D, N, 2)),
                **({"positions": packed_positions(rng, B, L, *most)} if most else {})}

    def reference(self, v, a):
        if "positions" in v:
            return self.packed_reference(v, a)
        q, g = (v[name][..., 0] + 1j * v[name][..., 1] for name in ("q", "g"))
        y, h = ref.cema(v["x"], v["p"], q, g, v["omega"], v["h"])
        return {"y": y, "new_h": h}

    def packed_reference(self, v, a):
        """Every document by itself; the first of a row from the row's state."""
        ends, y = {}, []
        for row, first, end in runs_of_documents(v["positions"]):
            h = v["h"][..., row:row + 1, :, :, :]
            own = {**v, "x": v["x"][..., row:row + 1, first:end, :], "h": h if v["positions"][row, first] else np.zeros_like(h)}
            own.pop("positions")
            out = self.reference(own, a)
            ends[row] = out["new_h"]
            y.append((row, out["y"]))
        rows = [np.concatenate([part for of, part in y if of == row], -2) for row in ends]
        return {"y": np.concatenate(rows, -3), "new_h": np.concatenate(list(ends.values()), -4)}

    def build(self, f, v, a, cot):
        return build_cema(f, *(v[name] for name in self.differentiable), a["block"], cot, v.get("positions"))


class CemaOfLogits(Op):
    """The two CEMA ops together, as in a layer."""
    weights, states = ("alpha", "delta", "theta", "gamma", "omega"), ("h",)
    differentiable, cotangents = ("x", "alpha", "delta", "theta", "gamma", "omega", "h"), ("y", "new_h")

    def random(self, rng):
        return ()

    def reference(self, v, a):
        y, h = ref.cema(v["x"], *ref.cema_coefficients(*(v[name] for name in self.weights[:4])), v["omega"], v["h"])
        return {"y": y, "new_h": h}

    def build(self, f, v, a, cot):
        logits = CemaCoefficients()
        coefficients, _ = logits.build(f, v, {}, None)
        outputs, gradients = build_cema(f, v["x"], *coefficients.values(), v["omega"], v["h"], a["block"], cot)
        if not cot:
            return outputs, None
        alpha, delta, theta, gamma = (v[name] for name in self.weights[:4])
        of_logits = f.op("cema_coefficients_grad", [*(gradients.pop(name) for name in ("p", "q", "g")), alpha, delta, theta],
                         [of(alpha), of(delta), of(theta), of(gamma)])
        return outputs, {**gradients, **dict(zip(self.weights, of_logits))}


class RmsNorm(Op):
    weights, differentiable, cotangents = ("weight",), ("x", "weight"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            x, eps = rng.normal(size=(B, L, size)), NARROW_EPS if label == "one" else EPS
            yield label, {"eps": eps}, {"x": x}
            weight = rng.normal(size=size)
            yield label + "_affine", {"eps": eps}, {"x": x, "weight": weight}
            yield label + "_plain", {"eps": eps, "plain": True}, {"x": x, "weight": weight}

    def reference(self, v, a):
        norm = llama.rms_norm if a.get("plain") else ref.rms_norm
        return {"y": norm(v["x"], v.get("weight"), a["eps"])}

    def build(self, f, v, a, cot):
        x, weight = v["x"], v.get("weight")
        y = f.op("rms_norm", [x, weight], [of(x)], **a)
        gradients = cot and f.op("rms_norm_grad", [cot["y"], x, weight], [of(x), weight and of(weight)],
                                 operand_groups=[1, 1, int(weight is not None), 0], **a)
        return {"y": y}, gradients and dict(zip(self.differentiable, gradients))


class LayerNorm(Op):
    weights, differentiable, cotangents = ("weight", "bias"), ("x", "weight", "bias"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in {**SIZES, "one": (1, 1, 2)}.items():
            x, eps = rng.normal(2.0, 1.0, (B, L, size)), NARROW_EPS if label == "one" else EPS
            yield label, {"eps": eps}, {"x": x}
            yield label + "_affine", {"eps": eps}, {"x": x, "weight": rng.normal(size=size), "bias": rng.normal(size=size)}

    def reference(self, v, a):
        return {"y": ref.layer_norm(v["x"], v.get("weight"), v.get("bias"), a["eps"])}

    def build(self, f, v, a, cot):
        return build_layer_norm(f, v["x"], v.get("weight"), v.get("bias"), a["eps"], cot)


def build_layer_norm(f, x, weight, bias, eps, cot):
    affine = int(weight is not None)
    y = f.op("layer_norm", [x, weight, bias], [of(x)], operand_groups=[1, affine, affine], eps=eps)
    if not cot:
        return {"y": y}, None
    gradients = f.op("layer_norm_grad", [cot["y"], x, weight], [of(x), weight and of(weight), bias and of(bias)],
                     operand_groups=[1, 1, affine, 0], eps=eps)
    return {"y": y}, dict(zip(("x", "weight", "bias"), gradients))


class NormalizedQK(Op):
    weights, differentiable, cotangents = ("gamma", "beta"), ("z", "gamma", "beta"), ("q", "k")

    def random(self, rng):
        for label, (B, L, heads, dz) in {"one": (1, 1, 1, 2), "prime": (3, 7, 3, 10), "wide": (2, 19, 2, 38)}.items():
            Z = heads * dz
            yield label, {"heads": heads, "eps": EPS}, {"z": rng.normal(size=(B, L, Z)), "gamma": rng.normal(size=(2, Z)),
                                                        "beta": rng.normal(size=(2, Z))}

    def reference(self, v, a):
        q, k = ref.normalized_qk(v["z"], v["gamma"], v["beta"], a["heads"], a["eps"])
        return {"q": q, "k": k}

    def build(self, f, v, a, cot):
        z, gamma, beta = (v[name] for name in self.differentiable)
        q, k = f.op("normalized_qk", [z, gamma, beta], [of(z), of(z)], **a)
        gradients = cot and f.op("normalized_qk_grad", [cot["q"], cot["k"], z, gamma], [of(z), of(gamma), of(beta)], **a)
        return {"q": q, "k": k}, gradients and dict(zip(self.differentiable, gradients))


class Rotary(Op):
    states, differentiable, cotangents = ("count",), ("x",), ("y",)

    def random(self, rng):
        for label, (B, L, heads, dz, chunk) in {"one": (1, 1, 1, 2, 1), "prime": (3, 7, 3, 10, 5), "wide": (2, 40, 2, 38, 16)}.items():
            inputs = {"x": rng.normal(size=(B, L, heads * dz)), "count": rng.integers(0, 99, B)}
            yield label, {"heads": heads, "base": 1e4, "chunk": chunk}, inputs
            if label == "prime":
                yield label + "_scaled", {"heads": heads, "base": 1e4, "chunk": chunk, "scale": 0.3}, inputs
            if label in ("prime", "wide"):
                yield label + "_packed", {"heads": heads, "base": 1e4, "chunk": chunk}, {**inputs, "positions": packed_positions(rng, B, L, 9)}

    def reference(self, v, a):
        positions = v["positions"] % a["chunk"] if "positions" in v else ref.chunk_positions(v["count"], v["x"].shape[-2], a["chunk"])
        return {"y": merge_heads(ref.rotary(split_heads(v["x"], a["heads"]), positions, a["base"])) * a.get("scale", 1.0)}

    def build(self, f, v, a, cot):
        x, count, positions = v["x"], v["count"], v.get("positions")
        y = f.op("rotary", [x, count, positions], [of(x)], **a)
        return {"y": y}, cot and {"x": f.op("rotary", [cot["y"], count, positions], [of(x)], inverse=True, **a)}


class ChunkAttention(Op):
    """With `base` the queries and keys are rotated first; the caches hold rotated keys either way. `groups` is the number of heads that
    keys and values have, where it is not that of the queries. With `laplace` weights are no softmax; with `positions` the documents of a row
    attend apart."""
    states, differentiable, cotangents, narrow = ("cache_k", "cache_v", "count"), ("q", "k", "v"), ("y",), True

    def random(self, rng):
        shapes = {"one": (1, 1, 1, 2, 1, 4), "prime": (3, 7, 1, 10, 13, 5), "wide": (2, 37, 2, 18, 35, 16), "decode": (5, 1, 2, 8, 16, 8),
                  "chunk": (1, 32, 1, 16, 32, 32), "long": (2, 70, 3, 4, 8, 33), "tiles": (1, 150, 1, 4, 10, 140),
                  "columns": (1, 40, 1, 8, 264, 48)}
        for label, (B, L, heads, dz, dv, chunk) in shapes.items():
            count = rng.integers(0, 5 * chunk, B)
            count[0] = {"decode": chunk - 1, "tiles": 46}.get(label, 0)
            widths = {"q": dz, "k": dz, "v": dv}
            inputs = {name: rng.normal(size=(B, L, heads * width)) for name, width in widths.items()}
            inputs.update({"cache_" + name: rng.normal(size=(B, chunk, heads * widths[name])) for name in ("k", "v")})
            for row, start in enumerate(count % chunk):  # what is beyond the open chunk must not matter
                inputs["cache_k"][row, start:], inputs["cache_v"][row, start:] = 1e3, -1e3
            yield label, {"heads": heads}, {**inputs, "count": count}
            if label == "prime":
                yield label + "_rotary", {"heads": heads, "base": 1e4}, {**inputs, "count": count}
            if label in GROUPED:
                heads, groups = GROUPED[label] * heads, heads
                inputs["q"] = rng.normal(size=(B, L, heads * dz))
                yield label + "_grouped", {"heads": heads, "groups": groups}, {**inputs, "count": count}
        yield from self.laplace_cases(rng)
        yield from self.packed_cases(rng)

    def drawn(self, rng, B, L, heads, dz, dv, chunk):
        """Inputs with keys and queries small enough for Laplace weights between 0 and 1."""
        widths = {"q": dz, "k": dz, "v": dv}
        inputs = {name: rng.normal(size=(B, L, heads * width)) / (width if name != "v" else 1) ** 0.25 for name, width in widths.items()}
        inputs.update({"cache_" + name: rng.normal(size=(B, chunk, heads * widths[name])) for name in ("k", "v")})
        return {**inputs, "count": rng.integers(0, 5 * chunk, B)}

    def laplace_cases(self, rng):
        for label, shape in {"one": (1, 1, 1, 2, 1, 4), "prime": (3, 7, 1, 10, 13, 5), "wide": (2, 37, 2, 18, 35, 16), "decode": (5, 1, 2, 8, 16, 8),
                             "tiles": (1, 90, 1, 4, 10, 70)}.items():
            yield label + "_laplace", {"heads": shape[2], "laplace": True}, self.drawn(rng, *shape)
        # Scores far below the mean: all weights are small, and compared relative to their own size.
        inputs = self.drawn(rng, 2, 21, 1, 4, 5, 8)
        inputs.update(q=rng.uniform(0.3, 0.6, inputs["q"].shape), k=-rng.uniform(0.4, 0.6, inputs["k"].shape),
                      cache_k=-rng.uniform(0.4, 0.6, inputs["cache_k"].shape))
        yield "tail_laplace", {"heads": 1, "laplace": True}, inputs
        inputs = self.drawn(rng, 2, 19, 2, 6, 9, 8)
        yield "grouped_laplace", {"heads": 4, "groups": 2, "laplace": True}, {**inputs, "q": rng.normal(size=(2, 19, 24))}

    def packed_cases(self, rng):
        # Documents shorter and longer than a chunk, of one token (not all: alone a token has no gradients to measure rounding by), longer than the call, and with a first one that goes on from the cache.
        for label, *shape, most in (("one", 1, 1, 1, 2, 1, 4, 1), ("prime", 3, 7, 1, 10, 13, 5, 4), ("wide", 2, 37, 2, 18, 35, 16, 30),
                                    ("tokens", 2, 23, 1, 6, 5, 8, 2), ("long", 2, 150, 1, 4, 10, 33, 90), ("call", 2, 40, 1, 6, 7, 64, 400),
                                    ("block", 1, 190, 1, 8, 9, 128, 150), ("decode", 5, 1, 2, 8, 16, 8, 1)):
            inputs = self.drawn(rng, *shape)
            positions = packed_positions(rng, *shape[:2], most, inputs["count"])
            if len(positions) > 1:  # a row that begins with a document
                first = np.cumprod(positions[0] > 0).astype(bool)
                positions[0, first] -= positions[0, 0]
            inputs["positions"] = positions
            for name, far in (("cache_k", 1e3), ("cache_v", -1e3)):
                for row, start in enumerate(inputs["count"] % shape[-1]):
                    inputs[name][row, start if positions[row, 0] else 0:] = far
            yield label + "_packed", {"heads": shape[2]}, inputs
            if label == "prime":
                yield label + "_packed_rotary", {"heads": shape[2], "base": 1e4}, inputs
            if label == "wide":
                yield label + "_packed_laplace", {"heads": shape[2], "laplace": True}, inputs

    def reference(self, v, a):
        if "positions" in v:
            return self.packed_reference(v, a)
        chunk, heads = v["cache_k"].shape[-2], a["heads"]
        groups = a.get("groups", heads)
        q, (k, value, cache_k, cache_v) = split_heads(v["q"], heads), (split_heads(v[name], groups) for name in ("k", "v", "cache_k", "cache_v"))
        if "base" in a:
            positions = ref.chunk_positions(v["count"], q.shape[-3], chunk)
            q, k = (ref.rotary(x, positions, a["base"]) for x in (q, k))
        shared = (np.repeat(x, heads // groups, -2) for x in (k, value, cache_k, cache_v))
        weigh = ref.laplace if a.get("laplace") else ref.softmax
        return {"y": merge_heads(ref.chunk_attention(q, *shared, v["count"], chunk, weigh)),
                "new_k": merge_heads(ref.cache_append(cache_k, k, v["count"], chunk)),
                "new_v": merge_heads(ref.cache_append(cache_v, value, v["count"], chunk))}

    def packed_reference(self, v, a):
        """Every document by itself; the first of a row from the row's cache."""
        ends, y = {}, []
        for row, first, end in runs_of_documents(v["positions"]):
            own = {name: v[name][..., row:row + 1, first:end, :] for name in ("q", "k", "v")}
            own.update({name: v[name][..., row:row + 1, :, :] for name in ("cache_k", "cache_v")})
            ends[row] = self.reference({**own, "count": v["positions"][row:row + 1, first]}, a)
            y.append((row, ends[row].pop("y")))
        rows = [np.concatenate([part for of, part in y if of == row], -2) for row in ends]
        return {"y": np.concatenate(rows, -3),
                **{name: np.concatenate([end[name] for end in ends.values()], -3) for name in ("new_k", "new_v")}}

    def comparable(self, name, value, inputs, attributes):
        after = inputs["positions"][:, -1] + 1 if "positions" in inputs else inputs["count"] + inputs["q"].shape[1]
        return open_rows(value, after) if name.startswith("new_") else value

    def build(self, f, v, a, cot):
        positions, softmax = v.get("positions"), not a.get("laplace")
        function = {} if softmax else {"function": "#megalodon.attention_function<laplace>"}
        q, k, value, cache_k, cache_v, count = (v[name] for name in ("q", "k", "v", "cache_k", "cache_v", "count"))
        rotary = lambda x, **options: f.op("rotary", [x, count, positions], [of(x)], heads=a["heads"], base=a["base"], chunk=cache_k.shape[1],
                                           **options) if "base" in a else x
        q, k = rotary(q), rotary(k)
        lse = (q.shape[:2] + (a["heads"],), "f32" if f.precision == "bf16" else f.precision)
        heads, groups = a["heads"], a.get("groups", a["heads"])
        ungrouped = (value.shape[:2] + (value.shape[2] * heads // groups,), value.element)
        y, lse = f.op("chunk_attention", [q, k, value, cache_k, cache_v, count, positions], [ungrouped, lse if softmax else None],
                      heads=heads, **function)
        outputs = {"y": y}
        if not cot:
            outputs["new_k"] = f.op("cache_append", [cache_k, k, count, positions], [of(cache_k)])
            outputs["new_v"] = f.op("cache_append", [cache_v, value, count, positions], [of(cache_v)])
            return outputs, None
        dq, dk, dv = f.op("chunk_attention_grad", [cot["y"], q, k, value, cache_k, cache_v, count, *([y, lse] if softmax else ()), positions],
                          [of(q), of(q), ungrouped], operand_groups=[1] * 7 + [int(softmax)] * 2 + [int(positions is not None)],
                          heads=heads, **function)
        if groups != heads:
            dk, dv = (f.op("sum_head_groups", [x], [of(whole)], heads=heads, groups=groups) for x, whole in ((dk, k), (dv, value)))
        return outputs, {"q": rotary(dq, inverse=True), "k": rotary(dk, inverse=True), "v": dv}


# Query heads a key head serves, of the cases that have a grouped twin.
GROUPED = {"prime": 3, "wide": 2, "decode": 4, "long": 2}


class AdvanceCount(Op):
    states = ("count",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            yield label, {}, {"x": rng.normal(size=(B, L, size)), "count": rng.integers(0, 99, B)}

    def reference(self, v, a):
        return {"new_count": v["count"] + v["x"].shape[-2]}

    def build(self, f, v, a, cot):
        return {"new_count": f.op("advance_count", [v["count"], v["x"]], [of(v["count"])])}, None


def open_rows(cache, count):
    """The rows of a cache [B, C, ...] that are specified, of all batch rows one after the other."""
    return np.concatenate([row[:start].reshape(-1) for row, start in zip(cache, count % cache.shape[1])])


class Silu(Op):
    differentiable, cotangents = ("x",), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            yield label, {}, {"x": rng.normal(0, 3, (B, L, size))}
        yield "extreme", {}, {"x": np.array([[[-300.0, -90.0, -30.0, 0.0, 30.0, 90.0, 300.0]]])}

    def reference(self, v, a):
        return {"y": silu(v["x"])}

    def build(self, f, v, a, cot):
        x = v["x"]
        return {"y": f.op("silu", [x], [of(x)])}, cot and {"x": f.op("silu_grad", [cot["y"], x], [of(x)])}


def silu(x):
    """Without overflow where x is far below zero."""
    return x * np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1.0 + np.exp(-np.abs(x)))


class Gate(Op):
    differentiable, cotangents = ("value", "gate"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            yield label, {}, {"value": rng.normal(size=(B, L, size)), "gate": rng.normal(0, 3, (B, L, size))}

    def reference(self, v, a):
        return {"y": v["value"] * silu(v["gate"])}

    def build(self, f, v, a, cot):
        value, gate = v["value"], v["gate"]
        y = f.op("gate", [value, gate], [of(value)])
        gradients = cot and f.op("gate_grad", [cot["y"], value, gate], [of(value), of(gate)])
        return {"y": y}, gradients and dict(zip(self.differentiable, gradients))


class EmaCoefficients(Op):
    weights, differentiable, cotangents = ("alpha", "delta", "beta", "gamma"), ("alpha", "delta", "beta", "gamma"), ("p", "q", "g")
    double = ("cot.p", "cot.q", "cot.g")

    def random(self, rng):
        for label, (D, N) in {"one": (1, 1), "prime": (13, 7), "wide": (37, 16)}.items():
            yield label, {}, {**{name: rng.normal(size=(D, N, 1)) for name in ("alpha", "delta", "beta")}, "gamma": rng.normal(size=(D, N))}

    def reference(self, v, a):
        p, q, g = mega.ema_coefficients(*(v[name] for name in self.weights))
        return {"p": p, "q": np.stack([q, np.zeros_like(q)], -1), "g": np.stack([g, np.zeros_like(g)], -1)}

    def build(self, f, v, a, cot):
        alpha, delta, beta, gamma = (v[name] for name in self.weights)
        D, N = gamma.shape
        p, q, g = f.op("ema_coefficients", [alpha, delta, beta, gamma], [((D, N), "f64"), ((D, N, 2), "f64"), ((D, N, 2), "f64")])
        outputs = {"p": p, "q": q, "g": g}
        if not cot:
            return outputs, None
        gradients = f.op("ema_coefficients_grad", [cot["p"], cot["q"], cot["g"], alpha, delta, beta],
                         [of(alpha), of(delta), of(beta), of(gamma)])
        return outputs, dict(zip(self.differentiable, gradients))


class MegaQK(Op):
    weights, states = ("gamma", "beta", "relative"), ("count",)
    differentiable, cotangents = ("z", "gamma", "beta", "relative"), ("q", "k")

    def random(self, rng):
        for label, (B, L, Z, chunk) in {"one": (1, 1, 2, 1), "prime": (3, 7, 26, 5), "wide": (2, 40, 38, 16)}.items():
            inputs = {"z": rng.normal(size=(B, L, Z)), **{name: rng.normal(size=(2, Z)) for name in self.weights},
                      "count": rng.integers(0, 99, B)}
            for per_key in (False, True):
                yield label + "_per_key" * per_key, {"base": 1e4, "chunk": chunk, "per_key": per_key}, inputs
            if label != "one":
                yield label + "_packed", {"base": 1e4, "chunk": chunk, "per_key": True}, {
                    **inputs, "positions": packed_positions(rng, B, L, 9, inputs["count"])}

    def reference(self, v, a):
        positions = v["positions"] % a["chunk"] if "positions" in v else ref.chunk_positions(v["count"], v["z"].shape[-2], a["chunk"])
        q, k = mega.mega_qk(v["z"], v["gamma"], v["beta"], v["relative"], positions, a["base"], a["per_key"])
        return {"q": q, "k": k}

    def build(self, f, v, a, cot):
        z, gamma, beta, relative, *places = (v.get(name) for name in (*self.differentiable, "count", "positions"))
        wide = (z.shape[:2] + (2 * z.shape[2],), z.element)
        q, k = f.op("mega_qk", [z, gamma, beta, relative, *places], [wide, wide], **a)
        gradients = cot and f.op("mega_qk_grad", [cot["q"], cot["k"], z, gamma, *places], [of(z), of(gamma), of(beta), of(relative)], **a)
        return {"q": q, "k": k}, gradients and dict(zip(self.differentiable, gradients))


class UpdateGate(Op):
    differentiable, cotangents = ("x", "candidate", "gate"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            yield label, {}, {"x": rng.normal(size=(B, L, size)), "candidate": rng.normal(size=(B, L, size)),
                              "gate": rng.normal(0, 3, (B, L, size))}

    def reference(self, v, a):
        return {"y": v["x"] + ref.sigmoid(v["gate"]) * (v["candidate"] - v["x"])}

    def build(self, f, v, a, cot):
        x, candidate, gate = (v[name] for name in self.differentiable)
        y = f.op("update_gate", [x, candidate, gate], [of(x)])
        gradients = cot and f.op("update_gate_grad", [cot["y"], x, candidate, gate], [of(x), of(candidate), of(gate)])
        return {"y": y}, gradients and dict(zip(self.differentiable, gradients))


class Add(Op):
    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            for count in (2, 3):
                yield f"{label}_{count}", {}, {name: rng.normal(size=(B, L, size)) for name in "abc"[:count]}

    def reference(self, v, a):
        return {"y": sum(v.values())}

    def build(self, f, v, a, cot):
        return {"y": f.op("add", list(v.values()), [of(v["a"])])}, None


class TwoHopResidual(Op):
    weights, differentiable, cotangents = ("alpha",), ("branch", "alpha"), ("y",)

    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            inputs = {"x": rng.normal(size=(B, L, size)), "branch": rng.normal(size=(B, L, size))}
            yield label, {}, inputs
            yield label + "_rescale", {}, {**inputs, "alpha": rng.normal(size=size)}

    def reference(self, v, a):
        return {"y": v["x"] + (v["branch"] * v["alpha"][..., None, :] if "alpha" in v else v["branch"])}

    def with_gradient(self, inputs):
        return super().with_gradient(inputs) if "alpha" in inputs else []  # else the gradient is the cotangent

    def build(self, f, v, a, cot):
        x, branch, alpha = v["x"], v["branch"], v.get("alpha")
        y = f.op("two_hop_residual", [x, branch, alpha], [of(x)])
        if not cot:
            return {"y": y}, None
        dbranch, dalpha = f.op("two_hop_residual_grad", [cot["y"], branch, alpha], [of(branch), of(alpha)])
        return {"y": y}, {"branch": dbranch, "alpha": dalpha}


class LastToken(Op):
    def random(self, rng):
        for label, (B, L, size) in SIZES.items():
            yield label, {}, {"x": rng.normal(size=(B, L, size))}

    def reference(self, v, a):
        return {"y": v["x"][:, -1]}

    def build(self, f, v, a, cot):
        x = v["x"]
        return {"y": f.op("last_token", [x], [((x.shape[0], x.shape[2]), x.element)])}, None


class CrossEntropy(Op):
    differentiable, cotangents = ("logits",), ("nll",)

    def random(self, rng):
        for label, (B, L, size) in {"one": (1, 1, 2), "prime": (3, 7, 13), "wide": (2, 19, 61)}.items():
            targets = rng.integers(0, size, (B, L)).astype(np.int32)
            targets[:, ::3] = -100
            yield label, {}, {"logits": rng.normal(0, 4, (B, L, size)), "targets": targets}

    def reference(self, v, a):
        return {"nll": ref.cross_entropy(v["logits"], v["targets"])}

    def build(self, f, v, a, cot):
        logits, targets = v["logits"], v["targets"]
        rows = (targets.shape, f.precision)
        nll, lse = f.op("cross_entropy", [logits, targets], [rows, rows])
        return {"nll": nll}, cot and {"logits": f.op("cross_entropy_grad", [cot["nll"], logits, targets, lse], [of(logits)])}


class Mean(Op):
    differentiable, cotangents = ("x",), ("y",)

    def random(self, rng):
        for label, (B, L, _) in {**SIZES, "long": (2, 1000, 0)}.items():
            yield label, {}, {"x": rng.normal(3, 1, (B, L))}

    def reference(self, v, a):
        return {"y": v["x"].mean((-2, -1))}

    def build(self, f, v, a, cot):
        return {"y": f.op("mean", [v["x"]], [((), f.precision)])}, cot and {"x": f.op("mean_grad", [cot["y"]], [of(v["x"])])}


class LossSum(Op):
    def random(self, rng):
        for label, (B, L, _) in SIZES.items():
            targets = rng.integers(0, 9, (B, L)).astype(np.int32)
            targets[:, 1::3] = -100
            yield label, {}, {"nll": rng.uniform(1, 3, (B, L)) * (targets >= 0), "targets": targets}

    def reference(self, v, a):
        return {"sum": v["nll"].sum(), "kept": (v["targets"] != -100).sum()}

    def build(self, f, v, a, cot):
        total, kept = f.op("loss_sum", [v["nll"], v["targets"]], [((), f.precision), ((), "i64")])
        return {"sum": total, "kept": kept}, None


class Accumulate(Op):
    """`invoke` runs a first microbatch, which replaces what stood in the accumulator; training adds (a test of the runtime)."""
    weights, exact = ("gradient", "into"), True

    def random(self, rng):
        for label, shape in {"one": (1,), "prime": (13, 7), "wide": (37, 19)}.items():
            yield label, {}, {"gradient": rng.normal(size=shape), "into": rng.normal(size=shape)}

    def reference(self, v, a):
        return {"y": v["gradient"]}

    def build(self, f, v, a, cot):
        return {"y": f.op("accumulate", [v["gradient"], v["into"]], [of(v["into"])])}, None


class GlobalNorm(Op):
    weights, exact = ("a", "b", "c"), True

    def random(self, rng):
        yield "one", {}, {"a": rng.normal(size=(1,))}
        yield "three", {}, {"a": rng.normal(size=(13, 7)), "b": rng.normal(size=(5, 3, 2)), "c": rng.normal(size=(997,))}

    def reference(self, v, a):
        return {"y": np.sqrt(sum(np.sum(x * x) for x in v.values()))}

    def build(self, f, v, a, cot):
        return {"y": f.op("global_norm", list(v.values()), [((), f.precision)])}, None


class Clip(Op):
    weights, exact = ("norm",), True

    def random(self, rng):
        for label, (norm, largest) in {"above": (3.7, 1.0), "below": (0.3, 1.0), "off": (9.0, 0.0), "zero": (0.0, 1.0)}.items():
            yield label, {"max_norm": largest}, {"norm": np.array(norm)}

    def reference(self, v, a):
        return {"y": np.minimum(1.0, a["max_norm"] / (v["norm"] + 1e-6)) if a["max_norm"] > 0 else np.array(1.0)}

    def build(self, f, v, a, cot):
        return {"y": f.op("clip", [v["norm"]], [((), f.precision)], **a)}, None


class AdamW(Op):
    weights = ("parameter", "first_moment", "second_moment", "gradient", "step", "lr", "clip")
    exact = True

    def random(self, rng):
        for label, (shape, step) in {"one": ((1,), 1), "prime": ((13, 7), 3), "wide": ((37, 19), 1000)}.items():
            attributes = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1}
            yield label, attributes, {
                "parameter": rng.normal(size=shape), "first_moment": rng.normal(size=shape), "second_moment": rng.uniform(size=shape),
                "gradient": rng.normal(size=shape), "step": np.array(step), "lr": np.array(1e-2), "clip": np.array(0.7)}

    def reference(self, v, a):
        gradient = v["clip"] * v["gradient"]
        first = a["beta1"] * v["first_moment"] + (1 - a["beta1"]) * gradient
        second = a["beta2"] * v["second_moment"] + (1 - a["beta2"]) * gradient**2
        step = v["step"]
        update = first / (1 - a["beta1"] ** step) / (np.sqrt(second / (1 - a["beta2"] ** step)) + a["epsilon"])
        return {"new_parameter": v["parameter"] * (1 - v["lr"] * a["weight_decay"]) - v["lr"] * update,
                "new_first_moment": first, "new_second_moment": second}

    def build(self, f, v, a, cot):
        results = f.op("adamw", list(v.values()), [of(v["parameter"])] * 3, **a)
        return dict(zip(("new_parameter", "new_first_moment", "new_second_moment"), results)), None


class FeedForward(Op):
    """The whole feed-forward network, whose gradient is put together here by hand."""
    cotangents = ("out",)

    def __init__(self, config):
        self.config, self.double = config, ()
        names = [name[len("layers.0.nffn."):] for name in ref.parameter_shapes(config) if name.startswith("layers.0.nffn.")]
        self.weights = tuple("param." + name for name in names)
        self.differentiable = ("y",) + self.weights

    def random(self, rng):
        return ()

    def build(self, f, v, a, cot):
        config, x, y = self.config, v["x"], v["y"]
        fc1, fc2, fc3, alpha = (v.get(f"param.{name}") for name in ("fc1.weight", "fc2.weight", "fc3.weight", "alpha"))
        weight, bias = v.get("param.norm.weight"), v.get("param.norm.bias")
        wide = (y.shape[:2] + fc1.shape[:1], f.precision)
        n = build_layer_norm(f, y, weight, bias, config.norm_eps, None)[0]["y"]
        up = f.op("linear", [n, fc1], [wide])
        value = f.op("linear", [n, fc3], [wide]) if fc3 else None
        hidden = f.op("gate", [value, up], [wide]) if fc3 else f.op("silu", [up], [wide])
        branch = f.op("linear", [hidden, fc2], [of(x)])
        outputs = {"out": f.op("two_hop_residual", [x, branch, alpha], [of(x)])}
        if not cot:
            return outputs, None
        gradients, dbranch = {}, cot["out"]
        if alpha:
            dbranch, gradients["param.alpha"] = f.op("two_hop_residual_grad", [dbranch, branch, alpha], [of(branch), of(alpha)])
        gradients["param.fc2.weight"] = f.op("linear_grad_weight", [dbranch, hidden], [of(fc2)])
        dhidden = f.op("linear_grad_input", [dbranch, fc2], [wide])
        if fc3:
            dvalue, dup = f.op("gate_grad", [dhidden, value, up], [wide, wide])
            gradients["param.fc3.weight"] = f.op("linear_grad_weight", [dvalue, n], [of(fc3)])
            dn = f.op("add", [f.op("linear_grad_input", [dvalue, fc3], [of(n)]), f.op("linear_grad_input", [dup, fc1], [of(n)])], [of(n)])
        else:
            dup = f.op("silu_grad", [dhidden, up], [wide])
            dn = f.op("linear_grad_input", [dup, fc1], [of(n)])
        gradients["param.fc1.weight"] = f.op("linear_grad_weight", [dup, n], [of(fc1)])
        _, norm = build_layer_norm(f, y, weight, bias, config.norm_eps, {"y": dn})
        gradients["y"] = norm["x"]
        gradients.update({"param.norm." + name: norm[name] for name in ("weight", "bias") if norm[name]})
        return outputs, gradients


class Block(Op):
    """The forward pass of a gated attention, with the feed-forward network of a whole layer where its parameters are given."""

    states = tuple("state." + name for name in ("count", "mean", "var", "h", "k", "v"))

    def __init__(self, config):
        self.config = config
        self.weights = tuple("param." + name[len("layers.0."):] for name in ref.parameter_shapes(config) if name.startswith("layers.0."))

    def random(self, rng):
        return ()

    def comparable(self, name, value, inputs, attributes):
        if name not in ("state.k", "state.v"):
            return value
        return open_rows(value, inputs["state.count"] + inputs["x"].shape[1])

    def build(self, f, v, a, cot):
        config, x = self.config, v["x"]
        eps, heads, chunk = config.norm_eps, config.num_heads, config.chunk_size
        parameter = lambda name: v.get("param.mega." + name)
        linear = lambda u, name: f.op("linear", [u, parameter(name + ".weight"), parameter(name + ".bias")],
                                      [(u.shape[:2] + parameter(name + ".weight").shape[:1], f.precision)])
        count, cache_k, cache_v = v["state.count"], v["state.k"], v["state.v"]
        norm, _ = TimestepNorm().build(f, {"x": x, "weight": parameter("timenorm.weight"), "bias": parameter("timenorm.bias"),
                                           "count": count, "mean": v["state.mean"], "var": v["state.var"]}, {"eps": eps}, None)
        xt = norm["y"]
        logits = {name: parameter("cema." + name) for name in ("alpha", "delta", "theta", "gamma", "omega")}
        average, _ = CemaOfLogits().build(f, {**logits, "x": xt, "h": v["state.h"]}, {"block": 16}, None)
        mx = f.op("rms_norm", [average["y"], parameter("rmsnorm.weight")], [of(x)], eps=eps)
        z = linear(mx, "wz")
        q, k = f.op("normalized_qk", [z, parameter("gamma"), parameter("beta")], [of(z), of(z)], heads=heads, eps=eps)
        q, k = (f.op("rotary", [u, count], [of(u)], heads=heads, base=float(config.rope_base), chunk=chunk) for u in (q, k))
        value = f.op("silu", [linear(xt, "wv")], [(x.shape[:2] + (config.value_dim,), f.precision)])
        attention, _ = f.op("chunk_attention", [q, k, value, cache_k, cache_v, count],
                            [of(value), (x.shape[:2] + (heads,), f.precision)], heads=heads)
        gated = f.op("gate", [attention, linear(mx, "wr")], [of(attention)])
        y = f.op("add", [x, linear(mx, "wh1"), linear(gated, "wh2")], [of(x)])
        outputs = {"state.count": norm["new_count"], "state.mean": norm["new_mean"], "state.var": norm["new_var"],
                   "state.h": average["new_h"], "state.k": f.op("cache_append", [cache_k, k, count], [of(cache_k)]),
                   "state.v": f.op("cache_append", [cache_v, value, count], [of(cache_v)])}
        if "param.nffn.fc1.weight" in v:
            ffn = {"x": x, "y": y, **{"param." + name[len("param.nffn."):]: value for name, value in v.items() if name.startswith("param.nffn.")}}
            y = FeedForward(config).build(f, ffn, {}, None)[0]["out"]
        return {"y": y, **outputs}, None


OPS = {"embedding": Embedding, "linear": Linear, "timestep_norm": TimestepNorm, "cema_coefficients": CemaCoefficients, "cema": Cema,
       "rms_norm": RmsNorm, "layer_norm": LayerNorm, "normalized_qk": NormalizedQK, "rotary": Rotary, "ema_coefficients": EmaCoefficients,
       "mega_qk": MegaQK, "update_gate": UpdateGate, "chunk_attention": ChunkAttention,
       "advance_count": AdvanceCount, "silu": Silu, "gate": Gate, "add": Add, "two_hop_residual": TwoHopResidual, "last_token": LastToken, "cross_entropy": CrossEntropy,
       "mean": Mean, "loss_sum": LossSum, "accumulate": Accumulate, "global_norm": GlobalNorm, "clip": Clip, "adamw": AdamW}
