#!/usr/bin/env python3
"""What limits the main loop of the cuda kernels, counted in their machine code. No GPU is needed.

usage: sass.py [-h] [--arch LIST] [--dtype LIST] [--head-dim LIST] [--direction LIST] [--mod LIST] [--variant NAME]
               [--define NAME=VALUE] [--classes] [--list FILE] [FILE.cu | FILE.cubin ...]

`flexjit show --stage source` gives the text of a kernel, NVRTC compiles it with the options of the library, nvdisasm
takes it apart. In each kernel with matrix products the path around its main loop is found that has all products and
copies, and else the least instructions: the copy of the loop without mask. A loop inside of it whose products stand
there once counts --trips times.

Per warp and turn of that loop, in cycles of one of an SM's four schedulers, were it alone in using it:

    issue    instructions: a scheduler sends one each cycle
    tensor   products on the tensor core
    special  exponentials, reciprocals, conversions of ints: 4 lanes wide (MUFU)
    shared   bytes from and to shared memory; its 128 bytes per cycle belong to all four schedulers
    fma      float32 arithmetic and integer multiplications
    alu      comparisons, selections, integer and logic operations, packing
    alone    the cycles that the compiler lets one warp wait between its instructions: what a scheduler with a
             single warp needs at least; the excess over the greatest other column is what further warps must fill

limit names the greatest of these (without alone); reach is tensor over it: the share of the matrix peak that cannot be
exceeded. warps: how many of its warps each scheduler holds, by registers and shared memory. local: spilled
registers, loads and stores of them in that turn / in the rest of the kernel. loads: from global memory in that turn
(captured tensors; copies to shared memory are not counted), stores: to it in the whole kernel: of 16 bytes / of 8 / of
less.
"""

import argparse
import collections
import ctypes
import ctypes.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Cycles of a scheduler: tensor, one m16n8k16 of 16-bit elements accumulated in float32; fma, alu: one instruction of
# a warp. shared, threads: of an SM, bytes and greatest number. Throughputs are those of the CUDA programming guide's
# table of arithmetic instructions and of the data sheets; sm_90 does mma.sync at about 0.62 of the rate of wgmma, 4.
Machine = collections.namedtuple("Machine", "tensor fma alu shared threads")
MACHINES = {
    80: Machine(8, 2, 2, 164, 2048),
    86: Machine(16, 1, 2, 100, 1536),
    89: Machine(16, 1, 2, 100, 1536),
    90: Machine(6.5, 1, 2, 228, 2048),
    100: Machine(8, 1, 2, 228, 2048),
    120: Machine(16, 1, 2, 100, 1536),
}
MUFU = 8
LDS_BYTES = 32  # 128 bytes per cycle over four schedulers
RESERVED = 1024  # shared memory that each block takes besides its own

MODS = {
    "none": ["--score", "score"],
    "causal": ["--mask", "q >= kv"],
    "alibi": ["--score", "score + slopes[h] * (kv - q)", "--bind", "slopes=F32[?]"],
    "softcap": ["--score", "20 * tanh(score / 20)"],
    "document": ["--mask", "doc[q] == doc[kv]", "--bind", "doc=I32[?]"],
    "bias": ["--score", "score + bias[h, kv - q + 100000]", "--bind", "bias=F32[?,?]"],
}

CLASSES = [  # the first that matches
    ("mma", r"[HQ]?MMA|IMMA|HGMMA|QGMMA"),
    ("ldsm", r"LDSM"),
    ("lds", r"LDS|STS|STSM|ATOMS"),
    ("copy", r"LDGSTS|UBLKCP|UTMA"),
    ("wait", r"LDGDEPBAR|DEPBAR|BAR|WARPSYNC|SYNCS|ARRIVES|MEMBAR|ERRBAR|NANOSLEEP|CCTL"),
    ("memory", r"LDG|STG|LD|ST|LDL|STL|RED|ATOM|ATOMG|LDC"),
    ("mufu", r"MUFU|I2F|F2I|FRND|POPC|FLO|I2I"),
    ("pack", r"F2F|F2FP|I2FP|HADD2|HFMA2|PRMT"),
    ("float", r"FFMA|FMUL|FADD|FFMA32I"),
    ("select", r"FMNMX|FMNMX3|FSEL|FSETP|FSET|SEL|FCHK"),
    ("shuffle", r"SHFL|VOTE|VOTEU|MATCH|REDUX"),
    ("move", r"MOV|CS2R|S2R|S2UR|R2UR|UMOV|IMAD\.MOV|P2R|R2P|PLOP3|ULDC|UP2UR"),
    ("mul", r"IMAD|UIMAD"),
    ("int", r"IADD3|LEA|LOP3|SHF|ISETP|IMNMX|VIMNMX|BMSK|IABS|U[A-Z0-9]+|SGXT|LOP|IADD|VIADD"),
    ("branch", r"BRA|BSSY|BSYNC|EXIT|CALL|RET|NOP|BREAK|YIELD|JMP|BRX"),
]
FMA_PIPE = ("float", "mul")
ALU_PIPE = ("select", "int", "pack")
ORDER = [name for name, _ in CLASSES] + ["other"]
MATCHERS = [(name, re.compile(rf"(?:{pattern})(?:\.|$)")) for name, pattern in CLASSES]


