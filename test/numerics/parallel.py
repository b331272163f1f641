#!/usr/bin/env python3
"""Splits a sequence, a vocabulary or a set of gradients over ranks, runs every rank's ops and compares with the unsplit reference.

    test/numerics/parallel.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--precision f32|f64] [--only REGEX] [-v]

One plan holds the ops of all ranks up to the next exchange, each with its rank as a constant; between plans numpy gathers. Gradients
are compared with fourth-order differences of the reference. `_short` cases compile for more rows and tokens than the call has.
"""
import argparse
import re
import sys
import zlib

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import differences
import megalodon as ref
from module_text import Function
from op_cases import of
from ops import DEFAULT_PRECISIONS, TOLERANCES, rounded
from report import Report

EPS = 1e-5
SAMPLED_ENTRIES = 16
FAR = 1e3  # what fills padding
SLACK = (2, 5)  # rows and tokens that `_short` plans are compiled for beyond the call's


class Plan:
    """One function whose inputs are tensors of the call; `run` gives its outputs by name."""

    def __init__(self, split, B, L):
        self.split, self.function, self.tensors = split, Function(split.precision), {}
        self.rows, self.tokens = split.slack
        self.add("tokens", np.zeros((B, L), np.int32), 2)

    def add(self, name, value, dynamic=0, element=None):
        """An input. Of its leading dimensions `dynamic` follow the call: none, the rows, or rows and tokens."""
        value = np.asarray(value)
        element = element or {"i": f"i{8 * value.itemsize}", "f": self.split.precision}[value.dtype.kind]
        self.tensors[name] = value.astype({"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64}[element])
        more = [self.rows, self.tokens][:dynamic] + [0] * (value.ndim - dynamic)
        return self.function.input(name, tuple(extent + extra for extent, extra in zip(value.shape, more)), element,
                                   "input" if dynamic else "parameter")

    def give(self, role="output", **values):
        for name, value in values.items():
            self.function.output(name, value, role)

    def run(self, stage):
        runner, stem = self.split.runner, f"{self.split.name}.{stage}".replace("/", ".")
        plan = runner.compile_module(stem, self.function.text())
        return runner.invoke(plan, "test", self.tensors, "--poison")


class Split:
    """One case: the inputs of all ranks and what the unsplit computation gives."""

    def __init__(self, name, precision, runner, report, slack):
        self.name, self.precision, self.runner, self.report, self.slack = name, precision, runner, report, slack
        self.rng = np.random.default_rng(zlib.crc32(name.removesuffix("_short").encode()))

    def normal(self, *shape, mean=0.0, deviation=1.0):
        return rounded(self.rng.normal(mean, deviation, shape), self.precision)

    def check(self, what, got, want, gradient=False):
        self.report.compare(self.name, what, got, want, TOLERANCES[self.precision][gradient])

    def same(self, what, values):
        """The same bits on every rank."""
        self.report.add(self.name, f"{what} is the same on every rank", None, all(np.array_equal(values[0], value) for value in values))

    def check_gradient(self, name, got, function, inputs, weight=False):
        """Of sum(cotangents * outputs), which `function` gives for variants of the inputs."""
        tensor = inputs[name]
        indices = differences.sample(tensor, SAMPLED_ENTRIES, self.name + name)
        want = differences.along(lambda variants: function({**inputs, name: variants[:, None] if weight else variants}), tensor,
                                 differences.unit_vectors(tensor.size, indices))
        self.report.add(self.name, f"grad.{name} is finite", None, bool(np.isfinite(got).all()))
        self.report.compare(self.name, f"grad.{name}", got.reshape(-1)[indices], want, TOLERANCES[self.precision][1],
                            np.abs(want).max(), differences.FLOOR)


def inner(pairs):
    """Sum over cotangents and outputs [V, ...], for every variant."""
    return sum((cotangent * output).sum(tuple(range(-cotangent.ndim, 0))) for cotangent, output in pairs)


def parts(x, ranks, axis):
    return np.split(x, ranks, axis)


def timestep(s, B, R, l, D, G, seen):
    x, weight, bias = s.normal(B, R * l, D, mean=0.5, deviation=2.0), s.normal(D), s.normal(D)
    count = s.rng.integers(1, 50, B)
    count[0] = seen
    mean, var = (rounded(value * (count[:, None] > 0), s.precision) for value in (s.normal(B, G), s.rng.uniform(0.5, 2.0, (B, G))))
    dy = s.normal(B, R * l, D)
    xs, dys, ranks = parts(x, R, 1), parts(dy, R, 1), range(R)

    plan = Plan(s, B, l)
    for r in ranks:
        value = plan.add(f"x{r}", xs[r], 2)
        plan.give(**{f"summary{r}": plan.function.op("timestep_statistics", [value],
                                                     [((value.shape[0], 1, 2, G), s.precision)], groups=G)})
    out = plan.run("statistics")
    summaries = np.concatenate([out[f"summary{r}"] for r in ranks], 1)
    grouped = x.reshape(B, R, l, G, D // G).astype(np.float64)
    s.check("summaries", summaries, np.stack([grouped.mean((2, 4)), grouped.var((2, 4))], 2))

    plan = Plan(s, B, l)
    f, gathered, w, b = plan.function, plan.add("summaries", summaries, 1), plan.add("weight", weight), plan.add("bias", bias)
    state = [plan.add("count", count, 1), plan.add("mean", mean, 1), plan.add("var", var, 1)]
    types = [of(value) for value in state]
    for r in ranks:
        value, cotangent = plan.add(f"x{r}", xs[r], 2), plan.add(f"dy{r}", dys[r], 2)
        prefix = f.op("timestep_prefix", [gathered, *state, f.index(r)], types * 2)
        running = (value.shape[:2] + (G,), s.precision)
        y, _, _, _, running_mean, running_rstd = f.op("timestep_norm", [value, w, b, *prefix[:3]], [of(value), *types, running, running], eps=EPS)
        dx, dw, db, dmean, dvar = f.op("timestep_norm_grad", [cotangent, value, w, prefix[0], running_mean, running_rstd],
                                       [of(value), of(w), of(b), *types[1:]], operand_groups=[1, 0, 0, 1, 1, 1, 1, 1, 0])
        local_count = f.op("local_count", [state[0], f.index(r)], [types[0]])
        share = f.op("timestep_moments_grad", [dmean, dvar, value, local_count, running_mean], [((gathered.shape[0], 1, 2, G), s.precision)])
        names = ("local_count", "local_mean", "local_var", "new_count", "new_mean", "new_var")
        plan.give(**{f"{name}{r}": v for name, v in zip(names, prefix)})
        plan.give(**{f"{name}{r}": v for name, v in dict(y=y, dx=dx, dw=dw, db=db, share=share, running_mean=running_mean, count=local_count).items()})
    out = plan.run("norm")
    whole = lambda v: ref.timestep_norm(v["x"], v["weight"], v["bias"], count, v["mean"], v["var"], G, EPS)
    inputs = {"x": x, "weight": weight, "bias": bias, "mean": mean, "var": var}
    y, *end = whole(inputs)
    s.check("y", np.concatenate([out[f"y{r}"] for r in ranks], 1), y)
    for r in ranks:
        before = whole({**inputs, "x": x[:, :r * l]})[1:] if r else (count, mean, var)
        for name, want, last in zip(("count", "mean", "var"), before, end):
            s.check(f"local_{name} of rank {r}", out[f"local_{name}{r}"], want)
            s.check(f"new_{name} of rank {r}", out[f"new_{name}{r}"], last)
    for name in ("new_count", "new_mean", "new_var"):
        s.same(name, [out[f"{name}{r}"] for r in ranks])

    for r in ranks:
        s.check(f"count of rank {r}", out[f"count{r}"], out[f"local_count{r}"])

    plan = Plan(s, B, l)
    f, shares = plan.function, plan.add("shares", np.concatenate([out[f"share{r}"] for r in ranks], 1), 1)
    for r in ranks:
        value, dx = plan.add(f"x{r}", xs[r], 2), plan.add(f"dx{r}", out[f"dx{r}"], 2)
        local_count, running_mean = plan.add(f"count{r}", out[f"count{r}"], 1), plan.add(f"running_mean{r}", out[f"running_mean{r}"], 2)
        result, dmean, dvar = f.op("timestep_suffix_grad", [dx, value, shares, local_count, running_mean, f.index(r)], [of(value), *types[1:]])
        plan.give(**{f"x.grad{r}": result, f"mean.grad{r}": dmean, f"var.grad{r}": dvar})
    got = plan.run("gradient")
    gradients = {"x": np.concatenate([got[f"x.grad{r}"] for r in ranks], 1), "mean": got["mean.grad0"], "var": got["var.grad0"],
                 "weight": sum(out[f"dw{r}"] for r in ranks), "bias": sum(out[f"db{r}"] for r in ranks)}
    for name, gradient in gradients.items():
        s.check_gradient(name, gradient, lambda v: inner([(dy, whole(v)[0])]), inputs, weight=name in ("weight", "bias"))
    for name in ("mean", "var"):
        s.report.add(s.name, f"grad.{name} is given by rank 0 alone", None, not any(got[f"{name}.grad{r}"].any() for r in ranks[1:]))


def cema(s, B, R, l, D, N, block):
    radius, phase = s.rng.uniform(0.3, 0.999, (D, N)), s.rng.uniform(0, 2 * np.pi, (D, N))
    inputs = {"x": s.normal(B, R * l, D), "p": s.rng.uniform(0.1, 0.9, (D, N)),
              "q": np.stack([radius * np.cos(phase), radius * np.sin(phase)], -1), "g": s.rng.normal(size=(D, N, 2)),
              "omega": s.normal(D, 1), "h": s.normal(B, D, N, 2)}
    dy, dnew = s.normal(B, R * l, D), s.normal(B, D, N, 2)
    xs, dys, ranks = parts(inputs["x"], R, 1), parts(dy, R, 1), range(R)

    def begin():
        plan = Plan(s, B, l)
        return plan, [plan.add(name, inputs[name], element="f64") for name in "pqg"]

    plan, (p, q, g) = begin()
    for r in ranks:
        value, cotangent = plan.add(f"x{r}", xs[r], 2), plan.add(f"dy{r}", dys[r], 2)
        summary = ((value.shape[0], 1, D, N, 2), s.precision)
        plan.give(**{f"c{r}": plan.function.op("cema_summary", [value, p, q], [summary]),
                     f"e{r}": plan.function.op("cema_grad_summary", [cotangent, q, g], [summary])})
    out = plan.run("summaries")
    summaries = {name: np.concatenate([out[f"{name}{r}"] for r in ranks], 1) for name in "ce"}

    plan, (p, q, g) = begin()
    f, omega, h, last = plan.function, plan.add("omega", inputs["omega"]), plan.add("h", inputs["h"], 1), plan.add("dnew", dnew, 1)
    forward, backward = (plan.add(name, summaries[name], 1) for name in "ce")
    for r in ranks:
        value, cotangent, rank = plan.add(f"x{r}", xs[r], 2), plan.add(f"dy{r}", dys[r], 2), f.index(r)
        local, new = f.op("cema_prefix", [forward, q, h, rank], [of(h), of(h)])
        dlocal, dh = f.op("cema_prefix", [backward, q, last, rank], [of(h), of(h)], reverse=True)
        saved = ((-(-value.shape[1] // block),) + h.shape, s.precision)
        y, _, states = f.op("cema", [value, p, q, g, omega, local], [of(value), of(h), saved], block=block)
        dx, dp, dq, dg, domega, _ = f.op("cema_grad", [cotangent, dlocal, value, p, q, g, omega, states],
                                         [of(value), of(p), of(q), of(g), of(omega), of(h)], operand_groups=[1] * 8 + [0], block=block)
        results = dict(y=y, local=local, new=new, dlocal=dlocal, h=dh, x=dx, p=dp, q=dq, g=dg, omega=domega)
        plan.give(**{f"out.{name}{r}": value for name, value in results.items()})
    got = plan.run("prefix")

    def whole(v):
        qc, gc = (v[name][..., 0] + 1j * v[name][..., 1] for name in "qg")
        return ref.cema(v["x"], v["p"], qc, gc, v["omega"], v["h"])

    y, new = whole(inputs)
    s.check("y", np.concatenate([got[f"out.y{r}"] for r in ranks], 1), y)
    for r in ranks:
        s.check(f"local_state of rank {r}", got[f"out.local{r}"],
                whole({**inputs, "x": inputs["x"][:, :r * l]})[1] if r else inputs["h"])
        s.check(f"new_state of rank {r}", got[f"out.new{r}"], new)
    for name in ("new", "h"):
        s.same(name, [got[f"out.{name}{r}"] for r in ranks])
    s.check("dlocal of the last rank", got[f"out.dlocal{R - 1}"], dnew)

    products = lambda v: inner([*zip((dy, dnew), whole(v))])
    gradients = {"x": np.concatenate([got[f"out.x{r}"] for r in ranks], 1), "h": got["out.h0"]}
    gradients.update({name: sum(got[f"out.{name}{r}"] for r in ranks) for name in ("p", "q", "g", "omega")})
    for name, gradient in gradients.items():
        s.check_gradient(name, gradient, products, inputs, weight=name in ("p", "q", "g", "omega"))


def cross_entropy(s, B, L, V, R):
    width, ranks = -(-V // R), range(R)
    logits, dnll = s.normal(B, L, V, deviation=4.0), s.normal(B, L)
    targets = s.rng.integers(0, V, (B, L)).astype(np.int32)
    targets[:, 2::3] = -100
    padded = np.concatenate([logits, np.full((B, L, R * width - V), FAR)], -1)
    pieces = parts(padded, R, 2)

    plan = Plan(s, B, L)
    target = plan.add("targets", targets, 2)
    for r in ranks:
        value = plan.add(f"logits{r}", pieces[r], 2)
        plan.give(**{f"summary{r}": plan.function.op("cross_entropy_summary", [value, target, plan.function.index(r)],
                                                     [(value.shape[:2] + (2,), s.precision)], vocabulary=V)})
    out = plan.run("summary")
    summaries = np.concatenate([out[f"summary{r}"] for r in ranks], -1)
    own = np.where(np.arange(R * width) < V, padded, -np.inf).reshape(B, L, R, width)
    kept, empty = targets != -100, np.array([r * width >= V for r in ranks])
    if not empty.all():
        s.check("log-sum-exp of every rank", summaries[..., ::2][..., ~empty], np.log(np.exp(own[:, :, ~empty]).sum(-1)))
    s.report.add(s.name, "padding weighs nothing", None, bool((summaries[..., ::2][..., empty] < -1e30).all()))
    at = np.take_along_axis(logits, np.where(kept, targets, 0)[..., None], -1)
    s.check("logit of the target", summaries[..., 1::2], np.where(kept[..., None] & (targets[..., None] // width == np.arange(R)), at, 0.0))

    plan = Plan(s, B, L)
    f, target, all_summaries = plan.function, plan.add("targets", targets, 2), plan.add("summaries", summaries, 2)
    cotangent = plan.add("dnll", dnll, 2)
    nll, lse = f.op("cross_entropy_combine", [all_summaries, target], [of(cotangent)] * 2)
    plan.give(nll=nll, lse=lse)
    for r in ranks:
        value = plan.add(f"logits{r}", pieces[r], 2)
        plan.give(**{f"dlogits{r}": f.op("cross_entropy_grad", [cotangent, value, target, lse, f.index(r)], [of(value)], vocabulary=V)})
    out = plan.run("combine")
    s.check("lse", out["lse"], np.log(np.exp(logits).sum(-1)))
    s.check("nll", out["nll"], ref.cross_entropy(logits, targets))
    dlogits = np.concatenate([out[f"dlogits{r}"] for r in ranks], -1)
    s.report.add(s.name, "the gradient of padding is 0", None, bool((dlogits[..., V:] == 0).all()))
    s.check_gradient("logits", dlogits[..., :V], lambda v: inner([(dnll, ref.cross_entropy(v["logits"], targets))]), {"logits": logits})


def embedding(s, B, L, V, D, R, scale):
    rows, ranks = -(-V // R), range(R)
    weight, dy = s.normal(V, D), s.normal(B, L, D)
    tokens = s.rng.integers(0, V, (B, L)).astype(np.int32)
    table = np.concatenate([weight, np.full((R * rows - V, D), FAR)])
    plan = Plan(s, B, L)
    plan.tensors["tokens"] = tokens
    f, ids, cotangent = plan.function, plan.function.inputs[0][1], plan.add("dy", dy, 2)
    for r in ranks:
        value, rank = plan.add(f"weight{r}", table[r * rows:(r + 1) * rows]), f.index(r)
        plan.give(**{f"y{r}": f.op("embedding", [ids, value, rank], [of(cotangent)], scale=scale)})
        plan.give("gradient", **{f"dweight{r}": f.op("embedding_grad", [ids, cotangent, rank], [of(value)], scale=scale)})
    out = plan.run("table")
    for r in ranks:
        here = (tokens // rows == r)[..., None]
        s.check(f"y of rank {r}", out[f"y{r}"], np.where(here, scale * weight[tokens], 0.0))
    want = np.zeros_like(table)
    np.add.at(want, tokens.reshape(-1), scale * dy.reshape(-1, D))
    s.check("dweight", np.concatenate([out[f"dweight{r}"] for r in ranks]), want, gradient=True)


def mean(s, B, L, R):
    x, dy = s.normal(B, L, mean=3.0), s.normal()
    plan = Plan(s, B, L)
    f, value, cotangent = plan.function, plan.add("x", x, 2), plan.add("dy", dy)
    plan.give(y=f.op("mean", [value], [of(cotangent)], parts=R), dx=f.op("mean_grad", [cotangent], [of(value)], parts=R))
    out = plan.run("share")
    s.check("y", out["y"], x.sum() / (R * B * L))
    s.check("dx", out["dx"], np.full((B, L), dy / (R * B * L)), gradient=True)


def row_norm(s, kind, B, L, D, R, affine, offset=0.5):
    """Backward of a norm whose channels are split."""
    layer, ranks = kind == "layer_norm", range(R)
    x, dy, weight, bias = s.normal(B, L, D, mean=offset), s.normal(B, L, D), s.normal(D), s.normal(D)
    xs, dys, weights = parts(x, R, 2), parts(dy, R, 2), parts(weight, R, 0)

    def slices(plan):
        for r in ranks:
            yield (r, plan.add(f"dy{r}", dys[r], 2), plan.add(f"x{r}", xs[r], 2), plan.add(f"weight{r}", weights[r]) if affine else None)

    plan, numbers = Plan(s, B, L), 4 if layer else 2
    for r, cotangent, value, gain in slices(plan):
        plan.give(**{f"sums{r}": plan.function.op(kind + "_grad_sums", [cotangent, value, gain], [(value.shape[:2] + (numbers,), "f64")])})
    out = plan.run("sums")
    u = dy * (1 + weight) if affine else dy
    for r in ranks:
        v, w = xs[r], parts(u, R, 2)[r]
        s.report.compare(s.name, f"sums of rank {r}", out[f"sums{r}"],
                         np.stack([q.sum(-1) for q in ((v, v * v, w, w * v) if layer else (v * v, w * v))], -1), TOLERANCES["f64"][0])

    plan = Plan(s, B, L)
    sums = plan.add("sums", sum(out[f"sums{r}"] for r in ranks), 2, element="f64")
    for r, cotangent, value, gain in slices(plan):
        of_gain = [gain and of(gain)] * (2 if layer else 1)
        results = plan.function.op(kind + "_grad", [cotangent, value, gain, sums], [of(value), *of_gain],
                                   operand_groups=[1, 1, int(affine), 1], eps=EPS, width=D)
        plan.give(**{f"x{r}.grad": results[0]})
        plan.give("gradient", **{f"{name}{r}.grad": result for name, result in zip(("weight", "bias"), results[1:]) if result})
    out = plan.run("slices")
    norm = lambda v: ref.layer_norm(v["x"], v.get("weight"), v.get("bias"), EPS) if layer else ref.rms_norm(v["x"], v.get("weight"), EPS)
    inputs = {"x": x, **({"weight": weight} if affine else {}), **({"bias": bias} if affine and layer else {})}
    for name in inputs:
        got = np.concatenate([out[f"{name}{r}.grad"] for r in ranks], -1)
        s.check_gradient(name, got, lambda v: inner([(dy, norm(v))]), inputs, weight=name != "x")


def squares(s, *shapes):
    tensors = [s.normal(*shape, deviation=2.0) for shape in shapes]
    plan = Plan(s, 1, 1)
    values = [plan.add(f"g{i}", tensor) for i, tensor in enumerate(tensors)]
    total, first = (plan.function.op("sum_of_squares", some, [((), "f64")]) for some in (values, values[:1]))
    plan.give(sum=total, norm=plan.function.op("norm_of_squares", [total, first, first], [((), s.precision)]))
    out = plan.run("norm")
    wants = [(tensor**2).sum() for tensor in tensors]
    s.report.compare(s.name, "sum", out["sum"], sum(wants), TOLERANCES["f64"][0])
    s.check("norm", out["norm"], np.sqrt(sum(wants) + 2 * wants[0]))


CASES = {
    "timestep/one": (timestep, 1, 1, 3, 2, 1, 0), "timestep/prime": (timestep, 3, 3, 7, 26, 13, 0),
    "timestep/wide": (timestep, 2, 4, 19, 74, 2, 5), "timestep/long": (timestep, 2, 2, 70, 24, 3, 10**6),
    "timestep/token": (timestep, 2, 5, 1, 45, 15, 0),
    "cema/one": (cema, 1, 1, 3, 1, 1, 8), "cema/prime": (cema, 3, 3, 7, 13, 5, 3), "cema/wide": (cema, 2, 4, 37, 35, 16, 16),
    "cema/long": (cema, 1, 2, 150, 70, 8, 64), "cema/token": (cema, 2, 5, 1, 9, 2, 8), "cema/even": (cema, 1, 3, 64, 16, 4, 32),
    "cross_entropy/one": (cross_entropy, 1, 1, 2, 1), "cross_entropy/prime": (cross_entropy, 3, 7, 13, 3),
    "cross_entropy/wide": (cross_entropy, 2, 19, 301, 4), "cross_entropy/empty": (cross_entropy, 1, 5, 5, 4),
    "cross_entropy/even": (cross_entropy, 2, 9, 128, 2),
    "embedding/one": (embedding, 1, 1, 1, 1, 1, 1.0), "embedding/prime": (embedding, 3, 7, 13, 27, 3, 2.5),
    "embedding/wide": (embedding, 2, 19, 37, 75, 4, 1.0), "embedding/empty": (embedding, 2, 9, 5, 16, 4, 2.0),
    "embedding/large": (embedding, 2, 19, 2500, 70, 2, 2.0),
    "mean/one": (mean, 1, 1, 2), "mean/wide": (mean, 2, 19, 6),
    **{f"{kind}/{label}": (row_norm, kind, *shape) for kind in ("rms_norm", "layer_norm") for label, shape in {
        "prime": (3, 7, 39, 3, True), "wide": (2, 19, 148, 4, True), "plain": (2, 9, 70, 2, False), "one_rank": (1, 5, 33, 1, True),
        "offset": (2, 5, 64, 2, True, 30.0)}.items()},
    "squares/one": (squares, (1,)), "squares/three": (squares, (13, 7), (5, 3, 2), (997,)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--precision", choices=DEFAULT_PRECISIONS, action="append", help="default: both")
    args = parser.parse_args()
    report = Report(args.verbose)
    for precision in args.precision or DEFAULT_PRECISIONS:
        runner = tools.Tools(args, precision)
        for name, (split, *shape) in CASES.items():
            for label, slack in {name: (0, 0), name + "_short": SLACK}.items():
                if slack != (0, 0) and not name.endswith(("/prime", "/wide")) or not re.search(args.only, label):
                    continue
                try:
                    split(Split(label, precision, runner, report, slack), *shape)
                except tools.Failure as failure:
                    report.add(label, str(failure), None, False)
                report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
