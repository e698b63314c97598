"""Tilt series that a step cannot work on are found, left out with their reason, and counted: with real RELION."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers import TINY, cli, make_data, write_parameters
from report_fixture import make_jobs, make_plan

from py2rely_core.checks.preflight import check_parameters
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.parameters.lost import LIMIT, limit_problems, lost_limit
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.groups import merge_extract, merge_sums, split_particles
from py2rely_core.relion.lost import merge_lost, refuse_too_many, run_without_lost
from py2rely_core.relion.outputs.job import lost_of
from py2rely_core.relion.outputs.particles import check_extract
from py2rely_core.relion.outputs.tilt_series import check_ctf_refine, check_polish
from py2rely_core.relion.tomograms import TABLE, make_tomograms, settle_subtomograms
from py2rely_core.report.outcome import write_outcome
from py2rely_core.results.collect import collect_results, refuse_lost, summary
from py2rely_core.results.status import outcome

PARTICLES = "Select/input/particles.star"
GIVEN = ["--t", "Import/tilt_series/tomograms.star", "--p", PARTICLES, "--b", "24", "--bin", "2", "--j", "1"]
EXTRACT = ["relion_tomo_subtomo", *GIVEN, "--o", "Extract/bin2/", "--stack2d", "--float16"]
AVERAGE = ["relion_tomo_reconstruct_particle", *GIVEN, "--o", "Reconstruct/x/", "--sym", "O", "--j_out", "1",
           "--j_in", "1"]  # fmt: skip


def _gone(stack):
    stack.unlink()


def _with_nan(stack):
    with mrcfile.open(stack, mode="r+") as mrc:
        mrc.data[2, 60:100, 60:100] = np.nan


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three tilt series, imported; never written to."""
    path = tmp_path_factory.mktemp("lost")
    data = make_data(path / "data", **TINY | {"tilt_series": 3, "particles": 12}, angle_error=2.0, shift_error=3.0)
    tables = ("--particles", data / "particles.star", "--tilt-series", data / "tilt_series.star")
    cli("task", "import", *tables, "--project", data, "--symmetry", "O", "--output", path / "run")
    return path / "run"


@pytest.fixture
def broken(project, tmp_path, monkeypatch):
    """Makes a copy of it in which a stack is broken, and goes there, where `limit` tilt series may be lost."""

    def make(breaks, limit="1"):
        here = shutil.copytree(project, tmp_path / "here", symlinks=True)
        link = here / "Import/tilt_series/stacks/TS_02.mrcs"
        if breaks:
            stack = tmp_path / "TS_02.mrcs"
            shutil.copyfile(link, stack)
            breaks(stack)
            link.unlink()
            link.symlink_to(stack)
        monkeypatch.chdir(here)
        monkeypatch.setenv(LIMIT, limit)
        return here

    return make


@pytest.fixture(scope="module")
def without(project, tmp_path_factory):
    """What a run gives that never had TS_02."""
    path = shutil.copytree(project, tmp_path_factory.mktemp("lost") / "without", symlinks=True)
    blocks = read_star(path / PARTICLES)
    rows = blocks["particles"]
    write_star(blocks | {"particles": rows[rows["rlnTomoName"] != "TS_02"]}, path / PARTICLES)
    for job, command in (("Extract/bin2", EXTRACT), ("Reconstruct/x", AVERAGE)):
        (path / job).mkdir(parents=True)
        subprocess.run(command, cwd=path, check=True, capture_output=True)
    return path


@pytest.mark.relion
@pytest.mark.parametrize("breaks", [_gone, _with_nan])
def test_subtomograms_go_on_without_a_broken_tilt_series(broken, breaks):
    """Also where RELION makes no tomogram of it; without a limit that is the step's failure."""
    here, job, tables = broken(breaks), Path("Extract/bin2"), Path("Import/tilt_series/tomograms.star")
    make_tomograms(job, Path(PARTICLES), tables, 2, 1, Path("tomograms"))
    command = ["relion_tomo_subtomo", "--t", f"tomograms/{TABLE}", *GIVEN[2:], "--o", f"{job}/", "--real_subtomo"]
    run_without_lost(job, command, [])
    (lost,) = lost_of(job)
    assert (lost["tilt_series"], lost["particles"]) == ("TS_02", 12)
    settle_subtomograms(job, tables, Path("tomograms"))
    check_extract(job, Path(PARTICLES), 24, 10.0, of_tomograms=True)
    assert set(read_star(job / "particles.star")["particles"]["rlnTomoName"]) == {"TS_01", "TS_03"}
    if breaks is _gone:
        os.environ[LIMIT] = "0"
        with pytest.raises(ProblemError):
            make_tomograms(job, Path(PARTICLES), tables, 2, 1, here / "again")


