#!/usr/bin/env python3
"""A thousand documents of random length, packed into rows, give what each gives by itself: the losses, and the sum of the gradients of
every parameter. So do documents that go on in the next call, with the state that is carried there.

    test/numerics/packed.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--only REGEX] [-v]

By itself a document is the only one of its row, in a plan without --packed; the rest of the row is padding, which no loss counts and no
token of the document sees. All in f64.
"""
import argparse
import re
import sys

import numpy as np

import tools  # sets the path of the reference  # isort: skip
from model_cases import IGNORED, Model, llama_sizes, mega_sizes, sizes, typed
from report import Report

TOLERANCE = 1e-10  # of a tensor's largest magnitude
ROWS, LENGTH = 8, 211  # of a packed call
ALONE = 50             # documents of a call that packs none

# name: fields, documents, the longest, options of megalodon-opt. The longest are several chunks; LLaMA's rows are longer than its cache.
CASES = {
    "megalodon": (sizes(2, 20, 2, 12, 8, 17, 4, 16, 4, 31, swiglu=True, rescale_nffn=True), 1000, 70, ()),
    "llama": (llama_sizes(2, 24, 4, 2, 33, 150, 31), 1000, 70, ()),
    "mega": (mega_sizes(2, 12, 6, 10, 14, 3, 8, 23), 300, 60, ()),
    "mega_laplace": (mega_sizes(1, 12, 4, 18, 13, 2, -1, 17, max_seq_len=100, attention_function="laplace"), 200, 60, ()),
    "two_level": (sizes(1, 16, 1, 8, 8, 12, 3, 8, 2, 31), 150, 160, ("--cema=two-level", "--timestep-norm=two-level", "--recompute=none")),
    "full_recompute": (sizes(2, 12, 1, 6, 10, 14, 3, 8, 3, 31), 300, 40, ("--recompute=full", "--gemm=generated")),
}


class Document:
    def __init__(self, tokens, targets):
        self.tokens, self.targets = tokens, targets

    def __len__(self):
        return len(self.tokens)


def draw_document(rng, length, vocabulary):
    targets = np.where(rng.random(length) < 0.1, IGNORED, rng.integers(0, vocabulary, length))
    return Document(rng.integers(0, vocabulary, length).astype(np.int32), targets.astype(np.int32))


def fill(rows, length, documents_of_rows):
    """tokens, targets and resets of a call. Behind a row's last document stands padding, each token a document of its own."""
    call = {"tokens": np.zeros((rows, length), np.int32), "targets": np.full((rows, length), IGNORED, np.int32),
            "resets": np.zeros((rows, length), np.int32)}
    for row in range(rows):
        at = 0
        for document in documents_of_rows[row] if row < len(documents_of_rows) else ():
            end = at + len(document)
            call["tokens"][row, at:end], call["targets"][row, at:end] = document.tokens, document.targets
            call["resets"][row, at] = 1
            at = end
        call["resets"][row, at:] = 1
    return call


def into_rows(documents, length):
    """Whole documents in rows of at most `length` tokens, in their order."""
    rows, room = [], 0
    for document in documents:
        if len(document) > room:
            rows.append([])
            room = length
        rows[-1].append(document)
        room -= len(document)
    return rows


def batches(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]


