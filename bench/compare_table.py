"""Table of the rows of two builds from standard input, each a label and a row of `flexjit bench -o jsonl`; see compare.sh."""

import json
import statistics
import sys

LAYOUT = "{:>5} {:>4} {:>24} {:>9}  {:>10} {:>10} {:>6}  {:>10} {:>10} {:>6}"


def main():
    rows = {}
    turns = {}
    for line in sys.stdin:
        label, text = line.split(" ", 1)
        row = json.loads(text)
        if "shape" not in row:
            sys.exit(f"compare_table.py: {label}: {text.strip()}")
        blocks = row["blocks"]
        total = sum(blocks.values()) or 1
        key = (row["dtype"], row["direction"], ",".join(map(str, row["shape"])), f"{1 - blocks['empty'] / total:.0%}")
        rows.setdefault(key, {}).setdefault(label, []).append(row)
        turns[label] = max(turns.get(label, 0), len(rows[key][label]))
    print(f"{turns.get('new', 0)} rounds; times in ms, ratio = new / old")
    print(LAYOUT.format("dtype", "dir", "shape", "computed", "median old", "median new", "ratio", "min old", "min new", "ratio"))
    for key, both in rows.items():
        medians = [statistics.median(row["median_ms"] for row in both[label]) for label in ("old", "new")]
        least = [min(row["min_ms"] for row in both[label]) for label in ("old", "new")]
        cells = [f"{medians[0]:.3f}", f"{medians[1]:.3f}", f"{medians[1] / medians[0]:.3f}"]
        cells += [f"{least[0]:.3f}", f"{least[1]:.3f}", f"{least[1] / least[0]:.3f}"]
        print(LAYOUT.format(*key, *cells))


if __name__ == "__main__":
    main()