@pytest.mark.relion
@pytest.mark.parametrize("breaks", [_gone, _with_nan])
def test_extraction_goes_on_without_a_broken_tilt_series(broken, without, breaks):
    here = broken(breaks)
    run_without_lost(here.joinpath("Extract/bin2").relative_to(here), EXTRACT, [])
    job = here / "Extract/bin2"
    (lost,) = lost_of(job)
    assert (lost["tilt_series"], lost["particles"]) == ("TS_02", 12)
    assert ("not finite" if breaks is _with_nan else "failed with exit code") in lost["reason"]
    mine, other = (read_star(path / "Extract/bin2/particles.star") for path in (here, without))
    for block, rows in other.items():
        assert mine[block].equals(rows), block
    for image in other["particles"]["rlnImageName"]:
        assert (here / image).read_bytes()[1024:] == (without / image).read_bytes()[1024:]
    assert not (here / "each").exists()
    check_extract(Path("Extract/bin2"), Path(PARTICLES), 24, 10.0)
    numbers = json.loads((job / "job.json").read_text())
    assert (numbers["particles_in"], numbers["particles_out"]) == (36, 24)
    assert "12 are in tilt series that were left out" in numbers["reason"]
    assert numbers["lost"] == [lost]
    assert any("1 tilt series was left out: TS_02" in text for text in numbers["warnings"])
    assert len(numbers["commands"]) == 4  # all at once, then one by one
    if breaks is _gone:
        assert "ERROR" in (job / "run.err").read_text()


@pytest.mark.relion
def test_an_average_goes_on_without_a_broken_tilt_series(broken, without):
    here = broken(_with_nan)
    run_without_lost(Path("Reconstruct/x"), AVERAGE, [])
    assert [one["tilt_series"] for one in lost_of(here / "Reconstruct/x")] == ["TS_02"]
    for name in ("merged", "half1", "half2"):
        mine, other = (read_map(path / f"Reconstruct/x/{name}.mrc").data for path in (here, without))
        assert np.abs(mine - other).max() < 1e-4 * other.std()


@pytest.mark.relion
def test_too_many_and_none_are_failures(broken, capsys):
    here = broken(_gone, limit="0")
    job = Path("Extract/bin2")
    with pytest.raises(ProblemError, match="failed with exit code") as strict:
        run_without_lost(job, EXTRACT, [])
    assert strict.value.exit_code == ExitCode.RELION_FAILED
    shutil.rmtree(job)
    os.environ[LIMIT] = "1"
    earlier = [{"tilt_series": "TS_00", "particles": 7, "reason": "no stack"}]
    with pytest.raises(ProblemError) as error:
        run_without_lost(job, EXTRACT, earlier)
    text = str(error.value)
    assert "2 tilt series failed, and 1 may be lost" in text
    assert "TS_00 (7 particles): no stack" in text
    assert "TS_02 (12 particles)" in text
    # What is wrong for every tilt series is no tilt series' fault.
    shutil.rmtree(job)
    os.environ[LIMIT] = "100%"
    with pytest.raises(ProblemError, match="failed with exit code"):
        run_without_lost(job, [*EXTRACT, "--b", "none"], [])
    assert not lost_of(here / job)


@pytest.mark.relion
def test_what_was_lost_before_is_left_out_at_once(broken):
    broken(_gone)
    run_without_lost(Path("Extract/bin2"), EXTRACT, [{"tilt_series": "TS_02", "particles": 12, "reason": "gone"}])
    assert not lost_of(Path("Extract/bin2"))
    assert set(read_star("Extract/bin2/particles.star")["particles"]["rlnTomoName"]) == {"TS_01", "TS_03"}


