#!/usr/bin/env python3
"""Runs --verify-numerics on every op, on models and on meshes, and on lowerings that are broken on purpose.

    test/numerics/verify.py --opt build/bin/megalodon-opt [--opt-arg=--target=cuda] [--precision f32|f64|bf16] [--only REGEX] [-v]

Ops come from op_cases.py, with numbers of their own; the compiler compares their plan with its interpreter, each op by itself.
Models have extents that no vector width divides; each goes through --verify-each-phase.
A sign that is flipped in a kernel must be found, and the op named.
"""
import argparse
import json
import re
import subprocess
import sys
import zlib

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import op_cases
import safetensors_io
from module_text import Function
from ops import Case, rounded, write_module
from report import Report

# Labels of op_cases.py that say nothing new here: their extents are there for differences of the reference.
LONG = {"long", "tiles", "chunks", "table"}
MODEL = {"model_type": "megalodon", "num_layers": 2, "model_dim": 28, "num_heads": 2, "z_dim": 12, "value_dim": 20, "ffn_hidden_dim": 19,
         "cema_ndim": 3, "chunk_size": 5, "norm_num_groups": 7, "swiglu": True, "rescale_nffn": True, "vocab_size": 23}
SHARED = {**MODEL, "swiglu": False, "share_emb": True, "scale_emb": True, "norm_affine": False, "num_heads": 1}
# Divides over ranks.
SPREAD = {**MODEL, "model_dim": 32, "value_dim": 16, "z_dim": 8, "ffn_hidden_dim": 24, "norm_num_groups": 4, "vocab_size": 22}
LLAMA = {"model_type": "llama", "num_layers": 2, "dim": 24, "n_heads": 4, "n_kv_heads": 2, "ffn_hidden_dim": 19, "vocab_size": 17, "max_seq_len": 16}
MEGA = {"model_type": "mega", "num_layers": 2, "model_dim": 20, "z_dim": 6, "value_dim": 18, "ffn_hidden_dim": 13, "ema_ndim": 3, "chunk_size": 5,
        "vocab_size": 17}
MODELS = {  # config, entries, options
    "swiglu": (MODEL, "train:3x13,grad:2x7,score:3x11,forward:1x6,generate:2x3", []),
    "shared": (SHARED, "train:2x9,score:1x1", ["--recompute=full"]),
    "keeps_all": (MODEL, "grad:1x8", ["--recompute=none"]),
    "llama": (LLAMA, "grad:2x7,forward:2x5", []),
    "llama_whole_sequence": (LLAMA, "grad:2x16,score:3x16", []),
    "mega": (MEGA, "train:2x11,forward:2x4,generate:1x3", []),
    "mega_laplace": ({**MEGA, "attention_function": "laplace"}, "grad:2x7,score:1x6", []),
    "mesh_dp_tp": (SPREAD, "train:4x10,score:2x10", ["--mesh=dp=2,tp=2"]),
    "mesh_cp": (SPREAD, "train:2x20,score:2x20", ["--mesh=cp=2"]),
    "mesh_cp_tp": (SPREAD, "grad:2x20", ["--mesh=cp=2,tp=2"]),
    "mesh_zero": (SPREAD, "train:4x10", ["--mesh=dp=2", "--zero=3"]),
    "mesh_zero_odd": ({**SPREAD, "model_dim": 5, "norm_num_groups": 1, "cema_ndim": 3}, "train:2x4", ["--mesh=dp=2", "--zero=1"]),
    "mesh_pp": (SPREAD, "train:4x10,score:2x10", ["--mesh=pp=2"]),
    "mesh_pp_zero": (SPREAD, "train:4x10", ["--mesh=dp=2,pp=2", "--zero=1"]),
    "mesh_pp_cp_odd": ({**SPREAD, "model_dim": 5, "norm_num_groups": 1, "cema_ndim": 1}, "train:4x20", ["--mesh=pp=2,cp=2"]),
    "mesh_pp_zero_bubble": (SPREAD, "grad:4x10", ["--mesh=dp=2,pp=2", "--pipeline-schedule=zero-bubble"]),
}
LOWERINGS = [("cema", "--cema=two-level"), ("timestep_norm", "--timestep-norm=two-level"), ("linear", "--gemm=generated")]
BROKEN = {"cema": "megalodon.cema", "silu": "megalodon.silu", "adamw": "megalodon.adamw"}  # kernel: op that must be named


