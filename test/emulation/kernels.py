"""Hand-written kernels for the tests of the emulation, each with what it should compute and with mutants that break its rules.

A kernel's text is the body of a gpu.func; lines that end with `// NAME` are what the mutant NAME leaves out or changes.
"""
import dataclasses
import re
import typing

import numpy as np

W = "#gpu.address_space<workgroup>"


@dataclasses.dataclass
class Mutant:
    label: str
    message: str  # regular expression of the report
    replacement: str = ""  # what stands in the place of the first of the marked lines


@dataclasses.dataclass
class Kernel:
    name: str
    threads: int
    body: str
    inputs: list  # arrays
    outputs: list  # arrays of what is expected
    shared: list = dataclasses.field(default_factory=list)  # types of workgroup memory
    blocks: int = 1
    mutants: list = dataclasses.field(default_factory=list)
    tolerance: float = 0.0
    types: typing.Optional[list] = None  # of the buffers; by default those of the arrays

    def buffers(self):
        return self.inputs + self.outputs

    def buffer_types(self):
        names = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint16": "bf16"}
        return self.types or ["memref<" + "".join(f"{n}x" for n in a.shape) + names[a.dtype.name] + ">" for a in self.buffers()]

    def text(self, mutant=None):
        """The gpu.func; with a mutant its name is NAME.LABEL."""
        name = self.name if mutant is None else f"{self.name}.{mutant.label}"
        lines, replacement = [], mutant.replacement if mutant else ""
        for line in self.body.strip("\n").splitlines():
            mark = re.search(r"//\s*(.*)$", line)
            if mutant and mark and mutant.label in mark[1].split():
                if replacement:
                    lines.append(replacement)
                replacement = ""
                continue
            lines.append(line)
        arguments = ", ".join(f"%b{i}: {kind}" for i, kind in enumerate(self.buffer_types()))
        shared = ", ".join(f"%s{i}: memref<{kind}, {W}>" for i, kind in enumerate(self.shared))
        attributes = f"plan.threads = {self.threads} : i64, plan.words = 1 : i64"
        return (f'gpu.func @"{name}"(%word: i64, {arguments}) {f"workgroup({shared})" if shared else ""} kernel attributes {{{attributes}}} {{\n'
                + PROLOGUE + "\n".join(lines) + "\n  gpu.return\n}\n")


PROLOGUE = "".join(f"  %c{n} = arith.constant {n} : index\n" for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 64)) + """\
  %t = gpu.thread_id x
  %block = gpu.block_id x
  %lane = arith.remui %t, %c32 : index
  %warp = arith.divui %t, %c32 : index
  %width = arith.constant 32 : i32
"""


def random(shape, kind=np.float32, seed=1):
    return np.random.default_rng(seed).integers(-8, 8, shape).astype(kind)


def scan():
    x = random((2, 256))
    steps = "".join(f"""
  %o{i} = arith.constant {1 << i} : i32
  %p{i}, %ok{i} = gpu.shuffle up %x{i}, %o{i}, %width : f32
  %q{i} = arith.select %ok{i}, %p{i}, %zero : f32
  %x{i + 1} = arith.addf %x{i}, %q{i} : f32""" for i in range(5))
    body = f"""
  %zero = arith.constant 0.0 : f32
  %x0 = memref.load %b0[%block, %t] : memref<2x256xf32>{steps}
  %last = arith.cmpi eq, %lane, %c31 : index
  scf.if %last {{
    memref.store %x5, %s0[%warp] : memref<8xf32, {W}>
  }}
  gpu.barrier // race
  %before = scf.for %k = %c0 to %warp step %c1 iter_args(%a = %zero) -> f32 {{
    %v = memref.load %s0[%k] : memref<8xf32, {W}>
    %n = arith.addf %a, %v : f32
    scf.yield %n : f32
  }}
  %y = arith.addf %before, %x5 : f32
  memref.store %y, %b1[%block, %t] : memref<2x256xf32>
"""
    return Kernel("scan", 256, body, [x], [np.cumsum(x, 1)], ["8xf32"], blocks=2, mutants=[Mutant("race", "race: thread .* of shared memory")])


