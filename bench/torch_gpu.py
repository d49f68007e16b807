"""flexjit against PyTorch's compiled flex_attention and its SDPA (flash and cuDNN), in one process on the same tensors.

Each case is checked first: one key head and the query heads that share it, in every batch, against float64, next to the
error that flex_attention makes there. Then one call of each is captured in a CUDA graph and its replays are timed: the
median, without the time of the host. FLOPs are 4 D per pair of query and key that the mask leaves forward, 2.5 times as
much backward. Results are saved after each case; what the time did not suffice for is named.

    bench/torch_gpu.py --output DIR [--seconds 300] [--filter 'causal*D128*']

--device emu or cpu runs flexjit there on short cases and only checks: a rehearsal for a machine without a GPU.
"""

import argparse
import fnmatch
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import torch

import flexjit as fj
import torch_cases as tc
from torch_report import write_report

ROOT = Path(__file__).resolve().parent.parent
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL"}
GRADIENTS = ("dq", "dk", "dv")


def array(tensor):
    return fj.Array(tensor.data_ptr(), NAMES[tensor.dtype], tuple(tensor.shape), tensor.stride(), tensor.is_cuda)


# flexjit


class Ours:
    """Forward and backward of a case, ready to run on its tensors."""

    def __init__(self, library, kernels, case, tensors):
        self.results = {"out": torch.full_like(tensors.query, torch.nan)}
        self.results["lse"] = torch.full(tensors.query.shape[:-1], torch.nan, device=tensors.query.device)
        inputs = {"query": tensors.query, "key": tensors.key, "value": tensors.value}
        gradients = [torch.full_like(tensor, torch.nan) for tensor in inputs.values()]
        self.results.update(zip(GRADIENTS, gradients))
        captures = [array(tensors.captures[name]) for name in kernels["captures"]]
        dcaptures = []
        for name in kernels["captures"]:
            tensor = tensors.captures[name]
            wanted = tensor.is_floating_point()
            if wanted:
                self.results[f"d_{name}"] = torch.full_like(tensor, torch.nan)
            dcaptures.append(array(self.results[f"d_{name}"]) if wanted else None)
        forward = {name: array(tensor) for name, tensor in inputs.items()}
        forward.update({name: array(self.results[name]) for name in ("out", "lse")})
        backward = {**forward, "dout": array(tensors.dout)}
        backward.update({f"d{name}": array(tensor) for name, tensor in zip(inputs, gradients)})
        self.calls = {
            "fwd": library.bind(kernels["fwd"], forward, captures, [None] * len(captures), case.scale),
            "bwd": library.bind(kernels["bwd"], backward, captures, dcaptures, case.scale),
        }
        self.kept = (tensors, inputs)
        self.spaces = {name: self.make_space(call.workspace_size()) for name, call in self.calls.items()}

    def make_space(self, size):
        space = torch.empty(size + 256, dtype=torch.uint8, device=self.results["out"].device)
        return space, -(-space.data_ptr() // 256) * 256, size

    def run(self, direction):
        space, address, size = self.spaces[direction]
        stream = torch.cuda.current_stream().cuda_stream if space.is_cuda else None
        self.calls[direction].run(address, size, stream)


class Kernels:
    """Compiles the kernels of all cases, many at a time; those of equal mods are the cache's to share."""

    def __init__(self, library, deterministic, jobs):
        self.library, self.deterministic = library, deterministic
        self.pool = ThreadPoolExecutor(jobs)
        self.made = {}

    @staticmethod
    def key(case):
        return tc.source_of(case), case.head_dim

    def begin(self, case):
        if self.key(case) not in self.made:
            tensors = tc.make(case, 0, "cpu")
            self.made[self.key(case)] = self.pool.submit(self.make, case, tensors.captures)

    def make(self, case, captures):
        bound = {name: array(tensor) for name, tensor in captures.items()}
        mod, names = self.library.mod(tc.source_of(case), bound)
        kernels = {"captures": names, "info": {}}
        for name, direction in (("fwd", fj.FORWARD), ("bwd", fj.BACKWARD)):
            kernels[name], info = self.library.kernel(mod, direction, "BF16", case.head_dim, deterministic=self.deterministic)
            kernels["info"][name] = {
                "variant": info.variant.decode(), "compile_ms": info.compile_ms, "registers": info.registers,
                "spills": info.spill_bytes, "shared": info.shared_bytes,
            }  # fmt: skip
        return kernels

    def wait(self):
        """Nothing is loaded while calls are captured: that would break the capture."""
        wait(self.made.values())
        self.pool.shutdown()

    def of(self, case):
        return self.made[self.key(case)].result()


# The peers


class Peer:
    """PyTorch's forward and backward as one callable each."""

    def __init__(self, name, forward, tensors):
        self.name, self.forward = name, forward
        floats = [x.detach().clone().requires_grad_() for x in tensors.captures.values() if x.is_floating_point()]
        names = [n for n, x in tensors.captures.items() if x.is_floating_point()]
        self.captures = {**tensors.captures, **dict(zip(names, floats))}
        self.inputs = [x.detach().clone().requires_grad_() for x in (tensors.query, tensors.key, tensors.value)]
        self.wanted = self.inputs + floats
        self.names = list(GRADIENTS) + [f"d_{name}" for name in names]
        self.dout, self.out = tensors.dout, None

    def run(self, direction):
        if direction == "fwd":
            with torch.no_grad():
                return self.forward(*self.inputs)
        if self.out is None:
            self.out = self.forward(*self.inputs)
        return torch.autograd.grad(self.out, self.wanted, self.dout, retain_graph=True)

    def results(self):
        return {"out": self.run("fwd"), **dict(zip(self.names, self.run("bwd")))}


def flex_peer(case, tensors):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    peer = Peer("flex", None, tensors)
    score_mod, mask_mod = tc.functions(case, peer.captures)
    block_mask = None
    if mask_mod:
        batch = case.batch if case.mod == "document" else None
        block_mask = create_block_mask(mask_mod, batch, None, case.length, case.length, device=tensors.query.device)
    peer.forward = lambda q, k, v: compiled(
        q, k, v, score_mod=score_mod, block_mask=block_mask, scale=case.scale, enable_gqa=case.group > 1
    )
    return peer


def sdpa_peer(backend):
    def make(case, tensors):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        mod = tc.MODS[case.mod]
        if not mod.is_plain:
            return None
        which = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[backend]

        def forward(q, k, v):
            with sdpa_kernel(which):
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=mod.is_causal, scale=case.scale, enable_gqa=case.group > 1
                )

        return Peer(backend, forward, tensors)

    return make