@pytest.mark.relion
def test_groups_lose_theirs_and_the_whole_is_counted(broken, without):
    """One group of the two holds nothing but the broken tilt series."""
    here = broken(_with_nan)
    groups = split_particles(Path(PARTICLES), Path("Import/tilt_series/tomograms.star"), 3, Path("groups"))
    kinds = {"Extract/bin2": EXTRACT, "Reconstruct/x": [*AVERAGE, "--no_recon"]}
    for job, command in kinds.items():
        parts = []
        for group in groups:
            words = [str(group / "particles.star") if word == PARTICLES else word for word in command]
            run_without_lost(Path(job), words, [], group=True)
            parts.append(here / "parts" / group.name / job)
            parts[-1].parent.mkdir(parents=True)
            shutil.move(job, parts[-1])
        left = merge_lost(parts, Path(PARTICLES), Path(job))
        assert len(left) == 2
        refuse_too_many(Path(job), Path("Import/tilt_series/tomograms.star"), [])
        if job == "Extract/bin2":
            merge_extract(left, Path(job))
            check_extract(Path(job), Path(PARTICLES), 24, 10.0)
        else:
            merge_sums(left, Path("Import/tilt_series/tomograms.star"), Path(job))
            run_without_lost(Path(job), [*AVERAGE, "--only_do_unfinished"], [])
    assert [one["tilt_series"] for one in lost_of(here / "Extract/bin2")] == ["TS_02"]
    mine, other = (read_map(path / "Reconstruct/x/merged.mrc").data for path in (here, without))
    assert np.abs(mine - other).max() < 1e-4 * other.std()
    mine, other = (read_star(path / "Extract/bin2/particles.star")["particles"] for path in (here, without))
    assert mine["rlnTomoParticleName"].equals(other["rlnTomoParticleName"])
    os.environ[LIMIT] = "0"
    with pytest.raises(ProblemError, match="1 tilt series failed, and 0 may be lost"):
        refuse_too_many(Path("Extract/bin2"), Path("Import/tilt_series/tomograms.star"), [])


#: Of CTF refinement: fails as soon as there are particles of TS_02; otherwise notes the tables as they were.
REFUSES = """particles= tomograms= output=
while (( $# )); do
    case "$1" in --p) particles=$2;; --t) tomograms=$2;; --o) output=$2;; esac; shift
done
grep -q TS_02 $particles && { echo 'ERROR: no power at all' >&2; exit 1; }
mkdir -p $output/temp; touch $output/temp/$(grep -o 'TS_0[0-9]' $particles | head -1).star
cp $tomograms $output/tomograms.star
"""


def test_ctf_refinement_goes_on_without_a_tilt_series_that_it_fails_on(broken, tmp_path, monkeypatch):
    """A stand-in for the program, which RELION's own cannot be made to fail by."""
    program = tmp_path / "bin/relion_tomo_refine_ctf"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\n{REFUSES}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    here = broken(None)
    job = Path("CtfRefine/cycle1")
    command = ["relion_tomo_refine_ctf", "--p", PARTICLES, "--t", "Import/tilt_series/tomograms.star", "--o", f"{job}/"]
    run_without_lost(job, command, [])
    (one,) = lost_of(job)
    assert one["tilt_series"] == "TS_02"
    assert "no power at all" in one["reason"]
    assert {path.name for path in (job / "temp").iterdir()} >= {"TS_01.star", "TS_03.star"}
    check_ctf_refine(job, Path("Import/tilt_series/tomograms.star"), Path(PARTICLES), Path("Select/cycle1_ctf"))
    numbers = json.loads((here / job / "job.json").read_text())
    assert (numbers["unusable"], numbers["particles_in"], numbers["particles_out"]) == ("", 36, 24)
    assert set(read_star("Select/cycle1_ctf/particles.star")["particles"]["rlnTomoName"]) == {"TS_01", "TS_03"}


POLISH = ["relion_tomo_align", *GIVEN[:4], "--b", "24", "--j", "1", "--ref1", "Reconstruct/x/half1.mrc", "--ref2",
          "Reconstruct/x/half2.mrc", "--mask", "MaskCreate/x/mask.mrc", "--fsc", "PostProcess/x/postprocess.star",
          "--theme", "classic", "--o", "Polish/x/", "--motion", "--s_vel", "0.2", "--s_div", "5000",
          "--r", "5"]  # fmt: skip