def rotate():
    """Each thread takes its neighbour's number, several times over."""
    x = random((1, 64), np.int32)
    body = f"""
  %x = memref.load %b0[%c0, %t] : memref<1x64xi32>
  %next = arith.addi %t, %c1 : index
  %from = arith.remui %next, %c64 : index
  %y = scf.for %i = %c0 to %c3 step %c1 iter_args(%v = %x) -> i32 {{
    memref.store %v, %s0[%t] : memref<64xi32, {W}>
    gpu.barrier // read
    %n = memref.load %s0[%from] : memref<64xi32, {W}>
    nvvm.barrier0 // write
    scf.yield %n : i32
  }}
  memref.store %y, %b1[%c0, %t] : memref<1x64xi32>
"""
    divergent = "    %low = arith.cmpi ult, %t, %c31 : index\n    scf.if %low {\n      gpu.barrier\n    }"
    branches = "    %low = arith.cmpi ult, %t, %c31 : index\n    scf.if %low {\n      gpu.barrier\n    } else {\n      nvvm.barrier0\n    }"
    body = body.replace("// write", "// write some branches")
    return Kernel("rotate", 64, body, [x], [np.roll(x, -3, 1)], ["64xi32"], mutants=[
        Mutant("read", "race: thread .* of shared memory at memref"),
        Mutant("write", "race: thread .* stores to .*loaded from it at memref.load"),
        Mutant("some", "threads diverge|come to the barrier", divergent),
        Mutant("branches", "threads diverge", branches),
    ])


def warp_exchange():
    """Lanes of a warp through shared memory; the last reader of a place is who stores to it next."""
    x = random((1, 64), np.int32)
    body = f"""
  %mask = arith.constant -1 : i32
  %x = memref.load %b0[%c0, %t] : memref<1x64xi32>
  memref.store %x, %s0[%t] : memref<64xi32, {W}>
  nvvm.bar.warp.sync %mask : i32 // read
  %base = arith.subi %t, %lane : index
  %own = memref.load %s0[%t] : memref<64xi32, {W}>
  %first = memref.load %s0[%base] : memref<64xi32, {W}>
  nvvm.bar.warp.sync %mask : i32 // write
  memref.store %first, %s0[%t] : memref<64xi32, {W}>
  nvvm.bar.warp.sync %mask : i32
  %again = memref.load %s0[%base] : memref<64xi32, {W}>
  %y = arith.addi %own, %again : i32
  memref.store %y, %b1[%c0, %t] : memref<1x64xi32>
"""
    return Kernel("warp_exchange", 64, body, [x], [x + np.repeat(x[:, ::32], 32, 1)], ["64xi32"], mutants=[
        Mutant("read", "race: thread .* of shared memory at memref"), Mutant("write", "race: thread .* stores to"),
    ])


def copies():
    """Copies of 16 bytes in two groups, the second filled with zero behind its third element; 4 bytes by the other way."""
    x = random((32, 8))
    want = np.concatenate([x[:, :7], np.zeros((32, 1), np.float32)], 1)
    want = np.roll(want, -1, 0)
    body = f"""
  %a = nvgpu.device_async_copy %b0[%lane, %c0], %s0[%lane, %c0], 4 {{bypassL1}} : memref<32x8xf32> to memref<32x8xf32, {W}> // misaligned
  %g = nvgpu.device_async_create_group %a
  %b = nvgpu.device_async_copy %b0[%lane, %c4], %s0[%lane, %c4], 4, %c3 : memref<32x8xf32> to memref<32x8xf32, {W}> // size
  %h = nvgpu.device_async_create_group %b
  nvgpu.device_async_wait %g {{numGroups = 1 : i32}} // never
  nvgpu.device_async_wait %h {{numGroups = 0 : i32}} // never one
  gpu.barrier // barrier
  %next = arith.addi %lane, %c1 : index
  %from = arith.remui %next, %c32 : index
  scf.for %i = %c0 to %c8 step %c1 {{
    %v = memref.load %s0[%from, %i] : memref<32x8xf32, {W}>
    memref.store %v, %b1[%lane, %i] : memref<32x8xf32>
  }}
"""
    misaligned = f"  %a = nvgpu.device_async_copy %b0[%lane, %c1], %s0[%lane, %c0], 4 {{bypassL1}} : memref<32x8xf32> to memref<32x8xf32, {W}>"
    size = f"  %b = nvgpu.device_async_copy %b0[%lane, %c4], %s0[%lane, %c4], 4, %c7 : memref<32x8xf32> to memref<32x8xf32, {W}>"
    return Kernel("copies", 32, body, [x], [want], ["32x8xf32"], mutants=[
        Mutant("never", "was not waited for"), Mutant("one", "was not waited for"), Mutant("barrier", "race: thread .* of shared memory at .*device_async_copy|race: thread .*stored to it at nvgpu.device_async_copy|was not waited for"),
        Mutant("misaligned", "multiple of 16 is relied on", misaligned), Mutant("size", "expected 4, 8 or 16 bytes", size),
    ])


