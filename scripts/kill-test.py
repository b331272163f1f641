#!/usr/bin/env python3
"""Kills a training run with SIGKILL again and again, at random moments, and lets it continue. After every kill each checkpoint that
was reported saved must be there (or newer ones instead, as --keep says) and whole; each run that gets to its end must have
the losses and weights of one that nobody disturbed.

  scripts/kill-test.py [--kills 200] [--seed 1] [--opt build/bin/megalodon-opt] [--run build/bin/megalodon-run]

Prints what it found; the exit code is 1 when anything was lost. Needs the Python standard library only.
"""
import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(here, "..", "test", "faults"), os.path.join(here, "..", "test", "runtime")]
from faults_test import fail, sha256, whole_checkpoints
from resume_test import CONFIG

STEPS, SAVE_EVERY = 300, 3


def result(out):
    last = os.path.join(out, f"checkpoint-{STEPS}")
    with open(os.path.join(out, "metrics.jsonl")) as lines:
        losses = [(line["step"], line["loss"]) for line in map(json.loads, lines)]
    return [losses, *(sha256(os.path.join(last, f"{name}.safetensors")) for name in ("model", "optimizer", "state"))]


def lines_of(out):
    """How many steps a run has noted down: the measure of time that does not depend on the machine's load."""
    try:
        with open(os.path.join(out, "metrics.jsonl"), "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", default="build/bin/megalodon-opt")
    parser.add_argument("--run", default="build/bin/megalodon-run")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="megalodon-kills.") as folder:
        config, plan, data = (os.path.join(folder, name) for name in ("config.json", "model.plan", "data.txt"))
        with open(config, "w") as file:
            json.dump(CONFIG, file)
        with open(data, "w") as file:
            file.write("carry scan chunk state tile norm gate\n" * 200)
        subprocess.run([args.opt, config, "--entry=train:2x32", "-o", plan], check=True)

        def command(out):
            return [args.run, "train", plan, "--data", data, "--steps", str(STEPS), "--out", out, "--resume", "--save-every",
                    str(SAVE_EVERY), "--keep", "2", "--lr", "3e-3", "--peak-flops", "1e10", "--threads", "1"]

        whole, out, log = (os.path.join(folder, name) for name in ("whole", "killed", "stderr"))
        start = time.monotonic()
        subprocess.run(command(whole), check=True, stderr=subprocess.DEVNULL)
        step_time = (time.monotonic() - start) / STEPS
        wanted = result(whole)

        kills, ends, saves, where = 0, 0, 0, collections.Counter()
        while kills < args.kills:
            with open(log, "w") as stderr:
                process = subprocess.Popen(command(out), stderr=stderr)
            # Some lives end before the first step, the others after a few steps and a part of one.
            target = lines_of(out) + draw.randint(0, 3 * SAVE_EVERY) if draw.random() < 0.9 else 0
            while process.poll() is None and lines_of(out) < target:
                time.sleep(step_time / 8)
            time.sleep(draw.random() * 2 * step_time)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with open(log) as file:
                said = file.read()
            if process.returncode not in (0, -signal.SIGKILL):
                fail(f"after {kills} kills: exit code {process.returncode}\n{said}")
            reported = [int(step) for step in re.findall(r"saved \S*/checkpoint-(\d+)", said)]
            saves += len(reported)
            steps = whole_checkpoints(out) if os.path.isdir(out) else []
            if reported and (not steps or steps[-1] < reported[-1]):
                fail(f"after {kills} kills: step {reported[-1]} was reported saved, found {steps}")
            if process.returncode == 0:
                if result(out) != wanted:
                    fail(f"after {kills} kills: another end than the undisturbed run's")
                ends += 1
                shutil.rmtree(out)
                continue
            kills += 1
            partial = os.path.isdir(out) and any(name.startswith(".checkpoint-") or ".tmp." in name for name in os.listdir(out))
            where["in a save" if partial else "before the first step" if "training on" not in said else "elsewhere"] += 1
        # The last run goes on to its end.
        subprocess.run(command(out), check=True, stderr=subprocess.DEVNULL)
        if result(out) != wanted:
            fail("another end than the undisturbed run's")
    print(f"{kills} kills ({', '.join(f'{count} {place}' for place, count in sorted(where.items()))}), {saves} reported saves, "
          f"{ends + 1} runs to the end, {time.monotonic() - began:.0f} s: nothing was lost")


if __name__ == "__main__":
    main()
