"""Messages that depend on the terminal and on how the package was installed; directories that the program names."""

import dataclasses
import errno
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import jax
import pytest

import cnn
from cnn import __main__ as verbs
from cnn import cli, errors, run
from cnn.cli import load_experiment
from cnn.look.tracking import tracked
from tests.helpers import ROOT, narrow


def test_a_message_about_an_option_has_no_colours_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def look(run_dir: Path, /) -> None: ...

    with pytest.raises(cnn.UserError) as error:
        cli.parse_options(look, "python -m cnn look", [])
    assert str(error.value) == "Missing from python -m cnn look: PATH run_dir (required); --help lists what is allowed"


def test_a_missing_option_is_named_with_its_values_and_without_its_help():
    with pytest.raises(cnn.UserError) as error:
        cli.parse_options(verbs.VERBS["export"], "python -m cnn export", ["runs/mine"])
    formats = "--format {safetensors,stablehlo,onnx,web} (required)"
    assert str(error.value) == f"Missing from python -m cnn export: {formats}; --help lists what is allowed"


# Extras


def test_a_hint_to_install_an_extra_fits_the_installation(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert errors.install_command("exchange") == "pip install -c constraints.txt -e '.[exchange]'"
    monkeypatch.chdir(tmp_path)
    assert errors.install_command("exchange") == f"pip install -c {ROOT}/constraints.txt -e '{ROOT}[exchange]'"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "cnn" / "errors.py"))
    assert errors.install_command("exchange") == "pip install 'fashion-cnn[exchange]'"


def test_every_hint_about_an_extra_is_that_of_the_installation(monkeypatch, config, tmp_path):
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "cnn" / "errors.py"))
    with pytest.raises(cnn.UserError, match=r"no_such_package is not installed; run pip install 'fashion-cnn\[exch"):
        errors.import_extra("no_such_package")
    with pytest.raises(cnn.ConfigError, match=r"sees no such device.*: pip install 'fashion-cnn\[cuda\]'"):
        cnn.make_mesh(config.mesh, "gpu")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    logged = cnn.ExperimentConfig(log=cnn.LogConfig(tracker="mlflow"))
    refused = pytest.raises(cnn.ConfigError, match=r"leave the option out, or run pip install 'fashion-cnn\[mlflow\]'$")
    with refused, tracked(logged, tmp_path):
        pass


# Directories that the program names


