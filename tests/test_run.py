"""The commands as a user types them: real processes, their output and exit status."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import pytest

import cnn
from cnn import cli, run
from cnn.__main__ import main
from cnn.cli import load_experiment
from experiments import fashion_cnn
from tests.helpers import ROOT


def _command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=200,
    )


def _status(module, *arguments) -> Any:
    """The exit status of the same command, in this process: importing takes longer than most commands."""
    if module == "cnn":
        return cli.exit_status(lambda: main(list(arguments)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", [module, *arguments])
        run.main(load_experiment(module))
    return stop.value.code


def _parsed(*arguments) -> Any:
    """The shipped experiment's configuration and run directory for a command line, or its exit status."""
    parsed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run", lambda config, run_dir, splits: parsed.append((config, run_dir)))
        status = _status("experiments.fashion_cnn", *arguments)
    return parsed[0] if parsed else status


def test_without_options_the_shipped_configuration_is_run():
    config, run_dir = _parsed()
    assert config == fashion_cnn.CONFIG
    assert run_dir.parent == Path("runs/fashion_cnn")
    optim, training = config.optim, config.train
    assert (optim.name, optim.learning_rate, optim.batch_size) == ("adam", 1e-3, 32)
    assert (training.epochs, training.patience) == (20, 2)


def test_every_field_is_an_option():
    config, run_dir = _parsed("--train.epochs", "3", "--optim.batch_size", "64", "--run-dir", "x", "--log.no_figures")
    expected = dataclasses.replace(
        fashion_cnn.CONFIG,
        train=cnn.TrainConfig(epochs=3),
        optim=cnn.OptimConfig(batch_size=64),
        log=cnn.LogConfig(figures=False),
    )
    assert (config, run_dir) == (expected, Path("x"))


def test_options_may_have_hyphens_for_underscores():
    assert _parsed("--optim.learning-rate", "0.01")[0].optim.learning_rate == 0.01


