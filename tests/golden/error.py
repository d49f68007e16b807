"""Runs the golden files of located errors: options of `flexjit check`, a mod file, and the message, with ---- between.

usage: error.py FLEXJIT FOLDER        FJ_GOLDEN_UPDATE=1 rewrites the expectations
"""

import difflib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

RULER = "\n----\n"


def run(tool: str, path: pathlib.Path, folder: str, update: bool) -> bool:
    options, source, expected = path.read_text(encoding="utf-8").split(RULER)
    (pathlib.Path(folder) / "mod.py").write_text(source + "\n", encoding="utf-8")
    command = [tool, "check", "mod.py", *shlex.split(options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = done.stderr if done.returncode in (1, 2) else f"exit status {done.returncode}\n{done.stderr}"
    if found == expected:
        return True
    if update:
        path.write_text(RULER.join((options, source, found)), encoding="utf-8")
        return True
    lines = [text.splitlines(keepends=True) for text in (expected, found)]
    sys.stdout.writelines(difflib.unified_diff(*lines, f"{path.name} expected", f"{path.name} found"))
    return False


def main() -> int:
    tool, folder = sys.argv[1:]
    files = sorted(pathlib.Path(folder).glob("*.t"))
    update = os.environ.get("FJ_GOLDEN_UPDATE") == "1"
    with tempfile.TemporaryDirectory() as scratch:
        failed = [path.name for path in files if not run(os.path.abspath(tool), path, scratch, update)]
    print(f"{len(files)} files, {len(failed)} failed: {' '.join(failed)}")
    return 1 if failed or not files else 0


if __name__ == "__main__":
    sys.exit(main())
