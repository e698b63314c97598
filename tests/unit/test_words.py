"""Whatever stands in a field of the parameter file, a name or a path reaches a program as a word, or is refused."""

import subprocess
from pathlib import Path

import pytest

from py2rely_core.parameters.files import parse_recipe
from py2rely_core.planning.binds import stack_binds
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.problems import ProblemError

#: Each would make a file called MARKER where a shell reads it as text.
HOSTILE = (
    "; touch MARKER #",
    "$(touch MARKER)",
    "`touch MARKER`",
    "'; touch MARKER; '",
    "\"; touch MARKER; \"",
    "O'Brien's $(touch MARKER)",
    "x\ntouch MARKER\n",
    "-o && touch MARKER",
    "| touch MARKER",
    "名前 $(touch MARKER)",
    "a" * 3000 + "$(touch MARKER)",
)  # fmt: skip


def _texts(document):
    """Every text of a plan that stands in a script as it is."""
    if isinstance(document, dict):
        return [text for value in document.values() for text in _texts(value)]
    if isinstance(document, list):
        return [text for value in document for text in _texts(value)]
    return [document] if isinstance(document, str) else []


def _fields(recipe):
    """Blocks and names of the fields that hold text, or nothing, or a switch."""
    for block, fields in recipe.model_dump(by_alias=True).items():
        if isinstance(fields, dict) and block != "levels":
            yield from ((block, name) for name, value in fields.items() if isinstance(value, str | bool | None))


def _run(lines, place):
    """Give lines to a shell as words of a command that does nothing with them."""
    script = place / "script.sh"
    script.write_text("".join(f"true {line}\n" for line in lines))
    done = subprocess.run(["bash", "-eu", script], cwd=place, capture_output=True, text=True, check=False)
    assert not (place / "MARKER").exists()
    return done


@pytest.fixture(scope="module")
def recipe():
    """One with every block, of a small particle."""
    sizes = {"resolutions": {"angpix": 5.0, "binning_list": "2,1"}, "refine3D": {"particle_diameter": 150}}
    return sizes | {
        "initial_model": {},
        "ctf_refine": {},
        "bayesian_polish": {},
        "class3D": {"nr_classes": 2},
        "classification": {"run": True},
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_no_field_of_the_parameter_file_is_a_command(recipe, text, tmp_path):
    passed, lines = set(), []
    for block, name in _fields(parse_recipe(recipe, "x")):
        changed = recipe | {block: (recipe.get(block) or {}) | {name: text}}
        try:
            parsed = parse_recipe(changed, "x")
            plans = [plan_dataset(parsed, mode, 120, Machine.of(4, "0,1")) for mode in ("template", "denovo", "known")]
        except (ProblemError, ValueError):
            continue
        passed.add((block, name))
        for plan in plans:
            lines += _texts([plan["levels"], plan["initial_reference"], plan["polishing"]])
    done = _run(sorted(set(lines)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert {("postprocess", "fn_mtf"), ("refine3D", "relax_sym")} <= passed


@pytest.mark.parametrize("text", HOSTILE)
def test_directories_of_stacks_are_words(text, tmp_path):
    name = text.replace("/", "_")[:200]
    line = stack_binds([Path("/data") / name / "TS_01.mrcs"])
    done = _run([line], tmp_path)
    assert done.returncode == 0, done.stderr
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
    assert words.split("\0")[:2] == ["-B", f"/data/{name}"]
