"""The results of bench/torch_gpu.py as JSON and as a table in Markdown."""

import json
import os
import statistics

PEERS = ["flex", "flash", "cudnn"]


def write(path, text):
    """Whole or not at all: a run may be stopped at any time."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def rate(row, name, direction):
    times = row["times"].get(name)
    return row["flops"][direction] / times[direction]["ms"] * 1e-9 if times else None


def cell(value):
    return f"{value:.0f}" if value is not None else "–"


def line(row, direction):
    ours = rate(row, "flexjit", direction)
    peers = [rate(row, name, direction) for name in PEERS]
    ratio = f"{ours / peers[0]:.2f}" if ours and peers[0] else "–"
    shape = [str(row["length"]), str(row["head_dim"]), str(row["heads"] // row["kv_heads"])]
    info = row["kernels"][direction]
    return [row["mod"], *shape, direction, cell(ours), *map(cell, peers), ratio, info["variant"]]


HEADER = ["mod", "S", "D", "GQA", "", "flexjit", *PEERS, "of flex", "variant"]


def table(rows):
    lines = [HEADER, ["---"] + ["---:"] * 3 + ["---"] + ["---:"] * (2 + len(PEERS)) + ["---"]]
    for row in rows:
        if row["times"]:
            lines += [line(row, direction) for direction in ("fwd", "bwd")]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def summary(rows):
    """Geometric means over the cases that both ran."""
    parts = []
    for name in PEERS:
        for direction in ("fwd", "bwd"):
            ratios = [rate(row, "flexjit", direction) / rate(row, name, direction) for row in rows if name in row["times"]]
            if ratios:
                parts.append(f"{statistics.geometric_mean(ratios):.2f} of {name} {direction} ({len(ratios)} cases, "
                             f"least {min(ratios):.2f})")  # fmt: skip
    return "; ".join(parts)


def markdown(report):
    rows = report["rows"]
    kind = "deterministic" if report["deterministic"] else "with atomic additions"
    about = [f"{report['device']}, {report['date']}, PyTorch {report['torch']}", f"BF16, {report['tokens']} tokens, H = 16"]
    peak = f"; a BF16 product of cuBLAS in the same run: {report['matmul_tflops']:.0f}" if "matmul_tflops" in report else ""
    text = [f"# {', '.join(about)}", "", f"TFLOP/s, medians; backward {kind}{peak}", ""]
    text += [table(rows), "", summary(rows), ""]
    bad = [f"* {row['case']}: {'; '.join(row['bad'])} {row['failures'].get('flexjit', '')}" for row in rows if row["bad"]]
    text += ["## Wrong", "", *bad, ""] if bad else []
    failed = [f"* {row['case']}: {name}: {why}" for row in rows for name, why in row["failures"].items() if name != "flexjit"]
    text += ["## Peers that did not run", "", *failed, ""] if failed else []
    text += ["Not measured for lack of time: " + ", ".join(report["left_out"]), ""] if report["left_out"] else []
    return "\n".join(text)


def write_report(report, folder):
    write(folder / "torch_gpu.json", json.dumps(report, indent=1, allow_nan=True) + "\n")
    write(folder / "torch_gpu.md", markdown(report))