def test_help_names_every_field_with_its_default_and_its_docstring(capsys):
    assert _parsed("--help") == 0
    text = capsys.readouterr().out
    for group in dataclasses.fields(fashion_cnn.CONFIG)[1:]:
        for field in dataclasses.fields(getattr(fashion_cnn.CONFIG, group.name)):
            assert f"--{group.name}.{field.name}" in text
    assert "Images per step. (default: 32)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.batch_size", "0"], "--optim.batch_size is 0, but must be an integer from 1 to 2,147,483,647"),
        (["--optim.batch_size", "many"], "'many'"),
        (["--optim.learning_rate", "-1"], "--optim.learning_rate is -1.0, but must be a finite number above 0"),
        (["--model.dropout_rate", "1.5"], "--model.dropout_rate is 1.5, but must be at least 0 and below 1"),
        (["--train.epochs", "0"], "--train.epochs is 0, but must be an integer from 1 to 100,000"),
        (["--train.patience", "-1"], "--train.patience is -1, but must be an integer from 0 to"),
        (["--data.val_fraction", "0"], "--data.val_fraction is 0.0, but must be between 0 and 1"),
        (["--data.val_fraction", "1"], "--data.val_fraction is 1.0, but must be between 0 and 1"),
        (["--train.device", "npu"], "'auto', 'cpu', 'gpu', 'tpu'"),
        (["--train.patients", "2"], "--train.patients"),
        (["surplus"], "surplus"),
        (["--train.epochs"], "--train.epochs"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_status_2(capsys, arguments, message):
    assert _parsed(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


SHORT = "--train.epochs 2 --optim.batch_size 128 --model.conv1_features 4 --model.conv2_features 4".split()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture(scope="module")
def interrupted(run_dir) -> subprocess.CompletedProcess:
    """The shipped experiment, narrow, on all images, as a user would start it, with Ctrl-C after its first epoch."""
    command = [sys.executable, "-m", "experiments.fashion_cnn", *SHORT, "--run-dir", str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    return subprocess.CompletedProcess(command, process.returncode, lines, errors)


@pytest.fixture(scope="module")
def trained(run_dir, interrupted):
    """The same command again, which trains the second epoch."""
    return run_dir, _command("experiments.fashion_cnn", *SHORT, "--run-dir", str(run_dir))


FIGURES = {
    *("learning_curves", "sample", "model", "weights_histogram", "first_image", "probabilities"),
    *("kernels_conv1_trained", "kernels_conv1_untrained", "kernels_conv1_by_epoch"),
    *("feature_maps_conv1", "feature_maps_conv2"),
}


def test_ctrl_c_saves_the_run(interrupted):
    assert interrupted.returncode == 130
    assert interrupted.stdout[0].startswith("fashion_cnn on cpu")
    assert interrupted.stdout[1].startswith("epoch 1/2  loss ")
    notice, stopped = interrupted.stderr.splitlines()
    assert notice.startswith("stopping: ") and stopped.startswith("stopped at step ")


def test_the_same_command_resumes_and_prints_its_device_its_epochs_and_its_result(trained):
    run_dir, command = trained
    assert command.returncode == 0 and not command.stderr
    lines = command.stdout.splitlines()
    assert lines[0].startswith("fashion_cnn on cpu")
    assert lines[1].startswith("found an unfinished run")
    assert lines[2].startswith("epoch 2/2  loss ")
    assert lines[-1] == f"run directory: {run_dir}"
    result = json.loads((run_dir / "result.json").read_text())
    assert f"{result['test_accuracy']:.4f}" in command.stdout
    assert result["test_accuracy"] > 0.6  # of 10 classes, after two epochs of a narrow network
    assert "\x1b" not in command.stdout
    assert max(map(len, lines[2:-1])) <= 80


def test_an_experiment_draws_its_figures_and_writes_its_report(trained):
    run_dir, _ = trained
    assert (run_dir / "report.html").stat().st_size > 100_000
    assert {path.stem for path in (run_dir / "figures").iterdir()} == FIGURES
    assert json.loads((run_dir / "result.json").read_text())["seconds"]["figures"] > 0
    live = (run_dir / "live.html").read_text(encoding="utf-8")
    assert '"state":"finished"' in live and '"epochs":[1,2]' in live


def test_the_same_command_again_reports_a_finished_run(trained):
    run_dir, _ = trained
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    again = _command("experiments.fashion_cnn", *SHORT, "--run-dir", str(run_dir))
    assert again.returncode == 0 and "this run has finished" in again.stdout
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_another_configuration_on_the_same_run_dir_is_exit_status_2(trained, capsys):
    run_dir, _ = trained
    assert _status("experiments.fashion_cnn", *SHORT, "--train.seed", "5", "--run-dir", str(run_dir)) == 2
    errors = capsys.readouterr().err
    assert "train.seed 0 -> 5" in errors and errors.count("\n") == 1


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    run.write_page(tmp_path)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: the report is not written: cannot read {tmp_path}/config.json")
    assert warning.endswith(f"; python -m cnn report {tmp_path} tries again\n") and warning.count("\n") == 1


def test_look_draws_the_figures_again(trained, capsys):
    run_dir, _ = trained
    figure = run_dir / "figures" / "kernels_conv1_trained.png"
    before = figure.read_bytes()
    figure.unlink()
    assert _status("cnn", "look", str(run_dir)) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FIGURES)
    assert figure.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn", "cost", "experiments.fashion_cn"], "cannot import 'experiments.fashion_cn'"),
        (["cnn", "cost", "--profile", "trace", "experiments.fashion_cnn"], "no experiment is named"),
        (["cnn", "cost", "experiments.fashion_cnn", "--model.dtype", "float16"], "--help lists"),
        (["cnn", "cost", "json"], "'json' has no CONFIG"),
        (["cnn", "look", "no-such-directory"], "no-such-directory/config.json: No such file"),
        (["cnn", "look"], "--help lists"),
        (["experiments.fashion_cnn", "--run-dir", "pyproject.toml"], "cannot use pyproject.toml: Not a directory"),
        (["experiments.fashion_cnn", "--run-dir", "tests"], "tests holds something else"),
        (["experiments.fashion_cnn", "--optim.batch_size", "48001", "--run-dir", "{tmp}"], "must be at most 48000"),
    ],
)
def test_wrong_use_is_one_line_and_exit_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(ROOT)
    assert _status(*[argument.format(tmp=tmp_path / "run") for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn", "lok"], "'lok' is not a verb of python -m cnn; the verbs are data, look, predict, verify, evaluate"),
        (["experiments.fashion_cnn", "--train.device", "gpu"], "--train.device is 'gpu', but JAX sees no such device"),
    ],
)
def test_wrong_use_of_a_command_prints_no_traceback(arguments, message):
    command = _command(*arguments)
    assert command.returncode == 2
    assert command.stderr.startswith("error: ") and message in command.stderr
    assert command.stderr.count("\n") == 1