def class_of(opcode):
    for name, matcher in MATCHERS:
        if matcher.match(opcode):
            return name
    return "other"


class Op:
    """One instruction."""

    def __init__(self, address, guard, opcode, rest, control):
        self.address, self.guard, self.opcode, self.rest = address, guard, opcode, rest
        self.kind = class_of(opcode)
        self.stall = max(1, control >> 41 & 15)  # bits 105..108 of the encoding

    def shared_bytes(self):
        """What moves between shared memory and a warp's registers."""
        if self.kind == "ldsm":
            return 128 * (4 if ".4" in self.opcode else 2 if ".2" in self.opcode else 1)
        if self.kind == "lds":
            return 512 if ".128" in self.opcode else 256 if ".64" in self.opcode else 128
        return 512 if self.opcode.startswith("LDGSTS") else 0

    def tensor_cycles(self, machine):
        """By the shape in the opcode: 16816 of 16-bit elements is the unit."""
        if self.kind != "mma":
            return 0
        shape = re.search(r"\.(16816|1688|16832|1684)", self.opcode)
        depth = {"16816": 1.0, "1688": 0.5, "1684": 0.25}[shape.group(1)] if shape else 1.0
        return machine.tensor * depth * (2 if "TF32" in self.opcode else 1)


# ---- Code objects ------------------------------------------------------------------------------------------------


def open_nvrtc():
    names = [os.environ.get("FLEXJIT_NVRTC"), "libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"]
    for name in [*names, "/usr/local/cuda/lib/libnvrtc.so", ctypes.util.find_library("nvrtc")]:
        try:
            if name:
                return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit("sass.py: no NVRTC; set FLEXJIT_NVRTC to its library")


def compile_text(text, arch, defines):
    nvrtc, program, size = open_nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"--gpu-architecture=sm_{arch}", "--std=c++17", "-default-device", "--fmad=false", "--ptxas-options=-v"]
    options = [option.encode() for option in options + [f"-D{define}" for define in defines]]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if failed:
        sys.exit(log.value.decode())
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw, log.value.decode()


def resources_of(log):
    """By kernel: registers, bytes of spill stores and loads."""
    block = r"Function properties for (\w+)\s+ptxas.*?(\d+) bytes spill stores, (\d+) bytes spill loads\s+.*?Used (\d+) reg"
    return {name: (int(used), int(stores) + int(loads)) for name, stores, loads, used in re.findall(block, log)}


