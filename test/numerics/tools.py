"""Runs megalodon-opt and megalodon-run for the numerics tests: the tests see compile(text) and invoke(plan, tensors)."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "test" / "reference"))

import safetensors_io  # noqa: E402  (needs the path above)


class Failure(Exception):
    """A tool that ended with an error, or gave something that the test did not ask for."""


def add_arguments(parser):
    parser.add_argument("--opt", default=str(REPOSITORY / "build/bin/megalodon-opt"), help="megalodon-opt")
    parser.add_argument("--run", default=str(REPOSITORY / "build/bin/megalodon-run"), help="megalodon-run")
    parser.add_argument("--opt-arg", action="append", default=[], help="further option of megalodon-opt (may be repeated)")
    parser.add_argument("--keep", metavar="DIR", help="leave the modules, plans and tensors there")
    parser.add_argument("--only", default="", help="a regular expression found in the names of cases")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every tensor and command")


class Tools:
    def __init__(self, args, precision):
        self.args, self.precision, self.temporary = args, precision, None
        if not args.keep:
            self.temporary = tempfile.TemporaryDirectory(prefix="megalodon-numerics.")
        self.folder = pathlib.Path(args.keep or self.temporary.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def shell(self, command):
        command = [str(word) for word in command]
        if self.args.verbose:
            print("  $", " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
        if done.returncode:
            name = os.path.basename(command[0])
            raise Failure(f"{name} exits with {done.returncode}: {' '.join(command)}\n{(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def optimize(self, source, output, *options):
        """Runs megalodon-opt on a file."""
        self.shell([self.args.opt, source, f"--precision={self.precision}", *options, *self.args.opt_arg, "-o", output])
        return output

    def compile_module(self, stem, text):
        """The plan of a module that stands where the phase `optimize` begins."""
        source = self.folder / f"{stem}.mlir"
        source.write_text(text, encoding="utf-8")
        return self.optimize(source, self.folder / f"{stem}.plan", "--compile-from=optimize")

    def compile_entries(self, stem, config, entries, *options, suffix="plan"):
        """The plan (with --compile-to another module) of a config's entries, as `forward:2x9,grad:2x9`."""
        source = self.folder / f"{stem}.json"
        source.write_text(json.dumps(config), encoding="utf-8")
        return self.optimize(source, self.folder / f"{stem}.{suffix}", f"--entry={entries}", *options)

    def invoke(self, plan, function, tensors, *options):
        inputs, outputs = self.folder / "inputs.safetensors", self.folder / "outputs.safetensors"
        safetensors_io.save(inputs, tensors)
        outputs.unlink(missing_ok=True)
        self.shell([self.args.run, "invoke", plan, "--function", function, "--inputs", inputs, "--outputs", outputs, *options])
        return safetensors_io.load(outputs)

    def generate(self, plan, params, prompt, count):
        """Greedily chosen token ids."""
        weights = self.folder / "weights.safetensors"
        safetensors_io.save(weights, params)
        text = self.shell([self.args.run, "generate", plan, "--weights", weights, "--prompt-tokens", ",".join(map(str, prompt)),
                           "--max-tokens", count, "--temperature", "0", "--print-tokens"])
        return [int(word) for word in text.strip().splitlines()[-1].split(",")]
