"""How long RELION takes: the formulas' shape, and what a run's own steps make of them."""

import json
from dataclasses import asdict

import pytest
from run_fixture import NOW, FakeRun, iteration

from py2rely_core.cli.status import command
from py2rely_core.data.symmetry import group_order, rotations_of
from py2rely_core.parameters.files import new_recipe, parse_recipe
from py2rely_core.planning.forecast import (
    SCALED,
    UNSCALED,
    effort_of,
    offsets,
    orientations,
    orientations_around,
    step,
    window,
)
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.planning.resources import Workload
from py2rely_core.results.forecast import forecast, forecast_lines, forecast_text, remaining
from py2rely_core.results.progress import read_samples
from py2rely_core.watching.pages import Pages
from py2rely_core.watching.sources import Run

LARGE = Workload(particles=20_000, tilts=40, image=(4096, 4096), tilt_series=100)
#: What RELION writes of an iteration's two passes before it compares images.
PASSES = (
    " Oversampling= 0 NrHiddenVariableSamplingPoints= {all}\n OrientationalSampling= 15 NrOrientations= {views}\n"
    " TranslationalSampling= 2 NrTranslations= {offsets}\n Oversampling= 1 NrHiddenVariableSamplingPoints= 1\n"
    " OrientationalSampling= 7 NrOrientations= 9999\n TranslationalSampling= 1 NrTranslations= 9999\n"
    " Expectation iteration {number}\n000/??? sec\r   1/   1 sec\n"
)


def planned(work=LARGE, machine=None, mode="template", **changes):
    """A data set of plan.json."""
    options = {"tilt_series": "ts.star", "particles": "p.star", "pixel_size": 2.5, "symmetry": "C1", "low_pass": 40}
    options |= {"diameter": 150, "denovo": mode == "denovo", "box_scaling": 2.0, "binnings": "4,2", "threads": 1}
    blocks = {name: changes.pop(name) for name in list(changes) if isinstance(changes[name], dict)}
    data = new_recipe(**options | changes).model_dump(by_alias=True)
    for name, fields in blocks.items():
        data[name] = (data.get(name) or {}) | fields
    plan = plan_dataset(parse_recipe(data, "test"), mode, work.tilt_series, machine or Machine(32), n_particles=1)
    return {"id": "main", "start": "picks", "workload": asdict(work)} | plan


def seconds(job, dataset):
    return effort_of(job, dataset).seconds


def work_of(**changes):
    return Workload(**asdict(LARGE) | changes)


@pytest.mark.parametrize("group", ["C1", "C7", "D1", "D2", "D7", "T", "O", "I", "I3"])
def test_the_order_of_a_group_is_the_number_of_its_rotations(group):
    assert group_order(group) == len(rotations_of(group))


@pytest.mark.parametrize(("group", "order"), [("CI", 2), ("CS", 2), ("C3V", 6), ("D2H", 8), ("TD", 24), ("TH", 24),
                                              ("OH", 48), ("I2H", 120), ("S4", 4)])  # fmt: skip
def test_mirrors_and_inversions_are_operations(group, order):
    assert group_order(group) == order


def test_samples_are_those_that_relion_counts():
    """Numbers from RELION's output (5.1): offsets within 2, 3, 4 and 5 pixels of steps of 2; views of 15 degrees."""
    assert [offsets(most, 2) for most in (2, 3, 5)] == [7, 19, 81]
    assert [offsets(most, 1) for most in (2, 4)] == [33, 257]
    assert orientations(1, "C1") == 576
    assert orientations(1, "D2") == 144
    assert orientations(2, "O") == pytest.approx(168, rel=0.2)
    assert orientations_around(4, step(4)) == pytest.approx(140, rel=0.05)
    assert orientations_around(2, 1.0) == 1


def test_the_window_ends_ten_shells_beyond_the_resolution():
    assert window(96, 5.0, 40.0) == 2 * (12 + 10)
    assert window(24, 10.0, 40.0) == 24
    assert window(96, 5.0, None) == 96


