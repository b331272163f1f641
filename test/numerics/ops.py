#!/usr/bin/env python3
"""Compiles and runs every op of the dialect by itself and compares its outputs and gradients with the reference.

    test/numerics/ops.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--precision f32|f64|bf16] [--only REGEX] [-v]

Cases are named <op>/<label>. Random ones (labels of op_cases.py) compare outputs with the numpy reference and a sample of every
gradient with its fourth-order differences; `_short` ones compile for more rows and tokens than the call has. With
MEGALODON_GOLDEN set, `<op>/golden_<n>` compares with the golden vectors. --keep DIR --only CASE leaves DIR/<case>.mlir to look at;
--opt-arg=--cema=two-level forces a lowering. At bf16 there are cases of the ops with `narrow`, those whose operands are bf16.
"""
import argparse
import glob
import json
import os
import re
import sys
import zlib

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import differences
import megalodon as ref
import op_cases
from module_text import Function
from report import Report
from safetensors_io import load

# Relative to the largest magnitude of the expected tensor: outputs, gradients. At bf16 a gradient sees the rounding of what forward
# saved: 2.5e-2 of dq in chunk_attention/prime, where dout * out nearly cancels, on cpu and cuda alike.
TOLERANCES = {"f64": (1e-11, 1e-7), "f32": (1e-5, 1e-4), "bf16": (1e-2, 4e-2)}
DEFAULT_PRECISIONS = ("f64", "f32")
GOLDEN_F64, GOLDEN_F64_HARD, GOLDEN_F32_FLOOR = 1e-10, 1e-9, 2e-6
SAMPLED_ENTRIES = 24
FAR = 1e3  # what fills unspecified rows of caches


class Case:
    """One op with inputs and what is expected. Gradients: name -> (flat indices or None for all, values, scale)."""

    def __init__(self, name, op, attributes, inputs, outputs=None, cotangents=None, gradients=None, tolerance=None, slack=None):
        self.name, self.op, self.attributes, self.inputs = name, op, attributes, inputs
        self.outputs, self.cotangents, self.gradients = outputs, cotangents or {}, gradients or {}
        self.tolerance = tolerance or (lambda precision, name, is_gradient: TOLERANCES[precision][is_gradient])
        self.slack = slack  # rows and tokens that the plan is compiled for beyond the call's

    @property
    def call_shape(self):
        """Batch and length of the call; (1, 1) for ops on parameters only."""
        if "tokens" in self.inputs:
            return self.inputs["tokens"].shape
        activations = [value.shape[:2] for name, value in self.inputs.items()
                       if name not in self.op.weights and name not in self.op.states]
        return activations[0] if activations else (1, 1)

    def compiled_shape(self, name, value):
        """Shape of an input in the IR."""
        if not self.slack or name in self.op.weights:
            return value.shape
        rows, tokens = self.slack
        if name in self.op.states:
            return (value.shape[0] + rows,) + value.shape[1:]
        return (value.shape[0] + rows, value.shape[1] + tokens) + value.shape[2:]


def rounded(value, precision):
    """A real input as the function will see it, in float64."""
    value = np.asarray(value)
    if precision == "f64" or value.dtype.kind != "f":
        return value
    value = value.astype(np.float32)
    if precision == "bf16":  # to the nearest, ties to even
        bits = np.frombuffer(value.tobytes(), np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).astype(np.uint32)
        value = bits.view(np.float32).reshape(value.shape)
    return value.astype(np.float64)


def random_cases(name, precision, with_gradients, only):
    """Cases whose name the expression `only` finds; the numbers of one do not depend on the others."""
    op = op_cases.OPS[name]()
    for label, attributes, inputs in op.random(np.random.default_rng(zlib.crc32(name.encode()))):
        short = label in ("prime", "wide", "prime_packed", "wide_packed", "prime_laplace") and not op.exact
        whole, part = (bool(re.search(only, f"{name}/{label}{suffix}")) for suffix in ("", "_short"))
        if not whole and not (short and part):
            continue
        rng = np.random.default_rng(zlib.crc32(f"{name}/{label}".encode()))
        inputs = {key: value if key in op.double else rounded(value, precision) for key, value in inputs.items()}
        outputs = op.reference(inputs, attributes)
        cotangents = {key: rounded(rng.normal(size=np.shape(outputs[key])), precision) for key in op.cotangents}
        wanted = op.with_gradient(inputs) if with_gradients and whole else []
        gradients = {key: sampled_gradient(op, attributes, inputs, cotangents, key, f"{name}/{label}") for key in wanted}
        if whole:
            yield Case(f"{name}/{label}", op, attributes, inputs, outputs, cotangents if wanted else None, gradients)
        if short and part:
            yield Case(f"{name}/{label}_short", op, attributes, inputs, outputs, slack=(2, 5))


