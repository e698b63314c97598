"""Classes of RELION projects and runs, looked at while they are watched: which page is made, and what is not read."""

import pytest
from class_fixture import make_class2d, make_class3d, settings_of

from py2rely_core.problems import ProblemError
from py2rely_core.watching.classes import classes_link
from py2rely_core.watching.pages import Pages
from py2rely_core.watching.sources import open_sources

PIPELINE = """
data_pipeline_general
_rlnPipeLineJobCounter 9

data_pipeline_processes
loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Import/job001/ None relion.importtomo Succeeded
Class2D/job004/ None relion.class2d Succeeded
Class3D/job007/ Class3D/two_states/ relion.class3d Running
"""


@pytest.fixture
def project(tmp_path):
    """A RELION project with a 2D classification, and a 3D one that goes on."""
    home = tmp_path / "project"
    (home / "Import/job001").mkdir(parents=True)
    make_class2d(home / "Class2D/job004")
    job = make_class3d(home / "Class3D/job007", 3)
    (home / "Class3D/two_states").symlink_to("job007")
    for path in job.glob("run_it003_class*"):  # the next iteration's maps are there, its tables are not
        (job / path.name.replace("003", "004")).write_bytes(path.read_bytes())
    (home / "default_pipeline.star").write_text(PIPELINE)
    return home


def test_classes_of_a_relion_project(project):
    pages = Pages(open_sources([project]))
    two = pages.classes(0, ("", "Class2D/job004"))
    assert "py2rely routines select -p Class2D/job004/run_it025_data.star -c" in settings_of(two)["ways"][0]["text"]
    three = pages.classes(0, ("", "Class3D/two_states"))
    assert "iteration 3" in three
    settings = settings_of(three)
    assert (settings["rule"], settings["kind"]) == ([1, 4], "3D")
    assert "-p Class3D/job007/run_it003_data.star -c" in settings["ways"][0]["text"]
    assert "Look at the classes" in pages.job(0, ("", "Class2D/job004"))
    assert "Look at the classes" not in pages.job(0, ("", "Import/job001"))
    assert "Waits for you" not in pages.card(0)
    with pytest.raises(ProblemError, match="no classes to look at"):
        pages.classes(0, ("", "Import/job001"))


def test_files_that_lie_elsewhere_are_not_shown(project, tmp_path):
    secret = tmp_path / "secret.star"
    model = project / "Class2D/job004/run_it025_model.star"
    model.rename(secret)
    model.symlink_to(secret)
    pages = Pages(open_sources([project]))
    assert "Look at the classes" not in pages.job(0, ("", "Class2D/job004"))
    with pytest.raises(ProblemError, match="no classes to look at"):
        pages.classes(0, ("", "Class2D/job004"))


def test_an_address_names_the_step_whatever_it_is_called():
    assert classes_link(2, ("a&b", "Class3D/x y")) == "classes?run=2&dataset=a%26b&job=Class3D%2Fx+y"
