#!/usr/bin/env python3
"""Shows that the comparisons of these tests see each mechanism of the model: with one disabled, forward, grad and generate must differ.

    test/numerics/mutations.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [-v]

A mechanism is disabled in the IR between --compile-to=optimize and --compile-from=optimize (a rotation by position 0, a state that a
call hands on as it got it), in the state a call is given, or by a chunk so long that the boundary in question is none. Every case is
first run undisturbed, when it must agree with the reference. Of attention over packed documents, a border is moved by one token.
"""
import argparse
import re
import sys

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import megalodon as ref
import op_cases
from model import greedy
from model_cases import Model, sizes, typed, with_far_rows
from ops import Case, write_module
from report import Report

AGREES, DIFFERS = 1e-9, 1e-6
GENERATED_TOKENS = 40
FIRST = 3  # tokens of the first of two calls
# Where a layer function has its state, from the end of its arguments and of its results; an entry ends with the final norm's.
COUNT, H, K, V = -6, -3, -2, -1
FINAL_COUNT = -3


def unrotated(text, only_backward=False):
    """Every position is 0: in a chunk of one token."""
    where = r"megalodon\.rotary[^\n]*inverse[^\n]*" if only_backward else r"megalodon\.rotary[^\n]*"
    return re.sub(where, lambda op: re.sub(r"chunk = \d+", "chunk = 1", op.group()), text)


def state_kept(text, function, offsets):
    """Functions whose name matches return the state at these offsets as they got it."""
    pieces = re.split(r"(?=^  func\.func )", text, flags=re.M)
    for index, piece in enumerate(pieces):
        name = re.match(r"  func\.func (?:\w+ )?@(\w+)\((.*)$", piece, flags=re.M)
        if not name or not re.search(function, name.group(1)):
            continue
        arguments = re.findall(r"(%\w+): tensor", name.group(2))
        begin, operands, end = re.search(r"^(.*?\n    return )([^:\n]*)( :.*)$", piece, flags=re.S).groups()
        operands = operands.split(", ")
        for offset in offsets:
            operands[offset] = arguments[offset]
        pieces[index] = begin + ", ".join(operands) + end
    return "".join(pieces)


MUTATIONS = {  # of the IR of an entry
    "rotary position": unrotated,
    "rotary position, backward only": lambda text: unrotated(text, only_backward=True),
    "key/value cache": lambda text: state_kept(text, "layer", [K, V]),
    "CEMA state": lambda text: state_kept(text, "layer", [H]),
    "norm count": lambda text: state_kept(text, "^(forward|generate)", [FINAL_COUNT]),
    "position of a row": lambda text: state_kept(text, "layer", [COUNT]),
}


