#!/usr/bin/env python3
"""How a training step would scale: compiles a model of 1.3 billion parameters for growing meshes, simulates a step of each plan on a described machine,
and prints the table of docs/parallelism.md. Nothing is trained; no rank is needed.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
MESHES = ["tp=1", "tp=8", "cp=4,tp=8", "dp=2,cp=4,tp=8", "dp=8,cp=4,tp=8", "dp=32,cp=4,tp=8", "dp=8,pp=4,cp=4,tp=8", "dp=32,pp=4,tp=8", "pp=4",
          "dp=8,tp=8", "dp=64,tp=8", "dp=64"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opt", default=REPOSITORY / "build/bin/megalodon-opt")
    parser.add_argument("--run", default=REPOSITORY / "build/bin/megalodon-run")
    parser.add_argument("--config", default=REPOSITORY / "models/mega1.3B.json")
    parser.add_argument("--heads", type=int, default=8, help="heads instead of the config's, so that tp divides them")
    parser.add_argument("--rows", type=int, default=1, help="rows of a data rank")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a row on a chunk rank")
    parser.add_argument("--opt-arg", action="append", default=[], help="further option of megalodon-opt (may be repeated)")
    parser.add_argument("--simulate-arg", action="append", default=[], help="further option of megalodon-run simulate, as --link=dp=5:50")
    parser.add_argument("meshes", nargs="*", default=MESHES)
    args = parser.parse_args()
    config = {**json.loads(pathlib.Path(args.config).read_text(encoding="utf-8")), "num_heads": args.heads}
    print("| mesh | ranks | rows x tokens | step ms | compute | waiting for collectives | bubble | messages | MB on links | GB a rank | of peak |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for mesh in args.meshes:
            print(row(args, config, mesh, pathlib.Path(folder)), flush=True)


def row(args, config, mesh, folder):
    source, plan = folder / "config.json", folder / "step.plan"
    source.write_text(json.dumps(config), encoding="utf-8")
    sizes = {"dp": 1, "pp": 1, "cp": 1, "tp": 1, **{axis: int(size) for axis, size in (part.split("=") for part in mesh.split(","))}}
    # A pipeline fills with two microbatches a stage.
    rows = sizes["dp"] * args.rows * (2 * sizes["pp"] if sizes["pp"] > 1 else 1)
    length, ranks = sizes["cp"] * args.tokens, sizes["dp"] * sizes["pp"] * sizes["cp"] * sizes["tp"]
    subprocess.run([args.opt, source, f"--mesh={mesh}", f"--entry=train:{rows}x{length}", *args.opt_arg, "-o", plan], check=True)
    simulated = json.loads(subprocess.check_output([args.run, "simulate", plan, "--json", *args.simulate_arg]))
    programs = json.loads(subprocess.check_output([args.run, "inspect", plan, "--json"]))["functions"][0]["programs"]
    step, rate = simulated["functions"][0], simulated["machine"]["flops_per_second"]
    worst = max(step["stages"], key=lambda stage: stage["compute_seconds"])
    peak = step["model_flops"] / (step["seconds"] * ranks * rate)
    return (f"| {mesh} | {ranks:,} | {rows} x {length:,} | {1e3 * step['seconds']:.1f} | {worst['compute_seconds'] / step['seconds']:.0%} | "
            f"{step['exposed_share']:.0%} | {max(0, step['bubble_share']):.0%} | {len(worst['messages']):,} | {1e-6 * worst['wire_bytes']:,.0f} | "
            f"{1e-9 * max(program['memory']['total'] for program in programs):.1f} | {peak:.0%} |")


if __name__ == "__main__":
    main()
