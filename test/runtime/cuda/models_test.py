#!/usr/bin/env python3
"""Whole models on the cuda device, through the stand-in of a GPU's driver: a plan trains, scores, generates and resumes as it does
on the cpu, alone and on a mesh, up to rounding. The plan is the cpu's, made one for GPUs with the same kernels; or with --emulated
what --target=cuda compiles, its kernels' code replaced by their emulation.

    models_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run --convert build/bin/megalodon-fake-gpu-plan \\
                   --stand-in build/test/runtime/fake-cuda/lazy [--emulated build/bin/megalodon-opt-emulated]

Needs the Python standard library only.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 48, "num_heads": 2, "z_dim": 32, "value_dim": 64,
          "ffn_hidden_dim": 64, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 6, "swiglu": True, "rescale_nffn": True,
          "vocab_size": 256, "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8,
                                           "weight_decay": 0.1, "clip": 1.0}}
STEPS = 12
TOLERANCE = {"f32": 2e-4, "bf16": 5e-3}  # of losses, after steps of training


class Models:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder

    def shell(self, *command, gpu=0):
        # Emulated kernels check themselves in the suites of the emulation.
        environment = dict(os.environ, MEGALODON_EMULATION_CHECKS="0")
        if gpu:
            environment.update(LD_LIBRARY_PATH=self.args.stand_in, FAKE_CUDA_DEVICES=str(int(gpu)))
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="latin-1",
                              env=environment)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def compile(self, name, *options):
        cpu, gpu = self.folder / f"{name}.plan", self.folder / f"{name}.gpu.plan"
        self.shell(self.args.opt, self.folder / "config.json", *options, "-o", cpu)
        if self.args.emulated:
            real, emulated = self.folder / f"{name}.real.plan", self.folder / f"{name}.emulated.plan"
            for compiler, plan, more in ((self.args.opt, real, ["--gpu-arch=sm_80"]), (self.args.emulated, emulated, [])):
                self.shell(compiler, self.folder / "config.json", *options, "--target=cuda", *more, "-o", plan)
            self.shell(self.args.convert, real, gpu, emulated)
        else:
            self.shell(self.args.convert, cpu, gpu)
        return {False: cpu, True: gpu}

    def train(self, plan, out, steps, gpu, *options, launcher=()):
        self.shell(*launcher, self.args.run, "train", plan, "--data", self.folder / "data", "--validation-fraction", "0.3", "--steps", steps,
                   "--total-steps", STEPS, "--out", self.folder / out, "--resume", "--save-every", 4,
                   "--lr", "3e-3", "--peak-flops", "1e10", *options, gpu=gpu)
        lines = [json.loads(line) for line in (self.folder / out / "metrics.jsonl").read_text().splitlines()]
        return [line[key] for line in lines for key in ("loss", "validation_loss", "grad_norm") if key in line]

    def bytes_of(self, out):
        last = self.folder / out / f"checkpoint-{STEPS}"
        return [hashlib.sha256((last / f"{name}.safetensors").read_bytes()).hexdigest()
                for name in ("model", "optimizer", "state")]


def expect(what, ok, detail=""):
    if not ok:
        sys.exit(f"NOT OK {what} {detail}")
    print(f"OK {what} {detail}")


def close(what, got, wanted, precision="f32"):
    worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(got, wanted, strict=True))
    expect(what, worst < TOLERANCE[precision], f"{len(got)} numbers differ by at most {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--opt", "--run", "--convert", "--stand-in"):
        parser.add_argument(name, required=True)
    parser.add_argument("--emulated", help="megalodon-opt-emulated")
    parser.add_argument("--mpi", action="store_true", help="processes under mpirun too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-models.") as folder:
        models = Models(args, pathlib.Path(folder))
        (models.folder / "config.json").write_text(json.dumps(CONFIG))
        (models.folder / "data").mkdir()
        for name in range(20):
            text = " ".join(("carry", "scan", "chunk", "state", "tile", "norm")[(i * i + name) % 6] for i in range(120))
            (models.folder / "data" / f"{name}.txt").write_text(text)

        plan = models.compile("one", "--entry=train:2x48,score:1x48,generate:1x48")
        options = ("--accumulate", 2, "--eval-every", 6)
        wanted = models.train(plan[False], "cpu", STEPS, False, *options)
        close("train", models.train(plan[True], "gpu", STEPS, True, *options), wanted)
        models.train(plan[True], "resumed", STEPS // 2, True, *options)
        models.train(plan[True], "resumed", STEPS, True, *options)
        expect("resume", models.bytes_of("resumed") == models.bytes_of("gpu"), "the same bytes")

        texts = [models.shell(args.run, "generate", plan[gpu], "--weights", models.folder / "cpu", "--prompt", "carry scan",
                              "--max-tokens", 40, "--temperature", 0, gpu=gpu).splitlines()[0] for gpu in (False, True)]
        expect("generate", texts[0] == texts[1], repr(texts[1]))
        report = json.loads(models.shell(args.run, "bench", plan[True], "--json", "--repeat", 2, gpu=True))
        expect("bench", {f["function"] for f in report["functions"]} >= {"train_step", "score", "generate"} and
               all(k["seconds"] >= 0 for f in report["functions"] for k in f["kernels"]), report["device"])
        expect("doctor", '"ok": false' not in models.shell(args.run, "doctor", plan[True], "--json", gpu=True))

        if args.emulated:
            plan = models.compile("bf16", "--entry=train:2x48,score:1x48", "--precision=bf16")
            wanted = models.train(plan[False], "cpu.bf16", STEPS, False)
            close("train bf16", models.train(plan[True], "gpu.bf16", STEPS, True), wanted, "bf16")

        # Ranks that share the one GPU there is, and ranks that have their own and talk over NCCL.
        alone = models.train(models.compile("alone", "--entry=train:4x48")[False], "alone", STEPS, False)
        for mesh in ("dp=2,cp=1,tp=2", "dp=2,pp=2"):
            name = mesh.replace(",", "-")
            spread = models.compile(name, "--entry=train:4x48", f"--mesh={mesh}")
            for gpus in (1, 4):
                close(f"mesh {mesh} on {gpus} GPUs", models.train(spread[True], f"{name}-{gpus}", STEPS, gpus, "--virtual-ranks"), alone)
            if args.mpi and shutil.which("mpirun"):
                launcher = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-n", 4]
                close(f"mesh {mesh} over MPI", models.train(spread[True], f"{name}-mpi", STEPS, 1, launcher=launcher), alone)
    print("all models agree")


if __name__ == "__main__":
    main()