PEERS = {"flex": flex_peer, "flash": sdpa_peer("flash"), "cudnn": sdpa_peer("cudnn")}


def open_peers(case, tensors, wanted, row):
    """Those that run this case; a failure is kept in words."""
    peers = []
    for name in wanted:
        try:
            peer = PEERS[name](case, tensors)
            if peer:
                peer.run("bwd")
                peers.append(peer)
        except Exception as error:  # whatever a peer throws is its result
            row["failures"][name] = str(error).strip().splitlines()[0][:300] if str(error) else type(error).__name__
    return peers


# Errors


def errors(results, exact):
    """Mean error per result over the sampled heads, relative to the mean magnitude."""
    found = {}
    for name, truth in exact.items():
        if name not in results:
            continue
        here = results[name].double()
        same = torch.where(torch.isinf(truth), here == truth, torch.isfinite(here))
        difference = torch.where(torch.isfinite(truth), (here - truth).abs(), 0.0)
        magnitude = torch.where(torch.isfinite(truth), truth.abs(), 0.0).mean()
        found[name] = float(difference.mean() / magnitude.clamp_min(1e-30)) if bool(same.all()) else float("inf")
    return found


# Error of bfloat16 inputs and outputs: half of 2^-8 relative in the output alone; gradients sum a few such.
LIMITS = {"out": 1e-2, "lse": 1e-3, "dq": 2e-2, "dk": 2e-2, "dv": 2e-2}


