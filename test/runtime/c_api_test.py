#!/usr/bin/env python3
"""The C interface on a compiled model: the example of docs/examples gives what megalodon-run gives, goes on from a saved state to the
bit, and builds against an installed library that exports nothing else.

    c_api_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run --example build/bin/megalodon-stream --build build

Needs the Python standard library only.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

from resume_test import CONFIG


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("opt", "run", "example", "build"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cc", default="clang-22")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-c-api.") as folder:
        Checks(args, folder).run()


class Checks:
    def __init__(self, args, folder):
        self.args, self.folder, self.failures = args, folder, 0
        self.plan, self.other = self.path("model.plan"), self.path("other.plan")

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self):
        with open(self.path("config.json"), "w") as file:
            json.dump(CONFIG, file)
        with open(self.path("other.json"), "w") as file:
            json.dump({**CONFIG, "chunk_size": 8}, file)
        entries = "--entry=train:2x48,score:2x40,generate:1x40,forward:2x40"
        self.tool([self.args.opt, self.path("config.json"), entries, "-o", self.plan])
        self.tool([self.args.opt, self.path("other.json"), "--entry=score:1x40", "-o", self.other])
        draw = random.Random(3)
        self.text = bytes(draw.choice(b"the scan carries what the chunk forgets\n") for _ in range(9000))
        self.write("text", self.text)
        self.tool([self.args.run, "train", self.plan, "--data", self.path("text"), "--steps", "3", "--lr", "3e-3", "--out", self.path("run")])
        self.scores()
        self.generates()
        self.refuses()
        self.installs()
        if self.failures:
            sys.exit(f"{self.failures} of the checks failed")

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def tool(self, command, fails=False, **more):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        if (done.returncode != 0) != fails:
            sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.stderr.decode() if fails else done.stdout

    def expect(self, what, holds):
        print(f"{'OK' if holds else 'NOT OK'} {what}")
        self.failures += not holds

    def stream(self, kind, text, *more, plan=None, **options):
        return self.tool([self.args.example, kind, plan or self.plan, self.path("run"), self.write("piece", text), *more], **options)

    def scores(self):
        losses = self.stream("score", self.text).split()
        evaluated = self.tool([self.args.run, "eval", self.plan, "--weights", self.path("run"), "--data", self.path("text"), "--json"])
        nll = json.loads(evaluated)["nll"]
        mean = sum(map(float, losses)) / len(losses)
        self.expect(f"every token has a loss: {len(losses)}", len(losses) == len(self.text) - 1)
        self.expect(f"the mean loss {mean:.12f} is eval's", abs(mean - nll) < 1e-6 * nll)
        # Calls are cut where the pieces begin: after a multiple of the call's length both runs make the same calls.
        cut = 4096 + 40 * 7
        state, parts = self.path("score.safetensors"), []
        for part in (self.text[:4097], self.text[4096:cut + 1], self.text[cut:]):
            parts += self.stream("score", part, state).split()
        whole = losses[:4096] + parts[4096:]
        self.expect("a saved state continues to the bit", parts[:cut] == losses[:cut] and len(whole) == len(losses))
        worst = max(abs(float(a) - float(b)) for a, b in zip(parts, losses))
        self.expect(f"other calls change losses by rounding only: {worst:.1e}", worst < 1e-4)

    def generates(self):
        prompt = self.text[:333]
        expected = self.tool([self.args.run, "generate", self.plan, "--weights", self.path("run"), "--prompt-file", self.write("prompt", prompt),
                              "--max-tokens", "50", "--temperature", "0", "--print-tokens"])
        expected = bytes(int(token) for token in expected.decode().strip().split(","))
        self.expect("generate continues a text as megalodon-run does", self.stream("generate", prompt, "50") == expected)
        state = self.path("generate.safetensors")
        first = self.stream("generate", prompt, "20", state)
        rest = self.stream("generate", first[-1:], "30", state)
        self.expect("a saved state continues the text", first + rest == expected)
        state = self.path("scored.safetensors")
        self.stream("score", prompt, state)
        self.expect("the state of score continues in generate", self.stream("generate", prompt[-1:], "50", state) == expected)

    def refuses(self):
        error = self.stream("score", self.text, self.path("score.safetensors"), plan=self.other, fails=True)
        self.expect("the state of another config is refused", "config field 'chunk_size': expected 8" in error and "got 16" in error)
        with open(self.path("score.safetensors"), "rb") as file:
            whole = file.read()
        error = self.stream("score", self.text, self.write("cut.safetensors", whole[:-9]), fails=True)
        self.expect("a truncated state is refused", "cut.safetensors" in error)
        error = self.stream("score", self.text, self.write("renamed.safetensors", whole.replace(b"state.final.mean", b"state.final.meen")), fails=True)
        self.expect("a state without a tensor is refused", "expected tensor 'state.final.mean', got none" in error)

    def installs(self):
        prefix = self.path("prefix")
        self.tool(["cmake", "--install", self.args.build, "--component", "runtime", "--prefix", prefix])
        packages = [os.path.join(root, name) for root, _, names in os.walk(prefix) for name in names if name == "megalodon.pc"]
        self.expect("a pkg-config file is installed", len(packages) == 1)
        with open(packages[0]) as file:
            package = file.read()
        library = os.path.join(prefix, os.path.relpath(os.path.dirname(packages[0]), prefix), "..")
        fields = dict(re.findall(r"^(\w+): (.*)$", package, re.M))
        self.expect("it names the library and a version", fields["Libs"].endswith("-lmegalodon") and re.match(r"\d+\.\d+\.\d+$", fields["Version"]))
        source = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "examples", "stream.c")
        built = self.path("stream")
        self.tool([self.args.cc, "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{prefix}/include", source, f"-L{library}", "-lmegalodon", "-o", built])
        environment = {**os.environ, "LD_LIBRARY_PATH": library}
        lines = self.tool([built, "score", self.plan, self.path("run"), self.path("text")], env=environment).split()
        self.expect("the example runs with what was installed", len(lines) == len(self.text) - 1)
        self.expect("megalodon-run is installed", os.access(os.path.join(prefix, "bin", "megalodon-run"), os.X_OK))
        symbols = self.tool(["nm", "-D", "--defined-only", os.path.join(library, "libmegalodon.so")]).decode().split("\n")
        names = [line.split()[-1] for line in symbols if line and " A " not in line]
        strangers = [name for name in names if not name.startswith("megalodon_")]
        with open(os.path.join(prefix, "include", "megalodon.h")) as file:
            declared = set(re.findall(r"\b(megalodon_\w+)\(", re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)))
        self.expect(f"it exports what the header declares, {len(declared)} functions, and nothing else: {strangers[:5]}", set(names) == declared)


if __name__ == "__main__":
    main()
