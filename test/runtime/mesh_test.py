#!/usr/bin/env python3
"""Training does not depend on the mesh: a run begun on one mesh and continued on another has the losses of a run that stayed on one
rank, and so has evaluation; checkpoints hold the same tensors. Ranks that do not fit a plan are refused before the first step, and a
job under mpirun saves when it is asked to and ends, with its checkpoints whole, when it loses a rank.

    mesh_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--mesh "dp=2" --mesh "dp=2,tp=2 zero=3" ...]

Needs the Python standard library, and Open MPI's mpirun.
"""
import argparse
import array
import glob
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 48, "num_heads": 2, "z_dim": 32, "value_dim": 64,
          "ffn_hidden_dim": 64, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 6, "swiglu": True, "rescale_nffn": True,
          "vocab_size": 256, "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8,
                                           "weight_decay": 0.1, "clip": 1.0}}
LLAMA = {"model_type": "llama", "num_layers": 2, "dim": 48, "n_heads": 4, "n_kv_heads": 2, "ffn_hidden_dim": 64, "max_seq_len": 32,
         "vocab_size": 256, "optimizer": CONFIG["optimizer"]}
STEPS = 20
MESHES = ["dp=2", "tp=2", "pp=2", "cp=2 zero=1", "dp=2,tp=2 zero=3", "dp=2,pp=2,cp=2,tp=2"]
# A rank holds the last norm's gain whole and finds a slice of its gradient, which several microbatches have to accumulate.
LLAMA_MESHES = ["tp=2", "pp=2,tp=2"]
SKIPPED = 77
STALL = 60  # seconds after which something is wrong


def ranks_of(mesh):
    count = 1
    for axis in filter(None, mesh.split(" ")[0].split(",")):
        count *= int(axis.split("=")[1])
    return count


def fail(command, why, output):
    sys.exit(f"{' '.join(command)}\n{why}\n{output}")


def run(command, code=0, stderr=subprocess.STDOUT):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    if done.returncode != code:
        fail(command, f"expected exit code {code}, got {done.returncode}", done.stdout + (done.stderr or ""))
    return done.stdout


def losses_of(folder):
    """(step, name) -> number, of the lines that are whole."""
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        metrics = [json.loads(line) for line in lines if line.endswith("\n")]
    return {(line["step"], key): line[key] for line in metrics for key in ("loss", "grad_norm", "validation_loss") if key in line}