#: Of polishing: RELION's own, and where there are particles of TS_02, nan in what it wrote of that.
SPOILS = """#!/bin/bash
{real} "$@" || exit 1
while (( $# )); do case "$1" in --p) particles=$2;; --o) job=$2;; esac; shift; done
grep -q TS_02 $particles || exit 0
case {harm} in
    tables) sed -i '/^[ 3]*3@/s/85\\.[0-9]*\\|84\\.[0-9]*/nan/' $job/Import/tilt_series/tilt_series/TS_02.star;;
    motion) sed -i '/^data_TS_02/,$s/^ *[-0-9.]* /nan /' $job/motion.star;;
    particles) sed -i '/TS_02/s/ -\\?[0-9]*\\.[0-9]* / nan /' $job/particles.star;;
esac
"""


@pytest.fixture(scope="module")
def averaged(project, tmp_path_factory):
    """The project with half maps, a mask and their FSC, and what polishing gives without TS_02."""
    path = shutil.copytree(project, tmp_path_factory.mktemp("lost") / "averaged", symlinks=True)
    words = [{"2": "1"}.get(word, word) for word in AVERAGE]
    (path / "Reconstruct/x").mkdir(parents=True)
    subprocess.run(words, cwd=path, check=True, capture_output=True)
    distance = np.sqrt(((np.indices((24, 24, 24)) - 12.0) ** 2).sum(axis=0))
    write_map(path / "MaskCreate/x/mask.mrc", np.clip(9 - distance, 0, 1).astype(np.float32), 5.0)
    (path / "PostProcess/x").mkdir(parents=True)
    halves = [f"Reconstruct/x/half{number}.mrc" for number in (1, 2)]
    subprocess.run(
        ["relion_postprocess", "--i", halves[0], "--i2", halves[1], "--mask", "MaskCreate/x/mask.mrc", "--angpix", "5",
         "--o", "PostProcess/x/postprocess"], cwd=path, check=True, capture_output=True,
    )  # fmt: skip
    blocks = read_star(path / PARTICLES)
    rows = blocks["particles"]
    write_star(blocks | {"particles": rows[rows["rlnTomoName"] != "TS_02"]}, path / "without.star")
    words = [{PARTICLES: "without.star", "Polish/x/": "Polish/without/"}.get(word, word) for word in POLISH]
    (path / "Polish/without").mkdir(parents=True)
    subprocess.run(words, cwd=path, check=True, capture_output=True)
    return path


