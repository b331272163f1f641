#!/usr/bin/env python3
"""Compiles small random models and compares forward, score, grad and generate with the reference.

    test/numerics/model.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--precision f32|f64] [--only REGEX] [-v]

Every config runs from a fresh state, in segments with carried state, and with its rows at different positions. In f64 a sample of
the gradient of every kind of parameter and of the carried state is compared with fourth-order differences of the reference; all
gradients of f32 are then compared with those of f64.
"""
import argparse
import re
import sys

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import differences
from megalodon import cross_entropy
from model_cases import IGNORED, models, specified, typed, with_far_rows
from report import Report

# Relative to the largest magnitude of the expected tensor.
TOLERANCE = {"f64": 1e-9, "f32": 1e-4}
SAMPLED_ENTRIES = 1
GENERATED_TOKENS = 12
SMALLEST_MARGIN = 1e-3  # of the two best logits, below which rounding may choose another token


class ModelTest:
    gradients = {}  # of the f64 runs, which come first, by model

    def __init__(self, model, runner, precision, report):
        self.model, self.runner, self.precision, self.report = model, runner, precision, report
        self.config, self.params = model.config, typed(model.params, precision)
        self.ref = model.reference
        if precision == "f32":
            model.params = {name: value.astype(np.float64) for name, value in self.params.items()}
        shape = f"{model.batch}x{model.length}"
        self.plan = runner.compile_entries(f"{model.name}.{precision}", model.fields, f"forward:{shape},score:{shape},grad:{shape}")

    def compare(self, what, got, want):
        self.report.compare(f"{self.model.name} {self.precision}", what, got, want, TOLERANCE[self.precision])

    def compare_state(self, what, out, want):
        chunk = self.config.chunk_size
        missing = [name for name in want if name not in out]
        if missing:
            self.report.add(f"{self.model.name} {self.precision}", f"{what}: missing {missing[0]}", None, False)
            return
        got = specified({name: out[name] for name in want}, chunk)
        for name, value in specified(want, chunk).items():
            self.compare(f"{what} {name}", got[name], value)

    def call(self, function, tensors, state=None):
        state = typed(with_far_rows(state, self.config.chunk_size), self.precision) if state else {}
        return self.runner.invoke(self.plan, function, {**self.params, **state, **tensors})

    def fresh(self):
        model, tokens, targets = self.model, self.model.tokens, self.model.targets
        logits, state = self.ref.forward(self.config, model.params, tokens)
        out = self.call("forward", {"tokens": tokens})
        self.compare("logits", out.get("logits"), logits)
        self.compare_state("end state", out, state)
        nll = cross_entropy(logits, targets)
        out = self.call("score", {"tokens": tokens, "targets": targets})
        self.compare("nll", out.get("nll"), nll)
        self.compare("nll_sum", out["nll_sum"].reshape(()), nll.sum())
        self.compare("count", out["count"].reshape(()), (targets != IGNORED).sum())
        out = self.call("grad", {"tokens": tokens, "targets": targets})
        self.compare("loss", out["loss"].reshape(()), nll.mean())
        surplus = [name for name in out if name.startswith(("state.", "grad.state."))]
        self.report.add(f"{model.name} {self.precision}", f"grad without state gives no state: {surplus[:1]}", None, not surplus)

    def segments(self):
        """The same tokens in pieces: one token, the rest of the chunk exactly, what is left in uneven pieces."""
        model, chunk = self.model, min(self.config.chunk_size, 7) if self.model.has_end else self.config.chunk_size
        want, end = self.ref.forward(self.config, model.params, model.tokens)
        cuts = [1, max(1, chunk - 1), 3, chunk, 2, 5]
        pieces, state, begin = [], None, 0
        while begin < model.length:
            length = min(cuts[len(pieces) % len(cuts)], model.length - begin)
            out = self.call("forward", {"tokens": model.tokens[:, begin:begin + length]}, state)
            state = {name: value for name, value in out.items() if name.startswith("state.")}
            pieces.append(out["logits"])
            begin += length
        self.compare(f"logits in {len(pieces)} segments", np.concatenate(pieces, 1), want)
        self.compare_state(f"end state in {len(pieces)} segments", state, end)

    def beyond_capacity(self):
        """A sequence has an end where all keys are kept; up to there it works, one token further is an error."""
        model, capacity = self.model, self.config.chunk_size
        case, words = f"{model.name} {self.precision}", f"expected at most {capacity} tokens in a sequence"
        full = model.state_after([capacity - 1] * model.batch)
        want, _ = self.ref.forward(self.config, model.params, model.tokens[:, :1], full)
        self.compare("logits of the last token", self.call("forward", {"tokens": model.tokens[:, :1]}, full).get("logits"), want)
        self.report.add(case, "one token too many is refused", None,
                        refuses(lambda: self.call("forward", {"tokens": model.tokens[:, :2]}, full), words))
        plan = self.runner.compile_entries(f"{model.name}.{self.precision}.generate", model.fields, "generate:1x5")
        self.report.add(case, "generating too many is refused", None,
                        refuses(lambda: self.runner.generate(plan, self.params, model.draw_tokens(capacity)[0], 2), words))

    def carried(self):
        """Rows at different positions: forward, score on fewer rows, grad."""
        model, tokens, targets = self.model, self.model.tokens, self.model.targets
        state = model.state_after(model.starts)
        logits, end = self.ref.forward(self.config, model.params, tokens, state)
        nll = cross_entropy(logits, targets)
        out = self.call("forward", {"tokens": tokens}, state)
        self.compare("logits, carried", out.get("logits"), logits)
        self.compare_state("end state, carried", out, end)
        last = {name: value[-1:] for name, value in state.items()}
        out = self.call("score", {"tokens": tokens[-1:], "targets": targets[-1:]}, last)
        self.compare("nll of the last row alone, carried", out.get("nll"), nll[-1:])
        out = self.call("grad", {"tokens": tokens, "targets": targets}, state)
        self.compare("loss, carried", out["loss"].reshape(()), nll.mean())
        self.compare_state("end state of grad", out, end)
        gradients = {name: value for name, value in out.items() if name.startswith("grad.")}
        if self.precision == "f64":
            self.gradients[model.name] = gradients
            self.differences(out, state)
        for name, want in self.gradients.get(model.name, {}).items() if self.precision == "f32" else ():
            self.report.compare(f"{model.name} f32", f"{name} of f64", gradients.get(name), want, TOLERANCE["f32"], floor=1e-7)

    def differences(self, out, state):
        model, case = self.model, f"{self.model.name} {self.precision}"
        carried = [name for name in state if name.rsplit(".", 1)[1] in ("mean", "var", "h")]
        expected = {"grad." + name for name in [*model.params, *carried]}
        given = {name for name in out if name.startswith("grad.")}
        self.report.add(case, f"grad gives every gradient and no other: {sorted(expected ^ given)[:3]}", None, expected == given)
        names = [name for name in [*model.params, *carried] if "grad." + name in given]
        for name in differences.one_of_each_kind(names, seed=case):
            got = out["grad." + name]
            where = differences.sample(got, SAMPLED_ENTRIES, seed=case + name)
            dense = model.rng.normal(size=(1, got.size))
            directions = np.concatenate([differences.unit_vectors(got.size, where), dense / np.linalg.norm(dense)])
            want = differences.of_model(self.config, model.params, model.tokens, model.targets, state, name, directions, self.ref)
            self.report.compare(case, f"difference of {name}", directions @ got.reshape(-1), want, differences.TOLERANCE,
                                max(np.abs(got).max(), np.abs(want).max()), differences.FLOOR)

    def generate(self):
        """Greedy decoding past chunk boundaries from prompts shorter than, equal to and longer than a chunk."""
        model, chunk = self.model, self.config.chunk_size
        calls, prompts = chunk, (1, chunk, 2 * chunk + 1)
        if model.has_end:  # in several calls, up to where there is no more room
            calls, prompts = 5, (1, chunk // 2, chunk - GENERATED_TOKENS)
        plan = self.runner.compile_entries(f"{model.name}.{self.precision}.generate", model.fields, f"generate:1x{calls}")
        for length in prompts:
            prompt = model.draw_tokens(length)[:1]
            want, margin = greedy(self.ref, self.config, model.params, prompt, GENERATED_TOKENS)
            if margin < SMALLEST_MARGIN:
                continue
            got = self.runner.generate(plan, self.params, prompt[0], GENERATED_TOKENS)
            differ = sum(a != b for a, b in zip(got, want)) + abs(len(got) - len(want))
            self.report.add(f"{model.name} {self.precision}", f"{len(want)} greedy tokens after a prompt of {length}", differ, differ == 0)


def refuses(call, words):
    """Whether a call fails and says so."""
    try:
        call()
    except tools.Failure as failure:
        return words in str(failure)
    return False


def greedy(ref, config, params, prompt, count):
    """Token ids chosen by the largest logit, and the smallest margin over the second."""
    ids, margin = [], np.inf
    logits, state = ref.forward(config, params, prompt)
    for _ in range(count):
        ordered = np.sort(logits[0, -1])
        margin = min(margin, ordered[-1] - ordered[-2])
        ids.append(int(logits[0, -1].argmax()))
        logits, state = ref.forward(config, params, np.array([[ids[-1]]]), state)
    return ids, margin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--precision", choices=list(TOLERANCE), action="append", help="default: both")
    args = parser.parse_args()
    report = Report(args.verbose)
    for precision in args.precision or list(TOLERANCE):
        runner = tools.Tools(args, precision)
        for model in models():
            if args.only and not re.search(args.only, model.name):
                continue
            try:
                test = ModelTest(model, runner, precision, report)
                test.fresh()
                test.segments()
                test.carried()
                if model.has_end:
                    test.beyond_capacity()
                if model.config.output_size == model.config.vocab_size:
                    test.generate()
            except (tools.Failure, KeyError) as failure:
                report.add(f"{model.name} {precision}", f"{type(failure).__name__}: {failure}", None, False)
            report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
