"""Seconds of one refinement as it is, and with its leading rank giving way; the same seed, hence the same work."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from py2rely_core.relion.programs import LEADER_NICENESS, giving_way
from py2rely_core.relion.run import commands

#: As ``conf/base.config`` sets them for every task.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_mapby": ":oversubscribe",
    "PRTE_MCA_bindto": "none",
}


def newest(work: Path, job: str) -> Path:
    """The directory of the newest task in a work directory that has run a job to its end; others have it as a link."""
    jobs = [path for path in work.glob(f"*/*/{job}") if not path.is_symlink() and (path / "run_data.star").is_file()]
    found = [path.parents[1] for path in jobs]
    if not found:
        raise SystemExit(f"No finished {job} in {work}: 'make demo' makes one.")
    return max(found, key=lambda path: path.stat().st_mtime)


def main() -> None:
    """Run the refinement both ways, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".demo/work"), help="work directory of a finished run")
    parser.add_argument("--job", default="Refine3D/bin4")
    options = parser.parse_args()
    task = newest(options.work, options.job)
    command = next(done["command"] for done in commands(task / options.job) if done["command"][0] == "mpirun")
    print(f"{command[2]} ranks, {os.cpu_count()} cores: {' '.join(command)}")
    with tempfile.TemporaryDirectory() as output:
        command[command.index("--o") + 1] = f"{output}/run"
        ways = {"as it is": command, f"leader with nice {LEADER_NICENESS}": giving_way(command)}
        for name, words in ways.items():
            start = time.monotonic()
            subprocess.run(words, cwd=task, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
            print(f"{name:20}{time.monotonic() - start:8.0f} s", flush=True)


if __name__ == "__main__":
    main()
