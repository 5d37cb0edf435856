"""Files of a run that no run is resumed from: texts, kernels and training dynamics by epoch."""

import io
import json
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn.devices.processes import is_primary, to_host
from cnn.errors import RunDirError
from cnn.runs import rundir
from cnn.runs.digests import bytes_digest
from cnn.text import read_json_lines, read_regular, reason
from cnn.training.dynamics import by_image
from cnn.training.state import TrainState
from cnn.training.steps import epoch_order

DERIVED = rundir.SUMMARY, rundir.TRANSFER, rundir.TEACHERS, rundir.KERNELS


def write_kernels(run_dir: Path, epoch: int, kernels: np.ndarray) -> None:
    """Adds a line to kernels.jsonl: the kernels [H, W, C_in, C_out] of the first convolution after an epoch.

    Written before the epoch's checkpoint. A run that resumes from an earlier one finds surplus lines, and replaces them
    by the same ones; so the kernels need no place in a checkpoint.
    """
    if is_primary():
        path = run_dir / rundir.KERNELS
        lines = read_regular(path).decode(errors="replace").splitlines()[:epoch] if path.is_file() else []
        rundir.write_text(path, "\n".join([*lines, json.dumps({"epoch": epoch, "kernels": kernels.tolist()})]) + "\n")


def write_dynamics(run_dir: Path, epoch: int, state: TrainState) -> None:
    """Writes an epoch's training dynamics, if the state has them, to dynamics/: probability and margin, float16 [2, N].

    Written before the epoch's checkpoint, and by a run that resumes from an earlier one again, with the same bits.
    """
    if state.dynamics:
        images, batch_size = state.spec.observed, state.spec.optim.batch_size
        # A key of this process, which all processes have.
        key = jax.random.wrap_key_data(jnp.asarray(to_host(jax.random.key_data(state.key))))
        order_SxB = np.asarray(epoch_order(key, epoch - 1, images, batch_size))
        rows = [by_image(to_host(state.dynamics[name]), order_SxB, images) for name in ("probability", "margin")]
        rows_2xN = np.stack(rows).astype(np.float16)
        if is_primary():
            directory, content = rundir.own_directory(run_dir, rundir.DYNAMICS), io.BytesIO()
            np.save(content, rows_2xN, allow_pickle=False)
            directory.mkdir(exist_ok=True)
            rundir.write_bytes(directory / f"{epoch:06}.npy", content.getvalue())


def read_dynamics(run_dir: Path, epochs: int) -> np.ndarray | None:
    """Returns the training dynamics of the first epochs, float32 [2, E, N]; None if the run kept none.

    Raises:
      RunDirError: those of an epoch are missing or damaged, or of another number of images.
    """
    directory = rundir.own_directory(run_dir, rundir.DYNAMICS)
    if not epochs or not directory.exists():
        return None
    images = rundir.read_description(run_dir)["train_images"]
    rows = [_read_rows(directory / f"{epoch:06}.npy", images) for epoch in range(1, epochs + 1)]
    return np.stack(rows, 1).astype(np.float32)


def _read_rows(path: Path, images: int) -> np.ndarray:
    try:
        rows_2xN = np.lib.format.read_array(io.BytesIO(read_regular(path)), allow_pickle=False)
        if (rows_2xN.dtype, rows_2xN.shape) != (np.float16, (2, images)):
            raise ValueError(f"it has {rows_2xN.dtype} {list(rows_2xN.shape)}, but the run float16 [2, {images}]")
        return rows_2xN
    # On damaged bytes NumPy raises almost any type.
    except Exception as error:
        raise RunDirError(f"cannot read {path}: {reason(error)}; restore a copy, or remove {path.parent}") from error


def derived_digest(run_dir: Path, name: str, epochs: int | None = None) -> str | None:
    """Returns the digest of one of the files that are ``DERIVED``; None if there is none.

    Args:
      run_dir: directory of the run.
      name: of the file.
      epochs: without the kernels after later epochs: a killed process may have written more than it has saved.

    Raises:
      RunDirError: the file cannot be read.
    """
    try:
        content = read_regular(run_dir / name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot read {run_dir / name}: {reason(error)}; restore a copy") from error
    if name == rundir.KERNELS and epochs is not None:
        content = b"".join(content.splitlines(keepends=True)[: epochs + 1])
    return bytes_digest(content)


def derived_digests(run_dir: Path, epochs: int) -> dict[str, str]:
    """Returns the digests of the files that are ``DERIVED`` and can be read: no run stops for them."""
    digests = {}
    for name in DERIVED:
        with suppress(RunDirError):
            digests[name] = derived_digest(run_dir, name, epochs)
    return {name: digest for name, digest in digests.items() if digest}


def read_kernels(run_dir: Path, epochs: int = 0) -> dict[int, np.ndarray]:
    """Returns the kernels of kernels.jsonl by epoch, 0 for those before training; {} if the run kept none.

    Args:
      run_dir: directory of the run.
      epochs: whose kernels a file must have.

    Raises:
      RunDirError: the file is damaged.
    """
    path = run_dir / rundir.KERNELS
    try:
        rows = read_json_lines(path) if path.exists() else []
        kernels = {int(row["epoch"]): np.asarray(row["kernels"], np.float32) for row in rows}
        if path.exists() and (missing := set(range(epochs + 1)) - kernels.keys()):
            raise ValueError(f"it does not have the kernels after epoch {min(missing)}")
        if kernels and np.stack(list(kernels.values())).ndim != 5:
            raise ValueError("its kernels do not have four axes")
        return kernels
    except (OSError, ValueError, TypeError, KeyError) as error:
        hint = "restore a copy, or remove it and its picture"
        raise RunDirError(f"cannot read {path}: {reason(error)}; {hint}") from error
