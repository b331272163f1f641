#!/usr/bin/env python3
"""Measures the error of every math function that megalodon-expand-gpu-math expands, in ulp.

    test/numerics/gpu_math.py --opt build/bin/megalodon-opt [--only SUBSTRING] [-v]

The expansion is compiled for the CPU (its ops mean the same there, fma included) and compared with the C library's functions on
80-bit numbers (f64), or on f64 (f32), over dense samples of the ranges that kernels use, and on special values.
"""
import argparse
import ctypes
import math
import re
import sys

import numpy as np

import tools  # sets the path of the reference  # isort: skip
from report import Report

COUNT = 1 << 17
TYPES = {"f32": (np.float32, np.float64, 4), "f64": (np.float64, np.longdouble, 2)}

# Function: ranges, largest error in ulp, exact function.
FUNCTIONS = {
    "exp": ([(-1, 1), (-87, 88.7), (-708, 709.7)], 1.2, np.exp),
    "exp2": ([(-1, 1), (-126, 128), (-1022, 1024)], 1.2, np.exp2),
    "log": ([(0.5, 2), (1e-38, 1), (1, 1e38), (1e-320, 1e-300)], 1.0, np.log),
    "log1p": ([(-0.5, 1), (-1e-5, 1e-5), (1, 1e30), (-0.9999, -0.5)], 1.6, np.log1p),
    "sin": ([(-3.2, 3.2), (-100, 100), (0, 1e5), (1e5, 2e5)], 1.6, np.sin),
    "cos": ([(-3.2, 3.2), (-100, 100), (0, 1e5), (1e5, 2e5)], 1.6, np.cos),
    "tanh": ([(-1e-3, 1e-3), (-1, 1), (-30, 30)], 2.6, np.tanh),
    "erfc": ([(-4, 1), (0, 2), (2, 9)], 5.5, np.vectorize(math.erfc, otypes=[np.float64])),
    "rsqrt": ([(1e-3, 1e3), (1e-30, 1e30)], 1.6, lambda x: 1 / np.sqrt(x)),
}
F32_ONLY = ("erfc",)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e30, -1e30, 1e-30]


def module(name, element, lanes):
    """A kernel of the function on vectors, or with 1 lane on scalars."""
    kind = element if lanes == 1 else f"vector<{lanes}x{element}>"
    load, store = ("memref", "memref") if lanes == 1 else ("vector", "vector")
    suffix = "" if lanes == 1 else f", {kind}"
    return f"""
module {{ module @kernels {{
  func.func @kernel(%p: memref<16xi64>, %w: index, %s: memref<0xi8>, %x: memref<{COUNT}x{element}>, %y: memref<{COUNT}x{element}>)
      attributes {{plan.scratch = 0 : i64, plan.source = "{name}"}} {{
    %from = arith.constant 0 : index
    %step = arith.constant {lanes} : index
    %to = arith.constant {COUNT} : index
    scf.for %i = %from to %to step %step {{
      %0 = {load}.load %x[%i] : memref<{COUNT}x{element}>{suffix}
      %1 = math.{name} %0 : {kind}
      {store}.store %1, %y[%i] : memref<{COUNT}x{element}>{suffix}
    }}
    return
  }}
}} }}
"""


class Compiled:
    def __init__(self, tool, name, element, lanes):
        self.type = TYPES[element][0]
        stem = tool.folder / f"{name}_{element}_{lanes}"
        source, expanded, output, library = (stem.with_suffix(suffix) for suffix in (".mlir", ".expanded.mlir", ".out.mlir", ".so"))
        source.write_text(module(name, element, lanes), encoding="utf-8")
        tool.shell([tool.args.opt, source, "--megalodon-expand-gpu-math", "-o", expanded])
        tool.optimize(expanded, output, "--compile-from=lower", "--compile-to=codegen")
        code = re.search(r'plan.object = dense<"0x([0-9A-F]+)">', output.read_text(encoding="utf-8"))
        library.write_bytes(bytes.fromhex(code[1]))
        self.function = ctypes.CDLL(str(library)).kernel
        self.function.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int64]
        self.function.restype = None

    def __call__(self, x):
        padded = np.zeros(COUNT + 64, self.type)
        padded[:len(x)] = x
        output = np.zeros_like(padded)
        # The compiler assumes that buffers begin at multiples of 64.
        skew = [-array.ctypes.data % 64 // array.itemsize for array in (padded, output)]
        aligned, result = padded[skew[0]:skew[0] + COUNT], output[skew[1]:skew[1] + COUNT]
        aligned[:] = np.resize(x, COUNT)
        words = np.zeros(16, np.int64)
        table = (ctypes.c_void_p * 4)(words.ctypes.data, aligned.ctypes.data, result.ctypes.data, None)
        self.function(table, 0)
        return result[:len(x)].copy()


def largest_error(compiled, exact, x, wide):
    """Largest error in units of the last place of the exact value."""
    with np.errstate(all="ignore"):
        expected = exact(x.astype(wide))
        ulp = np.spacing(np.abs(expected).astype(x.dtype)).astype(wide)
        fine = np.isfinite(expected.astype(x.dtype)) & (np.abs(expected) >= np.finfo(x.dtype).tiny)
        error = np.abs(compiled(x).astype(wide) - expected) / ulp
    error = np.where(np.isnan(error), np.inf, error)
    return float(np.max(error[fine], initial=0.0))


def same_special(result, expected):
    """NaN where NaN, infinities and zeros where they are, with their signs; else close."""
    return bool(np.array_equal(np.isnan(result), np.isnan(expected)) and np.array_equal(np.isinf(result), np.isinf(expected))
                and np.allclose(result, expected, rtol=1e-6, atol=0, equal_nan=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tools.add_arguments(parser)
    args = parser.parse_args()
    report = Report(args.verbose)
    random = np.random.default_rng(1)
    for element, (narrow, wide, lanes) in TYPES.items():
        tool = tools.Tools(args, element)
        for name, (ranges, bound, exact) in FUNCTIONS.items():
            if args.only not in f"{name}/{element}" or element != "f32" and name in F32_ONLY:
                continue
            compiled, scalar = Compiled(tool, name, element, lanes), Compiled(tool, name, element, 1)
            worst, same = 0.0, True
            for low, high in ranges:
                with np.errstate(over="ignore"):
                    x = random.uniform(low, high, COUNT).astype(narrow)
                    if low > 0 and high / low > 1e6:
                        x = np.exp(random.uniform(np.log(low), np.log(high), COUNT)).astype(narrow)
                x = x[np.isfinite(x)]
                worst = max(worst, largest_error(compiled, exact, x, wide))
                same = same and np.array_equal(compiled(x), scalar(x), equal_nan=True)
            special = np.array(SPECIAL, narrow)
            if name in ("sin", "cos"):
                special = special[~(np.abs(special) == 1e30)]
            with np.errstate(all="ignore"):
                expected = exact(special.astype(wide)).astype(narrow)
            case = f"{name}/{element}"
            report.add(case, "largest error in ulp", worst, worst <= bound)
            report.add(case, "scalars as vectors", 0.0, same)
            report.add(case, "special values", 0.0, same_special(compiled(special), expected))
            report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