def test_cost_prints_a_line_for_each_number():
    command = _command("cnn", "cost", "experiments.fashion_cnn", *SHORT, "--optim.batch_size", "16")
    assert command.returncode == 0 and command.stderr == ""
    title, *lines = command.stdout.splitlines()
    assert title == "a step of experiments.fashion_cnn, 16 images"
    names = " ".join(lines)
    assert all(name in names for name in ("compile seconds", "flops", "temporary bytes", "share of matmul"))


@pytest.mark.parametrize(
    ("dtype", "processor", "before", "after"),
    [
        ("bfloat16", "avx2 avx512_bf16", None, cli.ONEDNN_FLAGS),
        ("bfloat16", "avx2 avx512_bf16", "--xla_foo=1", f"--xla_foo=1 {cli.ONEDNN_FLAGS}"),
        ("bfloat16", "avx2 avx512_bf16", f"{cli.ONEDNN}=false", f"{cli.ONEDNN}=false"),
        ("bfloat16", "avx2", None, None),
        ("float32", "avx2 avx512_bf16", None, None),
    ],
)
def test_bfloat16_units_are_used_if_present_unless_the_user_sets_the_flag(
    monkeypatch, tmp_path, dtype, processor, before, after
):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before:
        monkeypatch.setenv("XLA_FLAGS", before)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {processor}\n")
    cli.enable_onednn_bfloat16(cnn.ExperimentConfig(model=cnn.ModelConfig(dtype=dtype)), cpuinfo=cpuinfo)
    assert os.environ.get("XLA_FLAGS") == after


@pytest.mark.parametrize("processor", ["avx2 avx512_bf16", "avx2"])
def test_float32_and_bfloat16_in_one_process_are_refused_with_bfloat16_units(monkeypatch, tmp_path, processor):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {processor}\n")
    configs = [cnn.ExperimentConfig(model=cnn.ModelConfig(dtype=dtype)) for dtype in ("float32", "bfloat16")]
    refused = pytest.raises(cnn.ConfigError, match="must be one here") if "bf16" in processor else nullcontext()
    with refused:
        cli.enable_onednn_bfloat16(*configs, cpuinfo=tmp_path / "cpuinfo")
    assert "XLA_FLAGS" not in os.environ


def test_without_a_home_directory_there_is_no_compilation_cache(monkeypatch):
    def no_home(name):
        raise cnn.DataError("there is no home directory for the cache; set XDG_CACHE_HOME to a directory")

    monkeypatch.setattr(cli, "cache_directory", no_home)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    updates = []
    monkeypatch.setattr(jax.config, "update", lambda *option: updates.append(option))
    cli.enable_compilation_cache()
    assert updates == []


def test_the_verbs_are_listed():
    command = _command("cnn", "--help")
    assert command.returncode == 0
    assert {line.split()[0] for line in command.stdout.splitlines()[2:]} == {
        "data",
        "look",
        "predict",
        "verify",
        "cost",
        "sweep",
        "evaluate",
        "labels",
        "report",
        "export",
        "play",
        "import",
    }


def test_importing_cnn_loads_no_heavy_package():
    heavy = ("matplotlib", "tensorflow_datasets", "tensorflow", "orbax", "tyro", "PIL")
    code = f"import sys, cnn, experiments.fashion_cnn; print([name for name in {heavy} if name in sys.modules])"
    command = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert command.stdout == "[]\n"
