"""What of a run can go, from directories as Nextflow and RELION leave them; what goes, and that nothing else does."""

import json
import os
import socket
from pathlib import Path

import pandas as pd
import pytest
from helpers import cli

from py2rely_core.data.tables import write_star
from py2rely_core.problems import ProblemError
from py2rely_core.relion.run import run_job
from py2rely_core.results.clean import ATTEMPTS, IMAGES, ITERATIONS, SUMS, free, free_images, removable, sizes

START = 1_800_000_000.0
HEAD = "name\tstatus\texit\tsubmit\tstart\tcomplete\tworkdir"


class Tree:
    """A run that has ended, with a task for each of its jobs."""

    def __init__(self, root, state="finished"):
        self.root, self.results, self.work, self.rows = root, root / "results", root / "work", []
        self.results.mkdir(parents=True)
        record = {"name": "x", "launch_dir": str(root), "work_dir": str(self.work), "started": START, "command": "",
                  "profile": "", "host": socket.gethostname(), "pid": os.getpid(), "state": state}  # fmt: skip
        (self.results / "run.json").write_text(json.dumps(record))
        (self.results / "plan.json").write_text(json.dumps({"datasets": [{"id": "main", "project": "", "levels": []}]}))

    def task(self, name, job, files, status="COMPLETED", code=0):
        number = len(self.rows) + 1
        directory = self.work / f"{number:02x}" / f"{number:030x}"
        for file in files:
            path = directory / job / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 9000)
        moments = [f"2027-01-15 09:{number:02d}:00"] * 3
        self.rows.append("\t".join([f"STA:LEVEL:{name}", status, str(code), *moments, str(directory)]))
        (self.results / "trace.tsv").write_text("\n".join([HEAD, *self.rows]) + "\n")
        os.utime(self.results / "trace.tsv", (START + 9999, START + 9999))
        return directory / job


@pytest.fixture
def tree(tmp_path):
    """Two levels, the first in groups; polishing."""
    made = Tree(tmp_path)
    images = ["particles.star", "Subtomograms/TS_01/1_stack2d.mrcs"]
    group = made.task("EXTRACT_GROUP (bin4 1)", "Extract/bin4", images)
    made.task("MERGE_EXTRACT (bin4)", "Extract/bin4", ["particles.star"])
    merged = made.work / "02" / f"{2:030x}" / "Extract/bin4"
    (merged / "Subtomograms/TS_01").mkdir(parents=True)
    (merged / "Subtomograms/TS_01/1_stack2d.mrcs").hardlink_to(group / "Subtomograms/TS_01/1_stack2d.mrcs")
    made.task("RECONSTRUCT_GROUP (bin4_start 1)", "Reconstruct/bin4_start", ["temp/sum_0_data_half0.mrc"])
    made.task("RECONSTRUCT (bin4_start)", "Reconstruct/bin4_start", ["merged.mrc", "temp/sum_1_data_half0.mrc"])
    made.task("REFINE3D (bin4)", "Refine3D/bin4", ["run_it001_data.star"], status="FAILED", code=137)
    refine = made.task("REFINE3D (bin4)", "Refine3D/bin4", ["run_it001_data.star", "run_it002_data.star"])
    (refine / "run_data.star").hardlink_to(refine / "run_it002_data.star")
    made.task("EXTRACT (bin2)", "Extract/bin2", images)
    made.task("RECONSTRUCT_GROUP (bin2_start 1)", "Reconstruct/bin2_start", ["temp/sum_0_data_half0.mrc"])
    for number in (1, 2, 3):
        (made.results / "Refine3D/bin4").mkdir(parents=True, exist_ok=True)
        (made.results / f"Refine3D/bin4/run_it00{number}_data.star").write_bytes(b"x" * 9000)
    (made.results / "Extract").mkdir()
    (made.results / "Extract/bin4").symlink_to(merged)
    return made


def state(directory):
    """What Nextflow looks at of a directory that a later task was given."""
    found = directory.stat()
    return found.st_size, found.st_mtime_ns, sorted(path.name for path in directory.iterdir())


