#!/usr/bin/env python3
"""Training survives SIGKILL: a run killed several times at random moments and resumed gives the same losses and the same bytes of
weights and moments as an undisturbed one, and so does any number of threads. Two microbatches of two rows train like one batch of four.

    resume_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--kills N] [--seed N]

Needs the Python standard library only.
"""
import argparse
import glob
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 48, "num_heads": 2, "z_dim": 32, "value_dim": 64,
          "ffn_hidden_dim": 64, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 6, "swiglu": True, "rescale_nffn": True,
          "vocab_size": 256, "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8,
                                           "weight_decay": 0.1, "clip": 1.0}}
STEPS = 120


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def result(folder):
    """Losses of every step, and digests of what the last checkpoint holds."""
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        metrics = [json.loads(line) for line in lines]
    keep = ("step", "loss", "grad_norm", "lr", "validation_loss")
    last = os.path.join(folder, f"checkpoint-{STEPS}")
    return {"metrics": [{k: line[k] for k in keep if k in line} for line in metrics],
            **{name: sha256(os.path.join(last, name))
               for name in ("model.safetensors", "optimizer.safetensors", "state.safetensors")}}


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout}")


def expect_equal(what, got, wanted):
    for key, value in wanted.items():
        if got[key] != value:
            sys.exit(f"{what}: {key} differs:\n  expected {value}\n  got {got[key]}")
    print(f"{what}: the same {len(wanted['metrics'])} metrics and the same bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)

    with tempfile.TemporaryDirectory(prefix="megalodon-resume.") as folder:
        config, plan = os.path.join(folder, "config.json"), os.path.join(folder, "model.plan")
        with open(config, "w") as file:
            json.dump(CONFIG, file)
        wide = os.path.join(folder, "wide.plan")
        run([args.opt, config, "--entry=train:2x48,score:1x48", "-o", plan])
        run([args.opt, config, "--entry=train:4x48", "-o", wide])
        data = os.path.join(folder, "data")
        os.mkdir(data)
        words = ["carry", "scan", "chunk", "state", "tile", "norm", "gate", "\n"]
        for name in range(20):
            with open(os.path.join(data, f"{name}.txt"), "w") as file:
                file.write(" ".join(draw.choices(words, k=60)))

        def command(out, threads):
            return [args.run, "train", plan, "--data", data, "--validation-fraction", "0.2", "--steps", str(STEPS), "--out",
                    os.path.join(folder, out), "--resume", "--save-every", "9", "--keep", "2", "--eval-every", "40",
                    "--accumulate", "2", "--lr", "3e-3", "--peak-flops", "1e10", "--threads", str(threads)]

        def whole(out, threads):
            run(command(out, threads))
            return result(os.path.join(folder, out))

        begin = time.monotonic()
        wanted = whole("one", 1)
        undisturbed = time.monotonic() - begin
        for threads in (2, 4):
            expect_equal(f"{threads} threads", whole(f"threads-{threads}", threads), wanted)

        # In random order the rows of an update's microbatches are those of one larger batch.
        losses = []
        for out, model, microbatches in (("narrow", plan, 2), ("wide", wide, 1)):
            run([args.run, "train", model, "--data", data, "--steps", "20", "--out", os.path.join(folder, out), "--order", "random",
                 "--accumulate", str(microbatches), "--lr", "3e-3", "--peak-flops", "1e10"])
            with open(os.path.join(folder, out, "metrics.jsonl")) as lines:
                losses.append([json.loads(line)["loss"] for line in lines])
        worst = max(abs(a - b) for a, b in zip(*losses))
        if not worst < 1e-4:
            sys.exit(f"microbatches: the losses differ by {worst:.1e}:\n  {losses[0]}\n  {losses[1]}")
        print(f"microbatches: the losses differ by at most {worst:.1e}")

        # A life is measured in steps, because time says nothing on a machine with other work; and ends somewhere in a step.
        def steps_done():
            try:
                with open(os.path.join(folder, "killed", "metrics.jsonl")) as lines:
                    return sum(1 for _ in lines)
            except FileNotFoundError:
                return 0

        kills = 0
        while kills < args.kills:
            process = subprocess.Popen(command("killed", 2), stderr=subprocess.DEVNULL)
            target = steps_done() + draw.randint(2, STEPS // 6)
            while process.poll() is None and steps_done() < target:
                time.sleep(undisturbed / STEPS / 4)
            time.sleep(draw.random() * undisturbed / STEPS)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if process.returncode == -signal.SIGKILL:
                kills += 1
                before = sorted(os.path.basename(p) for p in glob.glob(os.path.join(folder, "killed", "checkpoint-*")))
                print(f"kill {kills}: checkpoints {before}")
                continue
            if process.returncode:
                sys.exit(f"a resumed run failed with exit code {process.returncode}")
            break
        if kills < 2:
            sys.exit(f"expected at least 2 kills before the run was done, got {kills}")
        expect_equal(f"{kills} kills", whole("killed", 2), wanted)


if __name__ == "__main__":
    main()