def sampled_gradient(op, attributes, inputs, cotangents, name, seed):
    def inner_product(variants):
        variants = variants[:, None] if name in op.weights else variants
        outputs = op.reference({**inputs, name: variants}, attributes)
        total = 0.0
        for key, cotangent in cotangents.items():
            product = cotangent * outputs[key]
            total = total + product.sum(tuple(range(-cotangent.ndim, 0)) if cotangent.ndim else ()).reshape(-1)
        return np.broadcast_to(total, (len(variants),))

    tensor = inputs[name]
    indices = differences.sample(tensor, SAMPLED_ENTRIES, seed + name)
    values = differences.along(inner_product, tensor, differences.unit_vectors(tensor.size, indices))
    return indices, values, np.abs(values).max()


def golden_cases(folder):
    for path in sorted(glob.glob(os.path.join(folder, "op_*.safetensors"))):
        with open(path[:-len("safetensors")] + "json", encoding="utf-8") as file:
            meta = json.load(file)
        number = re.search(r"(\d+)\.safetensors$", path).group(1)
        yield from golden_case(meta["op"], f"golden_{number}", load(path), meta)


def golden_case(kind, label, v, meta):
    inputs, outputs, cotangents, gradients = (ref.below(prefix, v) for prefix in ("in.", "out.", "cot.", "grad."))
    names, attributes, name = {}, {}, kind
    if kind == "cema":
        op, attributes, names = op_cases.CemaOfLogits(), {"block": 16}, {"h0": "h", "hT": "new_h"}
        inputs.setdefault("h0", np.zeros((meta["B"], meta["D"], meta["N"], 2)))
        logits = op_cases.CemaCoefficients()
        yield Case(f"cema_coefficients/{label}", logits, {}, {key: inputs[key] for key in logits.weights},
                   {"p": outputs.pop("p"), "q": outputs.pop("q"), "g": outputs.pop("gamma_scaled")})
        del outputs["kernel"]
    elif kind == "timestep_norm":
        if "pad" in inputs:
            return  # the model never passes a mask, so the dialect has none
        op, attributes = op_cases.TimestepNorm(), {"eps": meta["eps"]}
        names = {"count0": "count", "mean0": "mean", "var0": "var"}
        outputs, cotangents = ({key if key == "y" else "new_" + key: value for key, value in table.items()} for table in (outputs, cotangents))
    elif kind in ("rms_norm", "layer_norm"):
        op, attributes = op_cases.OPS[kind](), {"eps": meta["eps"]}
    elif kind == "rope":
        name, op, attributes = "rotary", op_cases.Rotary(), {"heads": meta["H"], "base": float(meta["base"]), "chunk": 4096}
        inputs, outputs, cotangents, gradients = ({key: op_cases.merge_heads(value) for key, value in table.items()}
                                                  for table in (inputs, outputs, cotangents, gradients))
        inputs["count"] = np.full(meta["B"], meta["pos0"])
    elif kind == "normalized_qk":
        op, attributes = op_cases.NormalizedQK(), {"heads": meta["heads"], "eps": meta["eps"]}
    elif kind == "chunk_attention":
        op, attributes = op_cases.ChunkAttention(), {"heads": meta["H"], "base": float(meta["base"])}
        for key, width in (("k", meta["dz"]), ("v", meta["dv"])):
            cache = inputs.pop(f"{key}_cache", np.zeros((meta["B"], 0, meta["H"], width)))
            inputs[f"cache_{key}"] = filled(cache, meta["chunk"])
            outputs[f"new_{key}"] = filled(outputs.pop(f"{key}_cache"), meta["chunk"])
            gradients.pop(f"{key}_cache", None)  # the dialect detaches the cache
        inputs, outputs, cotangents, gradients = ({key: op_cases.merge_heads(value) for key, value in table.items()}
                                                  for table in (inputs, outputs, cotangents, gradients))
        inputs["count"] = np.full(meta["B"], meta["pos0"])
    elif kind == "cross_entropy":
        op, names = op_cases.CrossEntropy(), {"token_loss": "nll"}
        outputs = {"token_loss": outputs["token_loss"]}
        inputs["targets"] = inputs["targets"].astype(np.int32)
        del gradients["logits_of_mean_all"]
    elif kind == "ffn":
        op = op_cases.FeedForward(ref.Config.of(meta["config"]))
        del gradients["x"]  # the cotangent itself
    else:
        config = ref.Config.of(meta["config"])
        op, cotangents, gradients = op_cases.Block(config), {}, {}
        for table in (inputs, outputs):
            for key in ("state.k", "state.v"):
                table[key] = op_cases.merge_heads(filled(table[key], config.chunk_size))
    rename = lambda table: {names.get(key, key): value for key, value in table.items()}
    noise = {**rename(meta["float32_noise_of_reference"]["out"]),
             **{"grad." + key: value for key, value in rename(meta["float32_noise_of_reference"].get("grad", {})).items()}}
    hard = meta.get("long_memory") or meta.get("mode") == "offset"

    def tolerance(precision, what, is_gradient):
        if precision == "f64":
            return GOLDEN_F64_HARD if hard else GOLDEN_F64
        if precision == "bf16":
            return TOLERANCES["bf16"][is_gradient]
        renamed = what[len("new_"):] if kind == "timestep_norm" and what.startswith("new_") else what
        return max(4 * noise.get("grad." + renamed if is_gradient else renamed, 0.0), GOLDEN_F32_FLOOR)

    expected = {key: (None, value, None) for key, value in rename(gradients).items()}
    yield Case(f"{name}/{label}", op, attributes, rename(inputs), rename(outputs), rename(cotangents), expected, tolerance)


