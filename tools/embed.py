#!/usr/bin/env python3
"""Turns text files into one C file that holds them: see base/embed.h.

usage: embed.py OUTPUT.c TABLE ROOT [FILE...]

TABLE is the name of the table in C. Each FILE is named in it by its path relative to ROOT or, outside of it, to the folder
above ROOT.
"""

import pathlib
import sys

HEADER = '#include "base/embed.h"\n'

# ISO C has neither empty initialisers nor arrays of no elements: the table ends with an entry that is not counted.
SENTINEL = "    {0, 0, 0},\n"


def c_line(data: bytes) -> str:
    """One line of text as one C string literal."""
    out = []
    for byte in data:
        char = chr(byte)
        if char == "\n":
            out.append("\\n")
        elif char in '"\\':
            out.append("\\" + char)
        elif char == "?" or not 32 <= byte < 127:  # '?': no trigraphs
            out.append(f"\\{byte:03o}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def name_of(path: pathlib.Path, root: pathlib.Path) -> str:
    return path.relative_to(root if path.is_relative_to(root) else root.parent).as_posix()


def embed(name_of_table: str, root: pathlib.Path, paths: list[pathlib.Path]) -> str:
    texts, rows = [], []
    for i, path in enumerate(paths):
        data = path.read_bytes()
        if b"\0" in data:
            raise ValueError(f"{path}: not a text file")
        name = name_of(path.resolve(), root.resolve())
        lines = "\n".join("    " + c_line(line) for line in data.splitlines(keepends=True)) or '    ""'
        texts.append(f"\nstatic const char text_{i}[] =\n{lines};\n")
        rows.append(f"    {{{c_line(name.encode())}, text_{i}, sizeof text_{i} - 1}},\n")
    table = f"\nconst fj_embedded {name_of_table}[] = {{\n{''.join(rows)}{SENTINEL}}};\n"
    return HEADER + "".join(texts) + table + f"\nconst size_t {name_of_table}_len = {len(paths)};\n"


def main(argv: list[str]) -> int:
    if len(argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    output, root, *files = map(pathlib.Path, [argv[1], *argv[3:]])
    try:
        output.write_text(embed(argv[2], root, files))
    except (OSError, ValueError) as error:
        print(f"embed.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
