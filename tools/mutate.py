#!/usr/bin/env python3
"""Makes small wrong changes, one at a time, and sees whether the tests notice. `./dev mutate` runs it.

usage: mutate.py [--count N] [--seed N] [--room ROOM] [--jobs N] [--again] [--list]

The sample has equally many changes of each room, of each kind where a room has it, and is the same for a seed and a text.
Each change is built in a copy of the tree, build-mutate/N, with objects of its own; then the tests of the room run, the
cheapest first, with an empty kernel cache, until one fails or takes five times as long as without the change. Not
changed: comments, strings, preprocessor conditions, asserts, and prim_ptx.h, which only a GPU runs. A change that leaves
every object of the library as it was is equivalent; others that no test can notice have to be judged by a reader.

Results are kept in build-mutate/SEED.jsonl; --again takes only those that survived there, and finds them by their lines.
"""

import argparse
import glob
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import style

ROOT = Path(__file__).resolve().parent.parent
TREES = ROOT / "build-mutate"

# The tests that cover a room, cheapest first.
TESTS = {
    "base": ["base", "language", "cli usage", "attn validate", "attn locale", "cli verbs", "cli files"],
    "cache": ["cache", "cache archive", "cache durable", "cache evict", "attn cache", "cli cache"],
    "driver": ["driver cpu", "driver fork", "driver cuda", "attn gpu host", "attn gpu", "attn memory", "cli usage"],
    "driver/emu": ["emu matrix", "emu", "prim emu sm_90", "prim emu sm_75", "emu reduce-right-none",
                   "emu gemm-wait-none", "emu gemm-barrier-none", "emu reduce-blocks-thread", "emu reduce-barrier-thread",
                   "emu gemm-right-thread", "emu reduce-right-thread", "emu gemm-reuse-thread", "emu gemm-wait-thread",
                   "emu gemm-barrier-thread", "emu gemm-right-address", "emu reduce-shared-address", "captures emu",
                   "kern fake", "kern truncate"],
    "expr/lang": ["expr parse", "golden parse", "golden error", "language", "language page", "expr mod",
                  "expr captures", "expr config", "corpus of fuzz_parse", "corpus of fuzz_lang", "expr own", "cli verbs", "cli casts"],
    "expr/ir": ["expr ir", "expr guard", "language", "expr interval", "expr ranges", "expr passes", "expr gradient", "jit text",
                "expr emit", "cli verbs", "expr ops", "captures emu", "attn reference", "cli check", "kern cpu", "mask corpus"],
    "jit": ["jit text", "jit select", "jit prepare", "jit compile", "jit plan cuda", "jit nvrtc", "jit nvrtc process",
            "jit space", "jit sharing", "jit tuning", "jit tuning files", "attn tuned", "attn gpu", "attn cache", "cli cache", "cli prebuild",
            "attn variants", "cli tuned"],
    "attn": ["attn validate", "attn mask", "attn mask mods", "cli check", "attn gpu", "attn gpu host", "attn cache",
             "attn memory", "attn launch", "cli verbs", "cli run", "attn cpu", "attn gpu launch",
             "attn tuned", "attn reference", "attn dropout", "attn emit", "cli emit", "cli sinks", "cli forms"],
    "sdpa": ["sdpa transformers", "cli sdpa"],
    "fuse": ["fuse graph", "fuse models", "fuse onnx", "fuse patterns", "fuse alike", "fuse random", "fuse refused"],
    "nn": ["nn golden", "nn layers", "nn gradients", "nn transformers"],
    "cli": ["cli check", "cli safetensors", "cli usage", "cli files", "cli verbs", "cli casts", "cli prebuild",
            "cli cache", "cli run", "cli tuned", "cli emit", "fuse models", "cli sdpa", "cli mask", "cli tune"],
    "templates/cpu": ["lanes", "expr ops", "kern capture grads", "kern cpu", "nonfinite", "attn cpu", "corpus"],
    "templates/cuda": ["prim emu sm_90", "expr ops", "kern fake", "captures emu", "kern truncate", "kern emu",
                       "attn emu"],
}  # fmt: skip
ARROW = "  ->  "
SUFFIXES = {".c", ".h", ".def", ".inc", ".cpp", ".cu"}
UNSEEN = {"templates/cuda/prim_ptx.h"}

# What stays: blanked before the operators look. The body of a macro does not.
BLANKED = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    r"|^[ ]*#[ ]*define[ ]+\w+(?:\([^)\n]*\))?|^[ ]*#(?![ ]*define)(?:\\\n|[^\n])*|^[ ]*template <[^\n]*",
    re.DOTALL | re.MULTILINE,
)
ASSERT = re.compile(r"\b(?:assert|static_assert|_Static_assert)\(")

