#!/usr/bin/python3
"""A plan for a mesh gives what the plan for one rank gives: forward, score, grad (fresh and with carried state, its gradients too) and two training
steps, in f64 to 1e-9 of each tensor's largest magnitude, on virtual ranks. Random models with every flag; meshes of each axis and their products;
optimizer and parameter sharding; every pipeline schedule.
"""
import argparse
import sys

import numpy as np

import tools
from model_cases import Model, llama_sizes, mega_sizes, sizes, specified, typed, with_far_rows
from report import Report

TOLERANCE = 1e-9


def models():
    return {
        "plain": Model("plain", sizes(4, 24, 4, 16, 32, 20, 3, 6, 8, 37, swiglu=True, rescale_nffn=True), 4, 24, [0, 6, 12, 18]),
        "shared": Model("shared", sizes(4, 16, 2, 8, 16, 12, 2, 4, 4, 29, share_emb=True, scale_emb=True), 4, 16, [8, 0, 4, 4]),
        "outputs": Model("outputs", sizes(4, 16, 4, 16, 24, 16, 4, 5, 8, 31, norm_affine=False, output_size=11), 4, 20, [5, 0, 0, 10]),
        "llama": Model("llama", llama_sizes(2, 24, 4, 2, 20, 40, 37), 4, 16, [0, 24, 3, 9]),
        "mega": Model("mega", mega_sizes(2, 16, 6, 20, 12, 3, 5, 29), 4, 12, [0, 7, 3, 10]),
    }


MESHES = [
    "dp=2", "dp=4", "tp=2", "tp=4", "cp=2", "cp=4", "pp=2", "pp=4", "dp=2,tp=2", "cp=2,tp=2", "dp=2,cp=2", "pp=2,cp=2", "pp=2,tp=2",
    "dp=2,pp=2", "dp=2,pp=2,cp=2,tp=2"
]
OPTIONS = [("dp=2", "--zero=1"), ("dp=2", "--zero=3"), ("dp=2,cp=2,tp=2", "--zero=1"), ("dp=2,cp=2,tp=2", "--zero=3"),
           ("pp=2", "--pipeline-schedule=gpipe"), ("pp=4", "--pipeline-schedule=gpipe"), ("pp=2", "--pipeline-schedule=interleaved"),
           ("pp=2", "--pipeline-schedule=zero-bubble"), ("pp=4", "--pipeline-schedule=zero-bubble"),
           ("dp=2,pp=2", "--pipeline-schedule=interleaved"), ("pp=2,tp=2", "--pipeline-schedule=zero-bubble"),
           ("dp=2,pp=2", "--zero=1"), ("pp=2", "--microbatches=2"), ("tp=2", "--recompute=full"), ("cp=2", "--recompute=none")]


def cases():
    """(model, mesh, option): each mesh with one model in turn, tied embeddings with each way to treat them."""
    names = ["plain", "shared", "outputs"]
    out = [(names[number % 3], mesh, "") for number, mesh in enumerate(MESHES)]
    out += [("shared", mesh, "") for mesh in ("tp=2", "pp=2", "pp=4", "dp=2,pp=2,cp=2,tp=2")]
    out += [(names[number % 2], mesh, option) for number, (mesh, option) in enumerate(OPTIONS)]
    out += [("llama", mesh, "") for mesh in ("dp=2", "pp=2", "tp=2", "pp=2,tp=2", "dp=2,pp=2,tp=2")]
    out += [("mega", mesh, "") for mesh in ("dp=2", "dp=2,pp=2")]
    fits = []
    for model, mesh, option in dict.fromkeys(out):
        if model == "shared":  # two heads
            mesh = mesh.replace("tp=4", "tp=2")
        fits.append((model, mesh, option))
    return fits


class MeshTest:
    def __init__(self, model, runner, report):
        self.model, self.runner, self.report = model, runner, report
        self.params = typed(model.params, "f64")
        self.shape = f"{model.batch}x{model.length}"
        self.state = typed(with_far_rows(model.state_after(model.starts), model.config.chunk_size), "f64")
        self.want = {}

    def compile(self, stem, entries, *options):
        return self.runner.compile_entries(f"{self.model.name}.{stem}", self.model.fields, entries, *options)

    def calls(self, *options):
        """The outputs of every function, by function and name; `options` go to the compiler."""
        model, mesh = self.model, bool(options)
        plan = self.compile("-".join(["plan", *options]).replace("=", ""), ",".join(f"{entry}:{self.shape}" for entry in ("forward", "score", "grad", "train")),
                            *options)
        ranks = ["--virtual-ranks"] if mesh else []
        state = self.state
        tokens = {"tokens": model.tokens}
        both = {**tokens, "targets": model.targets}
        out = {}

        def call(name, function, tensors):
            out[name] = self.runner.invoke(plan, function, tensors, *ranks)
            return out[name]

        call("forward", "forward", {**self.params, **tokens})
        call("forward, carried", "forward", {**self.params, **tokens, **state})
        call("score, carried", "score", {**self.params, **both, **state})
        call("grad", "grad", {**self.params, **both})
        call("grad, carried", "grad", {**self.params, **both, **state})
        zeros = {f"{moment}.{name}": np.zeros_like(value) for name, value in self.params.items() for moment in ("exp_avg", "exp_avg_sq")}
        carry = {**self.params, **zeros}
        for step in (1, 2):
            got = call(f"train_step {step}", "train_step", {**carry, **both, "step": np.array(step, np.int64), "lr": np.array(1e-2)})
            carry = {name: got[name] for name in carry}
        return out

    def compare(self, mesh, option):
        if not self.want:
            self.want = self.calls()
        case = " ".join(filter(None, [self.model.name, mesh, option]))
        try:
            got = self.calls(f"--mesh={mesh}", *filter(None, [option]))
        except tools.Failure as failure:
            self.report.add(case, str(failure), None, False)
            return
        chunk = self.model.config.chunk_size
        for name, tensors in self.want.items():
            found = got[name]
            missing = [tensor for tensor in tensors if tensor not in found and not (name.startswith("train") and tensor.startswith("grad."))]
            if missing:
                self.report.add(case, f"{name}: missing {missing[0]}", None, False)
                continue
            tensors = {tensor: value for tensor, value in tensors.items() if tensor in found}
            found = {tensor: found[tensor] for tensor in tensors}
            if any(tensor.startswith("state.") for tensor in tensors):
                tensors, found = specified(tensors, chunk), specified(found, chunk)
            for tensor, value in tensors.items():
                self.report.compare(case, f"{name}: {tensor}", found[tensor], value, TOLERANCE)
        self.report.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    tools.add_arguments(parser)
    args = parser.parse_args()
    report = Report(args.verbose)
    runner = tools.Tools(args, "f64")
    tests = {name: MeshTest(model, runner, report) for name, model in models().items()}
    for model, mesh, option in cases():
        if args.only in f"{model} {mesh} {option}":
            tests[model].compare(mesh, option)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