def test_what_goes_and_what_stays(tree):
    jobs = [path for path in tree.work.glob("*/*/*/*") if path.is_dir() and "/05/" not in str(path)]
    before = {job: state(job) for job in jobs}
    found = removable(tree.results)
    goes = {str(one.path.relative_to(tree.root)).replace("0" * 28, "."): one.kind for one in found}
    assert goes == {
        "work/01/.01/Extract/bin4/Subtomograms/TS_01/1_stack2d.mrcs": IMAGES,
        "work/02/.02/Extract/bin4/Subtomograms/TS_01/1_stack2d.mrcs": IMAGES,
        "work/03/.03/Reconstruct/bin4_start/temp/sum_0_data_half0.mrc": SUMS,
        "work/04/.04/Reconstruct/bin4_start/temp/sum_1_data_half0.mrc": SUMS,
        "work/05/.05/Refine3D/bin4/run_it001_data.star": ATTEMPTS,
        "work/06/.06/Refine3D/bin4/run_it001_data.star": ITERATIONS,
        "results/Refine3D/bin4/run_it001_data.star": ITERATIONS,
        "results/Refine3D/bin4/run_it002_data.star": ITERATIONS,
    }
    counted = sizes(found)
    assert counted[IMAGES] == (2, 12288)  # one file with two names
    assert counted[SUMS][0] == 2
    free(found)
    assert {job: state(job) for job in jobs} == before
    assert not [one.path for one in found if one.path.exists() and one.path.stat().st_size]
    assert (tree.work / "06" / f"{6:030x}" / "Refine3D/bin4/run_data.star").stat().st_size == 9000
    assert (tree.results / "Refine3D/bin4/run_it003_data.star").exists()
    assert (tree.work / "07" / f"{7:030x}" / "Extract/bin2/Subtomograms/TS_01/1_stack2d.mrcs").exists()
    assert removable(tree.results) == []


def test_the_command_says_what_and_dry_run_does_nothing(tree, capsys):
    cli("clean", tree.root, "--dry-run")
    assert "would be freed" in capsys.readouterr().out
    assert len(removable(tree.results)) == 8
    cli("clean", tree.results)
    text = capsys.readouterr().out
    assert "particle images" in text
    assert removable(tree.results) == []


def test_a_running_run_is_left_alone(tree):
    """Also one that has the same work directory, and results elsewhere."""
    record = json.loads((tree.results / "run.json").read_text()) | {"state": "running", "host": "another"}
    other = tree.root / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(record | {"started": START}))
    os.utime(other / "run.json")
    cli("clean", tree.results, code=65)
    (other / "run.json").write_text(json.dumps(record | {"state": "finished"}))
    assert removable(tree.results)


def test_links_and_other_places_are_left_alone(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("x")
    images = tree.work / "01" / f"{1:030x}" / "Extract/bin4/Subtomograms"
    (images / "TS_02").symlink_to(outside)
    (images / "TS_01/link.mrcs").symlink_to(outside / "precious")
    tree.rows.append("\t".join(["STA:EXTRACT (bin4)", "COMPLETED", "0", *["2027-01-15 10:00:00"] * 3, str(outside)]))
    (outside / "Extract/bin4/Subtomograms").mkdir(parents=True)
    (outside / "Extract/bin4/Subtomograms/x.mrcs").write_text("x")
    (tree.results / "trace.tsv").write_text("\n".join([HEAD, *tree.rows]) + "\n")
    os.utime(tree.results / "trace.tsv", (START + 9999, START + 9999))
    found = removable(tree.results)
    assert len(found) == 8
    free(found)
    assert (outside / "precious").exists()
    assert (outside / "Extract/bin4/Subtomograms/x.mrcs").exists()


def test_a_refinement_that_needs_freed_images_says_so(tmp_path, monkeypatch):
    task = tmp_path / "ab" / "cd"
    job = task / "Extract/bin4"
    (job / "Subtomograms/TS_01").mkdir(parents=True)
    image = job / "Subtomograms/TS_01/1_stack2d.mrcs"
    image.write_text("x")
    write_star({"particles": pd.DataFrame({"rlnImageName": ["Extract/bin4/Subtomograms/TS_01/1_stack2d.mrcs"]})},
               job / "particles.star")  # fmt: skip
    group = tmp_path / "group/Extract/bin4/Subtomograms/TS_01"
    group.mkdir(parents=True)
    (group / "1_stack2d.mrcs").hardlink_to(image)
    (job / "parts.json").write_text(json.dumps({"parts": [str(group.parents[1])]}))
    before = state(job)
    free_images(job)
    assert state(job) == before
    assert not image.exists()
    assert not (group / "1_stack2d.mrcs").exists()
    (tmp_path / "next/Extract").mkdir(parents=True)
    (tmp_path / "next/Extract/bin4").symlink_to(job)
    monkeypatch.chdir(tmp_path / "next")
    command = ["true", "relion_refine", "--i", "Extract/bin4/particles.star"]
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(ProblemError, match="were freed") as error:
        run_job(Path("Refine3D/bin4"), command)
    assert str(task) in str(error.value)