@pytest.mark.parametrize("job", ["Refine3D/bin4", "Class3D/bin4_template_half1", "Refine3D/bin2"])
def test_twice_the_particles_or_tilts_take_twice_as_long(job):
    once = seconds(job, planned())
    assert seconds(job, planned(work_of(particles=40_000))) == pytest.approx(2 * once, rel=0.02)
    assert seconds(job, planned(work_of(tilts=80))) == pytest.approx(2 * once, rel=0.02)


def test_cores_divide_what_a_search_takes():
    ratio = seconds("Refine3D/bin4", planned(machine=Machine(8))) / seconds("Refine3D/bin4", planned())
    assert ratio == pytest.approx(4, rel=0.02)


def test_symmetry_divides_a_global_search_and_no_local_one():
    plain, symmetric = planned(), planned(symmetry="O")
    job = "Class3D/bin4_template_half1"
    assert seconds(job, plain) / seconds(job, symmetric) == pytest.approx(24, rel=0.1)
    assert seconds("Refine3D/bin2", plain) == seconds("Refine3D/bin2", symmetric)


def test_an_order_more_takes_eight_times_as_long():
    coarse, fine = (planned(class3D={"sampling": sampling}) for sampling in ("15 degrees", "7.5 degrees"))
    job = "Class3D/bin4_template_half1"
    assert seconds(job, fine) / seconds(job, coarse) == pytest.approx(8, rel=0.1)


def test_a_wider_search_of_offsets_takes_as_many_times_longer_as_it_has_offsets():
    narrow, wide = (planned(class3D={"offset_range": most, "offset_step": 1}) for most in (2, 5))
    job = "Class3D/bin4_template_half1"
    assert seconds(job, wide) / seconds(job, narrow) == pytest.approx(81 / 7, rel=0.1)


def test_more_pixels_take_longer():
    large = planned(box_scaling=4.0)
    for job in ("Extract/bin2", "Reconstruct/bin2_result", "Refine3D/bin2", "Class3D/bin4_template_half1"):
        assert seconds(job, large) > 1.2 * seconds(job, planned()), job


def test_classes_and_iterations_multiply():
    def classified(**fields):
        dataset = planned(classification={"run": True}, class3D={"nr_classes": 2} | fields)
        return seconds("Class3D/bin4", dataset)

    assert classified(nr_classes=4) == pytest.approx(2 * classified(), rel=0.05)
    assert classified(nr_iter=50) == pytest.approx(2 * classified(nr_iter=25))
    assert classified(dont_skip_align="yes", do_local_ang_searches="no") > 10 * classified()


def test_several_numbers_of_classes_take_what_each_takes():
    dataset = planned(classification={"run": True}, class3D={"nr_classes": [2, 6]})
    assert seconds("Class3D/bin4_k6", dataset) == pytest.approx(3 * seconds("Class3D/bin4_k2", dataset), rel=0.05)


def test_gradient_descent_takes_a_part_of_many_particles():
    """Of 20,000 particles 200 to 2,000 at a time, of 400 all of them: 1,010 on average, to 400."""
    many, few = (
        seconds("InitialModel/bin4", planned(work_of(particles=count), mode="denovo")) for count in (20_000, 400)
    )
    axes = seconds("InitialModel/bin4", planned(work_of(particles=0), mode="denovo"))
    assert (many - axes) / (few - axes) == pytest.approx(
        (0.55 * 200 + 0.45 * 2000) / (0.55 * 200 + 0.45 * 400), rel=0.05
    )


def test_the_test_of_orientations_takes_no_more_than_its_particles():
    few, many = (seconds("Orientations/bin4", planned(work_of(particles=count))) for count in (20_000, 2_000_000))
    assert few == many


def test_polishing_and_ctf_refinement_are_forecast_where_they_are_planned():
    dataset = planned(binnings="2,1", ctf_refine={}, bayesian_polish={})
    assert seconds("CtfRefine/bin1_cycle1", dataset) > 0
    assert seconds("Polish/bin1_cycle1", dataset) > 0
    assert effort_of("CtfRefine/bin2_cycle1", planned()) is None


