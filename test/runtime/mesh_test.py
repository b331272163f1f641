#!/usr/bin/env python3
"""Training does not depend on the mesh: a run begun on one mesh and continued on another has the losses of a run that stayed on one
rank, and so has evaluation; checkpoints hold the same tensors. Ranks that do not fit a plan are refused before the first step.

    mesh_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run [--mesh dp=2 --mesh dp=2,tp=2 ...]

Needs the Python standard library only.
"""
import argparse
import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 48, "num_heads": 2, "z_dim": 32, "value_dim": 64,
          "ffn_hidden_dim": 64, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 6, "swiglu": True, "rescale_nffn": True,
          "vocab_size": 256, "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8,
                                           "weight_decay": 0.1, "clip": 1.0}}
STEPS = 20
MESHES = ["dp=2", "tp=2", "dp=2,tp=2"]


def ranks_of(mesh):
    count = 1
    for axis in filter(None, mesh.split(",")):
        count *= int(axis.split("=")[1])
    return count


def run(command, code=0):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}\nexpected exit code {code}, got {done.returncode}\n{done.stdout}")
    return done.stdout


def losses_of(folder):
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        metrics = [json.loads(line) for line in lines]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--mesh", action="append")
    args = parser.parse_args()
    meshes = args.mesh or MESHES
    draw = random.Random(1)

    with tempfile.TemporaryDirectory(prefix="megalodon-mesh.") as folder:
        place = lambda *names: os.path.join(folder, *names)
        with open(place("config.json"), "w") as file:
            json.dump(CONFIG, file)
        plans = {}
        for mesh in [""] + meshes:
            plans[mesh] = place(f"{mesh or 'one'}.plan")
            run([args.opt, place("config.json"), "--precision=f64", "--entry=train:4x64,score:4x64", "-o", plans[mesh]] +
                ([f"--mesh={mesh}"] if mesh else []))
        os.mkdir(place("data"))
        words = ["carry", "scan", "chunk", "state", "tile", "norm", "gate", "\n"]
        for name in range(20):
            with open(place("data", f"{name}.txt"), "w") as file:
                file.write(" ".join(draw.choices(words, k=300)))

        def train(mesh, out, steps, *more, code=0, ranks=None):
            return run([args.run, "train", plans[mesh], "--data", place("data"), "--validation-fraction", "0.2", "--steps", str(steps),
                        "--total-steps", str(STEPS), "--warmup", "2", "--out", place(out), "--save-every", "10", "--keep", "0",
                        "--eval-every", "10", "--eval-tokens", "700", "--accumulate", "2", "--lr", "3e-3", "--peak-flops", "1e10",
                        "--virtual-ranks", str(ranks or ranks_of(mesh)), *more], code)

        def evaluate(mesh, weights):
            out = run([args.run, "eval", plans[mesh], "--weights", weights, "--data", place("data", "1.txt"), "--json",
                       "--max-tokens", "700", "--virtual-ranks", str(ranks_of(mesh))])
            report = json.loads(out)
            return {"nll": report["nll"], "tokens": report["tokens"],
                    **{f"to {bucket['last']}": bucket["nll"] for bucket in report["by_position"]}}

        train("", "one", STEPS)
        wanted = losses_of(place("one"))
        last = place("one", f"checkpoint-{STEPS}")
        figures = evaluate("", last)
        circle = [""] + meshes + [""]
        for before, after in zip(circle, circle[1:]):
            what = f"{before or 'one rank'}, then {after or 'one rank'}"
            out = f"{before or 'one'}-{after or 'one'}"
            train(before, out, 10)
            said = train(after, out, STEPS, "--resume")
            if "mesh: was" not in said:
                sys.exit(f"{what}: expected a note about the mesh, got\n{said}")
            expect_close(what, losses_of(place(out)), wanted, 1e-10)
            expect_same_tensors(what, place(out, f"checkpoint-{STEPS}"), last, 1e-9)
        for mesh in meshes:
            expect_close(f"eval on {mesh}", evaluate(mesh, last), figures, 1e-12)

        mesh = meshes[0]
        said = train(mesh, "refused", 1, code=1, ranks=ranks_of(mesh) + 1)
        if str(ranks_of(mesh)) not in said or os.path.exists(place("refused")):
            sys.exit(f"a wrong number of ranks: got\n{said}")
        print(f"a wrong number of ranks: {said.strip()}")


if __name__ == "__main__":
    main()