@pytest.mark.relion
@pytest.mark.parametrize("harm", ["gone", "tables", "motion", "particles"])
def test_polishing_goes_on_without_a_tilt_series_that_it_fails_on(averaged, tmp_path, monkeypatch, harm):
    """The real program where the stack is gone; and one whose results are spoilt, which nan in a stack does not do."""
    here = shutil.copytree(averaged, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv(LIMIT, "1")
    if harm == "gone":
        (here / "Import/tilt_series/stacks/TS_02.mrcs").unlink()
    else:
        program = tmp_path / "bin/relion_tomo_align"
        program.parent.mkdir()
        program.write_text(SPOILS.format(real=shutil.which("relion_tomo_align"), harm=harm))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    job, tomograms = Path("Polish/x"), Path("Import/tilt_series/tomograms.star")
    run_without_lost(job, POLISH, [])
    (one,) = lost_of(job)
    assert (one["tilt_series"], one["particles"]) == ("TS_02", 12)
    assert {
        "gone": "failed with exit code", "tables": "TS_02 has values that are not finite",
        "motion": "the trajectory of TS_02/1 has values", "particles": "a particle of TS_02 is at no finite place",
    }[harm] in one["reason"]  # fmt: skip
    for name in ("TS_01", "TS_03"):
        mine, other = (
            read_star(f"Polish/{job}/Import/tilt_series/tilt_series/{name}.star") for job in ("x", "without")
        )
        assert mine[name].equals(other[name])
    check_polish(job, tomograms, Path(PARTICLES), Path("Select/cycle1_polish"))
    numbers = json.loads((here / job / "job.json").read_text())
    assert (numbers["unusable"], numbers["particles_in"], numbers["particles_out"]) == ("", 36, 24)
    assert numbers["lost"] == [one]
    assert set(numbers["motion"]["per_tomogram"]) == {"TS_01", "TS_03"}
    mine, other = (read_star(file)["particles"] for file in ("Select/cycle1_polish/particles.star",
                                                             "Polish/without/particles.star"))  # fmt: skip
    assert mine.equals(other)
    # Without a limit a failure is the step's, and values that are not finite reject the step.
    shutil.rmtree(job)
    os.environ[LIMIT] = "0"
    if harm == "gone":
        with pytest.raises(ProblemError, match="failed with exit code"):
            run_without_lost(job, POLISH, [])
        return
    run_without_lost(job, POLISH, [])
    check_polish(job, tomograms, Path(PARTICLES), Path("Select/cycle1_polish"))
    assert json.loads((here / job / "job.json").read_text())["unusable"] == one["reason"].removeprefix(f"{job}: ")


def test_limits():
    assert [lost_limit(value, 25) for value in (None, 0, "0", 3, "3", "10%", "12.5 %", "many")] == [
        0,
        0,
        0,
        3,
        3,
        2,
        3,
        0,
    ]
    assert not limit_problems("10%")
    assert not limit_problems(2)
    for wrong in ("many", "-1", "120%", "1.5", "3; rm"):
        assert limit_problems(wrong), wrong


def _truncated(stack):
    with stack.open("rb+") as file:
        file.truncate(3000)


@pytest.mark.relion
def test_the_preflight_leaves_out_broken_stacks(project, tmp_path, monkeypatch):
    data = shutil.copytree(project.parent / "data", tmp_path / "data")
    parameters = write_parameters(tmp_path / "sta.json", data)
    monkeypatch.chdir(tmp_path)

    def plan(limit):
        given = {"parameter": str(parameters), "max_lost_tilt_series": limit}
        return check_parameters(given, None, [], tmp_path, tmp_path / "work", tmp_path / "results")

    _gone(data / "tilt_series/TS_02.mrcs")
    strict, bends = plan("0"), plan("34%")
    assert any("1 image stacks are missing" in one.what and one.is_error for one in strict.problems)
    assert not [one for one in bends.problems if one.is_error]
    (lost,) = bends.plans[0]["lost"]
    assert (lost["tilt_series"], lost["particles"], bends.plans[0]["lose"]) == ("TS_02", 12, 1)
    assert "TS_02.mrcs" in lost["reason"]
    assert any("Tilt series are left out: TS_02" in one.what for one in bends.problems)

    _truncated(data / "tilt_series/TS_03.mrcs")
    text = "\n".join(str(one) for one in plan(1).problems if one.is_error)
    assert "TS_02.mrcs" in text
    assert "TS_03.mrcs" in text
    both = plan(2)
    assert [one["tilt_series"] for one in both.plans[0]["lost"]] == ["TS_02", "TS_03"]

    tables = ("--particles", data / "particles.star", "--tilt-series", data / "tilt_series.star")
    lost = json.dumps(both.plans[0]["lost"])
    cli("task", "import", *tables, "--project", data, "--lost", lost, "--output", tmp_path / "run")
    assert list(read_star("run/Import/tilt_series/tomograms.star")["global"]["rlnTomoName"]) == ["TS_01"]
    assert len(read_star(f"run/{PARTICLES}")["particles"]) == 12
    noted = json.loads((tmp_path / "run/Import/tilt_series/job.json").read_text())
    assert [one["tilt_series"] for one in noted["lost"]] == ["TS_02", "TS_03"]


def test_results_say_what_was_lost(tmp_path):
    plan, jobs = make_plan(), make_jobs()
    lost = {"tilt_series": "TS_03", "particles": 90, "reason": "no image <b>"}
    plan["datasets"][0]["lose"] = 1
    for name in ("Extract/bin4", "Extract/bin2"):
        jobs[name]["lost"] = [lost]
    results = collect_results(plan, {"ribosome": jobs})
    assert results["datasets"][0]["lost_tilt_series"] == [lost | {"job": "Extract/bin4"}]
    assert "TS_03 (90 particles): no image" in summary(results)
    refuse_lost(plan, results)
    write_outcome(results, lambda _name: None, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "1 tilt series left out" in page
    assert "no image &lt;b&gt;" in page
    plan["datasets"][0]["lose"] = 0
    with pytest.raises(ProblemError, match="TS_03"):
        refuse_lost(plan, results)
    assert "left out: TS_03" in outcome(jobs["Extract/bin4"])