def test_a_level_that_may_search_anew_has_a_second_forecast():
    """It is in no sum, and not there where a level searches around what it is given."""
    dataset = planned()
    first, second = forecast(dataset)["levels"]
    assert "anew" not in first
    assert second["anew"] > 2 * second["seconds"]
    assert forecast(dataset)["total"]["seconds"] == pytest.approx(first["seconds"] + second["seconds"], abs=0.2)
    assert "if all orientations are searched anew" in forecast_lines(forecast(dataset))[1]
    assert "anew" not in forecast(planned(orientations={"search_anew": "no"}))["levels"][1]


def test_what_has_no_formula_has_no_forecast():
    assert effort_of("Select/bin4", planned()) is None
    assert effort_of("Refine3D/bin1", planned()) is None
    assert effort_of("Refine3D/bin4", planned() | {"workload": None}) is None
    found = forecast(planned(slabs={"run": True}, map_analysis={"local_resolution": "yes"}))
    assert found["unknown"] == ["Class2D", "LocalRes"]


def test_levels_make_the_total_and_the_range_is_said():
    found = forecast(planned())
    assert [one["binning"] for one in found["levels"]] == [4, 2]
    assert found["total"]["seconds"] == pytest.approx(sum(one["seconds"] for one in found["levels"]), abs=0.2)
    assert found["total"]["high"] == pytest.approx(UNSCALED * found["total"]["seconds"], rel=0.01)
    text = "\n".join(forecast_lines(found))
    assert text.count("about") == 4
    assert "from constants of one kind of CPU" in text


def test_no_forecast_of_gpus_before_they_were_timed():
    found = forecast(planned(machine=Machine(32, ("0",), ("0",))))
    assert found["total"]["gpu"]
    assert found["total"]["seconds"] < 0.1 * forecast(planned())["total"]["seconds"]
    assert "without the steps on GPUs, before their first iterations have been timed" in forecast_text(found["total"])
    assert forecast_text({"seconds": 0.0, "gpu": True}).startswith("no forecast of the steps on GPUs")


@pytest.mark.parametrize(("value", "text"), [(60, "about 60 s, 30 to 120"), (600, "about 10 min, 5 to 20"),
                                             (7200, "about 2 h, 1.0 to 4"),
                                             (604800, "about 7 days, 4 to 14")])  # fmt: skip
def test_a_range_as_one_says_it(value, text):
    assert forecast_text({"seconds": value, "low": value / 2, "high": value * 2}) == text


def passes(number, views, count):
    return PASSES.format(all=views * count, views=views, offsets=count, number=number)


def test_samples_of_each_iteration_are_read(tmp_path):
    (tmp_path / "run.out").write_text(passes(1, 168, 7) + passes(2, 140, 57))
    assert read_samples(tmp_path / "run.out") == {1: 168 * 7, 2: 140 * 57}
    assert read_samples(tmp_path / "none.out") == {}


