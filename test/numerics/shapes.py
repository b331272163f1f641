#!/usr/bin/env python3
"""Every op, in every lowering, on shapes drawn at random (ones, primes, what no vector width divides), against the interpreter.

    test/numerics/shapes.py --opt build/bin/megalodon-opt [--target cpu|cuda] [--seed N] [--draws N] [--only REGEX] [-v]

A case is one module with every op (random_ops.py), or a model of random extents with its passes; the compiler compares each op of its
plan with the interpreter. A case's shapes follow from the seed and its name; a failure prints the command that repeats it.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import zlib

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import random_ops
import safetensors_io
from random_ops import ODD, PRIMES, Draw
from report import Report

# Rows and tokens of a call: one token, few, and more than a segment of any scan.
CALLS = {"one": ((1,), (1,)), "short": ((1, 2, 3, 5), PRIMES), "long": ((1, 2, 3), (67, 97, 131, 139))}
ALL, SCANS, PRODUCTS, ATTENTION = random_ops.FAMILIES, (random_ops.timestep_norm, random_ops.cema), (random_ops.linear,), (random_ops.attention,)
VECTORS = (random_ops.linear, random_ops.row_norms, random_ops.attention, random_ops.elementwise)
# Lowerings by name: precision, calls, what is there to lower, options that force it. Products are oneDNN's in f32 and generated in f64.
# Ops mix bf16 with other types as only a model does, except attention; one token of one channel is left out there, since its gradients
# are differences of rounded numbers and the tensor has no larger ones to measure them by.
LOWERINGS = {
    "cpu": {
        "f32": ("f32", "one short long", ALL, []),
        "f64": ("f64", "one long", ALL, []),
        "avx2": ("f32", "short", VECTORS, ["--cpu=x86-64-v3", "--gemm=generated"]),
        "segments": ("f32", "short long", SCANS, ["--cema=two-level", "--timestep-norm=two-level"]),
        "f64_segments": ("f64", "long", SCANS, ["--cema=two-level", "--timestep-norm=two-level"]),
        "generated": ("f32", "one short long", PRODUCTS, ["--gemm=generated"]),
        "bf16": ("bf16", "short long", ATTENTION, []),
    },
    "cuda": {
        "f32": ("f32", "one short long", ALL, ["--attention=recomputed"]),
        "scan": ("f32", "long", SCANS, ["--cema=sequential", "--timestep-norm=sequential"]),
        "segments": ("f32", "short long", SCANS, ["--cema=two-level", "--timestep-norm=two-level"]),
        "matrix": ("f32", "short long", (random_ops.cema,), ["--cema=matrix"]),
        "stored": ("f32", "short", ATTENTION, ["--attention=stored"]),
        "bf16_stored": ("bf16", "long", ATTENTION, ["--attention=stored"]),
        "bf16_recomputed": ("bf16", "long", ATTENTION, ["--attention=recomputed"]),
    },
}

# What models add: activations of bf16, passes that join and recompute, messages. Precision, mesh, options.
MODELS = {
    "cpu": {
        "bf16": ("bf16", "", []),
        "bf16_generated": ("bf16", "", ["--gemm=generated", "--cema=two-level", "--timestep-norm=two-level"]),
        "zero1": ("f64", "dp=2", ["--zero=1"]),
        "gpipe": ("f64", "pp=2", ["--pipeline-schedule=gpipe", "--recompute=none"]),
        "interleaved": ("f64", "pp=2", ["--pipeline-schedule=interleaved", "--recompute=full"]),
    },
    "cuda": {"bf16": ("bf16", "", ["--cema=two-level"])},
}


def draw_model(rng, mesh):
    """A config and the shape of its calls; the mesh divides what it has to."""
    any_of = lambda choices: int(choices[rng.integers(len(choices))])
    ranks = {axis: int(count) for axis, count in re.findall(r"(\w\w)=(\d+)", mesh)}
    tp, cp, dp, pp = (ranks.get(axis, 1) for axis in ("tp", "cp", "dp", "pp"))
    heads, groups, chunk = tp * any_of((1, 2, 3)), tp * any_of((1, 2, 3)), any_of((3, 5, 7, 8, 13, 16))
    flag = lambda: bool(rng.integers(2))
    config = {
        "model_type": "megalodon", "num_layers": 4 if pp > 1 else 2, "num_heads": heads, "norm_num_groups": groups, "chunk_size": chunk,
        "model_dim": groups * any_of((3, 5, 7, 11, 16)), "z_dim": heads * 2 * any_of((1, 3, 5, 7, 8)), "value_dim": heads * any_of((3, 5, 11, 16, 17)),
        "ffn_hidden_dim": tp * any_of(PRIMES[3:]), "cema_ndim": any_of((1, 2, 3, 5, 8, 13, 16)), "vocab_size": any_of(PRIMES[3:] + ODD[2:]),
        "swiglu": flag(), "rescale_nffn": flag(), "share_emb": flag(), "scale_emb": flag(), "norm_affine": flag()}
    rows, length = dp * pp * any_of((1, 2, 3)), cp * chunk * any_of((1, 2)) if cp > 1 else any_of((1,) + PRIMES[2:])
    return config, f"{rows}x{length}"


class Shapes:
    def __init__(self, args, report):
        self.args, self.report = args, report
        self.runner = {precision: tools.Tools(args, precision) for precision in ("f32", "f64", "bf16")}

    def rng(self, name):
        return np.random.default_rng([self.args.seed, zlib.crc32(name.encode())])

    def check(self, name, source, precision, options):
        target = ["--target=cuda"] if self.args.target == "cuda" else []
        command = [self.args.opt, str(source), f"--precision={precision}", "--verify-numerics", *target, *options, *self.args.opt_arg]
        if self.args.verbose:
            print("  $", " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        good = done.returncode == 0 and "tensors compared: OK" in done.stdout
        said = re.search(r"(\d+) tensors compared", done.stdout)
        self.report.add(name, f"{said[1]} tensors as the interpreter's" if good else
                        f"{done.stdout[-1500:]}\nrepeat with --seed {self.args.seed} --only '^{re.escape(name)}$'", None, good)
        self.report.flush()

    def ops(self, draw):
        for lowering, (precision, calls, families, options) in LOWERINGS[self.args.target].items():
            for call in calls.split():
                rows, lengths = CALLS[call]
                name = f"ops/{lowering}/{call}{draw or ''}"
                if not re.search(self.args.only, name):
                    continue
                rng = self.rng(name)
                extents = {"extents": (1,)} if call == "one" else {}
                made = Draw(rng, precision, int(rng.choice(rows)), int(rng.choice(lengths)), aligned=lowering == "matrix", **extents)
                for family in families:
                    family(made)
                folder, stem = self.runner[precision].folder, name.replace("/", ".")
                source, inputs = folder / f"{stem}.mlir", folder / f"{stem}.safetensors"
                source.write_text(made.function.text(), encoding="utf-8")
                safetensors_io.save(inputs, made.tensors)
                self.check(name, source, precision, ["--compile-from=optimize", f"--verify-inputs={inputs}", *options])

    def models(self, draw):
        for lowering, (precision, mesh, options) in MODELS[self.args.target].items():
            name = f"models/{lowering}{draw or ''}"
            if not re.search(self.args.only, name):
                continue
            config, shape = draw_model(self.rng(name), mesh)
            source = self.runner[precision].folder / f"{name.replace('/', '.')}.json"
            source.write_text(json.dumps(config), encoding="utf-8")
            entries = f"--entry=train:{shape}" + ("" if mesh else f",score:{shape}")
            self.check(name, source, precision,
                       [entries, f"--verify-seed={self.args.seed}", *([f"--mesh={mesh}"] if mesh else []), *options])


def covered():
    """Ops of the dialect's page that no module holds."""
    drawn = Draw(np.random.default_rng(0), "f32", 2, 3)
    for family in random_ops.FAMILIES:
        family(drawn)
    page = pathlib.Path(tools.REPOSITORY / "docs/dialect.md").read_text(encoding="utf-8")
    ops = set(re.findall(r"^#### `megalodon\.(\w+)`", page, re.MULTILINE))
    # Resharding becomes collectives before anything is lowered; what partitioning makes of it is in the models on meshes.
    return sorted(ops - set(re.findall(r'"megalodon\.(\w+)"', drawn.function.text())) - {"reshard"}), len(ops)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--target", choices=list(LOWERINGS), default="cpu", help="cuda: with megalodon-opt-emulated")
    parser.add_argument("--seed", type=int, default=1, help="what shapes and numbers follow from")
    parser.add_argument("--draws", type=int, default=1, help="draws of every case")
    args = parser.parse_args()
    report = Report(args.verbose)
    missing, number = covered()
    report.add("coverage", f"missing of {number} ops: {', '.join(missing) or 'none'}", None, not missing and number > 0)
    shapes = Shapes(args, report)
    for draw in range(args.draws):
        shapes.ops(draw)
        shapes.models(draw)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
