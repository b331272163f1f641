#!/usr/bin/env python3
"""Tests the emulation of GPU kernels: right kernels compute what they should and nothing is reported, for several orders of their
threads; mutants, each of which breaks one rule, are found in every order.

    test/emulation/check_emulation.py --opt build/bin/megalodon-opt-emulated [--only SUBSTRING] [-v]
"""
import argparse
import ctypes
import os
import pathlib
import re
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "numerics"))
import tools  # noqa: E402  (needs the path above; sets the path of the reference)  # isort: skip
import kernels  # noqa: E402
import matrix_kernels  # noqa: E402
from report import Report  # noqa: E402

SEEDS = (0, 1, 2, 3)
WORD = 41  # what kernels get as their word of parameters
EXIT_CODE = 70  # of a process in which a rule was broken


def compile_kernels(tool, texts):
    source, library = tool.folder / "kernels.mlir", tool.folder / "kernels.so"
    text = "module { module @kernels { gpu.module @kernels {\n" + "".join(texts) + "} } }\n"
    source.write_text(text, encoding="utf-8")
    pipeline = f"builtin.module(megalodon-emulate-gpu-kernels{{object={library}}})"
    tool.shell([tool.args.opt, source, f"--pass-pipeline={pipeline}", "-o", os.devnull])
    return library


def aligned(array):
    """A copy at a multiple of 64, as device memory is."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    skew = -memory.ctypes.data % 64
    copy = memory[skew:skew + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run_blocks(library, name, kernel):
    """In a process of its own: the outputs."""
    inputs = [aligned(array) for array in kernel.inputs]
    outputs = [aligned(np.zeros_like(array)) for array in kernel.outputs]
    words = aligned(np.full(16, WORD, np.int64))
    pointers = [array.ctypes.data for array in [words, *inputs, *outputs]]
    table = (ctypes.c_void_p * (len(pointers) + 1))(*pointers, None)
    function = ctypes.CDLL(str(library))[name]
    function.argtypes, function.restype = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int64], None
    for block in range(kernel.blocks):
        function(table, block)
    return outputs


def run(library, name, kernel, seed, checks=True):
    """Exit status, standard error and outputs."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as results:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(errors.fileno(), 2)
                os.environ.update(MEGALODON_EMULATION_SEED=str(seed), MEGALODON_EMULATION_CHECKS=str(int(checks)))
                for output in run_blocks(library, name, kernel):
                    results.write(output.tobytes())
                results.flush()
                status = 0
            except Exception as error:  # pylint: disable=broad-exception-caught
                os.write(2, repr(error).encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        results.seek(0)
        outputs = []
        for want in kernel.outputs if status == 0 else []:
            outputs.append(np.frombuffer(results.read(want.nbytes), want.dtype).reshape(want.shape))
        return status, errors.read().decode(), outputs


def check_right(report, library, kernel):
    for seed, checks in [(seed, True) for seed in SEEDS] + [(0, False)]:
        what = f"seed {seed}" if checks else "without checks"
        status, errors, outputs = run(library, kernel.name, kernel, seed, checks)
        for i, (got, want) in enumerate(zip(outputs, kernel.outputs)):
            report.compare(kernel.name, f"output {i}, {what}", got, want, kernel.tolerance or 1e-30)
        report.add(kernel.name, f"nothing is reported, {what}{': ' + errors if errors or status else ''}", None, status == 0 and not errors)


def check_mutant(report, library, kernel, mutant):
    name = f"{kernel.name}.{mutant.label}"
    for seed in SEEDS:
        status, errors, _ = run(library, name, kernel, seed)
        found = status == EXIT_CODE and re.search(mutant.message, errors) is not None
        said = "" if found else f": expected '{mutant.message}', got exit status {status} and '{errors}'"
        report.add(name, f"reported with seed {seed}{said}", None, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    args = parser.parse_args()
    chosen = [kernel for make in kernels.ALL + matrix_kernels.ALL for kernel in [make()] if args.only in kernel.name]
    report = Report(args.verbose)
    texts = [kernel.text(mutant) for kernel in chosen for mutant in [None, *kernel.mutants]]
    tool = tools.Tools(args, "f32")
    library = compile_kernels(tool, texts)
    for kernel in chosen:
        check_right(report, library, kernel)
        for mutant in kernel.mutants:
            check_mutant(report, library, kernel, mutant)
        report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
