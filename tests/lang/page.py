"""Every example of a page is a test.

usage: page.py FLEXJIT PAGE.md

A block of kind `lang` holds groups for `flexjit run-tests`. A block of kind `python` is a mod file that `flexjit check`
accepts; or, where it has a line `# error: TEXT`, refuses with TEXT; `# run: OPTIONS` gives options to the check.
"""

import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```(lang|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def check_mod(tool: str, text: str, folder: pathlib.Path) -> str:
    path = folder / "mod.py"
    path.write_text(text, encoding="utf-8")
    options = [option for line in re.findall(r"^# run: (.*)$", text, re.MULTILINE) for option in shlex.split(line)]
    wanted = re.findall(r"# error: (.*)$", text, re.MULTILINE)
    done = subprocess.run([tool, "check", path, *options], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if not wanted:
        return "" if done.returncode == 0 else said
    return "" if done.returncode in (1, 2) and wanted[0] in said else f"expected the error: {wanted[0]}\n{said}"


def check_triples(tool: str, text: str, folder: pathlib.Path) -> str:
    path = folder / "page.test"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run([tool, "run-tests", path], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def main() -> int:
    tool, page = sys.argv[1:]
    text = pathlib.Path(page).read_text(encoding="utf-8")
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for block in BLOCK.finditer(text):
            count += 1
            check = check_triples if block[1] == "lang" else check_mod
            said = check(tool, block[2], pathlib.Path(folder))
            if said:
                failed += 1
                print(f"{page}:{text.count(chr(10), 0, block.start()) + 1}:\n{said}")
    print(f"{count} examples, {failed} failed")
    return 1 if failed or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
