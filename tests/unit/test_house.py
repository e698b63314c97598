"""The order of the house: which rooms may import which, and what an installation brings."""

import subprocess
import tomllib

from helpers import REPO


def test_rooms_import_downwards_and_not_in_circles():
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def pinned(name):
    """Packages of a lock file that Linux gets."""
    lines = [line for line in (REPO / name).read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {line.split("==")[0] for line in lines if "sys_platform ==" not in line}


def test_the_core_is_small_and_the_other_locks_are_larger():
    core, copick, test = (pinned(f"requirements{kind}.lock") for kind in ("", "-copick", "-test"))
    assert len(core) <= 30
    assert core < copick < test
    assert "copick" in copick - core
    asked = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    names = {text.split(">")[0].split("<")[0] for text in asked["dependencies"]}
    assert names <= core
    assert {text.split(">")[0] for text in asked["optional-dependencies"]["dev"]} <= test