def filled(cache, chunk):
    """A cache of full capacity whose unspecified rows hold what would show."""
    full = np.full(cache.shape[:1] + (chunk,) + cache.shape[2:], FAR)
    full[:, :cache.shape[1]] = cache
    return full


def element_of(case, name, value, precision):
    kind = np.asarray(value).dtype
    if kind == np.int32:
        return "i32", np.int32
    if kind.kind == "i":
        return "i64", np.int64
    real = "f64" if name in case.op.double else precision
    return real, np.float64 if real == "f64" else np.float32


def write_module(case, precision):
    """Text of the module and the tensors of the call."""
    function = Function(precision)
    tensors, values = {}, {}

    def take(name, value, given_shape):
        element, dtype = element_of(case, name, value, precision)
        role = "parameter" if name in case.op.weights and not case.op.exact else "input"
        tensors[name] = np.asarray(value).astype(dtype)
        return function.input(name, given_shape, element, role)

    tokens = case.inputs.get("tokens", np.zeros(case.call_shape, np.int32))
    for name, value in {"tokens": tokens, **case.inputs}.items():
        values[name] = take(name, value, case.compiled_shape(name, value))
    values = values if "tokens" in case.inputs else {name: value for name, value in values.items() if name != "tokens"}
    cotangents = {name: take("cot." + name, value, value.shape) for name, value in case.cotangents.items()}
    outputs, gradients = case.op.build(function, values, case.attributes, cotangents or None)
    for name, value in outputs.items():
        function.output(name, value)
    for name in case.gradients:
        function.output("grad." + name, gradients[name], "gradient" if name in case.op.weights else "output")
    return function.text(), tensors, list(outputs)


def run_case(case, runner, precision, report):
    text, tensors, given = write_module(case, precision)
    plan = runner.compile_module(case.name.replace("/", "."), text)
    out = runner.invoke(plan, "test", tensors)
    for name, want in case.outputs.items():
        if name not in given:
            continue
        got = out.get(name)
        if got is not None:
            got, want = (case.op.comparable(name, value, case.inputs, case.attributes) for value in (got, np.asarray(want)))
        report.compare(case.name, name, got, want, case.tolerance(precision, name, False))
    for name, (indices, want, scale) in case.gradients.items():
        got = out.get("grad." + name)
        if got is not None and indices is not None:
            report.add(case.name, f"grad.{name} is finite", None, bool(np.isfinite(got).all()))
            got = got.reshape(-1)[indices]
        report.compare(case.name, f"grad.{name}", got, want, case.tolerance(precision, name, True), scale, differences.FLOOR)


def all_cases(precision, with_gradients, only):
    for name, op in op_cases.OPS.items():
        if precision == "bf16" and not op.narrow:
            continue
        yield from random_cases(name, precision, with_gradients, only)
    folder = os.environ.get("MEGALODON_GOLDEN")
    for case in golden_cases(folder) if folder else ():
        if not re.search(only, case.name) or precision == "bf16" and not case.op.narrow:
            continue
        if not with_gradients:
            case.cotangents, case.gradients = {}, {}
        yield case


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--precision", choices=list(TOLERANCES), action="append", help="default: f64 and f32")
    parser.add_argument("--no-gradients", action="store_true", help="only the forward ops")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    args = parser.parse_args()
    report = Report(args.verbose)
    for precision in args.precision or DEFAULT_PRECISIONS:
        runner = tools.Tools(args, precision)
        for case in all_cases(precision, not args.no_gradients, args.only):
            if args.list:
                print(case.name)
                continue
            try:
                run_case(case, runner, precision, report)
            except tools.Failure as failure:
                report.add(case.name, str(failure), None, False)
            report.flush()
    return 0 if args.list else report.finish()


if __name__ == "__main__":
    sys.exit(main())
