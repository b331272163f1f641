#!/usr/bin/env python3
"""Trains one small model on real text on one rank and on meshes (virtual ranks), and prints the largest relative difference between
their loss curves at any step. In f32, where sums in another order round differently, it should stay within 1e-5.

    scripts/mesh-curves.py [--data DIR]... [--steps 300] [--precision f32|f64] [--mesh "dp=2,pp=2 pipeline-schedule=gpipe" ...]

A mesh is followed by options for megalodon-opt. Without --data it reads C++ headers that LLVM's package has put on the machine, like
scripts/quickstart.sh. Run it after a build, from anywhere; it needs the Python standard library only.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

BIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "bin")
CONFIG = {"model_type": "megalodon", "num_layers": 4, "model_dim": 32, "num_heads": 2, "z_dim": 16, "value_dim": 32,
          "ffn_hidden_dim": 32, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 4, "swiglu": True, "rescale_nffn": True,
          "vocab_size": 256, "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8,
                                           "weight_decay": 0.1, "clip": 1.0}}
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble")
MESHES = ["dp=2", "cp=2", "tp=2", *(f"pp=2 pipeline-schedule={schedule}" for schedule in SCHEDULES), "dp=2 zero=1", "dp=2 zero=3",
          "dp=2,pp=2,cp=2,tp=2", "dp=2,pp=2,cp=2,tp=2 zero=1", "dp=2,pp=2,cp=2,tp=2 zero=3"]


def headers():
    folder = subprocess.run(["llvm-config-22", "--includedir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return [os.path.join(folder, *name.split("/")) for name in ("llvm/ADT", "llvm/Support", "mlir/IR")]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", default="f32", choices=("f32", "f64"))
    parser.add_argument("--mesh", action="append")
    args = parser.parse_args()
    data = args.data or headers()

    with tempfile.TemporaryDirectory(prefix="megalodon-curves.") as folder:
        config = os.path.join(folder, "config.json")
        with open(config, "w") as file:
            json.dump(CONFIG, file)

        def curve(number, mesh):
            """Losses, and the seconds of training, of a run on a mesh."""
            plan, out = (os.path.join(folder, f"{number}.{kind}") for kind in ("plan", "run"))
            options = [f"--{word}" for word in f"mesh={mesh}".split(" ")] if mesh else []
            run([os.path.join(BIN, "megalodon-opt"), config, f"--precision={args.precision}", "--entry=train:8x32", "-o", plan, *options])
            begin = time.monotonic()
            run([os.path.join(BIN, "megalodon-run"), "train", plan, "--data", *data, "--steps", str(args.steps), "--lr", "3e-3",
                 "--out", out, "--save-every", "0", "--peak-flops", "1e10", "--threads", "1", *(["--virtual-ranks"] if mesh else [])])
            with open(os.path.join(out, "metrics.jsonl")) as lines:
                return [json.loads(line)["loss"] for line in lines], time.monotonic() - begin

        wanted, seconds = curve(0, "")
        print(f"{args.precision}, {args.steps} steps of 8 rows of 32 tokens")
        print(f"{'one rank':<44} loss {wanted[0]:.4f} to {wanted[-1]:.4f}                   {seconds:6.1f} s", flush=True)
        failed = 0
        for number, mesh in enumerate(args.mesh or MESHES, 1):
            try:
                losses, seconds = curve(number, mesh)
            except RuntimeError as error:
                failed += 1
                print(f"{mesh:<44} failed: {error}", flush=True)
                continue
            if len(losses) != len(wanted):
                sys.exit(f"{mesh}: expected {len(wanted)} losses, got {len(losses)}")
            worst, step = max((abs(a - b) / b, step) for step, (a, b) in enumerate(zip(losses, wanted), 1))
            print(f"{mesh:<44} largest difference {worst:.1e} (step {step:3d}) {seconds:6.1f} s", flush=True)
        sys.exit(failed > 0)


if __name__ == "__main__":
    main()
