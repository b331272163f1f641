#!/usr/bin/env python3
"""Disturbs the training program at each of its file calls: kills, signals, errors of the disk, short writes, a jumping clock, a
second process. Nothing that it reported saved may be lost, and what it continues must end in the same bytes.

  faults_test.py --run megalodon-run --toy megalodon-toy-plan --preload megalodon-faulty-files.so [--only CASE] [--every N]

Needs the Python standard library only.
"""
import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import power_loss

STEPS, SAVE_EVERY = 9, 3
SETS = ("model.safetensors", "optimizer.safetensors", "state.safetensors")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def fail(*what):
    print("NOT OK", *what)
    raise SystemExit(1)


def whole_checkpoints(out):
    """The steps of all checkpoints under a final name; each must be whole."""
    steps = []
    for folder in glob.glob(os.path.join(out, "checkpoint-*")):
        with open(os.path.join(folder, "trainer.json")) as file:
            record = json.load(file)
        for name, entry in record["files"].items():
            if sha256(os.path.join(folder, name)) != entry["sha256"]:
                fail(folder, name, "is damaged")
        steps.append(record["step"])
    return sorted(steps)


class Bench:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.plan, self.data = os.path.join(folder, "toy.plan"), os.path.join(folder, "data.txt")
        subprocess.run([arguments.toy, self.plan], check=True)
        with open(self.data, "w") as file:
            file.write("carry scan chunk state tile norm gate\n" * 40)
        self.runs = 0

    def command(self, out, steps=STEPS):
        return [self.arguments.run, "train", self.plan, "--data", self.data, "--out", out, "--steps", str(steps), "--save-every",
                str(SAVE_EVERY), "--keep", "1", "--lr", "0.1", "--peak-flops", "1e10", "--threads", "1", "--resume",
                "--total-steps", str(STEPS)]

    def train(self, out, timeout=60, **faults):
        """One life of a run; what it leaves behind."""
        self.runs += 1
        environment = dict(os.environ)
        if faults:
            environment["LD_PRELOAD"] = self.arguments.preload
            environment.update({f"FAULT_{key.upper()}": str(value) for key, value in faults.items()})
            environment["FAULT_ROOT"] = os.path.dirname(os.path.dirname(out))
        return subprocess.run(self.command(out), env=environment, timeout=timeout, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def out(self, name):
        path = os.path.join(self.folder, name, "deep", "run")
        shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        os.makedirs(os.path.join(self.folder, name))
        return path

    def result(self, out):
        last = os.path.join(out, f"checkpoint-{STEPS}")
        with open(os.path.join(out, "metrics.jsonl")) as lines:
            losses = [(line["step"], line["loss"]) for line in map(json.loads, lines)]
        return [losses, *(sha256(os.path.join(last, name)) for name in SETS)]

    def check_after(self, done, out, what):
        """Whatever happened: nothing reported is lost, and the run goes on to the wanted end."""
        reported = [int(step) for step in re.findall(r"saved \S*/checkpoint-(\d+)", done.stderr)]
        steps = whole_checkpoints(out)
        if reported and not (steps and steps[-1] >= reported[-1]):
            fail(what, f"reported step {reported[-1]} saved, found {steps}")
        again = self.train(out)
        if again.returncode:
            fail(what, f"cannot continue:\n{again.stderr}")
        if self.result(out) != self.wanted:
            fail(what, "continued, but not to the same end")
        left = sorted(name for name in os.listdir(out) if not name.startswith("events.out."))
        if left != [f"checkpoint-{STEPS}", "lock", "loss.svg", "metrics.jsonl"]:
            fail(what, f"left files: {os.listdir(out)}")


def case_undisturbed(bench):
    """The wanted end; all calls; their order."""
    out = bench.out("undisturbed")
    log = os.path.join(bench.folder, "calls")
    done = bench.train(out, log=log)
    if done.returncode:
        fail("undisturbed:", done.stderr)
    bench.wanted = bench.result(out)
    with open(log) as lines:
        lines = lines.readlines()
    bench.calls = [line.split("\t")[1:3] for line in lines if not line.startswith("0\t")]
    problems, saved = power_loss.check(lines, out)
    if problems:
        fail("order of calls:\n ", "\n  ".join(problems))
    if saved != STEPS // SAVE_EVERY or len(bench.calls) < 100:
        fail(f"expected {STEPS // SAVE_EVERY} saves and 100 calls or more, got {saved} and {len(bench.calls)}")
    # The check itself must see a sync that is missing.
    syncs = [i for i, line in enumerate(lines) if line.split("\t")[1] == "fsync"]
    seen = sum(bool(power_loss.check(lines[:i] + lines[i + 1:], out)[0]) for i in syncs)
    print(f"undisturbed: {len(bench.calls)} calls in the right order; {len(syncs)} syncs, {seen} of them missed when left out")
    if seen < len(syncs) // 2:
        fail("the check of the order sees too little")


def numbers(bench):
    return range(1, len(bench.calls) + 1, bench.arguments.every)


def case_kill(bench):
    count = 0
    for number in numbers(bench):
        how = ["kill-before", "kill-after"][number % 2]
        if bench.calls[number - 1][0] == "write":
            how = "kill-half"
        out = bench.out("kill")
        done = bench.train(out, at=number, do=how)
        if done.returncode != -9:
            fail(f"{how} at {number}: expected to die, got exit code {done.returncode}\n{done.stderr}")
        bench.check_after(done, out, f"{how} at call {number} {bench.calls[number - 1]}:")
        count += 1
    print(f"kill: {count} calls")


def case_error(bench):
    """A disk that fails ends the run with a message and code 1, or does not matter."""
    ended = 0
    for number in numbers(bench):
        error = ["EIO", "ENOSPC"][number % 2]
        out = bench.out("error")
        done = bench.train(out, at=number, do=error)
        call = f"{error} at call {number} {bench.calls[number - 1]}:"
        if done.returncode not in (0, 1):
            fail(call, f"exit code {done.returncode}\n{done.stderr}")
        if done.returncode == 1:
            ended += 1
            if "error: " + bench.folder not in done.stderr.replace("\n", " "):
                fail(call, f"expected an error that names a file, got\n{done.stderr}")
        bench.check_after(done, out, call)
    print(f"error: {len(numbers(bench))} calls, {ended} of which ended the run")
    if ended < len(numbers(bench)) // 2:
        fail("errors: too few of them ended the run")


def case_interrupted(bench):
    """EINTR is no error; SIGTERM saves and stops."""
    for number in numbers(bench):
        if bench.calls[number - 1][0] in ("write", "fsync", "read"):
            out = bench.out("interrupted")
            done = bench.train(out, at=number, do="EINTR")
            if done.returncode or bench.result(out) != bench.wanted:
                fail(f"EINTR at call {number} {bench.calls[number - 1]}:\n{done.stderr}")
    for number in list(numbers(bench))[::4]:
        out = bench.out("interrupted")
        done = bench.train(out, at=number, do="term")
        call = f"SIGTERM at call {number} {bench.calls[number - 1]}:"
        if done.returncode not in (0, -15):  # before training begins a signal is deadly
            fail(call, f"exit code {done.returncode}\n{done.stderr}")
        bench.check_after(done, out, call)
    print("interrupted: the same bytes")


def case_odd(bench):
    """Short writes and a clock that jumps change nothing."""
    for what in ({"do": "short"}, {"clock": 1}):
        out = bench.out("odd")
        done = bench.train(out, **what)
        if done.returncode or bench.result(out) != bench.wanted:
            fail(what, done.stderr)
    print("odd: the same bytes")


def case_second(bench):
    """A second process on the same folder is told who the first is, and leaves the folder alone."""
    out = bench.out("second")
    first = subprocess.Popen(bench.command(out, steps=1000000), stderr=subprocess.PIPE, text=True)
    try:
        for line in first.stderr:
            if line.startswith("training on "):
                break
        first.send_signal(signal.SIGSTOP)  # so that whatever changes is the second's doing
        before = {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in os.listdir(out)}
        done = bench.train(out)
        if done.returncode != 1 or f"process {first.pid} on " not in done.stderr:
            fail(f"a second process: exit code {done.returncode}\n{done.stderr}")
        if {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in os.listdir(out)} != before:
            fail("a second process changed the folder")
    finally:
        first.kill()
        first.communicate()
    if "another training run" in bench.train(out).stderr:
        fail("the lock of a killed process still holds")
    print("second: refused by name")


CASES = {name[len("case_"):]: body for name, body in list(globals().items()) if name.startswith("case_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--toy", required=True)
    parser.add_argument("--preload", required=True)
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--every", type=int, default=1, help="disturb only every N-th call")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-faults.") as folder:
        bench = Bench(arguments, os.path.realpath(folder))
        case_undisturbed(bench)
        for name, case in CASES.items():
            if name != "undisturbed" and arguments.only in (None, name):
                case(bench)
        print(f"{bench.runs} runs")


if __name__ == "__main__":
    main()