def disassemble(cubin):
    """By kernel: registers, instructions, and labels by name."""
    tool = os.environ.get("NVDISASM") or shutil.which("nvdisasm") or "/usr/local/cuda/bin/nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        try:
            text = subprocess.run([tool, "-c", "-hex", file.name], check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"sass.py: nvdisasm of the CUDA toolkit is needed (PATH or NVDISASM): {error}")
    line = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:\{ )?(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*(.*?)\s*;")
    kernels, current, labels = {}, None, []
    for row in text.splitlines():
        if found := re.match(r"\s+\.section\s+\.text\.(\w+)", row):
            current = kernels[found[1]] = {"registers": 0, "ops": [], "labels": {}}
            labels = []
        elif found := re.search(r"SHI_REGISTERS=(\d+)", row):
            current["registers"] = int(found[1])
        elif found := re.match(r"(\.L_x_\d+):", row):
            labels.append(found[1])
        elif current and (found := line.match(row)):
            op = Op(int(found[1], 16), (found[2] or "").strip(), found[3], found[4], 0)
            for label in labels:
                current["labels"][label] = len(current["ops"])
            labels = []
            current["ops"].append(op)
        elif current and current["ops"] and (found := re.fullmatch(r"\s+/\* 0x([0-9a-f]{16}) \*/", row)):
            op = current["ops"][-1]
            op.stall = max(1, int(found[1], 16) >> 41 & 15)
    return kernels


# ---- The main loop -----------------------------------------------------------------------------------------------


def target_of(op, labels):
    found = re.search(r"`\((\.L_x_\d+)\)", op.rest)
    return labels.get(found[1]) if found else None


def successors(ops, labels):
    """By instruction: those that may follow. BSYNC goes on where its BSSY says."""
    joins, following = {}, []
    for i, op in enumerate(ops):
        if op.opcode == "BSSY" or op.opcode.startswith("BSSY."):
            joins[op.rest.split(",")[0].strip()] = target_of(op, labels)
    for i, op in enumerate(ops):
        name = op.opcode.split(".")[0]
        after = [i + 1] if i + 1 < len(ops) else []
        if name == "BRA":
            to = target_of(op, labels)
            always = not op.guard and not re.match(r"!?U?P\d", op.rest)
            after = ([] if always else after) + ([to] if to is not None else [])
        elif name == "CALL":  # ptxas jumps with it, too
            to = target_of(op, labels)
            after = after + ([to] if to is not None else [])
        elif name in ("EXIT", "RET", "BREAK") and not op.guard:
            after = []
        following.append(after)
    return following


def natural_loops(following):
    """By header: its members, over all edges that go back."""
    before = collections.defaultdict(list)
    for i, after in enumerate(following):
        for to in after:
            before[to].append(i)
    loops = collections.defaultdict(set)
    for i, after in enumerate(following):
        for to in after:
            if to > i:
                continue
            members, open_ends = loops[to], [i]
            members.add(to)
            while open_ends:
                at = open_ends.pop()
                if at in members or at < to:
                    continue
                members.add(at)
                open_ends += before[at]
    return loops


def after_order(header, members, following):
    """Members, each behind those that may follow it but for turns of inner loops: wherever ptxas has put them."""
    order, seen, open_ends = [], {header}, [(header, iter(following[header]))]
    while open_ends:
        at, ways = open_ends[-1]
        to = next((way for way in ways if way in members and way not in seen), None)
        if to is None:
            order.append(at)
            open_ends.pop()
        else:
            seen.add(to)
            open_ends.append((to, iter(following[to])))
    return order


def main_path(ops, labels, trips):
    """The instructions of a turn, with how often each; None where there are no products in a loop."""
    following = successors(ops, labels)
    loops = natural_loops(following)
    products = {header: sum(ops[i].kind == "mma" for i in members) for header, members in loops.items()}
    if not any(products.values()):
        return None
    header = max(products, key=lambda h: (products[h], -len(loops[h])))  # the innermost of those with all of them
    members = loops[header]
    times = dict.fromkeys(members, 1)
    for inner, inside in loops.items():
        if inner != header and inner in members and products[inner]:
            for i in inside:
                times[i] = trips
    for inner, inside in loops.items():  # a turn of an inner loop that is left at its top goes on behind it
        if inner == header or inner not in members or not products[inner]:
            continue
        ways_out = {to for i in inside for to in following[i] if to not in inside}
        for i in inside:
            if inner in following[i]:
                following[i] = following[i] + [to for to in ways_out if to > i]
    best = {}  # from an instruction to the end of the turn: (products, copies, -instructions), the next
    for i in after_order(header, members, following):
        own = (times[i] * (ops[i].kind == "mma"), times[i] * (ops[i].kind == "copy"), -times[i])
        ways = [(best[to][0], to) for to in following[i] if to != header and to in best]
        if header in following[i]:
            ways.append(((0, 0, 0), None))
        if ways:
            rest, to = max(ways, key=lambda way: way[0])
            best[i] = (tuple(a + b for a, b in zip(own, rest)), to)
    path, at = [], header
    while at is not None:
        path.append((ops[at], times[at]))
        at = best[at][1]
    return path


# ---- The table -----------------------------------------------------------------------------------------------------


def count(path, machine):
    counts = collections.Counter()
    for op, times in path:
        counts[op.kind] += times
        counts["issue"] += times
        counts["tensor"] += times * op.tensor_cycles(machine)
        counts["shared"] += times * op.shared_bytes() / LDS_BYTES
        counts["alone"] += times * op.stall
        uniform = op.opcode.startswith("U")
        counts["alu"] += times * machine.alu * (op.kind in ALU_PIPE and not uniform)
        counts["fma"] += times * machine.fma * (op.kind in FMA_PIPE or op.opcode.startswith("IMAD"))
    counts["special"] = MUFU * counts["mufu"]
    return counts


def warps_of(machine, registers, shared, threads):
    """Of a scheduler."""
    each = (registers + 7) // 8 * 8 * 32 * (threads // 32)
    blocks = min(65536 // each, machine.threads // threads, machine.shared * 1024 // (shared + RESERVED))
    return blocks * threads // 128, blocks


def accesses(ops, opcode):
    """Of global memory, by size."""
    wanted = [op.opcode for op in ops if op.opcode.split(".")[0] == opcode]
    sizes = ["128" if ".128" in name else "64" if ".64" in name else "" for name in wanted]
    return "/".join(str(sizes.count(size)) for size in ("128", "64", ""))


def spills_of(ops):
    return sum(op.opcode.split(".")[0] in ("LDL", "STL") for op in ops)


def define_of(text, name):
    found = re.search(rf"^#define {name} (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


BOUNDS = ("issue", "tensor", "special", "shared", "fma", "alu")


def report(label, arch, cubin, log, shape, trips, wanted):
    machine, resources = MACHINES[arch], resources_of(log)
    for name, kernel in disassemble(cubin).items():
        path = main_path(kernel["ops"], kernel["labels"], trips)
        if not path:
            continue
        counts = count(path, machine)
        limit = max(BOUNDS, key=lambda bound: counts[bound])
        registers, spills = resources.get(name, (kernel["registers"], 0))
        warps = blocks = 0
        if shape["threads"]:
            warps, blocks = warps_of(machine, registers, shape["shared"], shape["threads"])
        row = f"{label + ' ' + name:<52} sm_{arch:<4}{registers:>4}{spills:>6}"
        row += f"{shape['shared'] / 1024:>5.0f}K{blocks:>3}{warps:>4} |"
        row += "".join(f"{counts[bound]:>8.0f}" for bound in BOUNDS) + f"{counts['alone']:>7.0f} | "
        row += f"{limit:<8}{counts['tensor'] / counts[limit]:>5.0%}{counts['issue'] / max(1, counts['tensor']):>6.2f}"
        turn = [op for op, _ in path]
        local = f"{spills_of(turn)}/{spills_of(kernel['ops']) - spills_of(turn)}"
        row += f"{local:>7}{accesses(turn, 'LDG'):>9}{accesses(kernel['ops'], 'STG'):>9}"
        print(row)
        if wanted["classes"]:
            print("    " + "  ".join(f"{kind} {counts[kind]}" for kind in ORDER if counts[kind]))
        if wanted["list"]:
            with open(wanted["list"], "w", encoding="utf-8") as file:
                file.writelines(f"{op.address:05x} {op.guard:>5} {op.opcode} {op.rest}\n" for op, _ in path)


def heading():
    bounds = "".join(f"{bound:>8}" for bound in BOUNDS)
    print(f"{'kernel':<52} {'arch':<7}{'regs':>4}{'spill':>6}{'mem':>6}{'blk':>3}{'wrp':>4} |{bounds}{'alone':>7} | "
          f"{'limit':<8}{'reach':>5}{'i/t':>6}{'local':>7}{'loads':>9}{'stores':>9}")


def source_of(options, arch, dtype, dim, direction, mod):
    command = [options.tool, "show", "--device", "cuda", "--arch", f"sm_{arch}", "--dtype", dtype, "--head-dim"]
    command += [str(dim), "--direction", direction, "--stage", "source", *MODS[mod]]
    command += ["--variant", options.variant] if options.variant else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def shape_of(text):
    return {"shared": define_of(text, "FJ_SHARED_BYTES"), "threads": 32 * define_of(text, "FJ_WARPS")}


def parse():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "), add_help=True)
    parser.add_argument("--tool", default=os.environ.get("FLEXJIT", "build/flexjit"))
    parser.add_argument("--arch", default="80,90")
    parser.add_argument("--dtype", default="BF16")
    parser.add_argument("--head-dim", default="64,128")
    parser.add_argument("--direction", default="fwd,bwd")
    parser.add_argument("--mod", default="none,causal,alibi,softcap", help=" ".join(MODS))
    parser.add_argument("--variant", help="instead of the plan's first")
    parser.add_argument("--define", action="append", default=[], help="for the kernel text, as -D")
    parser.add_argument("--trips", type=int, default=1, help="turns of an inner loop with products")
    parser.add_argument("--classes", action="store_true", help="instructions by class, too")
    parser.add_argument("--list", help="the path's instructions, to this file")
    parser.add_argument("files", nargs="*", help="kernel texts or cubins instead")
    return parser.parse_args()


def main():
    options = parse()
    wanted = {"classes": options.classes, "list": options.list}
    archs = [int(arch.removeprefix("sm_")) for arch in options.arch.split(",")]
    heading()
    for name in options.files:
        data = pathlib.Path(name).read_bytes()
        for arch in archs:
            cubin, log, shape = data, "", {"shared": 0, "threads": 0}
            if not name.endswith(".cubin"):
                shape = shape_of(data.decode())
                cubin, log = compile_text(data, arch, options.define)
            report(pathlib.Path(name).stem, arch, cubin, log, shape, options.trips, wanted)
    if options.files:
        return
    for direction in options.direction.split(","):
        for dim in options.head_dim.split(","):
            for mod in options.mod.split(","):
                for arch in archs:
                    text = source_of(options, arch, options.dtype, dim, direction, mod)
                    variant = re.search(r'FJ_VARIANT "(\w+)"', text)[1]
                    cubin, log = compile_text(text.encode(), arch, options.define)
                    report(f"{variant} {mod}", arch, cubin, log, shape_of(text), options.trips, wanted)


if __name__ == "__main__":
    main()