class _Frozen(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def one_second(monkeypatch, tmp_path):
    """An empty directory to work in, and a clock that stands still."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "datetime", _Frozen)
    return Path("runs/fashion_cnn")


def test_runs_of_the_same_second_have_directories_of_their_own(one_second):
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(run.default_run_dir, ["fashion_cnn"] * 8))
    time = "2026-01-02T03-04-05Z"
    assert {path.name for path in paths} == {time, *(f"{time}-{number}" for number in range(2, 9))}
    assert all(path.parent == one_second and path.is_dir() for path in paths)


def _main(monkeypatch, config, splits, *options):
    monkeypatch.setattr(sys, "argv", ["experiment", "--log.no_figures", *options])
    with pytest.raises(SystemExit) as stop:
        run.main(config, splits)
    return stop.value.code


def test_two_runs_of_the_same_second_both_train(one_second, monkeypatch, config, small):
    short = narrow(config, epochs=1)
    assert [_main(monkeypatch, short, small) for _ in range(2)] == [0, 0]
    assert {path.parent.name for path in one_second.glob("*/result.json")} == {
        *("2026-01-02T03-04-05Z", "2026-01-02T03-04-05Z-2")
    }


def test_a_refused_run_leaves_no_directory(one_second, monkeypatch, config, small, capsys):
    assert _main(monkeypatch, narrow(config), small, "--optim.batch_size", "501") == 2
    assert "--optim.batch_size is 501" in capsys.readouterr().err
    assert not Path("runs").exists()
    one_second.mkdir(parents=True)
    # Also if it was refused under its lock, before anything else was written.
    with run.named_or_new(None, "fashion_cnn") as path:
        (path / ".lock").write_text("process 1")
    assert list(one_second.iterdir()) == []


def test_a_named_directory_is_neither_made_nor_removed(tmp_path):
    with run.named_or_new(tmp_path / "run", "fashion_cnn") as path:
        assert path == tmp_path / "run" and not path.exists()
        path.mkdir()
    assert path.is_dir()


def test_a_directory_that_cannot_be_made_is_refused(one_second):
    Path("runs").write_text("")
    with pytest.raises(cnn.RunDirError, match="cannot make a directory in runs/fashion_cnn: Not a directory; name one"):
        run.default_run_dir("fashion_cnn")


# Exit status


def _raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MemoryError("40 GiB"), 1, "out of memory (MemoryError: 40 GiB); use a smaller network"),
        (RuntimeError("RESOURCE_EXHAUSTED: 5\nbytes"), 1, "out of memory (RuntimeError: RESOURCE_EXHAUSTED: 5); use"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "too many open files (OSError: Too many open files); allow"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "x" * 999),
            2,
            "xx: File name too long; use a shorter",
        ),
        (OSError(errno.EIO, "Input/output error", "a\nb"), 1, r"OSError: [Errno 5] Input/output error: 'a\nb'"),
        (FloatingPointError("at step 3"), 1, "at step 3"),
        (cnn.DataError("a\nb\x1b" + "x" * 999), 2, r"a\nb\x1bxxx"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_with_its_status(capsys, error, status, line):
    assert cli.exit_status(_raising(error)) == status
    printed = capsys.readouterr().err
    assert line in printed and printed.startswith("error: ") and printed.endswith("\n")
    assert printed[:-1].isprintable() and len(printed) < 320


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.exit_status(_raising(ZeroDivisionError()))


def test_no_line_of_a_library_precedes_the_error(capsys):
    def command():
        logging.getLogger("library").error("of a library")
        raise cnn.DataError("ours")

    assert cli.exit_status(command) == 2
    assert capsys.readouterr().err == "error: ours\n"


def test_every_command_keeps_what_it_compiles(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    settings, seen = {}, []
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    for verb in verbs.VERBS:
        settings.clear()
        monkeypatch.setitem(verbs.VERBS, verb, lambda: seen.append(settings.get("jax_compilation_cache_dir")))
        verbs.main([verb])
    assert seen == [str(tmp_path / "fashion-cnn" / "xla")] * len(verbs.VERBS)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_opened_on_nothing(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    assert cli.exit_status(lambda: print("text", file=getattr(sys, name))) == 0
    assert getattr(sys, name).name > 2
    getattr(sys, name).close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_disable_jit", True),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_a_setting_of_jax_that_no_command_works_with_is_refused(capsys, setting, value):
    before = getattr(jax.config, setting)
    jax.config.update(setting, value)
    try:
        assert cli.exit_status(lambda: None) == 2
    finally:
        jax.config.update(setting, before)
    assert f"{setting.upper()} is" in capsys.readouterr().err


def test_a_setting_that_jax_itself_refuses_is_one_line():
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "data"],
        env={**os.environ, "JAX_ENABLE_X64": "maybe"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert command.returncode == 2 and command.stderr.count("\n") == 1
    assert command.stderr.startswith("error: JAX does not start (invalid truth value 'maybe' for environment 'JAX_EN")


# Modules and options


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("a b", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import cnn; CONFIG = cnn.OptimConfig(batch_size=0)", "ConfigError: --optim.batch_size is 0, but must be"),
        ("CONFIG = 3", "has no CONFIG; name a module such as"),
    ],
)
def test_an_experiment_that_cannot_be_imported_is_one_line(monkeypatch, tmp_path, source, message):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_experiment.py").write_text(source)
    monkeypatch.delitem(sys.modules, "own_experiment", raising=False)
    with pytest.raises(cnn.ConfigError, match=message):
        load_experiment("own_experiment")


@pytest.mark.parametrize("name", ["", ".", "..", "experiments.", ".x", "a..b", "a/b", "a b", "a\nb", "x" * 5000 + "."])
def test_a_name_that_is_no_modules_is_refused(name):
    with pytest.raises(cnn.ConfigError, match="is not the name of a module; name a module such as") as error:
        load_experiment(name)
    assert str(error.value).isprintable() and len(str(error.value)) < 300


def test_a_wrong_value_in_a_users_own_experiment_is_one_line():
    source = "import cnn\nfrom cnn.run import main\nmain(cnn.ExperimentConfig(optim=cnn.OptimConfig(batch_size=0)))\n"
    command = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert command.returncode == 2
    assert command.stderr == "error: --optim.batch_size is 0, but must be an integer from 1 to 2,147,483,647\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1000000000"], "--seeds is 1000000000, but must be an integer from 1 to 1,000"),
        (["--seeds", "9" * 5000], "--seeds is '999"),
        (["--optim.batch_size", *map(str, range(1, 1002))], "1,001 combinations, but at most 1,000 are tried"),
        (["--optim.learning_rate", "1e999"], "--optim.learning_rate is '1e999', but must be a finite number above 0"),
        (["--optim.learning_rate", "[" * 5000], "--optim.learning_rate is '[[["),
        (["--log.tracker", "mlflow"], "--log.tracker has no effect in a sweep"),
    ],
)
def test_a_sweep_that_would_not_end_is_refused(arguments, message):
    with pytest.raises(cnn.ConfigError) as error:
        verbs.main(["sweep", "experiments.fashion_cnn", *arguments])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"warmup": 0.2}, "--optim.warmup has an effect only with --optim.schedule warmup_cosine or one_cycle"),
        ({"adam_learning_rate": 0.1}, "--optim.adam_learning_rate has an effect only with --optim.name muon"),
    ],
)
def test_an_option_without_effect_is_refused(optim, message):
    default = cnn.ExperimentConfig()
    idle = dataclasses.replace(default, optim=cnn.OptimConfig(**optim))
    with pytest.raises(cnn.ConfigError, match=message):
        cli.refuse_idle(default, idle)
    # Unless the experiment itself has it.
    cli.refuse_idle(idle, idle)
    cli.refuse_idle(default, dataclasses.replace(default, optim=cnn.OptimConfig("muon", schedule="one_cycle", **optim)))
    with pytest.raises(cnn.ConfigError, match="--log.figures has no effect here; leave it out"):
        cli.refuse_idle(default, dataclasses.replace(default, log=cnn.LogConfig(figures=False)), ("log.",))


def test_a_directory_replaced_while_drawing_gets_no_result_and_no_report(monkeypatch, config, small, tmp_path):
    def draw_figures(run_dir, config, result, splits):
        shutil.rmtree(run_dir)
        run_dir.mkdir()
        (run_dir / "config.json").write_text("another run's")

    monkeypatch.setattr("cnn.look.run_figures.draw_figures", draw_figures)
    run.run(narrow(config, epochs=1), tmp_path / "run", small)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