def read_file(path):
    """Name -> (type, shape, numbers) of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    codes = {"F64": "d", "F32": "f", "I64": "q"}
    return {name: (entry["dtype"], entry["shape"],
                   array.array(codes[entry["dtype"]], data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]))
            for name, entry in header.items()}


def read_set(folder, name):
    """A set of tensors of a checkpoint, in one file or several."""
    index = os.path.join(folder, name + ".safetensors.index.json")
    if not os.path.exists(index):
        return read_file(os.path.join(folder, name + ".safetensors"))
    with open(index) as file:
        places = json.load(file)["weight_map"]
    tensors = {}
    for part in set(places.values()):
        tensors.update(read_file(os.path.join(folder, part)))
    if set(tensors) != set(places):
        sys.exit(f"{index}: expected {sorted(places)}, got {sorted(tensors)}")
    return tensors


def expect_close(what, got, wanted, tolerance):
    if set(got) != set(wanted):
        sys.exit(f"{what}: expected {sorted(wanted)}, got {sorted(got)}")
    worst = max(abs(got[key] - value) / max(1, abs(value)) for key, value in wanted.items())
    if not worst <= tolerance:
        sys.exit(f"{what}: differs by {worst:.1e}")
    print(f"{what}: {len(wanted)} numbers differ by at most {worst:.1e}", flush=True)


def expect_same_tensors(what, folder, wanted_folder, tolerance):
    worst = 0
    for name in ("model", "optimizer", "state"):
        got, wanted = read_set(folder, name), read_set(wanted_folder, name)
        if {k: v[:2] for k, v in got.items()} != {k: v[:2] for k, v in wanted.items()}:
            sys.exit(f"{what}: {name}: the tensors' names, types or shapes differ")
        for tensor, (_, _, numbers) in wanted.items():
            # A NaN is not below the tolerance.
            for a, b in zip(got[tensor][2], numbers):
                difference = abs(a - b)
                if not difference <= tolerance:
                    sys.exit(f"{what}: {name}: {tensor}: expected {b}, got {a}")
                worst = max(worst, difference)
    print(f"{what}: tensors differ by at most {worst:.1e}", flush=True)


def expect_text(what, command, output, *texts):
    for text in texts:
        if text not in output:
            fail(command, f"{what}: expected '{text}', got", output)
    print(f"{what}: {next(line for line in output.splitlines() if texts[0] in line)}", flush=True)


def wait_for(condition, what):
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > STALL:
            sys.exit(f"{what}: nothing for {STALL} s")
        time.sleep(0.05)


class Job:
    """An endless training run of several processes under mpirun."""

    def __init__(self, command, out):
        self.command, self.out = command, out
        self.log = open(out + ".log", "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_for_step(self, step):
        def reached():
            if self.process.poll() is not None:
                fail(self.command, f"expected step {step}, but the job ended", self.text())
            try:
                return max(key[0] for key in losses_of(self.out)) >= step
            except (OSError, ValueError):
                return False
        wait_for(reached, f"step {step}")

    def rank(self, number):
        """The process of a rank."""
        wanted = f"OMPI_COMM_WORLD_RANK={number}".encode()
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as environment, open(path.replace("environ", "stat")) as stat:
                    if wanted in environment.read().split(b"\0") and int(stat.read().split(") ")[1].split()[1]) == self.process.pid:
                        return int(path.split("/")[2])
            except (OSError, PermissionError):
                continue
        fail(self.command, f"no process of rank {number}", self.text())

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def end(self, within):
        """Exit code and seconds until the end."""
        begin = time.monotonic()
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            fail(self.command, f"expected an end within {within} s", self.text())
        return code, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--mesh", action="append")
    args = parser.parse_args()
    meshes = args.mesh or MESHES
    draw = random.Random(1)
    mpirun = shutil.which("mpirun")

    with tempfile.TemporaryDirectory(prefix="megalodon-mesh.") as folder:
        place = lambda *names: os.path.join(folder, *names)
        with open(place("config.json"), "w") as file:
            json.dump(CONFIG, file)
        plans = {}
        for mesh in [""] + meshes:
            plans[mesh] = place(f"{mesh.replace(' ', ',') or 'one'}.plan")
            options = [f"--{word}" for word in f"mesh={mesh}".split(" ")] if mesh else []
            run([args.opt, place("config.json"), "--precision=f64", "--entry=train:4x32,score:4x32", "-o", plans[mesh], *options])
        os.mkdir(place("data"))
        words = ["carry", "scan", "chunk", "state", "tile", "norm", "gate", "\n"]
        for name in range(20):
            with open(place("data", f"{name}.txt"), "w") as file:
                file.write(" ".join(draw.choices(words, k=300)))

        def training(plan, out, steps, *more, total=STEPS, every=10):
            return [args.run, "train", plan, "--data", place("data"), "--validation-fraction", "0.2", "--steps", str(steps),
                    "--total-steps", str(total), "--warmup", "2", "--out", place(out), "--save-every", str(every), "--keep", "0",
                    "--eval-every", str(every), "--eval-tokens", "300", "--accumulate", "2", "--lr", "3e-3", "--peak-flops", "1e10",
                    "--threads", "1", *more]

        def virtual(mesh, ranks=None):
            return ["--virtual-ranks", str(ranks or ranks_of(mesh))]

        def processes(ranks):
            line = [mpirun, "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
            return line + (["--allow-run-as-root"] if os.geteuid() == 0 else [])

        def evaluate(mesh, weights, launcher=()):
            out = run([*launcher, args.run, "eval", plans[mesh], "--weights", weights, "--data", place("data", "1.txt"), "--json",
                       "--threads", "1", "--max-tokens", "300", *([] if launcher else virtual(mesh))],
                      stderr=subprocess.PIPE)  # launchers warn
            report = json.loads(out)
            return {"nll": report["nll"], "tokens": report["tokens"],
                    **{f"to {bucket['last']}": bucket["nll"] for bucket in report["by_position"]}}

        run(training(plans[""], "one", STEPS))
        wanted = losses_of(place("one"))
        last = place("one", f"checkpoint-{STEPS}")
        figures = evaluate("", last)

        def expect_same_run(what, out):
            expect_close(what, losses_of(place(out)), wanted, 1e-10)
            expect_same_tensors(what, place(out, f"checkpoint-{STEPS}"), last, 1e-9)

        circle = [""] + meshes + [""]
        for before, after in zip(circle, circle[1:]):
            what = f"{before or 'one rank'}, then {after or 'one rank'}"
            out = f"{before or 'one'}-{after or 'one'}"
            run(training(plans[before], out, 10, *virtual(before)))
            command = training(plans[after], out, STEPS, "--resume", *virtual(after))
            if ranks_of(before) > 1 and before.split(" ")[0] != after.split(" ")[0]:
                expect_text(what, command, run(command), "mesh: was")
            else:
                run(command)
            expect_same_run(what, out)
        for mesh in meshes:
            expect_close(f"eval on {mesh}", evaluate(mesh, last), figures, 1e-12)

        with open(place("llama.json"), "w") as file:
            json.dump(LLAMA, file)
        for mesh in [""] + LLAMA_MESHES:
            plan, out = place(f"llama-{mesh}.plan"), f"llama-{mesh or 'one'}"
            run([args.opt, place("llama.json"), "--precision=f64", "--entry=train:4x32,score:4x32", "-o", plan, *([f"--mesh={mesh}"] if mesh else [])])
            run(training(plan, out, 10, *virtual(mesh)))
            if mesh:
                expect_close(f"llama on {mesh}", losses_of(place(out)), losses_of(place("llama-one")), 1e-10)

        pair = next(mesh for mesh in meshes if ranks_of(mesh) == 2)
        command = training(plans[pair], "refused", 1, *virtual(pair, ranks=3))
        expect_text("a wrong number of virtual ranks", command, run(command, 1), "--virtual-ranks: expected 2 as mesh", "got 3")

        if not mpirun:
            print("skipped: mpirun is not installed (Debian's package openmpi-bin)")
            sys.exit(SKIPPED)
        run(processes(2) + training(plans[pair], "processes", STEPS))
        expect_same_run(f"{pair}, two processes", "processes")
        expect_close(f"eval on {pair}, two processes", evaluate(pair, last, processes(2)), figures, 1e-12)

        command = processes(3) + training(plans[pair], "refused", 1)
        expect_text("a wrong number of processes", command, run(command, 1), "expected 2 ranks as mesh", "got 3")
        other = next(mesh for mesh in meshes if ranks_of(mesh) == 2 and mesh != pair)
        command = processes(1) + training(plans[pair], "refused", 1) + [":", "-n", "1"] + training(plans[other], "refused", 1)
        expect_text("a rank with another plan", command, run(command, 1), "rank 1 holds another plan than rank 0")
        command = (processes(1) + training(plans[pair], "refused", 1) + [":", "-n", "1"] +
                   training(plans[pair], "refused", 1, "--seed", "7"))
        expect_text("a rank with another seed", command, run(command, 1), "rank 1: seed: expected 1 as on rank 0, got 7")
        if os.path.exists(place("refused")):
            sys.exit("expected nothing written by a job that was refused")

        endless = {"total": 10**7, "every": 5}

        def start(out, **options):
            return Job(processes(2) + training(plans[pair], out, 10**7, **{**endless, **options}), place(out))

        def newest(out):
            return max(int(path.rsplit("-", 1)[1]) for path in glob.glob(place(out, "checkpoint-*")))

        def resume(what, out, mesh):
            """Continues the run on another mesh, and on one rank from the same checkpoint."""
            step = newest(out)
            alone = out + "-alone"
            shutil.copytree(place(out), place(alone))
            for where, folder in ((mesh, out), ("", alone)):
                text = run(training(plans[where], folder, step + 4, "--resume", *virtual(where), **endless))
                if f"resumed from {place(folder)}/checkpoint-{step}" not in text:
                    sys.exit(f"{what}: expected to resume at step {step}, got\n{text}")
            got, alone = losses_of(place(out)), losses_of(place(alone))
            expect_close(f"{what}, then {mesh} from step {step}", {key: got[key] for key in got if key[0] > step},
                         {key: alone[key] for key in alone if key[0] > step}, 1e-10)

        job = start("usr1")
        job.wait_for_step(7)
        job.process.send_signal(signal.SIGUSR1)
        code, _ = job.end(STALL)
        if code != 0:
            fail(job.command, f"SIGUSR1: expected exit code 0, got {code}", job.text())
        expect_text("SIGUSR1 to mpirun", job.command, job.text(), f"stopped by SIGUSR1 after step {newest('usr1')}, saved")
        resume("SIGUSR1 to mpirun", "usr1", other)

        job = start("killed")
        job.wait_for_step(7)
        os.kill(job.rank(1), signal.SIGKILL)
        code, seconds = job.end(30)
        if code == 0:
            fail(job.command, "a lost rank: expected an error, got exit code 0", job.text())
        expect_text(f"a lost rank, {seconds:.1f} s", job.command, job.text(), ", on rank 0: asked to stop, still waiting", ", step ")
        resume("a lost rank", "killed", other)

        # Not while it saves, which may take longer than any step.
        job = start("stuck", every=10**6)
        job.wait_for_step(7)
        os.kill(job.rank(1), signal.SIGSTOP)
        os.kill(job.rank(0), signal.SIGUSR1)
        code, seconds = job.end(30)
        if code == 0:
            fail(job.command, "a stuck rank: expected an error, got exit code 0", job.text())
        # Its patience ends in what it waits for when asked to stop, or in agreeing to stop.
        expect_text(f"a stuck rank, {seconds:.1f} s", job.command, job.text(), "megalodon-run: error: rank 0: ", ", step ",
                    ", on rank 0: not complete ")
        if glob.glob(place("stuck", "checkpoint-*")):
            sys.exit("a stuck rank: expected no checkpoint")


if __name__ == "__main__":
    main()
