"""A run -> its exported files, with a model card beside those that hold the network for others."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnn.errors import ConfigError, UserError
from cnn.exchange import int8
from cnn.exchange.exporting import FormatName, check_export, export_run, load_safetensors
from cnn.look.evaluation import evaluate_run
from cnn.runs import outputs, rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.digests import leaf_digests
from cnn.text import printable, read_json, reason
from cnn.training.state import TrainState
from cnn.training.summary import layer_table
from cnn.training.tasks import require_task
from cnn.trust.model_card import UNKNOWN_LICENSE, model_card
from cnn.trust.robustness import read_robustness

CARD = "README.md"

FILES = {"safetensors": "model.safetensors", "onnx": int8.FILE}
"""By format, the files of ``export/`` that its card describes."""


def export_files(
    run_dir: Path,
    format: FormatName,
    in_8_bits: bool,
    output: Path | None,
    warn: Callable[[str], None],
    suppression: bool = True,
) -> Iterator[str]:
    """Writes the best network of a run to a file, and its card; yields what to print: paths, and what 8 bits cost.

    A detector has no card, which tells of accuracy by class.

    Args:
      run_dir: directory of the run.
      format: format of the file.
      in_8_bits: of onnx, whether with integers of 8 bits.
      output: path of the file; None for one in ``export/`` of the run directory.
      warn: called with a line if the card lacks a result, or leaves out a file.
      suppression: of a detector as stablehlo or onnx, whether boxes that overlap are suppressed in the file.

    Raises:
      UserError: there is no such run, an option has no effect, a package is missing, or a file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    if in_8_bits and format != "onnx":
        raise ConfigError(f"--int8 has an effect only with --format onnx; name that, not {format}, or leave it out")
    config = rundir.read_description(run_dir)["config"]
    if not suppression:
        require_task(config, "detection", "export --no-suppression")
    if in_8_bits:
        require_task(config, "classification", "export --int8")
    has_card = in_8_bits or (format == "safetensors" and config.model.task == "classification")
    card = card_path(run_dir, output) if has_card else None
    if in_8_bits:
        path, values = int8.export_int8(run_dir, output)
        yield f"{path}\n{int8.format_comparison(values)}"
    else:
        path = export_run(run_dir, format, output, suppression)
        yield str(path)
    if card:
        write_card(run_dir, card, {format: path.name} if output else None, warn=warn)
        yield str(card)


def card_path(run_dir: Path, output: Path | None = None) -> Path:
    """Returns the path of the card of an export, if it may be written: beside the file, whatever else is there.

    Args:
      run_dir: directory of the run.
      output: path of the exported file; None for the one in the run directory, whose card is ``export/README.md``.

    Raises:
      UserError: it may not.
    """
    return check_export(run_dir, CARD, "card", output and Path(f"{output}.md"))


def write_card(
    run_dir: Path,
    path: Path,
    files: dict[str, str] | None = None,
    license: str = UNKNOWN_LICENSE,
    command: str = "",
    warn: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes the card of a run's best network; its images are classified for it.

    Args:
      run_dir: directory of the run.
      path: of the card.
      files: names of the exported files beside it, by format; None for those of ``FILES`` that are there. One of
        another state of the run is left out.
      license: of the weights, by its name on the Hugging Face Hub.
      command: that made the network.
      warn: called with a line if the images are missing, without which the card gives no result, and on each exported
        file or measurement that it leaves out.

    Raises:
      UserError: there is no such run, or the card cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    if files is None:
        files = {format: name for format, name in FILES.items() if (path.parent / name).is_file()}
    files, quantized = _of_state(load_best(run_dir)[0], path.parent, files, warn)
    text = card_text(run_dir, files, quantized, license, command, warn)
    rundir.write_text(path, text, "fix that, or name another path with --output")


def _of_state(
    state: TrainState, directory: Path, files: dict[str, str], warn: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Those of the exported files that hold a state, and what was measured in 8 bits; a line on each other one."""
    kept, quantized = {}, None
    for format, name in files.items():
        try:
            if format == "onnx":
                quantized = _measurements(directory / name, state)
            else:
                _check_weights(directory / name, state)
            kept[format] = name
        except (ValueError, UserError) as error:
            hint = "export it again, or remove it"
            warn(f"the card leaves out {printable(directory / name)}: {reason(error)}; {hint}")
    return kept, quantized


def _measurements(file: Path, state: TrainState) -> dict[str, Any]:
    """What ``int8.export_int8`` has measured, if the file is of a state, and the measurements are whole."""
    measured = int8.measurements_path(file)
    try:
        values = read_json(measured)
        int8.format_comparison(values)
        step = values["step"]
    except FileNotFoundError:
        raise ValueError(f"{measured.name} is missing, which tells its state") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{measured.name} is damaged ({reason(error)})") from error
    if step != int(state.step):
        raise ValueError("it is of another state of the run")
    return values


def _check_weights(file: Path, state: TrainState) -> None:
    """Raises an error unless a safetensors file has the weights of a state."""
    states = load_safetensors(file)[0].eval_state, state.eval_state
    written, best = (leaf_digests({"params": one.params, "batch_stats": one.batch_stats}) for one in states)
    if written != best:
        raise ValueError("it is of another state of the run")


def card_text(
    run_dir: Path,
    files: dict[str, str],
    quantized: dict[str, Any] | None = None,
    license: str = UNKNOWN_LICENSE,
    command: str = "",
    warn: Callable[[str], None] = lambda line: None,
    evaluate: bool = True,
) -> str:
    """Returns the card of ``write_card``.

    Args:
      run_dir: directory of the run.
      files: names of the exported files, by format.
      quantized: what ``int8.export_int8`` measured.
      license: as in ``write_card``, like the others.
      command: that made the network.
      warn: called with a line.
      evaluate: whether the images are classified, which takes some seconds.

    Raises:
      UserError: there is no such run.
      DamagedError: the checkpoint is damaged.
    """
    state, config = load_best(run_dir)
    evaluation = None
    try:
        if evaluate:
            evaluation, _ = evaluate_run(run_dir)
    except UserError as error:
        warn(f"the card gives no result: {error}")
    return model_card(
        config,
        sum(row.parameters for row in layer_table(state)),
        rundir.read_description(run_dir)["train_images"],
        files,
        evaluation,
        robustness=_robustness(run_dir, warn),
        quantized=quantized,
        license=license,
        command=command,
    )


def _robustness(run_dir: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """What ``evaluate --robust`` has measured of the best epoch; None, with a line if the file is of another one."""
    try:
        values, result = read_robustness(run_dir), rundir.read_result(run_dir)
    except UserError as error:
        warn(f"the card has no accuracy on changed images: {error}")
        return None
    if values and result and values["best_epoch"] == result["best_epoch"]:
        return values
    if values:
        why = f"{outputs.ROBUSTNESS} is not of the best epoch of a finished run"
        again = f"python -m cnn evaluate {run_dir} --robust measures again"
        warn(f"the card has no accuracy on changed images: {why}; {again}")
    return None