class Mutations:
    def __init__(self, args):
        self.runner, self.report = tools.Tools(args, "f64"), Report(args.verbose)
        flags = {"swiglu": True, "rope_base": 50.0}
        self.model = Model("mutations", sizes(2, 20, 2, 12, 8, 17, 4, 5, 4, 19, **flags), 2, 7, [3, 6])
        # Sharp attention and a wide head: what a token sees decides what follows.
        for name in self.model.params:
            if name.endswith(("mega.gamma", "mega.wh2.weight", "output.output.weight")):
                self.model.params[name] = self.model.params[name] * 4
        self.config, self.params = self.model.config, typed(self.model.params, "f64")
        self.plans = {}

    def plan(self, entry, mechanism=None, chunk=None):
        """The plan of an entry, with a mechanism disabled in its IR or with another chunk size."""
        key = (entry, mechanism, chunk)
        if key not in self.plans:
            fields = {**self.model.fields, "chunk_size": chunk or self.config.chunk_size}
            shape = f"1x{self.config.chunk_size}" if entry == "generate" else f"{self.model.batch}x{self.model.length}"
            stem = re.sub(r"\W+", "_", f"mutation.{entry}.{mechanism}.{chunk}")
            if mechanism is None:
                self.plans[key] = self.runner.compile_entries(stem, fields, f"{entry}:{shape}")
            else:
                source = self.runner.compile_entries(stem, fields, f"{entry}:{shape}", "--compile-to=optimize", suffix="mlir")
                text = source.read_text(encoding="utf-8")
                mutated = MUTATIONS[mechanism](text)
                if mutated == text:
                    raise tools.Failure(f"{mechanism}: nothing to disable in {entry}")
                source.write_text(mutated, encoding="utf-8")
                self.plans[key] = self.runner.optimize(source, source.with_suffix(".plan"), "--compile-from=optimize")
        return self.plans[key]

    def call(self, plan, function, tensors, state=None, chunk=None):
        state = with_far_rows(state, chunk or self.config.chunk_size) if state else {}
        return self.runner.invoke(plan, function, {**self.params, **state, **tensors})

    def expect(self, case, what, got, want, differs):
        """Whether two tensors agree or, with the mechanism disabled, differ."""
        difference = float(np.abs(got - want).max() / np.abs(want).max())
        passed = difference > DIFFERS if differs else difference <= AGREES
        self.report.add(case, f"{what} {'differs' if differs else 'agrees'}", difference, passed and bool(np.isfinite(difference)))

    def forward(self):
        """Two calls; the logits of the second."""
        model, chunk, state = self.model, self.config.chunk_size, self.model.state_after(self.model.starts)
        first, second = model.tokens[:, :FIRST], model.tokens[:, FIRST:]
        _, middle = ref.forward(self.config, model.params, first, state)
        want, _ = ref.forward(self.config, model.params, second, middle)

        def run(plan, given):
            out = self.call(plan, "forward", {"tokens": first}, given)
            return self.call(plan, "forward", {"tokens": second}, states(out))["logits"]

        self.expect("forward", "undisturbed", run(self.plan("forward"), state), want, False)
        for mechanism in ("rotary position", "key/value cache", "CEMA state", "norm count"):
            self.expect("forward", f"without {mechanism}", run(self.plan("forward", mechanism), state), want, True)
        self.expect("forward", "without a position of each row", run(self.plan("forward"), one_position(state)), want, True)

        whole = model.draw_tokens(chunk)
        _, closed = ref.forward(self.config, model.params, whole)
        want, _ = ref.forward(self.config, model.params, second, closed)
        for size in (chunk, 2 * chunk):
            plan = self.plan("forward", chunk=size)
            out = self.call(plan, "forward", {"tokens": whole})
            got = self.call(plan, "forward", {"tokens": second}, states(out), size)["logits"]
            self.expect("forward", f"after a call that ends a chunk, chunks of {size}", got, want, size != chunk)

    def grad(self):
        """One call with carried state: every gradient of a parameter must differ, except those of what comes after the mechanism."""
        model, chunk, state = self.model, self.config.chunk_size, self.model.state_after(self.model.starts)
        batch = {"tokens": model.tokens, "targets": model.targets}
        right = self.call(self.plan("grad"), "grad", batch, state)
        self.expect("grad", "undisturbed: loss", right["loss"].reshape(()),
                    ref.loss(self.config, model.params, model.tokens, model.targets, state), False)

        def differs(what, out, want=right):
            names = [name for name in want if name.startswith("grad.layers.0.mega.w")]
            for name in names if self.report.verbose else names[:1]:
                self.expect("grad", f"{what}: {name}", out[name], want[name], True)

        for mechanism in ("rotary position", "rotary position, backward only"):
            differs(f"without {mechanism}", self.call(self.plan("grad", mechanism), "grad", batch, state))
        for mechanism, suffixes in {"key/value cache": (".k", ".v"), "CEMA state": (".h",), "norm count": ("final.count",)}.items():
            given = {name: value * 0 if name.endswith(suffixes) else value for name, value in state.items()}
            differs(f"without {mechanism}", self.call(self.plan("grad"), "grad", batch, given))
        differs("without a position of each row", self.call(self.plan("grad"), "grad", batch, one_position(state)))

        whole = {"tokens": model.draw_tokens(chunk)}
        outs = []
        for size in (chunk, 2 * chunk):
            out = self.call(self.plan("forward", chunk=size), "forward", whole)
            outs.append(self.call(self.plan("grad", chunk=size), "grad", batch, states(out), size))
        differs("after a call that ends a chunk, longer chunks", outs[1], outs[0])

    def generate(self):
        """Greedy decoding from a prompt of exactly one chunk: it crosses a boundary at once and many later."""
        model, chunk = self.model, self.config.chunk_size
        prompt = model.draw_tokens(chunk)[:1]
        want, margin = greedy(ref, self.config, model.params, prompt, GENERATED_TOKENS)
        self.report.add("generate", "the best token leads by a margin", margin, margin > 1e-6)

        def differing(plan):
            got = self.runner.generate(plan, self.params, prompt[0], GENERATED_TOKENS)
            return sum(a != b for a, b in zip(got, want)) + abs(len(got) - len(want))

        different = differing(self.plan("generate"))
        self.report.add("generate", "undisturbed: tokens agree", different, different == 0)
        for mechanism in ("rotary position", "key/value cache", "CEMA state", "norm count", "position of a row"):
            different = differing(self.plan("generate", mechanism))
            self.report.add("generate", f"without {mechanism}: {different} of {GENERATED_TOKENS} tokens differ", None, different > 0)
        different = differing(self.plan("generate", chunk=2 * chunk))
        self.report.add("generate", f"longer chunks: {different} of {GENERATED_TOKENS} tokens differ", None, different > 0)


    def borders(self):
        """Attention over packed documents: with one of them a token later, its row's outputs and gradients must differ."""
        op, rng = op_cases.ChunkAttention(), np.random.default_rng(5)
        attributes, inputs = next(case[1:] for case in op.random(rng) if case[0] == "wide_packed")
        want = op.reference(inputs, attributes)["y"]
        case = Case("borders", op, attributes, inputs, {"y": want}, {"y": rng.normal(size=want.shape)}, dict.fromkeys("qkv"))
        text, tensors, _ = write_module(case, "f64")
        plan = self.runner.compile_module("borders", text)
        right = self.runner.invoke(plan, "test", tensors)
        self.expect("borders", "undisturbed", right["y"], want, False)
        moved = tensors["positions"].copy()
        row, at = next((row, at) for row, at in np.argwhere(moved[:, :-1] == 0) if at > 0 and moved[row, at + 1] == 1)
        moved[row, at] = moved[row, at - 1] + 1
        end = at + 1
        while end < moved.shape[1] and moved[row, end] > 0:
            moved[row, end] -= 1
            end += 1
        wrong = self.runner.invoke(plan, "test", {**tensors, "positions": moved})
        for name in ("y", "grad.q", "grad.k", "grad.v"):
            self.expect("borders", f"moved: {name}", wrong[name][row], right[name][row], True)
            others = np.arange(len(moved)) != row
            self.expect("borders", f"moved: {name} of other rows", wrong[name][others], right[name][others], False)


def states(out):
    return {name: value for name, value in out.items() if name.startswith("state.")}


def one_position(state):
    """Every row stands where the first one does."""
    return {name: np.full_like(value, value[0]) if re.search(r"layers\.\d+\.count$", name) else value for name, value in state.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    args = parser.parse_args()
    mutations = Mutations(args)
    for entry in ("forward", "grad", "generate", "borders"):
        if args.only in entry:
            try:
                getattr(mutations, entry)()
            except (tools.Failure, KeyError) as failure:
                mutations.report.add(entry, f"{type(failure).__name__}: {failure}", None, False)
        mutations.report.flush()
    return mutations.report.finish()


if __name__ == "__main__":
    sys.exit(main())