def unfinished():
    """A copy that nobody looks at."""
    x = random((1, 32))
    body = f"""
  %v = memref.load %b0[%c0, %t] : memref<1x32xf32>
  memref.store %v, %b1[%c0, %t] : memref<1x32xf32>
  %a = nvgpu.device_async_copy %b0[%c0, %t], %s0[%t], 1 : memref<1x32xf32> to memref<32xf32, {W}>
  %g = nvgpu.device_async_create_group %a
  nvgpu.device_async_wait %g // end
"""
    return Kernel("unfinished", 32, body, [x], [x.copy()], ["32xf32"], mutants=[Mutant("end", "ends while its asynchronous copies")])


def places():
    """Vectors in shared memory and buffers: out of bounds and misaligned."""
    x = random((2, 64))
    body = f"""
  %at = arith.muli %t, %c4 : index
  %v = vector.load %b0[%block, %at] {{alignment = 16 : i64}} : memref<2x64xf32>, vector<4xf32> // buffer
  vector.store %v, %s0[%at] {{alignment = 16 : i64}} : memref<64xf32, {W}>, vector<4xf32> // behind before crooked
  %w = vector.load %s0[%at] {{alignment = 16 : i64}} : memref<64xf32, {W}>, vector<4xf32> // behind before
  vector.store %w, %b1[%block, %at] {{alignment = 16 : i64}} : memref<2x64xf32>, vector<4xf32>
"""
    store = f"  vector.store %v, %s0[%there] {{alignment = 16 : i64}} : memref<64xf32, {W}>, vector<4xf32>"
    nothing = "\n  %w = arith.addf %v, %v : vector<4xf32>"
    return Kernel("places", 16, body, [x], [x.copy()], ["64xf32"], blocks=2, mutants=[
        Mutant("behind", "stores 16 bytes at offset 256 of shared memory .* which has 256 bytes", "  %there = arith.addi %at, %c4 : index\n" + store + nothing),
        Mutant("before", "stores 16 bytes at offset -16 of shared memory", "  %there = arith.subi %at, %c4 : index\n" + store + nothing),
        Mutant("crooked", "multiple of 16 is relied on", "  %there = arith.addi %at, %c1 : index\n" + store),
        Mutant("buffer", "bytes at offset 512 of buffer 0 .* which has 512 bytes",
               "  %after = arith.addi %at, %c4 : index\n  %one = arith.addi %block, %c0 : index\n"
               "  %v = vector.load %b0[%one, %after] {alignment = 16 : i64} : memref<2x64xf32>, vector<4xf32>"),
    ])


def masked():
    """Only lanes that are accessed count."""
    x = random((1, 10))
    body = """
  %at = arith.muli %t, %c4 : index
  %size = arith.constant 10 : index // wide
  %left = arith.subi %size, %at : index
  %mask = vector.create_mask %left : vector<4xi1>
  %zero = arith.constant dense<0.0> : vector<4xf32>
  %v = vector.maskedload %b0[%c0, %at], %mask, %zero : memref<1x10xf32>, vector<4xi1>, vector<4xf32> into vector<4xf32>
  vector.maskedstore %b1[%c0, %at], %mask, %v : memref<1x10xf32>, vector<4xi1>, vector<4xf32>
"""
    return Kernel("masked", 3, body, [x], [x.copy()], mutants=[
        Mutant("wide", "4 bytes at offset 40 of buffer 0", "  %size = arith.constant 11 : index")])


def buffers():
    """Threads of a block through a buffer."""
    x = random((1, 64), np.int32)
    body = """
  %x = memref.load %b0[%c0, %t] : memref<1x64xi32>
  memref.store %x, %b1[%c0, %t] : memref<1x64xi32> // same
  gpu.barrier // read
  %next = arith.addi %t, %c1 : index
  %from = arith.remui %next, %c64 : index
  %y = memref.load %b1[%c0, %from] : memref<1x64xi32>
  memref.store %y, %b2[%c0, %t] : memref<1x64xi32>
"""
    return Kernel("buffers", 64, body, [x], [x.copy(), np.roll(x, -1, 1)], mutants=[
        Mutant("read", "race: .* of buffer 1"),
        Mutant("same", "race: .* stores to .*stored to it",
               "  %half = arith.divui %t, %c2 : index\n  memref.store %x, %b1[%c0, %half] : memref<1x64xi32>")])


