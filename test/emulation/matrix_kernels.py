"""Hand-written kernels with matrix instructions. Where which lane keeps which element is written down here once more, from the tables
of the PTX manual ("Matrix Fragments for mma.m16n8k16 with floating point type", "... mma.m16n8k8", "ldmatrix"), independently of
the emulation. One-hot operands show every element by itself: an error in k that is the same in A and B would not show in a product.
"""
import numpy as np

from kernels import W, Kernel, Mutant, random


def to_bf16(values):
    """Exact for small integers."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def a_elements(depth):
    """[lane, register] -> (row, first column) of A; a register holds 2 neighbours (bf16) or 1 (tf32)."""
    lane, i = np.meshgrid(np.arange(32), np.arange(4), indexing="ij")
    group, member = lane // 4, lane % 4
    row = np.where((i == 0) | (i == 2), group, group + 8)
    if depth == 16:
        return row, member * 2 + np.where(i >= 2, 8, 0)
    return row, member + np.where(i >= 2, 4, 0)


def b_elements(depth):
    """[lane, register] -> (first row, column) of B."""
    lane, i = np.meshgrid(np.arange(32), np.arange(2), indexing="ij")
    group, member = lane // 4, lane % 4
    return (member * 2 + 8 * i, group) if depth == 16 else (member + 4 * i, group)


def c_elements():
    lane, i = np.meshgrid(np.arange(32), np.arange(4), indexing="ij")
    return np.where(i < 2, lane // 4, lane // 4 + 8), lane % 4 * 2 + i % 2


def a_registers(a):
    row, column = a_elements(a.shape[-1])
    if a.shape[-1] == 8:
        return np.ascontiguousarray(a[..., row, column], np.float32).view(np.int32)
    pair = np.stack([to_bf16(a[..., row, column]), to_bf16(a[..., row, column + 1])], -1)
    return np.ascontiguousarray(pair).view(np.int32)[..., 0]


def b_registers(b):
    row, column = b_elements(b.shape[-2])
    if b.shape[-2] == 8:
        return np.ascontiguousarray(b[..., row, column], np.float32).view(np.int32)
    pair = np.stack([to_bf16(b[..., row, column]), to_bf16(b[..., row + 1, column])], -1)
    return np.ascontiguousarray(pair).view(np.int32)[..., 0]


def mma_text(kind, depth, a, b, c):
    return (f"nvvm.mma.sync A[{a}] B[{b}] C[{c}] {{layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>, "
            f"multiplicandAPtxType = #nvvm.mma_type<{kind}>, multiplicandBPtxType = #nvvm.mma_type<{kind}>, "
            f"shape = #nvvm.shape<m = 16, n = 8, k = {depth}>}} : (i32, i32, f32) -> !llvm.struct<(f32, f32, f32, f32)>")


def fragments(kind, depth):
    """D = A B + C with registers as given: first A one-hot at each element, then B."""
    rng = np.random.default_rng(3)
    hot_a, hot_b = 16 * depth, depth * 8
    a = rng.integers(-8, 8, (hot_a + hot_b, 16, depth)).astype(np.float32)
    b = rng.integers(-8, 8, (hot_a + hot_b, depth, 8)).astype(np.float32)
    c = rng.integers(-8, 8, (hot_a + hot_b, 16, 8)).astype(np.float32)
    a[:hot_a] = np.eye(hot_a).reshape(hot_a, 16, depth)
    b[hot_a:] = np.eye(hot_b).reshape(hot_b, depth, 8)
    want = a @ b + c
    if kind == "tf32":  # the 13 lowest bits do not count
        a = np.where(a == 0, a, a * (1 + np.float32(2) ** -12))
    row, column = c_elements()
    blocks = len(a)
    body = ""
    for name, buffer, count, element in (("ra", 0, 4, "i32"), ("rb", 1, 2, "i32"), ("rc", 2, 4, "f32")):
        for i in range(count):
            body += f"  %{name}{i} = memref.load %b{buffer}[%block, %t, %c{i}] : memref<{blocks}x32x{count}x{element}>\n"
    body += "  %d = " + mma_text(kind, depth, "%ra0, %ra1, %ra2, %ra3", "%rb0, %rb1", "%rc0, %rc1, %rc2, %rc3") + "\n"
    for i in range(4):
        body += f"  %d{i} = llvm.extractvalue %d[{i}] : !llvm.struct<(f32, f32, f32, f32)>\n"
        body += f"  memref.store %d{i}, %b3[%block, %t, %c{i}] : memref<{blocks}x32x4xf32>\n"
    inputs = [a_registers(a), b_registers(b), c[:, row, column]]
    return Kernel(f"mma_{kind}", 32, body, inputs, [want[:, row, column]], blocks=blocks)


def mma_bf16():
    return fragments("bf16", 16)


def mma_tf32():
    return fragments("tf32", 8)


def tiles(count, transpose):
    """Every element of `count` tiles of 8 x 8 is its own number; lane 8 i + r names row r of tile i, rows lie 16 elements apart."""
    numbers = np.arange(32 * 16, dtype=np.uint16).reshape(32, 16)
    tile = numbers[:8 * count, :8].reshape(count, 8, 8)
    lane = np.arange(32)
    pairs = np.empty((1, 32, count, 2), np.uint16)
    for half in range(2):
        row, column = lane // 4, lane % 4 * 2 + half
        pairs[0, :, :, half] = (tile[:, column, row] if transpose else tile[:, row, column]).T
    body = f"""
  scf.for %i = %c0 to %c16 step %c1 {{
    %v = memref.load %b0[%t, %i] : memref<32x16xbf16>
    memref.store %v, %s0[%t, %i] : memref<32x16xbf16, {W}>
  }}
  gpu.barrier // race
  %named = arith.constant {8 * count} : index
  %row = arith.remui %lane, %named : index
  %m = nvgpu.ldmatrix %s0[%row, %c0] {{numTiles = {count} : i32, transpose = {str(transpose).lower()}}} : memref<32x16xbf16, {W}> -> vector<{count}x2xbf16> // crooked
  %v = vector.shape_cast %m : vector<{count}x2xbf16> to vector<{2 * count}xbf16>
  %flat = memref.collapse_shape %b1 [[0], [1], [2, 3]] : memref<1x32x{count}x2xbf16> into memref<1x32x{2 * count}xbf16>
  vector.store %v, %flat[%c0, %t, %c0] : memref<1x32x{2 * count}xbf16>, vector<{2 * count}xbf16>
