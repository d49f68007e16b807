#!/usr/bin/env python3
"""The kernel cache under processes that race, are killed, and whose file operations fail.

  cold      so many processes at once on an empty layer and the same keys
  kills     builds killed at a moment that the seed chooses, some of them while the layer is over its limit
  faults    one file operation after the other fails, of each kind and with several reasons (needs strace)
  warm      a start beside 10,000 other entries, and the first write there

After each: `flexjit cache verify` finds nothing wrong, every kernel can be had, and nothing that was complete is compiled
again. Kernels are compiled by the tests' fake NVRTC. Exit status 1: something does not hold. Standard library alone.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    "openat": ("EIO", "EMFILE", "ESTALE"), "read": ("EIO", "ESTALE"), "write": ("EIO", "ENOSPC"), "fsync": ("EIO",), "close": ("EIO",),
    "fstat": ("EIO",), "newfstatat": ("EIO", "ESTALE"), "utimensat": ("EPERM",), "rename": ("EIO",), "renameat": ("EIO", "ESTALE"),
    "unlinkat": ("EIO",), "mkdir": ("ENOSPC",), "getdents64": ("EIO",), "flock": ("ENOLCK",),
}  # fmt: skip


class Stress:
    def __init__(self, options, folder):
        self.options, self.folder, self.failures = options, folder, 0
        self.layer = folder / "layer"
        self.env = {**os.environ, "FLEXJIT_NVRTC": str(options.nvrtc), "FLEXJIT_TUNE_PATH": str(folder / "tune"), "FLEXJIT_NO_JIT": ""}
        self.env.pop("FLEXJIT_CACHE_SIZE", None)
        self.random = random.Random(options.seed)

    def manifest(self, keys, name="m.json"):
        problem = {"dtype": "BF16", "head_dim": list(range(6, 6 * keys + 1, 6)), "value_dim": 16, "few_queries": False}
        path = self.folder / name
        path.write_text(json.dumps({"schema": 1, "entries": [{"score": "score * 2", "problems": [problem]}]}))
        return path

    def command(self, manifest, *more):
        return [self.options.tool, "prebuild", "--manifest", manifest, "--arch", "sm_80", "--output", self.layer, "--json", *more]

    def expect(self, holds, text):
        if not holds:
            self.failures += 1
            print("FAILED:", text, flush=True)

    def report(self, command, env=None):
        done = subprocess.run(command, capture_output=True, text=True, env={**self.env, **(env or {})}, check=False)
        self.expect(done.returncode == 0, f"{command[1:3]} ended with {done.returncode}: {done.stderr[-300:]}")
        return json.loads(done.stdout) if done.stdout else collections.defaultdict(int)

    def verify(self, when):
        done = subprocess.run([self.options.tool, "cache", "verify"], capture_output=True, text=True, check=False,
                              env={**self.env, "FLEXJIT_CACHE_PATH": str(self.layer)})  # fmt: skip
        self.expect(done.returncode == 0, f"{when}: cache verify: {done.stdout[-300:]}{done.stderr[-300:]}")

    def fresh(self):
        shutil.rmtree(self.layer, ignore_errors=True)

    def temporaries(self):
        return [path for path in self.layer.glob(".new-*")]

    def complete(self):
        """Kernels, and the records whose kernel is there, with what tells a file from one written in its place."""
        inodes = {path.name: path.stat().st_ino for path in self.layer.glob("*.kernel")}
        for path in self.layer.glob("*.select"):
            entry = path.read_bytes()
            record = json.loads(entry[64 : 64 + int.from_bytes(entry[32:40], "little")])  # cache/entry.h
            if record["content"] + ".kernel" in inodes:
                inodes[path.name] = path.stat().st_ino
        return inodes

    # ---- The parts ---------------------------------------------------------------------------------------

    def cold(self):
        self.fresh()
        manifest, keys = self.manifest(self.options.keys), self.options.keys
        start = time.monotonic()
        running = [subprocess.Popen(self.command(manifest, "-j2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env, text=True)
                   for _ in range(self.options.processes)]  # fmt: skip
        compiled = 0
        for process in running:
            stdout, stderr = process.communicate()
            self.expect(process.returncode == 0, f"cold: a process ended with {process.returncode}: {stderr[-300:]}")
            compiled += json.loads(stdout)["compiled"] if stdout else 0
        seconds = time.monotonic() - start
        self.verify("cold")
        self.expect(len(list(self.layer.glob("*.kernel"))) == keys, "cold: not one kernel for each key")
        self.expect(not self.temporaries(), "cold: temporary files are left")
        again = self.report(self.command(manifest, "--verify"))
        self.expect(again["found"] == keys, "cold: not all kernels are there")
        print(f"cold: {self.options.processes} processes, {keys} keys: {compiled} compilations, {seconds:.1f} s", flush=True)

    def kills(self):
        self.fresh()
        manifest, keys = self.manifest(40), 40
        killed = redone = left = i = 0
        while killed < self.options.kills:  # some are done before
            i += 1
            small = i % 4 == 3  # evicting, too
            if i % 20 == 0:
                left = max(left, len(self.temporaries()))
                self.fresh()
            before = {} if small else self.complete()
            process = subprocess.Popen(self.command(manifest, "-j2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env={**self.env, **({"FLEXJIT_CACHE_SIZE": "6K"} if small else {})}, start_new_session=True)  # fmt: skip
            try:
                process.wait(self.random.uniform(0, self.options.longest))
            except subprocess.TimeoutExpired:
                killed += 1
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for name, inode in before.items():
                path = self.layer / name
                redone += not path.exists() or path.stat().st_ino != inode
            if i % 10 == 9:
                self.verify(f"kill {i}")
        self.verify("kills")
        self.expect(redone == 0, f"kills: {redone} files that were complete were written again")
        report = self.report(self.command(manifest))
        self.expect(report["found"] + report["compiled"] == keys, "kills: not all kernels can be had")
        self.expect(self.report(self.command(manifest, "--verify"))["found"] == keys, "kills: not all kernels are there")
        print(f"kills: {killed} of {i} builds killed, at most {left} temporary files left by 20", flush=True)

    def faults(self):
        if not shutil.which("strace"):
            print("faults: skipped, there is no strace")
            return
        manifest, tried, hit = self.manifest(2), 0, 0
        for call, reasons in CALLS.items():
            for reason in reasons:
                for when in range(1, self.options.faults + 1):
                    if when % 2:
                        self.fresh()  # else on what the one before left
                    self.layer.mkdir(mode=0o700, exist_ok=True)
                    trace = self.folder / "trace"
                    done = subprocess.run(["strace", "-f", "-qq", "-o", trace, "-P", self.layer, "-e", f"trace={call}", "-e",
                                           f"inject={call}:error={reason}:when={when}", *self.command(manifest, "-j1")],
                                          capture_output=True, text=True, env=self.env, check=False)  # fmt: skip
                    injected = "INJECTED" in trace.read_text(errors="replace")
                    tried += 1
                    hit += injected
                    self.expect(done.returncode in (0, 1), f"{call} {reason} {when}: status {done.returncode}: {done.stderr[-300:]}")
                    self.verify(f"{call} {reason} {when}")
                    self.expect(self.report(self.command(manifest))["failed"] == 0, f"{call} {reason} {when}: a kernel cannot be had after it")
                    if not injected:
                        break
        print(f"faults: {tried} runs, a file operation failed in {hit}", flush=True)

    def warm(self):
        self.fresh()
        manifest = self.manifest(1)
        self.report(self.command(manifest))
        entry = next(self.layer.glob("*.select")).read_bytes()
        for i in range(self.options.entries):
            path = self.layer / f"{i:032x}.{'kernel' if i % 2 else 'select'}"
            path.write_bytes(entry)
            path.chmod(0o600)
        times = []
        for _ in range(5):
            start = time.monotonic()
            self.expect(self.report(self.command(manifest))["found"] == 1, "warm: the kernel is not found")
            times.append((time.monotonic() - start) * 1000)
        calls = ""
        if shutil.which("strace"):
            trace = self.folder / "trace"
            subprocess.run(["strace", "-f", "-qq", "-o", trace, "-P", self.layer, *self.command(manifest)], capture_output=True, env=self.env,
                           check=False)  # fmt: skip
            lines = trace.read_text(errors="replace").splitlines()
            self.expect(not any("getdents" in line for line in lines), "warm: the layer is listed")
            calls = f", {len(lines)} system calls on the layer"
        start = time.monotonic()
        self.report(self.command(self.manifest(2, "two.json")))
        print(f"warm: {self.options.entries} entries: {min(times):.1f} ms{calls}; with a first write "
              f"{(time.monotonic() - start) * 1000:.1f} ms", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=Path, default=ROOT / "build/flexjit")
    parser.add_argument("--nvrtc", type=Path, default=ROOT / "build/tests/jit/fake_nvrtc.so")
    parser.add_argument("--processes", type=int, default=64, help="that start at once (default 64)")
    parser.add_argument("--keys", type=int, default=20, help="of them (default 20)")
    parser.add_argument("--kills", type=int, default=500, help="builds that are killed (default 500)")
    parser.add_argument("--longest", type=float, default=0.25, help="seconds until one is killed, at most (default 0.25)")
    parser.add_argument("--faults", type=int, default=40, help="operations of a kind that fail, one a run (default 40, or all)")
    parser.add_argument("--entries", type=int, default=10000, help="of the layer beside which a start is warm (default 10000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("parts", nargs="*", help="cold, kills, faults, warm (default: all)")
    options = parser.parse_args()
    parts = options.parts or ["cold", "kills", "faults", "warm"]
    with tempfile.TemporaryDirectory(prefix="flexjit-stress-") as folder:
        stress = Stress(options, Path(folder))
        for part in parts:
            getattr(stress, part)()
    print("seed", options.seed, "failures", stress.failures)
    return 1 if stress.failures else 0


if __name__ == "__main__":
    sys.exit(main())
