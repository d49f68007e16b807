"""Runs a program in a locale whose decimal point is a comma: LC_ALL and LOCPATH say which. Skips (77) where none can be had.

usage: comma_locale.py PROGRAM [ARGUMENT...]

The locale is compiled into a temporary folder from a few lines, as a bare machine has none of a country's; or else one that
is installed is taken.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = """\
comment_char %
escape_char /
LC_NUMERIC
decimal_point "<U002C>"
thousands_sep "<U002E>"
grouping 3;3
END LC_NUMERIC
"""
INSTALLED = ("de_DE.utf8", "de_DE.UTF-8", "fr_FR.utf8", "fr_FR.UTF-8")
PROBE = "import locale, sys; locale.setlocale(locale.LC_ALL, sys.argv[1]); sys.exit(locale.localeconv()['decimal_point'] != ',')"


def works(name, env):
    return subprocess.run([sys.executable, "-c", PROBE, name], env=env, capture_output=True, check=False).returncode == 0


def find(folder):
    env = {**os.environ, "LOCPATH": folder}
    source = pathlib.Path(folder, "comma")
    source.write_text(SOURCE, encoding="utf-8")
    try:  # it warns of the categories that are left out, and exits with 1
        subprocess.run(["localedef", "-c", "-i", str(source), str(pathlib.Path(folder, "comma_XX"))], capture_output=True,
                       check=False)
    except OSError:
        pass
    if works("comma_XX", env):
        return {**env, "LC_ALL": "comma_XX"}
    for name in INSTALLED:
        if works(name, os.environ):
            return {**os.environ, "LC_ALL": name}
    return None


def main():
    with tempfile.TemporaryDirectory() as folder:
        env = find(folder)
        if env is None:
            print("skipped: localedef makes no locale with a decimal comma here, and none is installed")
            return 77
        return subprocess.run(sys.argv[1:], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
