#!/usr/bin/env python3
"""Turns a file of any kind into a C file that holds its bytes.

usage: embed_program.py OUTPUT.c FILE NAME HEADER

Defines `const unsigned char NAME[]` and `const size_t NAME_len`, which HEADER declares.
"""

import pathlib
import sys

PER_LINE = 24


def embed(data: bytes, name: str, header: str) -> str:
    lines = (data[i : i + PER_LINE] for i in range(0, len(data), PER_LINE))
    rows = "\n".join("    " + "".join(f"{byte}," for byte in line) for line in lines)
    return (
        f'#include "{header}"\n\nconst unsigned char {name}[] = {{\n{rows}\n}};\n'
        f"const size_t {name}_len = {len(data)};\n"
    )


def main(argv: list[str]) -> int:
    if len(argv) != 5:
        print(__doc__, file=sys.stderr)
        return 2
    output, program, name, header = argv[1:]
    try:
        pathlib.Path(output).write_text(embed(pathlib.Path(program).read_bytes(), name, header), encoding="ascii")
    except OSError as error:
        print(f"embed_program.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
