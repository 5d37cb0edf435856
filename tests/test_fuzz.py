"""Some hundred drawn bad inputs; ``make fuzz`` runs 20,000."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings

from cnn.runs.identity import sign
from tests.fuzz import inputs
from tests.fuzz.judge import judge
from tests.fuzz.runner import Runner
from tests.fuzz.worker import TINY, Example, Outcome, Settings
from tests.fuzz.world import Mutation, labels, meaning, tree_digest

TIMEOUT = 60.0

PICTURES = {f"figures/{name}.png" for name in ("embedding", "reliability", "top_losses")}
"""One of the four is changed."""


def few(examples: int) -> settings:
    """The same examples in every run of the suite."""
    checks = HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A process that runs examples; at the end, no byte of the runs that it copies may have changed."""
    place = Path(os.path.realpath(tmp_path_factory.mktemp("fuzz")))
    made = Runner(Settings(place, os.environ["JAX_COMPILATION_CACHE_DIR"]), TIMEOUT)
    made.worker.run(Example("line", "cnn", ("--help",)), 200)
    before = tree_digest(place / "pristine")
    yield made
    made.worker.stop()
    assert tree_digest(place / "pristine") == before


def _check(runner: Runner, example: Example) -> None:
    outcome, findings = runner.check(example)
    assert not findings, f"{inputs.describe(example)} {outcome.mutation}\n{outcome.error or outcome.stderr}"


@few(130)
@given(example=inputs.lines())
def test_any_command_line_is_accepted_or_refused_in_one_line_and_loses_nothing(runner, example):
    _check(runner, example)


STEP = "work/runs/stopped/checkpoints/4"
RESUME = "experiments.fashion_cnn", (*TINY, "--run-dir", "runs/stopped")


@example(example=Example("mutation", *RESUME, mutation=Mutation("work/runs/stopped/.lock", "pipe")))
@example(example=Example("mutation", *RESUME, mutation=Mutation(f"{STEP}/_CHECKPOINT_METADATA", "pipe")))
@few(40)
@given(example=inputs.mutations(only_quick=True))
def test_a_changed_file_of_a_run_is_refused_in_one_line_or_changes_nothing_and_loses_nothing(runner, example):
    _check(runner, example)


@few(130)
@given(example=inputs.calls_())
def test_a_wrong_value_of_a_public_function_raises_an_error_of_one_line(runner, example):
    _check(runner, example)


@pytest.mark.parametrize("run_dir", inputs.LABELS)
def test_every_file_of_a_run_is_changed(runner, run_dir):
    inside = f"work/{run_dir}/"
    found = {label.removeprefix(inside) for label in labels(runner.pristine) if label.startswith(inside)}
    assert found - PICTURES == set(inputs.LABELS[run_dir])


def test_a_result_means_the_same_in_another_run_and_after_other_seconds_unless_a_digest_is_wrong(tmp_path):
    def meaning_of(result: dict, run: str = "a") -> str:
        (tmp_path / "config.json").write_text(json.dumps({"run": run}))
        (tmp_path / "result.json").write_text(json.dumps(result))
        return meaning(tmp_path / "result.json")

    def result(run: str, loss: float, seconds: float) -> dict:
        return sign({"test_loss": loss, "seconds": {"eval": seconds}}, {"run": run})

    first, second = result("a", 1, 1), result("b", 1, 2)
    assert meaning_of(first) == meaning_of(second, "b") != meaning_of(second)
    assert meaning_of(first) != meaning_of({**first, "sha256": second["sha256"]})
    assert meaning_of(first) != meaning_of(result("a", 2, 1))


def _mutated(command: str, file: str, way: str, written: str) -> list[str]:
    """The kinds of what is found where a command writes another file than without the mutation."""
    outcomes = [Outcome(0, changes={written: ("added", digest)}) for digest in ("good", "other")]
    mutation = Mutation(f"work/runs/good/{file}", way)
    changed = Example("mutation", "cnn", tuple(command.split()), mutation=mutation)
    return [finding.kind for finding in judge(changed, outcomes[1], outcomes[0])]


def test_weights_with_another_bit_are_another_network_to_import_and_nothing_else_is():
    for file, way, kinds in (
        ("export/model.safetensors", "flip a bit", []),
        ("export/model.safetensors", "append", ["wrongly accepted"]),
        ("result.json", "flip a bit", ["wrongly accepted"]),
    ):
        command = "import runs/good/export/model.safetensors --run-dir new"
        assert _mutated(command, file, way, "work/new/result.json") == kinds


def test_another_number_in_a_file_without_digest_is_in_the_report_and_damage_is_not():
    for file, way, kinds in (
        ("unknown.json", "JSON value", []),
        ("unknown.json", "delete", []),
        ("unknown.json", "truncate", ["wrongly accepted"]),
        ("metrics.jsonl", "JSON value", ["wrongly accepted"]),
    ):
        assert _mutated("report runs/good", file, way, "work/runs/good/report.html") == kinds


LINE = Example("line", "cnn", ("verify", "runs/good"))


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("traceback", Outcome(1, error='  File "/x/cnn/run.py", line 1, in main\nValueError: wrong')),
        ("hang", Outcome(died="hang")),
        ("died", Outcome(died="exit code -6")),
        ("wrong status", Outcome(3, stderr="error: wrong\n")),
        ("not one line", Outcome(2, stderr="error: wrong\nmore\n")),
        ("not one line", Outcome(2, stderr="error: \x1b[31mred\n")),
        ("not one line", Outcome(2)),
        ("not one line", Outcome(0, stderr="a library's UserWarning\n")),
        ("left over", Outcome(2, stderr="error: wrong\n", changes={"work/new": ("added", "")})),
        ("lost or overwritten", Outcome(0, changes={"work/runs/good/config.json": ("changed", "")})),
        ("lost or overwritten", Outcome(0, outside=("/somewhere",))),
    ],
)
def test_each_kind_of_fault_is_found(kind, outcome):
    assert [finding.kind for finding in judge(LINE, outcome)] == [kind]
