#!/usr/bin/env python3
"""Writes the manifest of all mods of examples/mods, for `flexjit prebuild`: four problems each.

usage: corpus_manifest.py OUTPUT.json [TEXT]      (TEXT: only mods whose names contain it)
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/torch"))
import inputs

MODS = ROOT / "examples/mods"
SHAPE = inputs.Shape.parse("2,8,2,333,333,64")
PROBLEMS = [{"dtype": "BF16", "head_dim": [64, 128], "direction": ["fwd", "bwd"]}]


def binding(tensor):
    return f"{tensor.dtype}[{','.join(map(str, tensor.dims))}]"


def entry_of(entry, folder):
    keys = {key: entry[key] for key in ("score_mod", "mask_mod") if key in entry}
    return {
        "mod": os.path.relpath(entry["path"], folder),
        **keys,
        "params": {name: str(value) for name, value in inputs.parameters(entry, SHAPE).items()},
        "bind": {name: binding(tensor) for name, tensor in inputs.captured_inputs(entry, SHAPE, "BF16").items()},
        "problems": PROBLEMS,
    }


def main(arguments):
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    output, text = Path(arguments[0]).resolve(), "".join(arguments[1:])
    corpus = inputs.read_corpus(MODS / "corpus.json", MODS)
    entries = [entry_of(entry, output.parent) for name, entry in corpus.items() if text in name]
    output.write_text(json.dumps({"schema": 1, "entries": entries}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
