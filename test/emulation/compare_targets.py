#!/usr/bin/python3
"""Kernels for a GPU, emulated, give what the kernels for a CPU give: forward, score and grad of a model with widths as a GPU likes them, of
one with widths it does not like, of one with several documents a row, and of one whose CEMA is forced into matrix form. And their results are the same bytes for every order in which a block's threads run.

    test/emulation/compare_targets.py [--opt build/bin/megalodon-opt] [--emulated build/bin/megalodon-opt-emulated]
                                      [--run build/bin/megalodon-run] [--precision f32|bf16] [--only SUBSTRING] [-v]
"""
import argparse
import copy
import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "numerics"))
import tools  # noqa: E402  (needs the path above; sets the path of the reference)  # isort: skip
from lowerings import weights  # noqa: E402
from model_cases import sizes  # noqa: E402
from report import Report  # noqa: E402

# Relative to the largest magnitude of a tensor: results of forward, gradients.
TOLERANCES = {"f32": (1e-5, 1e-5), "bf16": (3e-2, 1e-1)}
SEEDS = (1, 2)

# Sizes, batch, length, and options; --packed also for the cpu.
MODELS = {
    "even": (sizes(2, 128, 2, 64, 128, 192, 4, 32, 8, 64, swiglu=True), 2, 80),
    "odd": (sizes(1, 84, 3, 36, 60, 70, 3, 20, 7, 37, rescale_nffn=True, norm_affine=False), 3, 33),
    "packed": (sizes(2, 48, 2, 32, 64, 80, 4, 16, 4, 41, swiglu=True), 3, 75, "--packed"),
    "matrix": (sizes(1, 32, 1, 16, 32, 32, 16, 32, 4, 32), 1, 600, "--cema=matrix"),
}


class Comparison:
    def __init__(self, args, precision, report):
        self.precision, self.report = precision, report
        self.cpu = tools.Tools(args, precision)
        emulated = copy.copy(args)
        emulated.opt, emulated.opt_arg = args.emulated, [*args.opt_arg, "--target=cuda"]
        emulated.keep = args.keep and os.path.join(args.keep, "emulated")
        self.gpu = tools.Tools(emulated, precision)

    def compare(self, name, fields, batch, length, *options):
        fields = {"model_type": "megalodon", "init_mode": "he", **fields}
        entries = ",".join(f"{entry}:{batch}x{length}" for entry in ("forward", "score", "grad"))
        stem = f"{name}.{self.precision}"
        cpu = self.cpu.compile_entries(stem, fields, entries, *set(options) & {"--packed"})
        gpu = self.gpu.compile_entries(stem, fields, entries, *options)
        rng = np.random.default_rng(5)
        params = weights(cpu, lambda words: self.cpu.shell([self.cpu.args.run, *words]), rng)
        tokens = {key: rng.integers(0, fields["vocab_size"], (batch, length)).astype(np.int32) for key in ("tokens", "targets")}
        resets = (rng.random((batch, length)) < 0.1).astype(np.int32)
        for entry in ("forward", "score", "grad"):
            inputs = {**params, "tokens": tokens["tokens"], **({} if entry == "forward" else {"targets": tokens["targets"]})}
            if "--packed" in options:
                inputs["resets"] = resets
            want, got = self.cpu.invoke(cpu, entry, inputs), self.gpu.invoke(gpu, entry, inputs)
            case = f"{name} {self.precision} {entry}"
            self.report.add(case, "the same outputs", None, set(want) == set(got))
            for tensor in sorted(set(want) & set(got)):
                self.report.compare(case, tensor, got[tensor], want[tensor], TOLERANCES[self.precision][tensor.startswith("grad.")])
            for seed in SEEDS:
                os.environ["MEGALODON_EMULATION_SEED"] = str(seed)
                again = self.gpu.invoke(gpu, entry, inputs, "--threads", seed)
                same = all(again[key].tobytes() == got[key].tobytes() for key in got)
                self.report.add(case, f"the same bytes with seed {seed} and as many threads", None, same)
            del os.environ["MEGALODON_EMULATION_SEED"]
        self.report.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--emulated", default=str(tools.REPOSITORY / "build/bin/megalodon-opt-emulated"), help="megalodon-opt-emulated")
    parser.add_argument("--precision", choices=list(TOLERANCES), action="append", help="default: f32")
    args = parser.parse_args()
    report = Report(args.verbose)
    for precision in args.precision or ["f32"]:
        comparison = Comparison(args, precision, report)
        for name, (fields, *rest) in MODELS.items():
            if args.only in name:
                try:
                    comparison.compare(name, fields, *rest)
                except tools.Failure as failure:
                    report.add(f"{name} {precision}", str(failure), None, False)
                    report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
