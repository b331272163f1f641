#!/usr/bin/python3
"""What plans for meshes send, need and do, against the closed formulas of docs/parallelism.md; and what a run on virtual ranks and a simulation of
the plan do, message for message.
"""
import argparse
import json
import pathlib
import sys

import numpy as np

import tools
from model_cases import sizes
from report import Report

L, D, N, G, V, FLOAT, DOUBLE = 3, 192, 8, 16, 256, 4, 8
MODEL = {"model_type": "megalodon", **sizes(L, D, 2, 64, 256, 384, N, 64, G, V, swiglu=True, optimizer={"name": "adamw", "clip": 1.0})}
ROWS, LENGTH = 4, 512
NEARLY = 0.05


class TrafficTest:
    def __init__(self, runner, report):
        self.runner, self.report, self.plans = runner, report, {}

    def compile(self, *options, length=LENGTH):
        """A plan and what inspect says of its train_step."""
        key = (options, length)
        if key not in self.plans:
            stem = "-".join([str(length), *options]).replace("=", "").replace(",", "")
            plan = self.runner.compile_entries(stem, MODEL, f"train:{ROWS}x{length}", *options)
            self.plans[key] = plan, self.read("inspect", plan)
        return self.plans[key]

    def read(self, command, plan):
        """What inspect or simulate says of the only function."""
        return json.loads(self.runner.shell([self.runner.args.run, command, plan, "--json"]))["functions"][0]

    def equal(self, case, what, got, want):
        self.report.add(case, what if got == want else f"{what}: expected {want}, got {got}", None, got == want)

    def table(self, case, function, want):
        """Messages and bytes by name and half."""
        got = {(entry["name"], entry["half"]): (entry["messages"], entry["bytes"]) for entry in function["programs"][0]["traffic"]}
        self.equal(case, "messages", sorted(got), sorted(want))
        for key, value in want.items():
            self.equal(case, f"{' '.join(key)}: messages and bytes", got.get(key), value)

    def chunk(self):
        gradients = self.parameters()
        for length in (LENGTH, 2 * LENGTH):
            _, function = self.compile("--mesh=cp=2", length=length)
            case = f"cp=2, {length} tokens"
            floats = ROWS * FLOAT * 2 * (L * (2 * G + 2 * D * N) + 2 * G)
            self.table(case, function, {("all_gather cp", "compute"): (2 * (2 * L + 1), floats),
                                        ("all_reduce cp", "compute"): (1 + 1, gradients[1] + FLOAT)})

    def data(self):
        _, elements = self.parameters()
        _, function = self.compile("--mesh=dp=2")
        self.table("dp=2", function, {("all_reduce dp", "compute"): (1 + 1, elements + FLOAT)})  # all gradients fit one bucket; and the loss

    def tensor(self):
        for ranks in (2,):
            _, function = self.compile(f"--mesh=tp={ranks}")
            tokens = ROWS * LENGTH
            stream = tokens * D * FLOAT
            self.table(f"tp={ranks}", function, {
                ("all_gather tp", "compute"): (8 * L + 2, (10 * L + 1) * stream // ranks + L * 3 * D * FLOAT // ranks + tokens * 2 * FLOAT),
                ("reduce_scatter tp", "compute"): (5 * L + 1, (5 * L + 1) * stream),
                ("all_reduce tp", "compute"): (2 * L, L * tokens * (2 + 4) * DOUBLE),
                ("all_reduce tp", "update"): (1, DOUBLE)})

    def pipeline(self):
        for ranks in (2, 3):
            _, function = self.compile(f"--mesh=pp={ranks}", length=LENGTH // 4)
            case, cuts = f"pp={ranks}", ranks - 1
            for program in function["programs"]:
                stage, microbatches = program["stage"], program["microbatches"]
                stream = ROWS * LENGTH // 4 // microbatches * D * FLOAT
                # The stream to the next stage, its cotangent to the one before.
                neighbours = [other for other in (stage - 1, stage + 1) if 0 <= other <= cuts]
                sends = [message["bytes"] for message in program["messages"] if message["name"] == "send pp"]
                receives = [message["bytes"] for message in program["messages"] if message["name"] == "receive pp"]
                self.equal(case, f"stage {stage}: sends", sends, [stream] * (microbatches * len(neighbours)))
                self.equal(case, f"stage {stage}: receives", receives, sends)

    def parameters(self):
        """Number of tensors, and their bytes."""
        _, function = self.compile()
        shapes = [entry["shape"] for entry in function["inputs"] if entry["role"] == "parameter"]
        return len(shapes), FLOAT * sum(int(np.prod(shape)) for shape in shapes)

    def memory(self):
        plan, one = self.compile()
        whole, flops = one["programs"][0]["memory"], self.read("simulate", plan)["stages"][0]["flops"]
        # Of the tensor axis: what is gathered lies whole beside the parts that live as long.
        for axis, nearly, divided in (("dp", NEARLY, ["activations"]), ("cp", NEARLY, ["activations"]),
                                      ("tp", 2 * NEARLY, ["parameters", "moments", "gradients", "activations"])):
            plan, function = self.compile(f"--mesh={axis}=2")
            memory = function["programs"][0]["memory"]
            for what in divided:
                over = memory[what] / (whole[what] / 2) - 1
                limit = nearly if what == "activations" else NEARLY
                self.report.add(f"{axis}=2", f"{what}: half of one rank's {whole[what]}, got {memory[what]}", abs(over), abs(over) <= limit)
            over = self.read("simulate", plan)["stages"][0]["flops"] / (flops / 2) - 1
            self.report.add(f"{axis}=2", "flops of a rank: half of all", abs(over), abs(over) <= NEARLY)

    def run(self, mesh):
        """The trace of a training step against the simulation's: the same events in the same order, but for their times."""
        case = f"{mesh}, a step"
        plan, function = self.compile(f"--mesh={mesh}")
        folder = pathlib.Path(self.runner.folder)
        data, measured, simulated = folder / "bytes.bin", folder / "measured.json", folder / "simulated.json"
        data.write_bytes(np.random.default_rng(1).integers(0, V, 4 * ROWS * LENGTH, dtype=np.uint8).tobytes())
        self.runner.shell([self.runner.args.run, "train", plan, "--data", data, "--data-type", "bytes", "--steps", 1, "--threads", 1, "--virtual-ranks",
                           "--peak-flops", 1e9, "--out", folder / mesh, "--trace", measured])
        self.runner.shell([self.runner.args.run, "simulate", plan, "--trace", simulated])
        ranks, stages = events(measured), events(simulated)
        size = int(np.prod([int(part.split("=")[1]) for part in mesh.split(",")]))
        self.equal(case, "ranks in the trace", len(ranks), size)
        programs = {program["stage"]: program["messages"] for program in function["programs"]}
        estimate = self.read("simulate", plan)["stages"]
        for rank, (name, got) in ranks.items():
            stage = int(name.split("pp ")[1].split(",")[0])
            begins = [event for event in got if event[0] in ("collective", "send", "receive")]
            for source, messages in (("inspect", programs[stage]), ("simulate", estimate[stage]["messages"])):
                want = [(message["name"], message["location"], message["bytes"], message["microbatch"]) for message in messages]
                self.equal(case, f"rank {rank}: messages, in the order {source} says", [event[1:] for event in begins] == want, True)
            want = stages[stage][1]
            self.equal(case, f"rank {rank}: all events, in simulated order", got == want, True)


def events(path):
    """Of each process its name, and its events in order of their begin: kind, name, place, bytes, microbatch."""
    processes = {}
    for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"]:
        if event["ph"] == "M":
            processes[event["pid"]] = (event["args"]["name"], [])
        else:
            args = event["args"]
            processes[event["pid"]][1].append((event["cat"], event["name"], args["location"], args["bytes"], args["microbatch"]))
    return processes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    tools.add_arguments(parser)
    args = parser.parse_args()
    report = Report(args.verbose)
    test = TrafficTest(tools.Tools(args, "f32"), report)
    cases = {"chunk": test.chunk, "data": test.data, "tensor": test.tensor, "pipeline": test.pipeline, "memory": test.memory}
    cases.update({f"run {mesh}": lambda mesh=mesh: test.run(mesh) for mesh in ("dp=2", "cp=2", "tp=2", "pp=2", "dp=2,cp=2,tp=2", "dp=2,pp=2,cp=2,tp=2")})
    for name, case in cases.items():
        if args.only in name:
            case()
            report.flush()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
