#!/usr/bin/env python3
"""Compares what ptxas counts for the GPU kernels of some models (registers, shared memory, spills) with a stored table.

    scripts/gpu-resources.py --check [--opt build/bin/megalodon-opt] [--only REGEX]
    scripts/gpu-resources.py --update

Kernels do not depend on a model's depth, so each model is compiled with one layer. --check fails when a kernel spills at a published
width, when another one spills more than the table says, or when a kernel is new, gone or takes more registers or shared
memory than in the table; registers are compared only with the ptxas that the table comes from. Without ptxas there is nothing to check.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TABLE = REPOSITORY / "test/gpu/resources.txt"
ARCHS = "sm_80,sm_90a"

# Name in the table: model, entries, precision; then options, the kernels that are of interest, and other fields of the config.
MODELS = {
    "tiny": ("megalodon-tiny", "train:2x64,generate:1", "f32"),
    "200M": ("mega200M", "train:1x4096,generate:1", "bf16"),
    "200M-packed": ("mega200M", "train:1x4096", "bf16", ["--packed"], "^(attention|cema|timestep)"),
    "39M-mega": ("mega-enwik8-39m", "train:4x2048", "bf16", [], "^(attention|mega|ema|update)"),
    "39M-laplace": ("mega-enwik8-39m", "train:4x2048", "bf16", [], "^attention", {"attention_function": "laplace"}),
    "1.3B": ("mega1.3B", "train:1x4096,generate:1", "bf16"),
    "7.3B": ("mega7.3B", "train:1x4096,generate:1", "bf16"),
    "7.3B-f32": ("mega7.3B", "train:1x4096", "f32"),
    "7.3B-recomputed": ("mega7.3B", "grad:1x4096", "bf16", ["--attention=recomputed"], "^attention"),
    "7.3B-f32-recomputed": ("mega7.3B", "grad:1x4096", "f32", ["--attention=recomputed"], "^attention"),
}
COLUMNS = ["threads", "shared", "registers", "stack", "spill_stores", "spill_loads"]
UNPUBLISHED = ("tiny",)


def ptxas_version(cuda_path):
    tool = cuda_path and f"{cuda_path}/bin/ptxas" or shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas"
    try:
        text = subprocess.run([tool, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return re.search(r"V([0-9.]+)", text)[1]


def measure(args, name, folder):
    """(model, precision, arch, kernel) -> column -> number; None without ptxas."""
    model, entries, precision, *rest = MODELS[name]
    options, kernels, fields = [*rest, *([], "", {})[len(rest):]]
    config = json.loads((REPOSITORY / f"models/{model}.json").read_text(encoding="utf-8"))
    config.update(fields, num_layers=1)
    source = folder / f"{name}.json"
    source.write_text(json.dumps(config), encoding="utf-8")
    command = [args.opt, source, f"--entry={entries}", f"--precision={precision}", "--target=cuda", f"--gpu-arch={ARCHS}",
               f"--save-assembly={folder / name}", "-o", folder / f"{name}.plan", *options]
    if args.cuda_path:
        command.append(f"--cuda-path={args.cuda_path}")
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}\n0 passed, 1 failed")
    if "no ptxas" in done.stderr:
        return None
    rows = {}
    head, *lines = (folder / name / "resources.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        row = dict(zip(head.split(), line.split()))
        if re.search(kernels, row["kernel"]):
            rows[(name, precision, row["arch"], row["kernel"])] = {column: int(row[column]) for column in COLUMNS}
    return rows


def read_table():
    """The ptxas of the table, and its rows."""
    version, rows = "unknown", {}
    if TABLE.exists():
        for line in TABLE.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if line.startswith("#"):
                found = re.search(r"ptxas ([0-9.]+)", line)
                version = found[1] if found else version
            elif words[0] != "model":
                rows[tuple(words[:4])] = dict(zip(COLUMNS, map(int, words[4:])))
    return version, rows


def write_table(rows, version):
    table = [["model", "precision", "arch", "kernel", *COLUMNS]]
    table += [[*key, *(str(row[column]) for column in COLUMNS)] for key, row in sorted(rows.items())]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", encoding="utf-8") as out:
        out.write(f"# Made by scripts/gpu-resources.py --update with ptxas {version}; one layer of each model.\n")
        for row in table:
            out.write("  ".join(word.ljust(width) if i < 4 else word.rjust(width)
                                for i, (word, width) in enumerate(zip(row, widths))).rstrip() + "\n")


def problems(key, row, stored, same_version):
    """What is wrong with a kernel, as words."""
    spills = row["spill_stores"] + row["spill_loads"]
    if key[0] not in UNPUBLISHED and spills:
        yield f"expected no spills, got {spills} bytes"
    if stored is None:
        yield "is not in the table; run scripts/gpu-resources.py --update"
        return
    if spills > stored["spill_stores"] + stored["spill_loads"]:
        yield f"expected spills of at most {stored['spill_stores'] + stored['spill_loads']} bytes, got {spills}"
    if row["shared"] > stored["shared"]:
        yield f"expected at most {stored['shared']} bytes of shared memory, got {row['shared']}"
    if same_version and row["registers"] > stored["registers"]:
        yield f"expected at most {stored['registers']} registers, got {row['registers']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="compare with the table")
    mode.add_argument("--update", action="store_true", help="write the table")
    parser.add_argument("--opt", default=str(REPOSITORY / "build/bin/megalodon-opt"), help="megalodon-opt")
    parser.add_argument("--cuda-path", help="CUDA toolkit with ptxas")
    parser.add_argument("--only", default="", help="models whose name matches this regular expression")
    args = parser.parse_args()

    version, stored = read_table()
    here, rows = ptxas_version(args.cuda_path), {}
    names = [name for name in MODELS if re.search(args.only, name)]
    with tempfile.TemporaryDirectory(prefix="megalodon-resources.") as folder:
        for name in names:
            measured = measure(args, name, pathlib.Path(folder))
            if measured is None:
                print("skipped: there is no ptxas here to count registers")
                return 0
            rows.update(measured)
    if args.update:
        write_table({**{key: row for key, row in stored.items() if key[0] not in names}, **rows}, here)
        return 0
    if here != version:
        print(f"ptxas is {here}, the table comes from {version}: registers are not compared")
    failed = 0
    for key, row in sorted(rows.items()):
        found = list(problems(key, row, stored.get(key), here == version))
        failed += bool(found)
        for text in found:
            print("NOT OK", *key, text)
    for key in sorted(set(stored) - set(rows)):
        if key[0] in names:
            failed += 1
            print("NOT OK", *key, "is in the table and no longer compiled; run scripts/gpu-resources.py --update")
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