def judge(ours, flex):
    """Bad: worse than a limit, or than one and a half times the error of flex_attention where that is known."""
    bad = []
    for name, error in ours.items():
        limit = LIMITS.get(name, 2e-2)
        if name in flex and name != "lse":
            limit = min(limit, 1.5 * flex[name] + 1e-4) if flex[name] < limit else limit
        if not error <= limit:
            bad.append(f"{name}: {error:.2e} > {limit:.2e}")
    return bad


# Time


def capture(run):
    """A CUDA graph of one call, or None where a peer cannot be captured: its calls are then timed as they are."""
    graph, failed = torch.cuda.CUDAGraph(), False
    torch.cuda.synchronize()
    graph.capture_begin()
    try:
        run()
    except Exception:
        failed = True
    try:
        graph.capture_end()
    except Exception:  # what broke the capture also fails its end
        failed = True
    return None if failed else graph


def measure(run, milliseconds):
    """Median, least and greatest time of a call, and whether it is a graph's replay."""
    run()
    graph = capture(run)
    call = graph.replay if graph else run
    call()
    torch.cuda.synchronize()

    def once():
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        return start, stop

    first = once()
    torch.cuda.synchronize()
    count = int(min(200, max(7, milliseconds / max(1e-3, first[0].elapsed_time(first[1])))))
    events = [once() for _ in range(count)]
    torch.cuda.synchronize()
    times = [start.elapsed_time(stop) for start, stop in events]
    return {"ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "graph": graph is not None}


def measure_matmul(size=8192):
    """The peak that all rates can be set against: a large BF16 product by cuBLAS, in TFLOP/s."""
    a, b = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    return 2 * size**3 / measure(lambda: a @ b, 100)["ms"] * 1e-9


# A case


def run_case(options, kernels, case):
    device = "cuda" if options.device == "cuda" else "cpu"
    row = {"case": str(case), "mod": case.mod, "batch": case.batch, "heads": tc.HEADS, "kv_heads": case.kv_heads,
           "length": case.length, "head_dim": case.head_dim, "failures": {}, "errors": {}, "times": {}}  # fmt: skip
    tensors = tc.make(case, options.seed, device)
    pairs = tc.count_pairs(case, tensors)
    row["flops"] = {direction: tc.flops(case, pairs, direction) for direction in ("fwd", "bwd")}
    made = kernels.of(case)
    row["kernels"] = made["info"]
    ours = Ours(kernels.library, made, case, tensors)
    ours.run("fwd")
    ours.run("bwd")
    peers = open_peers(case, tensors, options.peers, row)
    kv_head = case.kv_heads // 2
    exact = tc.reference(case, tensors, kv_head)
    row["errors"]["flexjit"] = errors(tc.sample(case, ours.results, kv_head), exact)
    for peer in peers:
        row["errors"][peer.name] = errors(tc.sample(case, peer.results(), kv_head), exact)
    row["bad"] = judge(row["errors"]["flexjit"], row["errors"].get("flex", {}))
    del exact
    if device == "cuda":
        for name, runner in [("flexjit", ours)] + [(peer.name, peer) for peer in peers]:
            row["times"][name] = {d: measure(lambda d=d, r=runner: r.run(d), options.milliseconds) for d in ("fwd", "bwd")}
    return row


def show(row):
    parts = [f"{row['case']:34}"]
    for name, times in row["times"].items():
        rates = [row["flops"][d] / times[d]["ms"] * 1e-9 for d in ("fwd", "bwd")]
        parts.append(f"{name} {rates[0]:6.1f} / {rates[1]:6.1f}")
    worst = max(row["errors"].get("flexjit", {"": float("nan")}).values())
    parts.append(f"error {worst:.1e} {'BAD ' + ', '.join(row['bad']) if row['bad'] else 'ok'}")
    parts += [f"({name}: {text})" for name, text in row["failures"].items()]
    print("  ".join(parts), flush=True)


# The whole


def warm_up(options, todo):
    """Compiles PyTorch's kernels in processes of their own, which leave them in its cache on disk."""
    first, step = options.warm
    for case in todo[first::step]:
        try:
            peer = flex_peer(case, tc.make(case, options.seed, "cuda"))
            peer.run("fwd")
            peer.run("bwd")
            torch.cuda.synchronize()
        except Exception as error:  # the measuring process reports it
            print(f"{case}: {error}", file=sys.stderr)
        torch._dynamo.reset()


def start_warmers(count):
    command = [sys.executable, __file__, *sys.argv[1:]]
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen([*command, "--warm", f"{i}/{count}"], env=environment, **quiet) for i in range(count)]


