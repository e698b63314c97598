"""Parameters: one table for workflow, docs and launchers; names that Nextflow itself takes; what --help answers."""

import json
import re
import shutil
import subprocess
from itertools import product

import pytest
from helpers import AS_TEXT, REPO, environment

from py2rely_core.parameters.recipe import Recipe
from py2rely_core.parameters.table import ALL, CONFIGURATION, GROUPS, Written, schema, typed, with_tables

#: Names of the newest Nextflow's own: its language reference, global namespace, keywords and namespaces.
RESERVED = {
    "baseDir", "launchDir", "moduleDir", "params", "projectDir", "secrets", "workDir", "branchCriteria", "env",
    "error", "exit", "file", "files", "groupKey", "multiMapCriteria", "print", "printf", "println", "record",
    "sendMail", "sleep", "tuple", "channel", "Channel", "log", "nextflow", "workflow", "task", "topic",
    "process", "include", "enum", "take", "main", "emit", "publish", "onComplete", "onError", "output", "input",
    "when", "script", "shell", "exec", "stub", "eval", "stdin", "stdout", "path", "val", "each", "Bag",
    "Record", "Path", "Map", "List", "Set", "Tuple", "Value", "Duration", "MemoryUnit", "VersionNumber",
}  # fmt: skip
SCRIPTS = sorted([REPO / "main.nf", *(path for room in ("modules", "subworkflows", "workflows")
                                     for path in (REPO / room).rglob("*.nf"))])  # fmt: skip


def test_the_docs_and_the_launchers_form_are_of_the_same_table():
    remedy = "python -m py2rely_core.parameters.table"
    assert json.loads((REPO / "nextflow_schema.json").read_text()) == schema(), remedy
    page = (REPO / "docs/parameters.md").read_text()
    assert with_tables(page) == page, remedy
    configured = [name for group in schema()["$defs"].values() if group.get("configuration")
                  for name in group["properties"]]  # fmt: skip
    assert tuple(configured) == CONFIGURATION


def test_nextflow_config_has_the_defaults_of_the_table():
    block = (REPO / "nextflow.config").read_text().split("\nparams {")[1].split("\n}")[0]
    found = dict(re.findall(r"^ {4}(\w+) = (.*?) *(?://.*)?$", block, flags=re.M))
    wanted = {name: {None: "null", True: "true", False: "false"}.get(one.default, repr(one.default))
              for name, one in ALL.items()}  # fmt: skip
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("cpus", "4", 4), ("cpus", 4, 4), ("cpus", "four", "four"), ("num_gpus", "0", 0), ("gpus", "0", "0"),
        ("timeout", "0.5", 0.5), ("timeout", "48", 48), ("run_class3D", "false", False), ("run_class3D", "Yes", True),
        ("run_class3D", "maybe", "maybe"), ("low_pass", "4e1", 40.0), ("best_class", "2", 2), ("cpus", None, None),
        ("refine3D", "x", "x"), ("gpus", 0, "0"), ("session_id", Written("1e5"), "1e5"), ("mask", True, "true"),
    ],
)  # fmt: skip
def test_values_get_their_types_however_they_arrive(name, value, wanted):
    found = typed(name, value)
    assert (found, type(found)) == (wanted, type(wanted))


def test_no_name_is_one_of_nextflows_own():
    declared = re.compile(
        r"^\s*(?:def|process|workflow)\s+(\w+)|\bas\s+([A-Z]\w+)|^ {4,}(\w+) = |[{(,] *(\w+)(?=[\w, ]*->)", re.M
    )
    for path in SCRIPTS:
        names = {name for found in declared.findall(path.read_text()) for name in found if name}
        assert not names & RESERVED, path


def test_no_parameter_is_a_block_of_the_recipe():
    assert not set(ALL) & set(Recipe.model_fields)
    assert len(ALL) == sum(len(group.parameters) for group in GROUPS)


def test_rows_are_read_by_name():
    """Nobody can check a number of a row by reading: [0] and [-1] of lists, and what an operator joins."""
    for path in SCRIPTS:
        assert not re.findall(r"\brow\[(?:[2-9]|\d\d)", path.read_text()), path


