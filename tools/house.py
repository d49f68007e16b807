#!/usr/bin/env python3
"""The house in numbers: what the rooms hold, and whether they keep to their directions. `./dev house` runs it.

usage: house.py [--at COMMIT] [--list]     (--at: may be repeated, one column each; default: the working tree)

lines      of sources, by room
upward     includes of a room that is not below (the table is that of style.py)
circles    groups of modules of a room that include each other: a module is a file and its header, x.c and x.h
devices    where attn/ asks which device it is or calls one by name, attn/device.c apart; the structs of a kernel's
           arguments are named after its text, fj_cuda_forward, and are not counted
entries    files that know a fact of a CUDA kernel entry: where its name, its threads, shared memory, grid and slices
           are each written down, outside of the tests; and all files that do, the tests too

--list names the files behind the numbers. Exit status 1: an include goes upward.
"""

import argparse
import io
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath

import style

SUFFIXES = style.C_SUFFIXES | {".inc", ".py", ".sh"}
DEVICE = re.compile(
    r"(?:->|\.)(?:cuda|emu|cpu)\b|\bFJ_(?:DEVICE|TARGET)_(?:CPU|CUDA|EMU)\b|\bfj_driver_(?:cpu|cuda|emu)\b"
    r"|\bfj_(?:cpu|cuda|emu)_\w+(?= ?\()"
)
FACTS = {
    "name": re.compile(r'"fj_(?:fwd|bwd)(?:_\w+)?"'),
    "threads": re.compile(r"\bwarps \* 32\b|\bDELTA_THREADS,"),
    "shared": re.compile(r"\bFJ_(?:FWD|BWD)_\w*SHARED\("),
    "grid": re.compile(r"\bFJ_CEIL_DIV\([^;]*->tile_\w+\)"),
    "slices": re.compile(r"\bFJ_\w+_SLICES\("),
}
HOST = ("attn/", "jit/", "driver/")


def read_tree(commit):
    """{path: text} of the sources, of a commit or of the working tree."""
    if commit is None:
        texts = {str(path): Path(path) for path in style.listed_files() if Path(path).is_file()}
        read = {name: path.read_bytes() for name, path in texts.items() if path.suffix in SUFFIXES}
    else:
        packed = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            read = {
                member.name: archive.extractfile(member).read()
                for member in archive
                if member.isfile() and PurePosixPath(member.name).suffix in SUFFIXES
            }
    return {name: data.decode("utf-8", "replace") for name, data in read.items()}


def room_of(name):
    """The room of a file; of what is in none, its folder: expr/ before it became two, tests/ROOM."""
    parts = PurePosixPath(name).parts
    if style.room_of(name) is None and parts[0] == "tests" and len(parts) > 2:
        return "/".join(parts[:2])
    return style.room_of(name) or (parts[0] if len(parts) > 1 else ".")


def may_include(room, target):
    """Whether one room is below another. expr/, before it became two, was below what both are below."""
    if target not in style.ROOMS and target != "expr":
        return True
    below = style.ROOMS_BELOW.get(room, {"base"} if room == "expr" else style.ROOMS | {"expr"})
    return target == room or target in below or (target == "expr" and "expr/ir" in below)


def includes(tree):
    """(file, line, included file) of all includes of ours, but for those of tests."""
    for name, text in tree.items():
        if PurePosixPath(name).suffix not in style.C_SUFFIXES | {".inc"} or name.startswith("tests/"):
            continue
        for match in style.INCLUDE.finditer(text):
            places = [match.group(1), f"include/{match.group(1)}", f"{PurePosixPath(name).parent}/{match.group(1)}"]
            target = next((place for place in places if place in tree), None)
            if target:
                yield name, style.line_of(text, match.start()), target


def circles(edges):
    """The groups of two or more that reach each other."""
    nodes = sorted(set(edges) | {to for targets in edges.values() for to in targets})
    reach = {}
    for node in nodes:
        seen, todo = set(), [node]
        while todo:
            new = edges.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        reach[node] = seen
    groups = {tuple(sorted(m for m in nodes if m == n or (m in reach[n] and n in reach[m]))) for n in nodes}
    return sorted(group for group in groups if len(group) > 1)


def module_of(name):
    return str(PurePosixPath(name).with_suffix(""))


def find_places(pattern, tree, folders, keep_strings=False):
    blanked = style.COMMENT if keep_strings else style.COMMENT_OR_STRING
    for name, text in sorted(tree.items()):
        if name.startswith(folders):
            plain = blanked.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
            yield from ((name, style.line_of(plain, m.start()), m.group()) for m in pattern.finditer(plain))


def measure(tree):
    """{(section, key): (number, [what is behind it])} of a tree."""
    found = {}
    lines = Counter()
    for name, text in tree.items():
        lines[room_of(name)] += text.count("\n")
    found |= {("lines", room): (number, []) for room, number in lines.items()}

    upward, edges = [], {}
    for name, line, target in includes(tree):
        room = room_of(name)
        if not may_include(room, room_of(target)):
            upward.append(f"{name}:{line}: {target}")
        if room == room_of(target) and module_of(name) != module_of(target):
            edges.setdefault(room, {}).setdefault(module_of(name), set()).add(module_of(target))
    found["upward", "includes"] = (len(upward), upward)
    for room in style.ROOMS | {"expr"}:
        groups = circles(edges.get(room, {}))
        if groups:
            members = [f"{len(group)} modules: {' '.join(group)}" for group in groups]
            found["circles", room] = (sum(map(len, groups)), members)
    found["circles", "all"] = (sum(value[0] for key, value in found.items() if key[0] == "circles"), [])

    named = [place for place in find_places(DEVICE, tree, "attn/") if place[0] != "attn/device.c"]
    found["devices", "in attn/"] = (len(named), [f"{name}:{line}: {text}" for name, line, text in named])
    for fact, pattern in FACTS.items():
        at = [place[0] for place in find_places(pattern, tree, HOST, keep_strings=fact == "name")]
        found["entries", fact] = (len(set(at)), [f"{name}: {at.count(name)}" for name in sorted(set(at))])
    for key, folders in (("files", HOST), ("with tests", (*HOST, "tests/"))):
        at = {p[0] for fact in FACTS for p in find_places(FACTS[fact], tree, folders, keep_strings=fact == "name")}
        found["entries", key] = (len(at), sorted(at))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", action="append", metavar="COMMIT", help="may be repeated; default: the working tree")
    parser.add_argument("--list", action="store_true", help="name the files behind the numbers")
    options = parser.parse_args()
    commits = options.at or [None]
    columns = [measure(read_tree(commit)) for commit in commits]
    keys = dict.fromkeys(key for section in ("lines", "upward", "circles", "devices", "entries")
                         for column in columns for key in sorted(column) if key[0] == section)  # fmt: skip
    print(f"{'':24}" + "".join(f"{commit or 'now':>12.10}" for commit in commits))
    for section, key in keys:
        print(f"{section:10}{key:14}" + "".join(f"{c.get((section, key), (0,))[0]:12}" for c in columns))
        for column in columns if options.list else []:
            for text in column.get((section, key), (0, []))[1]:
                print(f"    {text}")
    return 1 if columns[-1]["upward", "includes"][0] else 0


if __name__ == "__main__":
    sys.exit(main())