class TestARunThatGoesOn:
    """With the first level's refinement under way, three times as slow as the constants say."""

    SLOWER = 3.0

    def run(self, root, iterations, machine=None, samples=(576, 7)):
        run = FakeRun(root, started=NOW - 1e7)
        run.plan(4, 2)
        dataset = planned(machine=machine)
        plan = next(root.glob("work/aa/*/plan.json"))
        plan.write_text(json.dumps({"datasets": [dataset]}))
        effort = effort_of("Refine3D/bin4", dataset)
        times = [self.SLOWER * effort.iteration(number, samples[0] * samples[1]) for number in range(1, iterations + 1)]
        job = run.task("ac", "STA:REFINE3D (bin4)", NOW - sum(times) - 50, "Refine3D/bin4") / "Refine3D/bin4"
        (job / "run.out").write_text("".join(passes(number, *samples) for number in range(1, iterations + 1)))
        for number in range(iterations + 1):
            iteration(job, number, 30, NOW - sum(times[number:]))
        return run.status()[0]["remaining"], dataset, effort

    def test_before_its_first_iteration_it_is_the_constants(self, tmp_path):
        found, dataset, _ = self.run(tmp_path, 0)
        assert not found["timed"]
        assert found["seconds"] == pytest.approx(forecast(dataset)["total"]["seconds"], rel=0.01)
        assert found["high"] == pytest.approx(UNSCALED * found["seconds"], rel=0.01)

    @pytest.mark.parametrize("machine", [None, Machine(32, ("0",), ("0",))])
    def test_iterations_give_the_scale_also_of_later_levels(self, tmp_path, machine):
        """What RELION really searched counts, not what was planned: ten times as much would not be a slower machine."""
        found, dataset, effort = self.run(tmp_path, 3, machine, samples=(576, 70))
        later = effort_of("Refine3D/bin2", dataset).seconds
        template = 2 * effort_of("Class3D/bin4_template_half1", dataset).seconds
        tests = sum(effort_of(f"Orientations/bin{binning}", dataset).seconds for binning in (4, 2))
        searches = self.SLOWER * (sum(effort.parts[3:]) + later + template + tests)
        assert found["timed"] and not found["unscaled"]
        assert found["seconds"] == pytest.approx(searches, rel=0.1)
        assert found["high"] == pytest.approx(SCALED * found["seconds"], rel=0.01)

    def test_what_a_step_without_iterations_has_taken_is_no_more_to_come(self, tmp_path):
        run = FakeRun(tmp_path)
        run.plan(4, 2)
        dataset = planned()
        next(tmp_path.glob("work/aa/*/plan.json")).write_text(json.dumps({"datasets": [dataset]}))
        before = run.status()[0]["remaining"]["seconds"]
        run.task("ac", "STA:EXTRACT (bin4)", NOW - 30, "Extract/bin4")
        assert seconds("Extract/bin4", dataset) > 30
        assert before - run.status()[0]["remaining"]["seconds"] == pytest.approx(30, abs=0.2)

    def test_gpus_are_not_guessed_before_they_were_timed(self, tmp_path):
        found, _, _ = self.run(tmp_path, 0, Machine(32, ("0",), ("0",)))
        assert "Refine3D/bin4" in found["unscaled"] and "Refine3D/bin2" in found["unscaled"]
        assert "without the steps on GPUs" in forecast_text(found)

    def test_status_and_the_page_say_it(self, tmp_path, capsys):
        self.run(tmp_path, 3, samples=(576, 70))
        command(tmp_path / "results")
        said = "RELION still needs about"
        assert said in capsys.readouterr().out
        card = Pages([Run(tmp_path / "results")]).card(0)
        assert said in card and "from this run&#39;s own iterations" in card

    def test_levels_that_are_done_give_the_scale(self, tmp_path):
        run = FakeRun(tmp_path)
        run.plan(4, 2)
        dataset = planned()
        next(tmp_path.glob("work/aa/*/plan.json")).write_text(json.dumps({"datasets": [dataset]}))
        before = run.status()[0]["remaining"]["seconds"]
        effort = effort_of("Refine3D/bin4", dataset)
        spent = {"relion_seconds": self.SLOWER * effort.seconds}
        run.task("ad", "STA:REFINE3D (bin4)", NOW - 800, "Refine3D/bin4", 0, NOW - 700, "COMPLETED", spent)
        found = run.status()[0]["remaining"]
        assert found["timed"]
        tilts = sum(
            effort_of(job, dataset).seconds
            for job in ("Extract/bin4", "Extract/bin2", "Reconstruct/bin4_result", "Reconstruct/bin2_start",
                        "Reconstruct/bin2_result")
        )  # fmt: skip
        searches = before - tilts - effort.seconds
        assert found["seconds"] == pytest.approx(tilts + self.SLOWER * searches, rel=0.02)


def test_nothing_remains_of_a_run_that_is_over(tmp_path):
    run = FakeRun(tmp_path, state="finished", ended=NOW)
    run.plan(4)
    assert run.status()[0]["remaining"] is None
    assert remaining([], {}) is None
