#!/usr/bin/env python3
"""The rules of the house that no formatter knows. `./dev lint` runs it.

usage: style.py [FILE...]      (default: every file that git does not ignore)

blanks     no trailing blanks, no tabs in C, one newline at the end of a file
primitive  inline assembly and intrinsics live in templates/*/prim* alone
rooms      a room includes only rooms below it, with the folder in the path; kernel text only itself and expr/ir
length     at most 800 lines in a source file, 900 in the one public header
locale     the library reads and writes numbers and letters by base/decimal.c and base.h, whatever the locale
todo       a TODO names its issue: TODO(#12)
listed     a source file is named in the meson.build of its folder or of one above
walks      the functions of a ```walk block are defined in the files that it names, each is named once
"""

import pathlib
import re
import subprocess
import sys

C_SUFFIXES = {".c", ".h", ".cpp", ".hpp", ".cu", ".cuh", ".def"}
TEXT_SUFFIXES = C_SUFFIXES | {".py", ".sh", ".md", ".build", ".txt", ".t", ".test", ".json", ""}
DATA = ("tests/fuzz/corpus/", "examples/data/", "tests/data/", "LICENSE")
MAX_LINES = 800
MAX_LINES_OF = {"include/flexjit/flexjit.h": 900}

ROOMS_BELOW = {
    "base": set(),
    "expr/ir": {"base"},
    "expr/lang": {"base", "expr/ir"},
    "templates": {"expr/ir"},
    "cache": {"base"},
    "driver": {"base", "templates"},
    "jit": {"base", "expr/ir", "expr/lang", "cache", "driver", "templates"},
    "fuse": {"base"},
    "attn": {"base", "expr/ir", "expr/lang", "cache", "driver", "jit", "templates"},
    "nn": {"base", "driver", "attn"},
    "sdpa": {"base"},
    "cli": {"fuse"},  # no public interface has graphs yet
    "bench": set(),
    "examples": set(),
}
ROOMS = set(ROOMS_BELOW)
TOP_FOLDERS = {room.split("/")[0] for room in ROOMS} | {"tests"}

PRIMITIVE = re.compile(
    r"\b(?:asm|__asm|__asm__)\b|\b_mm\d*_\w+|\b__m(?:128|256|512)\w*\b|\b__builtin_ia32_\w+"
    r"|\b__shfl\w*|\b__syncthreads\b|\b__syncwarp\b|\b__cvta_\w+|\bcuda::|<(?:\w*intrin|cuda\w*)\.h>"
)
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