SWAPS = {
    "comparison": {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    "arithmetic": {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "<<": ">>", ">>": "<<", "&": "|", "|": "&",
                   "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|="},
    "logic": {"&&": "||", "||": "&&"},
    "word": {"true": "false", "false": "true", "break": "continue", "continue": "break"},
}  # fmt: skip
# clang-format puts blanks around operators of two operands, and none between a type and its star.
OPERATOR = re.compile(r"(?<= )(<<|>>|[<>=!]=|&&|\|\||[-+|&]=|[-+*/%<>&|])(?= |$)", re.MULTILINE)
WORD = re.compile(r"\b(?:true|false|break|continue)\b")
CONSTANT = re.compile(r"(?<![\w.])(\d+)(\.\d+)?(?=[fuUlL]*\b)(?![\w]*[xX])")
EXTREME = re.compile(r"\b((?:\w+_)?)(min|max)(?=\()")
CONDITION = re.compile(r"\bif \(")
STATEMENT = re.compile(
    r"(?<=\n)([ ]+)((?:\(void\))?\*?(?!return\b|if\b|for\b|while\b|switch\b|do\b|sizeof\b)"
    r"[A-Za-z_][\w.>\[\]-]*(?:\(| [-+*/|&^%]?= |\+\+|--)[^;{}]*;)"
)
GUARD = re.compile(r"(?<=\n)([ ]+)(if \([^;{}]*\)\s+(?:return[^;{}]*|continue|break);)")
PROCEDURE = re.compile(r"^(?:\w+ )*void \w+\([^;{}]*\) \{", re.MULTILINE)


class Change(NamedTuple):
    room: str
    path: str
    line: int
    kind: str
    start: int
    end: int
    text: str

    def describe(self, source):
        first, last = source.rfind("\n", 0, self.start) + 1, source.find("\n", self.end)
        return source[first:last].strip() + ARROW + (source[first : self.start] + self.text + source[self.end : last]).strip()


def close_of(text, opening):
    """The place of the bracket that closes the one at `opening`; None: it is not closed."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return None


def blank(match):
    return re.sub(r"[^\n]", " ", match if isinstance(match, str) else match.group())


def visible(source):
    """The text that may be changed; lines and places are kept."""
    text = BLANKED.sub(blank, source)
    for match in reversed(list(ASSERT.finditer(text))):
        end = close_of(text, match.end() - 1)
        if end:
            text = text[: match.start()] + blank(text[match.start() : end]) + text[end:]
    return text


def candidates(text, rng):
    """(kind, start, end, replacement) of all changes of a file's visible text."""
    for match in OPERATOR.finditer(text):
        for kind, swaps in SWAPS.items():
            if match.group() in swaps:
                yield kind, *match.span(), swaps[match.group()]
    yield from (("word", *match.span(), SWAPS["word"][match.group()]) for match in WORD.finditer(text))
    for match in CONSTANT.finditer(text):
        number = int(match.group(1))
        step = rng.choice((1, -1)) if number else 1
        yield "constant", *match.span(1), str(number + step)
    for match in EXTREME.finditer(text):
        yield "extreme", *match.span(2), "max" if match.group(2) == "min" else "min"
    for match in CONDITION.finditer(text):
        end = close_of(text, match.end() - 1)
        if end:
            yield "condition", match.end() - 1, end + 1, None
    for kind, pattern in (("statement", STATEMENT), ("guard", GUARD)):
        yield from ((kind, *m.span(2), ";" + "\n" * m.group(2).count("\n")) for m in pattern.finditer(text))
    yield from (("return", match.end(), match.end(), " return;") for match in PROCEDURE.finditer(text))


def listed_files():
    return [str(path) for path in style.listed_files() if (ROOT / path).is_file()]


def room_of(name):
    return max((room for room in TESTS if name.startswith(room + "/")), key=len, default=None)


def changes_of(room, names, rng):
    """All changes of a room by kind."""
    kinds = {}
    for name in sorted(names):
        if room_of(name) != room or Path(name).suffix not in SUFFIXES or name in UNSEEN:
            continue
        source = (ROOT / name).read_text(encoding="utf-8")
        for kind, start, end, text in candidates(visible(source), rng):
            text = f"(!{source[start:end]})" if text is None else text
            line = source.count("\n", 0, start) + 1
            kinds.setdefault(kind, []).append(Change(room, name, line, kind, start, end, text))
    return kinds


def sample(rooms, count, seed):
    """Of each room the same number of changes, its kinds in turn."""
    names, chosen = listed_files(), []
    for place, room in enumerate(rooms):
        rng = random.Random(f"{seed} {room}")
        kinds = changes_of(room, names, rng)
        share = count // len(rooms) + (place < count % len(rooms))
        order = sorted(kinds)
        rng.shuffle(order)
        for turn in range(share):
            pool = kinds[order[turn % len(order)]]
            if pool:
                chosen.append(pool.pop(rng.randrange(len(pool))))
    # Rooms in turn, so that a run that is ended early has seen all of them.
    turns = {room: [change for change in chosen if change.room == room] for room in rooms}
    longest = max(map(len, turns.values()))
    return [part[i] for i in range(longest) for part in turns.values() if i < len(part)]


def survivors(log):
    """The changes of a log that survived last, in the text as it is now."""
    last = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        last[record["path"], record["line"], record["change"]] = record
    for r in last.values():
        if r["verdict"] != "survived":
            continue
        old, new = r["change"].split(ARROW)
        source = (ROOT / r["path"]).read_text(encoding="utf-8") if (ROOT / r["path"]).is_file() else ""
        places = [m.start(1) for m in re.finditer(rf"^[ ]*({re.escape(old)})[ ]*$", source, re.MULTILINE)]
        if not places:
            print(f"{r['path']}:{r['line']}: the line is gone: {old}")
            continue
        at = min(places, key=lambda place: abs(source.count("\n", 0, place) + 1 - r["line"]))
        yield Change(r["room"], r["path"], r["line"], r["kind"], at, at + len(old), new)


def end_session(leader):
    """Ends a process that leads a session and all that it started: Check gives each test a group of its own."""
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = Path(path).read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(path.split("/")[2]), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, IndexError):
            pass