"""
    crooked = f"  %m = nvgpu.ldmatrix %s0[%row, %c1] {{numTiles = {count} : i32, transpose = false}} : memref<32x16xbf16, {W}> -> vector<{count}x2xbf16>"
    mutants = [Mutant("race", "race: thread .* at nvgpu.ldmatrix"), Mutant("crooked", "nvgpu.ldmatrix.* multiple of 16 is relied on", crooked)]
    name = f"ldmatrix_x{count}" + "_trans" * transpose
    return Kernel(name, 32, body, [numbers], [pairs], ["32x16xbf16"], mutants=mutants if count == 4 and not transpose else [])


def product():
    """64 x 32 = (64 x 64) (64 x 32) in bf16 by 4 warps: copies two steps ahead, ldmatrix, mma."""
    a, b = random((64, 64), seed=5), random((64, 32), seed=6)
    registers = []
    for i in range(4):
        registers.append(f"    %p{i} = vector.extract %fa[{i}] : vector<2xbf16> from vector<4x2xbf16>\n"
                         f"    %q{i} = vector.bitcast %p{i} : vector<2xbf16> to vector<1xi32>\n"
                         f"    %a{i} = vector.extract %q{i}[0] : i32 from vector<1xi32>\n")
    parts = ""
    for n in range(4):
        for i in range(2):
            parts += (f"    %u{n}{i} = vector.extract %fb{n}[{i}] : vector<2xbf16> from vector<2x2xbf16>\n"
                      f"    %v{n}{i} = vector.bitcast %u{n}{i} : vector<2xbf16> to vector<1xi32>\n"
                      f"    %b{n}{i} = vector.extract %v{n}{i}[0] : i32 from vector<1xi32>\n")
    for n in range(4):
        c = ", ".join(f"%x{n}{i}" for i in range(4))
        parts += f"    %d{n} = " + mma_text("bf16", 16, "%a0, %a1, %a2, %a3", f"%b{n}0, %b{n}1", c) + "\n"
        for i in range(4):
            parts += f"    %y{n}{i} = llvm.extractvalue %d{n}[{i}] : !llvm.struct<(f32, f32, f32, f32)>\n"
    loads = "".join(f"    %n{n} = arith.constant {8 * n} : index\n    %fb{n} = nvgpu.ldmatrix %s1[%stage, %l16, %n{n}] "
                    f"{{numTiles = 2 : i32, transpose = true}} : memref<2x16x32xbf16, {W}> -> vector<2x2xbf16>\n" for n in range(4))
    flat = [f"{n}{i}" for n in range(4) for i in range(4)]
    copy = f"""
  %copied{{0}} = scf.if %inside{{0}} -> index {{{{
    %g = nvgpu.device_async_copy %b0[%copyrow, %copycol{{0}}], %s0[%to{{0}}, %copyrow, %half], 8 {{{{bypassL1}}}} : memref<64x64xbf16> to memref<2x64x16xbf16, {W}>
    scf.if %is_b {{{{
      %h = nvgpu.device_async_copy %b1[%browin{{0}}, %bcol], %s1[%to{{0}}, %brow, %bcol], 8 {{{{bypassL1}}}} : memref<64x32xbf16> to memref<2x16x32xbf16, {W}>
    }}}}
    scf.yield %c0 : index
  }}}} else {{{{
    scf.yield %c0 : index
  }}}}
  %group{{0}} = nvgpu.device_async_create_group {{{{}}}}"""
    body = f"""
  %zero = arith.constant 0.0 : f32
  %copyrow = arith.divui %t, %c2 : index
  %side = arith.remui %t, %c2 : index
  %half = arith.muli %side, %c8 : index
  %is_b = arith.cmpi ult, %t, %c64 : index
  %brow = arith.divui %t, %c4 : index
  %bpart = arith.remui %t, %c4 : index
  %bcol = arith.muli %bpart, %c8 : index
  %l16 = arith.remui %lane, %c16 : index
  %lh = arith.divui %lane, %c16 : index
  %acol = arith.muli %lh, %c8 : index
  %warprow = arith.muli %warp, %c16 : index
  %arow = arith.addi %warprow, %l16 : index
  %inside_first = arith.constant true
  %to_first = arith.constant 0 : index
  %copycol_first = arith.addi %half, %c0 : index
  %browin_first = arith.remui %brow, %c16 : index
{copy.format("_first")}
  %r:16 = scf.for %k = %c0 to %c64 step %c16 iter_args({", ".join(f"%x{f} = %zero" for f in flat)}) -> ({", ".join(["f32"] * 16)}) {{
  %step = arith.divui %k, %c16 : index
  %stage = arith.remui %step, %c2 : index
  %to = arith.subi %c1, %stage : index
  %ahead = arith.addi %k, %c16 : index
  %inside = arith.cmpi ult, %ahead, %c64 : index
  %copycol = arith.addi %ahead, %half : index
  %browin = arith.addi %ahead, %brow : index
{copy.format("")}
  nvgpu.device_async_wait %group {{numGroups = 1 : i32}} // wait late
  gpu.barrier // arrive
    %fa = nvgpu.ldmatrix %s0[%stage, %arow, %acol] {{numTiles = 4 : i32, transpose = false}} : memref<2x64x16xbf16, {W}> -> vector<4x2xbf16>
{loads}{"".join(registers)}{parts}
  gpu.barrier // leave
  scf.yield {", ".join(f"%y{f}" for f in flat)} : {", ".join(["f32"] * 16)}
  }}
  nvgpu.device_async_wait %group_first // wait late
  %g4 = arith.divui %lane, %c4 : index
  %m4 = arith.remui %lane, %c4 : index
  %column = arith.muli %m4, %c2 : index
  %row = arith.addi %warprow, %g4 : index
  %below = arith.addi %row, %c8 : index
"""
    for n in range(4):
        body += f"  %at{n} = arith.constant {8 * n} : index\n  %col{n} = arith.addi %column, %at{n} : index\n"
        for i, row in ((0, "row"), (2, "below")):
            body += (f"  %o{n}{i} = vector.from_elements %r#{4 * n + i}, %r#{4 * n + i + 1} : vector<2xf32>\n"
                     f"  vector.store %o{n}{i}, %b2[%{row}, %col{n}] {{alignment = 8 : i64}} : memref<64x32xf32>, vector<2xf32>\n")
    return Kernel("product", 128, body, [to_bf16(a), to_bf16(b)], [a @ b], ["2x64x16xbf16", "2x16x32xbf16"], mutants=[
        Mutant("wait", "was not waited for"),
        Mutant("arrive", "race: thread .* at nvgpu.ldmatrix|was not waited for"),
        Mutant("leave", "race: thread .* stores to .* at nvgpu.device_async_copy|was not waited for"),
    ])


ALL = [mma_bf16, mma_tf32, *(lambda c=c, t=t: tiles(c, t) for c in (1, 2, 4) for t in (False, True)), product]