def wait_for(processes, end):
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default=str(ROOT / "build/libflexjit.so"))
    parser.add_argument("--output", type=Path, default=Path("."))
    parser.add_argument("--device", choices=["cuda", "emu", "cpu"], default="cuda")
    parser.add_argument("--arch", default="sm_80", help="of the emulator")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--milliseconds", type=float, default=60, help="of timed calls, each")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--lengths", type=int, nargs="*")
    parser.add_argument("--filter", default="*", help="of cases, such as 'causal*D128*'")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=None)
    parser.add_argument("--nondeterministic", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--warm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.tokens = options.tokens or (16384 if on_gpu else 192)
    options.lengths = options.lengths or ([4096, 16384, 1024, 8192, 2048] if on_gpu else [192])
    options.peers = options.peers if options.peers is not None else (list(PEERS) if on_gpu else [])
    options.warm = [int(x) for x in options.warm.split("/")] if options.warm else None
    return options


def prepare_torch():
    """Full float32 in what float32 there is, and no limit to how many shapes a function is compiled for."""
    torch.backends.cuda.matmul.allow_tf32 = False
    for name in ("recompile_limit", "cache_size_limit", "accumulated_recompile_limit", "accumulated_cache_size_limit"):
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 10000)


def describe(options, library):
    about = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "device": options.device, "tokens": options.tokens,
             "deterministic": not options.nondeterministic}  # fmt: skip
    if options.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about.update(device=properties.name, multiprocessors=properties.multi_processor_count, cuda=torch.version.cuda)
        about["cudnn"] = torch.backends.cudnn.version()
        about["matmul_tflops"] = measure_matmul()
    about["flexjit"] = library.c.fj_device_name(library.device).decode()
    return about


def run_all(options, todo):
    library = fj.Flexjit(options.library, options.device, options.arch if options.device == "emu" else None)
    kernels = Kernels(library, not options.nondeterministic, options.jobs)
    report = {"schema": 1, **describe(options, library), "rows": [], "left_out": []}
    for case in todo:
        kernels.begin(case)
    warmers = start_warmers(options.jobs) if "flex" in options.peers else []
    end = time.monotonic() + options.seconds
    wait_for(warmers, time.monotonic() + 0.4 * options.seconds)
    kernels.wait()
    for case in todo:
        if time.monotonic() > end:
            report["left_out"].append(str(case))
            continue
        try:
            row = run_case(options, kernels, case)
        except (fj.Failure, torch.cuda.OutOfMemoryError) as error:
            row = {"case": str(case), "failures": {"flexjit": str(error)}, "errors": {}, "times": {}, "bad": ["did not run"]}
        show(row)
        report["rows"].append(row)
        write_report(report, options.output)
        if torch.cuda.is_available():
            torch._dynamo.reset()
            torch.cuda.empty_cache()
    write_report(report, options.output)
    return report


def main():
    options = parse_options()
    todo = [case for case in tc.cases(options.tokens, options.lengths, [128, 64], [1, 8], tc.MODS)
            if fnmatch.fnmatch(str(case), options.filter)]  # fmt: skip
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_gpu.py: PyTorch sees no GPU")  # status 1: gpu.sh has asked for the device before
    prepare_torch()
    if options.warm:
        return warm_up(options, todo)
    options.output.mkdir(parents=True, exist_ok=True)
    stream = torch.cuda.stream(torch.cuda.Stream()) if options.device == "cuda" else None
    if stream:
        stream.__enter__()  # a capture must not run on the default stream
    report = run_all(options, todo)
    bad = [row["case"] for row in report["rows"] if row["bad"]]
    print(f"{len(report['rows'])} cases, {len(bad)} bad, {len(report['left_out'])} left out for time")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