class Tree:
    """A copy of the tree with its build, in which one change at a time is made."""

    def __init__(self, number):
        self.path = TREES / str(number)
        self.build = self.path / "build"
        self.copy()
        if not (self.build / "build.ninja").is_file():
            self.call(["meson", "setup", "build", "-Dwerror=false", "-Dexamples=false", "-Ddocs=false"], check=True)
        self.call(["ninja", "-C", "build", "build.ninja"], check=True)  # with the tests of the tree as it is
        tests = json.loads(self.call(["meson", "introspect", "build", "--tests"], check=True).stdout)
        targets = json.loads(self.call(["meson", "introspect", "build", "--targets"], check=True).stdout)
        self.tests = {test["name"]: test for test in tests}
        unknown = {name for names in TESTS.values() for name in names} - self.tests.keys()
        if unknown:
            sys.exit(f"mutate.py: there are no such tests: {', '.join(sorted(unknown))}")
        self.files = {t["id"]: [os.path.relpath(name, self.build) for name in t["filename"]] for t in targets}
        # Libraries that pretend to be others are opened by name: tests do not depend on them.
        self.fakes = [name for t in targets if t["type"] == "shared module" for name in self.files[t["id"]]]
        self.call(["ninja", "-C", "build"], check=True)
        self.objects = self.digest()
        self.seconds = {}  # of the tests that have passed

    def copy(self):
        wanted = set(listed_files())
        for name in wanted:
            target = self.path / name
            data = (ROOT / name).read_bytes()
            if not target.is_file() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                shutil.copymode(ROOT / name, target)
        for path in [p for p in self.path.rglob("*") if p.is_file() and self.build not in p.parents]:
            if str(path.relative_to(self.path)) not in wanted:
                path.unlink()

    def call(self, command, check=False, limit=None, **more):
        """Runs a command in a session of its own, which ends with it."""
        environment = {**os.environ, "HOME": str(self.path / "build"), **more.pop("env", {})}
        with subprocess.Popen(
            command, cwd=more.pop("cwd", self.path), env=environment, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=limit)
                code = process.returncode
            except subprocess.TimeoutExpired:
                end_session(process.pid)
                said, code = process.communicate()[0], "timeout"
        if check and code:
            sys.exit(f"mutate.py: {' '.join(command)}:\n{said[-3000:]}")
        return subprocess.CompletedProcess(command, code, said)

    def compile(self, name):
        needed = [file for target in self.tests[name]["depends"] for file in self.files[target]]
        needed += [word for word in (os.path.relpath(w, self.build) for w in self.tests[name]["cmd"][:1]) if not word.startswith("..")]
        return self.call(["ninja", "-C", "build", "-j", "1", *dict.fromkeys(needed + self.fakes)])

    def run(self, name, limit):
        """Builds and runs a test: (passed|failed|slow|skipped|not built, seconds, what was said)."""
        built = self.compile(name)
        if built.returncode:
            return "not built", 0, built.stdout[-3000:]
        test, start = self.tests[name], time.monotonic()
        shutil.rmtree(self.build / "tests/cache", ignore_errors=True)
        memory = None if any(word in name for word in ("address", "thread")) else lambda: resource.setrlimit(
            resource.RLIMIT_AS, (24 << 30, 24 << 30))  # fmt: skip
        done = self.call(test["cmd"], limit=limit, cwd=self.build, env=test["env"], preexec_fn=memory)
        state = {0: "passed", 77: "skipped", "timeout": "slow"}.get(done.returncode, "failed")
        return state, time.monotonic() - start, done.stdout[-3000:]

    def digest(self):
        """Of all objects of the library and of the tool."""
        names = sorted(glob.glob(str(self.build / "**/*.o"), recursive=True))
        return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names if "/build/tests/" not in name}

    def judge(self, change):
        """What the tests say of a change: (verdict, test)."""
        path = self.path / change.path
        source = path.read_text(encoding="utf-8")
        path.write_text(source[: change.start] + change.text + source[change.end :], encoding="utf-8")
        try:
            verdict, test, state = self.look(change)
        finally:
            path.write_text(source, encoding="utf-8")
        if verdict == "noticed" and test not in self.seconds:
            without, self.seconds[test], said = self.run(test, self.tests[test]["timeout"])
            if without != "passed":
                sys.exit(f"mutate.py: {test} fails without a change:\n{said}")
        return verdict, test + (" (time)" if state == "slow" else "")

    def look(self, change):
        for turn, name in enumerate(TESTS[change.room]):
            limit = 5 * self.seconds[name] + 20 if name in self.seconds else self.tests[name]["timeout"]
            state, seconds, _ = self.run(name, limit)
            if state == "not built":
                return "did not compile", "", state
            if turn == 0 and not change.room.startswith("templates") and self.digest() == self.objects:
                return "equivalent", "", state
            if state in ("failed", "slow"):
                return "noticed", name, state
            self.seconds.setdefault(name, seconds)
        return "survived", "", ""