class Verify:
    def __init__(self, args, precision, report):
        self.args, self.precision, self.report = args, precision, report
        self.runner = tools.Tools(args, precision)

    def wanted(self, name):
        return re.search(self.args.only, name)

    def opt(self, name, source, *options):
        """Runs the compiler, which must print a table; returns whether all was well, and what it said."""
        command = [self.args.opt, str(source), f"--precision={self.precision}", *options, *self.args.opt_arg]
        if self.args.verbose:
            print("  $", " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        return done.returncode == 0 and "tensors compared: OK" in done.stdout, done.stdout

    def expect_good(self, name, source, *options):
        good, said = self.opt(name, source, *options)
        self.report.add(name, "plan as interpreter" if good else said[-1500:], None, good)

    def op_case(self, name, case, *options):
        text, tensors, _ = write_module(case, self.precision)
        stem = name.replace("/", ".")
        source, inputs = self.runner.folder / f"{stem}.mlir", self.runner.folder / f"{stem}.safetensors"
        source.write_text(text, encoding="utf-8")
        safetensors_io.save(inputs, tensors)
        self.expect_good(name, source, "--compile-from=optimize", "--verify-numerics", f"--verify-inputs={inputs}", *options)

    def ops(self):
        for op_name, make in op_cases.OPS.items():
            op = make()
            if self.precision == "bf16" and not op.narrow:
                continue
            rng = np.random.default_rng(zlib.crc32(f"verify {op_name} {self.precision}".encode()))
            for label, attributes, inputs in op.random(rng):
                name = f"{op_name}/{label}"
                if label in LONG:
                    continue
                lowerings = [option for lowered, option in LOWERINGS if lowered == op_name and label == "wide" and not self.args.opt_arg]
                if not self.wanted(name):
                    continue
                inputs = {key: value if key in op.double else rounded(value, self.precision) for key, value in inputs.items()}
                outputs = op.reference(inputs, attributes)
                wanted = op.with_gradient(inputs)
                cotangents = {key: rounded(rng.normal(size=np.shape(outputs[key])), self.precision) for key in op.cotangents}
                case = Case(name, op, attributes, inputs, outputs, cotangents if wanted else None, dict.fromkeys(wanted))
                self.op_case(name, case)
                for option in lowerings:
                    self.op_case(name + option.replace("=", "_"), case, option)
            self.report.flush()

    def models(self):
        for name, (config, entries, options) in MODELS.items():
            if not self.wanted("model/" + name):
                continue
            source = self.runner.folder / f"{name}.json"
            source.write_text(json.dumps(config), encoding="utf-8")
            self.expect_good("model/" + name, source, f"--entry={entries}", "--verify-each-phase", *options)
            self.report.flush()

    def rounding(self):
        """What rounding explains is no divergence: 16 + log(1 + e^-16) has no digit of this loss left in f32."""
        name = "rounding/cross_entropy"
        if not self.wanted(name) or self.args.opt_arg:
            return
        function = Function("f32")
        tensors = {"logits": np.array([[[16, 0]]], np.float32), "targets": np.zeros((1, 1), np.int32)}
        operands = [function.input("logits", (1, 1, 2), "f32"), function.input("targets", (1, 1), "i32")]
        loss, _ = function.op("cross_entropy", operands, [((1, 1), "f32")] * 2)
        function.output("loss", loss)
        source, inputs = self.runner.folder / "rounding.mlir", self.runner.folder / "rounding.safetensors"
        source.write_text(function.text(), encoding="utf-8")
        safetensors_io.save(inputs, tensors)
        good, said = self.opt(name, source, "--compile-from=optimize", "--verify-numerics", f"--verify-inputs={inputs}")
        told = good and re.search(r"loss: rounding alone moves it by \S+, so its tolerance is ", said) is not None
        self.report.add(name, "told from a fault" if told else said[-1500:], None, told)

    def broken(self):
        source = self.runner.folder / "broken.json"
        source.write_text(json.dumps(SHARED), encoding="utf-8")
        for kernel, op in BROKEN.items():
            name = f"broken/{kernel}"
            if not self.wanted(name):
                continue
            good, said = self.opt(name, source, "--entry=train:2x9", "--verify-numerics", f"--test-negate-kernel={kernel}")
            found = not good and re.search(rf"'{op}' op at \S.* diverges: result \d+ .*expected .*, got ", said) is not None
            self.report.add(name, f"names {op}" if found else said[-1500:], None, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--precision", choices=("f64", "f32", "bf16"), action="append", help="default: f32 for ops, f64 for models")
    parser.add_argument("--skip-models", action="store_true", help="only ops")
    args = parser.parse_args()
    report = Report(args.verbose)
    for precision in args.precision or ("f32",):
        verify = Verify(args, precision, report)
        verify.ops()
        if precision == "f32":
            verify.rounding()
    for precision in () if args.skip_models else args.precision or ("f64",):
        verify = Verify(args, precision, report)
        verify.models()
        verify.broken()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