def shuffles():
    """All modes, on all types, over whole warps and parts of them."""
    lanes = np.arange(32)
    kinds = {"i32": np.int32, "f32": np.float32, "i64": np.int64, "f64": np.float64}
    cases = [("xor", 5, 32), ("xor", 3, 8), ("up", 2, 32), ("up", 3, 8), ("down", 7, 32), ("down", 1, 16), ("idx", 9, 32), ("idx", 5, 4)]
    inputs = [random((len(cases), 32), kind) * 3 for kind in kinds.values()]
    outputs, valid = [np.empty_like(array) for array in inputs], np.empty((len(cases), 32), np.int32)
    body = ""
    for case, (mode, offset, width) in enumerate(cases):
        source = {"xor": lanes ^ offset, "up": lanes - offset, "down": lanes + offset, "idx": lanes // width * width + offset % width}[mode]
        valid[case] = (source >= lanes // width * width) & (source < (lanes // width + 1) * width)
        source = np.where(valid[case], source, lanes)
        body += f"  %case{case} = arith.constant {case} : index\n  %o{case} = arith.constant {offset} : i32\n  %w{case} = arith.constant {width} : i32\n"
        for i, kind in enumerate(kinds):
            memory = f"memref<{len(cases)}x32x{kind}>"
            body += f"  %x{case}{i} = memref.load %b{i}[%case{case}, %t] : {memory}\n"
            body += f"  %y{case}{i}, %k{case}{i} = gpu.shuffle {mode} %x{case}{i}, %o{case}, %w{case} : {kind}\n"
            body += f"  memref.store %y{case}{i}, %b{i + 4}[%case{case}, %t] : {memory}\n"
            outputs[i][case] = inputs[i][case][source]
        body += f"  %v{case} = arith.extui %k{case}0 : i1 to i32\n  memref.store %v{case}, %b8[%case{case}, %t] : memref<{len(cases)}x32xi32>\n"
    return Kernel("shuffles", 32, body, inputs, outputs + [valid])


def lonely():
    """A shuffle and a barrier of the warp for all lanes or for some."""
    x = random((1, 32), np.int32)
    body = """
  %mask = arith.constant -1 : i32 // part
  %one = arith.constant 1 : i32
  %x = memref.load %b0[%c0, %t] : memref<1x32xi32>
  nvvm.bar.warp.sync %mask : i32
  %y, %ok = gpu.shuffle xor %x, %one, %width : i32 // some
  memref.store %y, %b1[%c0, %t] : memref<1x32xi32>
"""
    some = """
  %low = arith.cmpi ult, %t, %c16 : index
  %y = scf.if %low -> i32 {
    %z, %ok = gpu.shuffle xor %x, %one, %width : i32
    scf.yield %z : i32
  } else {
    scf.yield %x : i32
  }"""
    return Kernel("lonely", 32, body, [x], [x.reshape(16, 2)[:, ::-1].reshape(1, 32)], mutants=[
        Mutant("some", "lanes of warp 0 come to gpu.shuffle", some),
        Mutant("part", "expected all lanes", "  %mask = arith.constant 15 : i32")])


def everyone():
    """Identities of threads, blocks and lanes, and a word of the parameters."""
    threads = np.arange(96, dtype=np.int32)
    want = np.stack([[threads, threads * 0 + block, threads * 0 + 96, threads % 32, threads // 32, threads * 0 + 41] for block in range(3)])
    body = """
  %size = gpu.block_dim x
  %l = gpu.lane_id
  %w = gpu.subgroup_id : index
  %last = arith.index_cast %word : i64 to index
"""
    for i, value in enumerate(["t", "block", "size", "l", "w", "last"]):
        body += f"  %v{i} = arith.index_cast %{value} : index to i32\n  %i{i} = arith.constant {i} : index\n"
        body += f"  memref.store %v{i}, %b0[%block, %i{i}, %t] : memref<3x6x96xi32>\n"
    return Kernel("everyone", 96, body, [], [want.astype(np.int32)], blocks=3)


ALL = [scan, rotate, warp_exchange, copies, unfinished, places, masked, buffers, shuffles, lonely, everyone]
