"""The rule of 3D classification on small simulated sets: see benchmarks/class_rule."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from typing import Any

from classification import classify, score
from truth import REPO

HOME = REPO / ".demo/class_rule"
HEAD = (
    "| set | what is there | particles | noise | classes | seed | precision | recall | apart | |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
#: What is there (see ``demo-data``), particles per tilt series, noise, classes, seed.
SETS: list[tuple[dict[str, Any], int, float, int, int]] = [
    *(({"false_picks": 0.5}, 20, 1.5, 2, seed) for seed in (1, 2)),
    *(({"false_picks": 0.3}, 20, 1.5, 3, seed) for seed in (2, 3)),
    ({"false_picks": 0.3, "second_conformation": 0.3}, 30, 1.5, 3, 4),
    *(({"second_conformation": 0.3}, 20, 1.5, 2, seed) for seed in (1, 2, 3)),
    *(({"second_conformation": 0.3}, 30, 1.5, 3, seed) for seed in (6, 7)),
    *(({"second_conformation": 0.2}, 30, 3.0, 3, seed) for seed in (8, 9)),
    *(({"second_conformation": 0.3}, 40, 6.0, 4, seed) for seed in (10, 11)),
    ({"second_conformation": 0.4}, 30, 1.5, 2, 12),
    *(({}, 20, 1.5, 2, seed) for seed in (3, 4)),
    *(({}, 40, 3.0, classes, 5) for classes in (2, 3, 4)),
    *(({}, 40, 6.0, 4, seed) for seed in (6, 7)),
]


def main() -> None:
    """Print a line per set."""
    print(HEAD, flush=True)
    for number in map(int, sys.argv[1:] or range(1, len(SETS) + 1)):
        what, particles, noise, classes, seed = SETS[number - 1]
        home = HOME / str(number)
        shutil.rmtree(home, ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            classify(home, classes, seed=seed, noise=noise, particles=particles, **what)
        found = score(home / "Select/bin2_classes/particles.star", home / "data", "a")
        noted = json.loads((home / "Select/bin2_classes/job.json").read_text())
        apart = ", ".join("-" if row["apart"] is None else f"{row['apart']:.0%}" for row in noted["classes"])
        there = " and ".join(f"{share:.0%} {name.replace('_', ' ')}" for name, share in what.items()) or "one structure"
        cells = (number, there, 2 * particles, noise, classes, seed, f"{found.precision:.2f}", f"{found.recall:.2f}")
        print(f"| {' | '.join(map(str, cells))} | {apart} | {noted['reason']} |", flush=True)


if __name__ == "__main__":
    main()