def report(results):
    """A table by room; the share is of changes that compile and are not equivalent."""
    verdicts = ["noticed", "survived", "did not compile", "equivalent"]
    print(f"\n{'room':16}" + "".join(f"{verdict:>17}" for verdict in verdicts) + f"{'share':>8}")
    totals = dict.fromkeys(verdicts, 0)
    for room in [*TESTS, "all"]:
        counts = {v: sum(r["verdict"] == v and r["room"] == room for r in results) for v in verdicts}
        totals = {v: totals[v] + counts[v] for v in verdicts}
        counts = totals if room == "all" else counts
        known = counts["noticed"] + counts["survived"]
        if any(counts.values()):
            share = f"{100 * counts['noticed'] / known:6.0f} %" if known else "       -"
            print(f"{room:16}" + "".join(f"{counts[v]:17}" for v in verdicts) + share)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="changes in all; default 200")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--room", choices=TESTS, action="append", help="may be repeated; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="trees at a time; default 1")
    parser.add_argument("--again", action="store_true", help="only those that survived the last run with this seed")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = parser.parse_args()

    os.chdir(ROOT)
    rooms = options.room or list(TESTS)
    log = TREES / f"{options.seed}.jsonl"
    if options.again and not log.is_file():
        parser.error(f"there is no {log}: run without --again first")
    changes = list(survivors(log)) if options.again else sample(rooms, options.count, options.seed)
    changes = [change for change in changes if change.room in rooms]
    sources = {change.path: (ROOT / change.path).read_text(encoding="utf-8") for change in changes}
    if options.list:
        for change in changes:
            print(f"{change.path}:{change.line}: {change.kind}: {change.describe(sources[change.path])}")
        return 0

    TREES.mkdir(exist_ok=True)
    trees = Queue()
    for number in range(min(options.jobs, len(changes))):
        trees.put(Tree(number))

    def judge(change):
        tree = trees.get()
        try:
            return tree.judge(change)
        finally:
            trees.put(tree)

    results = []
    with open(log, "a" if options.again else "w", encoding="utf-8") as file, ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(judge, change) for change in changes]
        for change, done in zip(changes, waiting):
            try:
                verdict, test = done.result()
            except SystemExit:
                pool.shutdown(cancel_futures=True)
                raise
            text = change.describe(sources[change.path])
            results.append({"room": change.room, "path": change.path, "line": change.line, "kind": change.kind,
                            "change": text, "verdict": verdict, "test": test})  # fmt: skip
            file.write(json.dumps(results[-1]) + "\n")
            file.flush()
            print(f"{change.path}:{change.line}: {verdict}{' by ' + test if test else ''}: {text}", flush=True)
    report(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
