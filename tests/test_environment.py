"""Variables and folders that are meant for other programs, such as those of a notebook, in real processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT

NOTEBOOK = {
    "MPLBACKEND": "module://no_such_package.backend_inline",
    "MPLCONFIGDIR": "/proc/nowhere",
    "PYTHONWARNINGS": "error",
    **dict.fromkeys(("FORCE_COLOR", "CLICOLOR_FORCE"), "1"),
}
"""As a kernel exports them, but for the backend's package, which is not installed wherever the test runs."""


def _python(environment: dict[str, str], *arguments: Any, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=200,
    )


def test_a_command_that_a_notebook_starts_draws_and_reports(tmp_path):
    command = _python(NOTEBOOK, "-m", "tests.workers.few_images", "--run-dir", tmp_path / "run")
    assert command.returncode == 0, command.stderr
    assert len(list((tmp_path / "run" / "figures").glob("*.png"))) == 11
    assert (tmp_path / "run" / "report.html").exists()


def test_a_figure_in_the_callers_session_obeys_the_caller():
    code = "import cnn, cnn.look.run_figures, matplotlib; print(matplotlib.get_backend())"
    assert _python({"MPLBACKEND": "svg"}, "-c", code).stdout == "svg\n"


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", "JAX_PLATFORM_NAME"])
def test_a_platform_that_jax_does_not_find_is_one_line_and_exit_status_2(tmp_path, variable):
    environment = {"JAX_PLATFORMS": "", variable: "abacus"}
    command = _python(environment, "-m", "tests.workers.few_images", "--run-dir", tmp_path / "run")
    assert command.returncode == 2 and not (tmp_path / "run").exists()
    assert command.stderr.startswith("error: ") and command.stderr.count("\n") == 1
    assert f"{variable} is 'abacus', but must be a platform that JAX finds, such as cpu" in command.stderr


def test_ones_own_experiments_add_to_the_installed_ones(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(
        "from experiments.fashion_cnn import CONFIG\nprint(CONFIG.name)\n"
    )
    command = _python({}, "-m", "experiments.mine", cwd=tmp_path)
    assert (command.stdout, command.stderr) == ("fashion_cnn\n", "")
