"""RELION's record of a project, made from directories; and forms of jobs from their commands."""

import json

import pytest

from py2rely_core.data.tables import read_star
from py2rely_core.problems import ProblemError
from py2rely_core.relion.job_star import flags_of, input_paths, job_star
from py2rely_core.results import project as relion_project
from py2rely_core.results.project import new_job, update_project


def job(project, name, command="", started=1.0, files=(), inputs=None, done=True):
    directory = project / name
    directory.mkdir(parents=True)
    if command:
        ran = {"command": command.split(), "started": started, "seconds": 1.0, "exit_code": 0}
        ran |= {"inputs": inputs} if inputs else {}
        (directory / "commands.jsonl").write_text(json.dumps(ran) + "\n")
    if done:
        (directory / "job.json").write_text("{}")
    for file in files:
        (directory / file).touch()
    return directory


@pytest.fixture
def project(tmp_path):
    job(
        tmp_path,
        "Extract/bin4",
        "relion_tomo_subtomo --t ts.star --p picks.star --o Extract/bin4/",
        1,
        ["particles.star"],
    )
    refine = "mpirun -n 3 relion_refine_mpi --auto_refine --i Extract/bin4/particles.star --ref r.mrc --o r"
    inputs = ["Extract/bin4/particles.star", "Reconstruct/bin4_start/merged.mrc"]
    job(tmp_path, "Refine3D/bin4", refine, 3, ["run_data.star", "run_it003_data.star"], inputs)
    job(tmp_path, "Reconstruct/bin4_start", "relion_tomo_reconstruct_particle --p picks.star --o x", 2, ["merged.mrc"])
    return tmp_path


def pipeline(project):
    return {name: table.to_numpy().tolist() for name, table in read_star(project / "default_pipeline.star").items()}


def test_jobs_have_numbers_in_their_order_and_names(project):
    assert update_project(project) == ["Extract/bin4", "Reconstruct/bin4_start", "Refine3D/bin4"]
    found = pipeline(project)
    assert found["pipeline_processes"] == [
        ["Extract/job001/", "Extract/bin4/", "relion.pseudosubtomo", "Succeeded"],
        ["Reconstruct/job002/", "Reconstruct/bin4_start/", "relion.reconstructparticletomo", "Succeeded"],
        ["Refine3D/job003/", "Refine3D/bin4/", "relion.refine3d.tomo", "Succeeded"],
    ]
    assert found["pipeline_general"] == [[4]]
    assert ["Reconstruct/job002/merged.mrc", "Refine3D/job003/"] in found["pipeline_input_edges"]
    assert ["Refine3D/job003/", "Refine3D/job003/run_data.star"] in found["pipeline_output_edges"]
    assert (project / "Refine3D/job003").resolve() == (project / "Refine3D/bin4").resolve()


def test_numbers_stay_and_relions_own_jobs_too(project):
    update_project(project)
    path = project / "default_pipeline.star"
    text = path.read_text().replace("                       4", "                       8")
    text = text.replace("Succeeded\n \n", "Succeeded\nPostProcess/job007/ None relion.postprocess Scheduled\n \n", 1)
    path.write_text(text)
    job(project, "Select/bin4", files=["particles.star"])
    update_project(project)
    names = [row[0] for row in pipeline(project)["pipeline_processes"]]
    assert names == [
        "Extract/job001/",
        "Reconstruct/job002/",
        "Refine3D/job003/",
        "PostProcess/job007/",
        "Select/job008/",
    ]
    assert pipeline(project)["pipeline_general"] == [[9]]
    once = path.read_text()
    update_project(project)
    assert path.read_text() == once


def test_a_job_that_left_nothing_is_shown_from_where_it_ran(project, tmp_path):
    work = job(tmp_path / "work", "Class3D/bin4", "relion_refine --K 2 --o x", 5, ["run.err"], done=False)
    update_project(project, {"Class3D/bin4": (work, "Failed")})
    assert pipeline(project)["pipeline_processes"][-1] == [
        "Class3D/job004/", "Class3D/bin4/", "relion.class3d", "Failed",
    ]  # fmt: skip
    assert (project / "Class3D/job004/run.err").is_file()
    # It ended well the next time: the same number, and its place in the project.
    job(project, "Class3D/bin4", "relion_refine --K 2 --o x", 6)
    update_project(project)
    assert pipeline(project)["pipeline_processes"][-1][3] == "Succeeded"
    assert (project / "Class3D/job004").resolve() == (project / "Class3D/bin4").resolve()


