"""Runs the parser's golden files: each holds an input, a line of ----, and the tree or the error that is expected.

usage: parse.py PRINT_AST FOLDER        FJ_GOLDEN_UPDATE=1 rewrites the expectations
"""

import difflib
import os
import pathlib
import subprocess
import sys

RULER = b"\n----\n"


def run(tool: str, path: pathlib.Path, update: bool) -> bool:
    source, _, expected = path.read_bytes().partition(RULER)
    found = subprocess.run([tool, "-"], input=source + b"\n", stdout=subprocess.PIPE, check=False).stdout
    if found == expected:
        return True
    if update:
        path.write_bytes(source + RULER + found)
        return True
    lines = [text.decode(errors="replace").splitlines(keepends=True) for text in (expected, found)]
    sys.stdout.writelines(difflib.unified_diff(*lines, f"{path.name} expected", f"{path.name} found"))
    return False


def main() -> int:
    tool, folder = sys.argv[1:]
    files = sorted(pathlib.Path(folder).glob("*.t"))
    update = os.environ.get("FJ_GOLDEN_UPDATE") == "1"
    failed = [path.name for path in files if not run(tool, path, update)]
    print(f"{len(files)} files, {len(failed)} failed: {' '.join(failed)}")
    return 1 if failed or not files else 0


if __name__ == "__main__":
    sys.exit(main())
