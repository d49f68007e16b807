#!/usr/bin/env python3
"""clang-tidy on every source file of ours that changed since it was last found clean. `./dev lint` runs it.

usage: tidy.py [--build FOLDER] [--jobs N] [--all] [FILE...]     (after a build, which knows what includes what)

What a file's result depends on is its text and that of every header it includes, the way it is compiled, .clang-tidy and
the version of clang-tidy: a clean result is kept under the digest of all that in FOLDER/tidy. A file that several targets
compile in the same way is looked at once. Exit status 1: something was found.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = re.compile(r"(base|expr|cache|driver|jit|attn|nn|sdpa|fuse|cli|examples|tests)/.*\.(c|cpp)$")
# Of a target and not of the text: names of outputs, and how hard it is optimised.
TARGET = re.compile(r"-(o|MQ|MF)\s+\S+|-MD|-c\b|-I\S+\.p\b|-O\d|-fPIC|-fdiagnostics-color=\S+")


def read_dependencies(build):
    """What each object is made of, from ninja's log: object -> files."""
    listing = subprocess.run(["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True)
    found, files = {}, None
    for line in listing.stdout.splitlines():
        if line.startswith("    "):
            files.append(line.strip())
        elif ":" in line:
            files = found[line.split(": #deps")[0]] = []
    return found


@lru_cache(maxsize=None)
def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def fingerprint(entry, dependencies, common):
    """The digest of all that the result depends on; None: not known, as the object was not built."""
    files = dependencies.get(entry["output"])
    if not files:
        return None
    folder = Path(entry["directory"])
    parts = [common, TARGET.sub("", entry["command"])]
    parts += [f"{name} {digest_of((folder / name).resolve())}" for name in sorted(set(files))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def choose(entries, dependencies, common, wanted):
    """(file, entry, fingerprint) of each way in which a file is compiled."""
    chosen, seen = [], set()
    for entry in entries:
        path = (Path(entry["directory"]) / entry["file"]).resolve()
        if not path.is_relative_to(ROOT) or not OURS.match(str(path.relative_to(ROOT))):
            continue
        if wanted and path not in wanted:
            continue
        key = (path, TARGET.sub("", entry["command"]))
        if key not in seen:
            seen.add(key)
            chosen.append((path, entry, fingerprint(entry, dependencies, common)))
    return chosen


def check(path, entry):
    """What clang-tidy says of a file; nothing: it is clean."""
    with tempfile.TemporaryDirectory() as folder:
        # One command, where the build's own list may have several for a file.
        (Path(folder) / "compile_commands.json").write_text(json.dumps([entry]))
        done = subprocess.run(
            ["clang-tidy", "--quiet", "-p", folder, f"--config-file={ROOT / '.clang-tidy'}", str(path)],
            capture_output=True,
            text=True,
        )
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"{path}: clang-tidy failed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--jobs", type=int, default=2, help="files at a time")
    parser.add_argument("--all", action="store_true", help="also what was found clean before")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()

    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, text=True, check=True).stdout
    common = version + (ROOT / ".clang-tidy").read_text()
    entries = json.loads((options.build / "compile_commands.json").read_text())
    wanted = {path.resolve() for path in options.files}
    work = choose(entries, read_dependencies(options.build), common, wanted)
    if not work:
        parser.error("no such file is compiled here")

    kept = options.build / "tidy"
    kept.mkdir(exist_ok=True)
    if not options.all:
        work = [item for item in work if not item[2] or not (kept / item[2]).exists()]

    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for (path, _, mark), said in zip(work, pool.map(lambda item: check(*item[:2]), work)):
            if said:
                failed += 1
                print(said, flush=True)
            elif mark:
                (kept / mark).touch()
    print(f"clang-tidy: {len(work)} looked at, {failed} with findings")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
