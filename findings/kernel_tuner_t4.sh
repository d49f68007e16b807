#!/usr/bin/env bash
# Kernel Tuner writes other keys into T4 results than its schema of them names.
#
# Guess:   the keys of "times" are those of the schema that Kernel Tuner carries, T4/1.0.0/results-schema.json.
# Version: kernel_tuner 1.5.0, Linux, x86-64.
# Seen:    the schema has compilation_time; the writer, get_t4_results, has compilation, and benchmark, which the schema
#          lacks. The file passes the schema, as keys of times are neither required nor closed. Of the schema's values of
#          invalidity the writer has no timeout and no correctness, and correctness is always 1.
# Means:   a reader that follows the schema finds no time of compilation in Kernel Tuner's files, and one that follows its
#          files finds none where the schema was followed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --target "$work" kernel_tuner==1.5.0
PYTHONPATH=$work python3 - <<'PYTHON'
import json
import sys

import jsonschema
from kernel_tuner import file_utils

schema = file_utils.output_file_schema("results")[1]
declared = schema["properties"]["results"]["items"]["properties"]["times"]["properties"]
result = {"x": 1, "time": 2.0, "times": [2.0], "timestamp": "2026-01-01T00:00:00Z"}
result |= dict.fromkeys(("compile_time", "benchmark_time", "framework_time", "strategy_time", "verification_time"), 1.0)
written = file_utils.get_t4_results([result], {"x": [1]})
jsonschema.validate(written, schema)
times = written["results"][0]["times"]
print("of the schema alone:", *sorted(declared.keys() - times.keys()))
print("of the writer alone:", *sorted(times.keys() - declared.keys()))
print("beside the results:", json.dumps({key: value for key, value in written.items() if key != "results"}))
sys.exit("compilation_time" not in declared or "compilation_time" in times or "compilation" not in times)
PYTHON