# What depends on the locale of the process, which is the caller's. The tool sets the locale of its own thread.
LOCALE_ROOMS = {"base", "expr", "cache", "driver", "jit", "fuse", "attn", "nn", "sdpa"}
LOCALE_CALL = re.compile(
    r"\b(?:strto(?:d|f|ld)|atof|is(?:alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit)"
    r"|to(?:lower|upper)|strcoll|strxfrm|strn?casecmp|setlocale|localeconv|strftime|wcsto\w+)\s*\("
)
LOCALE_FORMAT = re.compile(r"(?<!%)(?:%%)*%[-+#0]*(?:\d+|\*)?(?:\.(?:\d+|\*)?)?[lL]?[aAeEfFgG]")
STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def listed_files():
    out = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True
    ).stdout
    return [pathlib.PurePosixPath(name) for name in out.decode().split("\0") if name]


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def code_only(text):
    """The text with comments and strings blanked; lines keep their numbers."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def check_blanks(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "trailing blanks"
        if "\t" in line and path.suffix in C_SUFFIXES:
            yield number, "a tab"
    if text and not text.endswith("\n"):
        yield line_of(text, len(text)), "no newline at the end"
    if text.endswith("\n\n"):
        yield line_of(text, len(text)), "blank lines at the end"


def check_primitive(path, text):
    if path.parts[0] == "templates" and path.name.startswith("prim"):
        return
    for match in PRIMITIVE.finditer(code_only(text)):
        yield line_of(text, match.start()), f"{match.group()} outside templates/*/prim*"


def room_of(path):
    """The room of a file, given by its path from the root: rooms have one folder, or two."""
    parts = pathlib.PurePosixPath(path).parts
    return next((room for room in ("/".join(parts[:2]), parts[0]) if room in ROOMS), None)


def check_rooms(path, text):
    room = room_of(path)
    if room is None:
        return
    for match in INCLUDE.finditer(text):
        target = room_of(match.group(1))
        line = line_of(text, match.start())
        if "/" not in match.group(1) and room != "templates":
            yield line, f'"{match.group(1)}": include with the folder in the path'
        elif target is not None and target not in {room} | ROOMS_BELOW[room]:
            yield line, f"{room}/ may not include {target}/"


def check_locale(path, text):
    if path.parts[0] not in LOCALE_ROOMS or str(path) == "base/decimal.c" or path.suffix == ".def":
        return
    for match in LOCALE_CALL.finditer(code_only(text)):
        yield line_of(text, match.start()), f"{match.group()}...) depends on the locale: see base/base.h"
    plain = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for match in STRING.finditer(plain):
        if LOCALE_FORMAT.search(match.group()):
            yield line_of(text, match.start()), f"{match.group()}: a float's decimal point is the locale's: fj_buf_double"


def check_length(path, text):
    lines, most = text.count("\n"), MAX_LINES_OF.get(str(path), MAX_LINES)
    if lines > most:
        yield lines, f"{lines} lines, more than {most}"


def check_todo(path, text):
    for match in re.finditer(r"\b(?:TODO|FIXME|XXX)\b(?!\(#\d+\))", text):
        yield line_of(text, match.start()), f"{match.group()} without its issue"


def check_listed(path, text):
    built = path.suffix == ".c" or path.parts[0] == "templates"
    if not built or path.parts[0] not in TOP_FOLDERS or path.name.startswith("fuzz_"):
        return
    for folder in path.parents:
        build = pathlib.Path(folder, "meson.build")
        if build.is_file() and path.name in build.read_text(encoding="utf-8"):
            return
    yield 1, "in no meson.build"


def is_defined(name, text):
    """Whether a function begins in the text: FJ_KERNEL(name, ...) is one too."""
    for match in re.finditer(rf"^(?:FJ_KERNEL\(|(?!return\b)[A-Za-z_][^;{{}}()=\n]*\b){name}\b", text, re.MULTILINE):
        if re.match(r"[^;{}]*\{", text[match.end() :]):
            return True
    return False


def check_walks(path, text):
    for block in re.finditer(r"^```walk\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        seen = set()
        for number, line in enumerate(block.group(1).split("\n")[:-1], line_of(text, block.start(1))):
            name, *rest = line.split()
            file = pathlib.Path(rest[0] if rest else "none")
            if not file.is_file():
                yield number, f"{name}: the second word is not a file"
            elif not is_defined(name, code_only(file.read_text(encoding="utf-8"))):
                yield number, f"{name} is not defined in {file}"
            if (name, file) in seen:
                yield number, f"{name} is named twice"
            seen.add((name, file))


def check_file(path):
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield 1, "not UTF-8"
        return
    yield from check_blanks(path, text)
    if path.suffix == ".md":
        yield from check_walks(path, text)
    if path.suffix in C_SUFFIXES:
        for check in (check_primitive, check_rooms, check_locale, check_length, check_todo, check_listed):
            yield from check(path, text)


def is_checked(path):
    return path.suffix in TEXT_SUFFIXES and not str(path).startswith(DATA) and pathlib.Path(path).is_file()


def main(names):
    paths = [pathlib.PurePosixPath(name) for name in names] or listed_files()
    found = 0
    for path in filter(is_checked, paths):
        for line, text in check_file(path):
            print(f"{path}:{line}: {text}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
