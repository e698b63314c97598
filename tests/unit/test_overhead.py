"""benchmarks/overhead: the account of a run's wall time, from records as Nextflow and the core write them."""

import json
import subprocess
import sys
from datetime import datetime

import pytest
from helpers import REPO

DAY = "2026-11-27 "
LOG = """Nov-27 10:00:00.000 [main] DEBUG nextflow.cli.Launcher - $> nextflow run
a line without a time
Nov-27 10:02:10.000 [main] DEBUG nextflow.script.ScriptRunner - > Execution complete -- Goodbye
"""
#: Submitted, began, ended; when RELION began, and its seconds. The first is of an earlier run; the last two overlap.
TASKS = {
    "STA:PLAN (1)": ("09:00:00.000", "09:00:00.100", "09:10:00.000", None),
    "STA:IMPORT (a)": ("10:00:10.000", "10:00:10.500", "10:00:20.500", None),
    "STA:X:REFINE3D (a bin4)": ("10:00:21.000", "10:00:21.500", "10:01:51.500", ("10:00:31.500", 60.0)),
    "STA:X:REFINE3D (b bin4)": ("10:00:21.000", "10:00:21.500", "10:02:01.500", ("10:00:41.500", 70.0)),
}


def test_the_account_of_a_run(tmp_path):
    (tmp_path / ".nextflow.log").write_text(LOG)
    rows = ["name\tsubmit\tstart\tcomplete\tworkdir"]
    for number, (name, (submit, start, complete, relion)) in enumerate(TASKS.items()):
        job = tmp_path / f"work/{number}/Refine3D/bin4"
        job.mkdir(parents=True)
        (tmp_path / f"work/{number}/Extract").mkdir()
        (tmp_path / f"work/{number}/Extract/bin4").symlink_to(tmp_path / "work/2/Refine3D/bin4")  # an input
        if relion:
            began = datetime.fromisoformat(DAY + relion[0]).timestamp()
            (job / "commands.jsonl").write_text(json.dumps({"started": began, "seconds": relion[1]}) + "\n")
        rows.append("\t".join([name, DAY + submit, DAY + start, DAY + complete, str(job.parents[1])]))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/trace.tsv").write_text("\n".join(rows) + "\n")
    began = datetime.fromisoformat(DAY + "09:59:58").timestamp()
    words = [sys.executable, REPO / "benchmarks/overhead.py", tmp_path, "--between", began, began + 140]
    shown = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True).stdout
    found = {line[:46].strip(): float(line[46:].split()[0]) for line in shown.split("\n\n")[0].splitlines()}
    assert found == {
        "wall time": 140.0,
        "RELION's programs": 80.0,
        "tasks, beside RELION": 30.0,
        "between tasks (submitting, noticing the end)": pytest.approx(1.5),
        "Nextflow until the first task": 10.0,
        "Nextflow after the last task": 8.5,
        "before and after Nextflow's own log": 10.0,
    }
    assert "REFINE3D                       2     190.0     130.0              30.0" in shown
    assert "PLAN" not in shown