@pytest.mark.nextflow
def test_help(tmp_path):
    """Every parameter in its group and the commands that people need; nothing is left behind, no trace is replaced."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/trace.tsv").write_text("of an earlier run")
    done = subprocess.run(
        ["nextflow", "-log", tmp_path / "log", "run", REPO, "--help"], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    places = [done.stdout.index(group.title.split(" (")[0]) for group in GROUPS]
    assert places == sorted(places)
    assert all(re.search(rf"^  --{name} ", done.stdout, flags=re.M) for name in ALL)
    for command in ("py2rely prepare relion5-parameters", "py2rely check", "nextflow run"):
        assert command in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"results", "log", ".nextflow", "work"}
    assert (tmp_path / "results/trace.tsv").read_text() == "of an earlier run"


@pytest.mark.nextflow
def test_when_a_level_searches_all_orientations(tmp_path):
    """Not determined, and finer detail may tell; or not consistent, and pixels were the limit. It has the map again."""
    (tmp_path / "main.nf").write_text(
        f"include {{ at_next_level ; searches_anew }} from '{REPO}/subworkflows/states'\n"
        "workflow {\n def cases = new groovy.json.JsonSlurperClassic().parseText(file('cases.json').text)\n"
        " def found = cases.collect { one ->\n"
        "  def state = [tested: one.tested ? file(one.tested) : [], postprocess: file(one.postprocess)]\n"
        "  searches_anew([refine_anew: one.anew], state) }\n"
        # Levels after one of which the first determines orientations, and the second does not.
        " def level = [refine_anew: [coarse: true]]\n def judged = { judgement ->\n"
        "  [tested: file('tested_' + judgement), postprocess: file('postprocess_' + judgement)] }\n"
        " def first = at_next_level([levels: [[refine_anew: null], level, level], map: file('map.mrc'), tested: []])\n"
        " def second = at_next_level(first + judged('consistent_False_True'))\n"
        " def third = at_next_level(second + judged('not_determined_False_True'))\n"
        " println groovy.json.JsonOutput.toJson([first, second, third].collect { one -> [one.anew, one.from_map] })\n"
        " println groovy.json.JsonOutput.toJson(found as boolean[])\n}\n"
    )
    cases, expected = [], []
    for judgement, limited, coarse in product(("consistent", "partly", "not determined"), (True, False), (True, False)):
        place = f"{judgement}_{limited}_{coarse}".replace(" ", "_")
        noted = {"tested": {"orientations": {"judgement": judgement}}, "postprocess": {"nyquist_limited": limited}}
        for job, numbers in noted.items():
            (tmp_path / f"{job}_{place}").mkdir()
            (tmp_path / f"{job}_{place}/job.json").write_text(json.dumps(numbers))
        cases += [{"anew": anew} | {job: f"{job}_{place}" for job in noted} for anew in ({"coarse": coarse}, None)]
        expected += [(limited and judgement != "consistent") or (coarse and judgement == "not determined"), False]
    cases.append({"anew": {"coarse": True}, "tested": "", "postprocess": "postprocess_not_determined_True_True"})
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        ["nextflow", "-q", "-log", tmp_path / "log", "run", "main.nf"], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    levels, found = map(json.loads, done.stdout.splitlines()[-2:])
    assert found == [*expected, False]
    assert levels == [[False, True], [False, False], [True, True]]


@pytest.mark.nextflow
def test_names_stay_text_where_nextflow_makes_numbers_of_them(tmp_path):
    """From the command line and from a parameter file in YAML; what the configuration has read already is refused."""
    shutil.copy(REPO / "nextflow_schema.json", tmp_path)
    (tmp_path / "main.nf").write_text(
        f"include {{ check_texts ; needs_of ; parameter_files ; typed }} from '{REPO}/workflows/configuration'\n"
        "workflow {\n def found = typed(params)\n println groovy.json.JsonOutput.toJson(found)\n"
        " println groovy.json.JsonOutput.toJson([needs: needs_of(parameter_files(found), found)])\n"
        " check_texts(found, params)\n}\n"
    )
    names = ("session_id", "user_id", "outdir", "gpus", "low_pass")
    (tmp_path / "nextflow.config").write_text(f"params {{ {'; '.join(f'{name} = null' for name in names)} }}\n")
    (tmp_path / "given.yml").write_text(
        "session_id: 010\nuser_id: 1e5\nparticle_name: 1_2\nimports:\n  run_prefix: 007\n"
    )

    def run(*words):
        done = subprocess.run(
            ["nextflow", "-q", "-log", tmp_path / "log", "run", "main.nf", *words], cwd=tmp_path,
            env=environment(**{AS_TEXT: ""}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        shown = [json.loads(line) for line in re.findall(r"^{.*}$", done.stdout, re.M)]
        return *shown, done.returncode, done.stdout + done.stderr

    given, _needs, code, text = run(
        "--session_id", "01", "--user_id=1e5", "--particle_name", "1d", "--imports.run_ids", "007", "--low_pass", "4e1",
        "--refine3D.ini_high", "40", "--gpus", "0", "--run_class3D",
    )  # fmt: skip
    assert not code, text
    assert given == {
        "session_id": "01", "user_id": "1e5", "particle_name": "1d", "imports": {"run_ids": "007"}, "low_pass": 40.0,
        "refine3D": {"ini_high": 40}, "gpus": "0", "run_class3D": True, "outdir": None,
    }  # fmt: skip
    (tmp_path / "empty.json").write_text('{"resolutions": {"binning_list": "2,1"}, "ctf_refine": {}}')
    given, found, code, text = run(
        "--parameter", "empty.json", "-params-file", "given.yml", "--outdir", "01", "--imports.user_id", "1e5"
    )
    wanted = {"session_id": "010", "user_id": "1e5", "particle_name": "1_2", "outdir": "01"}
    assert {name: given[name] for name in wanted} == wanted
    assert given["imports"] == {"run_prefix": "007", "user_id": "1e5"}
    # An empty block is one, as for the core.
    assert (found["needs"]["ctf_refine"], found["needs"]["polish"]) == (True, False)
    assert code
    assert "takes --outdir 01 for a number: 1." in text
