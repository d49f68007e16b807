"""Table of `flexjit bench -o jsonl` rows from standard input, with what limits each; argument: a title."""

import json
import sys

LAYOUT = "{:>5} {:>4} {:>6} {:>4} {:>10} {:>9} {:>8} {:>9}  {}"


def limit(direction, products, median):
    share = products / median
    if share >= 0.5:
        return f"products ({share:.0%} of the time at peak)"
    return f"work per score ({1 - share:.0%} of the time)" if direction == "fwd" else f"work per score and gradient sums ({1 - share:.0%})"


def main():
    print(f"\n{sys.argv[1]}")
    print(LAYOUT.format("dtype", "D", "S", "dir", "median ms", "TFLOP/s", "of peak", "rest ns", "limit"))
    for line in sys.stdin:
        row = json.loads(line)
        if "shape" not in row:
            print(line, end="", file=sys.stderr)
            continue
        dim, length = row["shape"][5], row["shape"][4]
        flops = row["tflops"] * 1e12 * row["median_ms"] * 1e-3
        scores = flops / ((4 if row["direction"] == "fwd" else 10) * dim)
        if not row["peak_tflops"]:
            print(LAYOUT.format(row["dtype"], dim, length, row["direction"], f"{row['median_ms']:.3f}",
                                f"{row['tflops']:.3f}", "-", "-", "no peak"))
            continue
        products = flops / (row["peak_tflops"] * 1e12) * 1e3
        rest = max(0.0, row["median_ms"] - products) * 1e6 / scores
        print(LAYOUT.format(row["dtype"], dim, length, row["direction"], f"{row['median_ms']:.3f}",
                            f"{row['tflops']:.3f}", f"{row['of_peak']:.1%}", f"{rest:.3f}",
                            limit(row["direction"], products, row["median_ms"])), flush=True)


if __name__ == "__main__":
    main()