class PackedTest:
    def __init__(self, name, fields, count, longest, options, runner, report):
        self.name, self.runner, self.report, self.longest = name, runner, report, longest
        self.model = Model(name, fields, 1, 1, [0])
        self.params = typed(self.model.params, "f64")
        rng = self.model.rng
        lengths = np.minimum(1 + rng.geometric(2.5 / longest, count), longest)  # many short ones
        lengths[:4] = 1, longest, longest - 1, 2
        self.documents = [draw_document(rng, length, self.model.config.vocab_size) for length in lengths]
        self.plans = {}
        for packed, (rows, length) in {True: (ROWS, LENGTH), False: (ALONE, longest)}.items():
            self.plans[packed] = runner.compile_entries(f"{name}.{packed}", self.model.fields, f"grad:{rows}x{length},score:{rows}x{length}",
                                                        *options, *(["--packed"] if packed else []))

    def compare(self, what, got, want, scale=None):
        self.report.compare(self.name, what, got, want, TOLERANCE, scale)

    def call(self, function, packed, documents_of_rows, state=None):
        """Runs a call; the gradients and the loss are sums over its tokens."""
        rows, most = (ROWS, LENGTH) if packed else (ALONE, self.longest)
        call = fill(rows, most, documents_of_rows)
        if not packed:
            del call["resets"]
        out = self.runner.invoke(self.plans[packed], function, {**self.params, **call, **(state or {})})
        if function == "grad":
            out = {name: value * rows * most if name.startswith("grad.") or name == "loss" else value for name, value in out.items()}
        return out

    def alone(self, documents, state=None):
        """Losses of each document by itself and the sums of the gradients; with `state` that of the carried rows too."""
        losses, total, of_state = [], {}, []
        for number, some in enumerate(batches(documents, ALONE)):
            carried = state and {name: value[number * ALONE:][:ALONE] for name, value in state.items()}
            rows = [[document] for document in some]
            nll = self.call("score", False, rows, carried)["nll"]
            losses += [of[:len(document)] for of, document in zip(nll, some)]
            out = self.call("grad", False, rows, carried)
            of_state.append({name: value[:len(some)] for name, value in out.items() if name.startswith("grad.state.")})
            for name in out:
                if name.startswith("grad.") and not name.startswith("grad.state.") or name == "loss":
                    total[name] = total.get(name, 0) + out[name]
        joined = {name: np.concatenate([of[name] for of in of_state]) for name in of_state[0]}
        return losses, total, joined

    def whole_documents(self):
        losses, want, _ = self.alone(self.documents)
        got, total = [], {}
        for rows in batches(into_rows(self.documents, LENGTH), ROWS):
            nll = self.call("score", True, rows)["nll"]
            for of, documents in zip(nll, rows):
                cuts = np.cumsum([0] + [len(document) for document in documents])
                got += [of[first:end] for first, end in zip(cuts, cuts[1:])]
            out = self.call("grad", True, rows)
            for name in want:
                total[name] = total.get(name, 0) + out[name]
        self.compare(f"losses of {len(losses)} documents", np.concatenate(got), np.concatenate(losses))
        for name, value in want.items():
            self.compare(f"sum of {name}", total[name], value)
        return losses

    def streams(self, losses):
        """The documents one behind another in every row, however calls cut them; the last call is a short one."""
        tokens, targets, want = (np.concatenate(parts) for parts in ([d.tokens for d in self.documents], [d.targets for d in self.documents], losses))
        begins = np.zeros(len(tokens), np.int32)
        begins[np.cumsum([0] + [len(document) for document in self.documents[:-1]])] = 1
        stretch = min(len(tokens) // ROWS, 3 * LENGTH + 37)
        # A row's stretch may begin inside a document: from its beginning on.
        firsts = [np.flatnonzero(begins[row * stretch:])[0] + row * stretch for row in range(ROWS)]
        stretch = min(stretch, len(tokens) - max(firsts))
        cut = lambda values, at, length: np.stack([values[first + at:first + at + length] for first in firsts])
        state, got = None, []
        for at in range(0, stretch, LENGTH):
            length = min(LENGTH, stretch - at)
            call = {"tokens": cut(tokens, at, length), "targets": cut(targets, at, length), "resets": cut(begins, at, length)}
            out = self.runner.invoke(self.plans[True], "score", {**self.params, **call, **(state or {})})
            got.append(out["nll"])
            if at == LENGTH:
                self.carried_gradients(call, state)
            state = {name: value for name, value in out.items() if name.startswith("state.")}
        self.compare(f"losses over {len(got)} calls", np.concatenate(got, 1), cut(want, 0, stretch))

    def carried_gradients(self, call, state):
        """The gradients of one call whose rows begin inside documents, against those of its pieces."""
        pieces, carried = [], []
        for row in range(ROWS):
            cuts = sorted({0, *np.flatnonzero(call["resets"][row]), LENGTH})
            for first, end in zip(cuts, cuts[1:]):
                pieces.append(Document(call["tokens"][row, first:end], call["targets"][row, first:end]))
                carried.append(row if first == 0 and not call["resets"][row, 0] else -1)
        fresh = {name: np.zeros((1,) + value.shape[1:], value.dtype) for name, value in state.items()}
        blank = -len(pieces) % ALONE
        stack = {name: np.concatenate([value[row:row + 1] if row >= 0 else fresh[name] for row in [*carried, *[-1] * blank]])
                 for name, value in state.items()}
        _, want, of_state = self.alone(pieces, stack)
        out = self.runner.invoke(self.plans[True], "grad", {**self.params, **call, **state})
        out = {name: value * ROWS * LENGTH for name, value in out.items()}
        for name, value in want.items():
            self.compare(f"{name} with carried state", out[name], value)
        for name, value in of_state.items():
            expected = np.zeros_like(out[name])
            for piece, row in enumerate(carried):
                if row >= 0:
                    expected[row] = value[piece]
            self.compare(f"{name}", out[name], expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    args = parser.parse_args()
    report = Report(args.verbose)
    runner = tools.Tools(args, "f64")
    for name, case in CASES.items():
        if args.only and not re.search(args.only, name):
            continue
        try:
            test = PackedTest(name, *case, runner, report)
            test.streams(test.whole_documents())
        except (tools.Failure, KeyError) as failure:
            report.add(name, f"{type(failure).__name__}: {failure}", None, False)
        report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