def test_single_jobs_get_the_next_number(project):
    update_project(project)
    assert str(new_job(project, "MaskCreate")) == "MaskCreate/job004"
    assert pipeline(project)["pipeline_processes"][-1] == ["MaskCreate/job004/", "None", "relion.maskcreate", "Running"]
    assert str(new_job(project, "Select")) == "Select/job005"
    (project / "MaskCreate/job004/commands.jsonl").write_text("")
    update_project(project)
    states = {row[0]: row[3] for row in pipeline(project)["pipeline_processes"]}
    assert (states["MaskCreate/job004/"], states["Select/job005/"]) == ("Failed", "Running")


def test_relions_lock_is_kept(project, monkeypatch):
    monkeypatch.setattr(relion_project, "LOCK_SECONDS", 0.1)
    (project / ".relion_lock").mkdir()
    with pytest.raises(ProblemError, match="RELION is writing"):
        update_project(project)


def values(text):
    rows = text.split("_rlnJobOptionValue #2")[1].strip().splitlines()
    return {name: value.strip('"') for name, value in (row.split(" ", 1) for row in rows)}


def test_the_form_of_a_refinement():
    command = (
        "mpirun -n 5 relion_refine_mpi --o Refine3D/bin4/run --i Extract/bin4/particles.star --tomograms ts.star "
        "--ref r.mrc --trust_ref_size --ini_high 40 --particle_diameter 150 --sym O --j 4 --gpu 0:1 --auto_refine "
        "--split_random_halves --low_resol_join_halves 40 --flatten_solvent --oversampling 1 --norm --scale --pad 2 "
        "--pool 30 --random_seed 1 --zero_mask --ctf --offset_range 5 --offset_step 2 --healpix_order 2 "
        "--auto_local_healpix_order 4 --sigma_ang 3"
    )
    text = job_star(command.split(), lambda path: 1.0)
    assert "relion.refine3d.tomo" in text
    found = values(text)
    expected = {
        "sampling": "7.5 degrees", "auto_local_sampling": "1.8 degrees", "nr_mpi": "5", "nr_threads": "4",
        "use_gpu": "Yes", "gpu_ids": "0:1", "offset_step": "1", "ref_correct_greyscale": "Yes",
        "do_solvent_fsc": "No", "do_zero_mask": "Yes", "do_combine_thru_disc": "Yes", "in_tomograms": "ts.star",
        "other_args": "--random_seed 1 --sigma_ang 3",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def form(command, pixel_size=1.0):
    return job_star(command.split(), lambda path: pixel_size)


def test_the_form_of_a_local_resolution():
    text = form(
        "mpirun -n 4 relion_postprocess_mpi --locres --i Reconstruct/bin1_result/half1.mrc "
        "--mask MaskCreate/bin1_result/mask.mrc --o LocalRes/bin1_result/relion --angpix 1.5 --adhoc_bfac -80 "
        "--locres_sampling 25 --mtf d.star"
    )
    assert "relion.localres.own" in text
    assert values(text) == {
        "fn_in": "Reconstruct/bin1_result/half1.mrc", "fn_mask": "MaskCreate/bin1_result/mask.mrc", "angpix": "1.5",
        "adhoc_bfac": "-80", "fn_mtf": "d.star", "do_relion_locres": "Yes", "nr_mpi": "4",
        "other_args": "--locres_sampling 25",
    }  # fmt: skip


def test_no_flag_is_lost():
    """Every flag of a command is in the form, is RELION's own, or is in other_args."""
    found = values(form("relion_postprocess --i half1.mrc --mask m.mrc --o P/p --randomize_at_A 20 --new_flag 3"))
    assert found["other_args"] == "--randomize_at_A 20 --new_flag 3"
    found = values(form("relion_tomo_subtomo --t t --p p --o E/ --b 72 --crop 48 --bin 2 --float16", 2.5))
    assert (found["binned_size_pix"], found["box_size_angst"], found["precrop_size_angst"]) == ("48", "240", "360")
    assert found["subtomo_format"] == "3D pseudo-subtomos"
    assert form("relion_align_symmetry --i a --o b --sym O") is None
    assert form("py2rely task") is None


def test_what_a_command_reads(tmp_path, monkeypatch):
    """A reference that was staged under another name is known by what it is in the project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Reference").mkdir()
    (tmp_path / "Reference/half1.mrc").symlink_to("/work_dir/ab/cd/Reconstruct/bin2_start/half1.mrc")
    command = "mpirun -n 3 relion_refine_mpi --o r/run --i Extract/bin2/particles.star --ref Reference/half1.mrc"
    assert input_paths(command.split()) == ["Extract/bin2/particles.star", "Reconstruct/bin2_start/half1.mrc"]
    assert flags_of(command.split())[:2] == ("relion_refine", 3)
