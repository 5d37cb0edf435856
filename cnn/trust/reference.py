"""What a run keeps to say that an image is unlike its training images: ``novelty.npz``, made once, without training."""

import io
import zipfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.config import DataConfig
from cnn.data.cache import is_there
from cnn.data.splits import Splits
from cnn.errors import RunDirError, UserError
from cnn.exchange.exporting import PRETRAINED
from cnn.look.features import pooled_outputs
from cnn.look.neighbours import NEIGHBOURS, evenly_spaced, last_pooled_layer, nearest, unit
from cnn.runs import outputs, rundir
from cnn.runs.digests import bytes_digest, json_digest, leaf_digests
from cnn.runs.result import load_images
from cnn.text import one_line, printable, read_regular
from cnn.training.state import TrainState
from cnn.training.summary import last_hidden_layer, layer_table
from cnn.trust.novelty import BEST, SCORES, energy, max_probability, nearest_distance, threshold

IMAGES = 5_000
"""Maximum number of training images that are kept."""

BYTES = 4_000_000
"""Maximum size of their features: fewer images are kept of wide layers."""

IMAGE_BYTES = 2**28
"""Maximum size of these images, which are in memory at once: fewer are kept of large ones."""

MAX_BYTES = 2 * BYTES
"""Maximum size of the file that is read."""

HINT = "fix that, and python -m cnn evaluate RUN_DIR --unknown writes it"


class Reference(NamedTuple):
    """Some training images, as the best network of a run sees them, and the thresholds of the scores."""

    indices_M: np.ndarray
    """Indices of the training images, ascending, int32."""
    labels_M: np.ndarray
    """Their classes, int32."""
    hidden_MxF: np.ndarray
    """Outputs of the last hidden layer, each of length 1, float32."""
    pooled_MxF: np.ndarray
    """Channel means of the last layer with pixels, each of length 1, float32."""
    thresholds: np.ndarray
    """The score that 95 % of the validation images do not exceed, float64, in the order of ``SCORES``."""


class Embedded(NamedTuple):
    """Images, as a network sees them."""

    logits_NxK: np.ndarray
    hidden_NxF: np.ndarray
    pooled_NxF: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities [N, K]."""
        shares = np.exp(self.logits_NxK - self.logits_NxK.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


def layers(state: TrainState) -> dict[str, str]:
    """Returns the names of the layers that the scores use, by "hidden" and "pooled"; they may be the same."""
    rows = layer_table(state)
    return {"hidden": last_hidden_layer(rows), "pooled": last_pooled_layer(rows)}


def embed(state: TrainState, images_NxHxWxC: np.ndarray, names: dict[str, str] | None = None) -> Embedded:
    """Returns the logits of any number of images and their features, in one pass.

    Args:
      state: a trained state.
      images_NxHxWxC: any images.
      names: what ``layers`` returns, which traces the network, for a caller that has it.
    """
    names = names or layers(state)
    logits_NxK, features = pooled_outputs(state, images_NxHxWxC, tuple(dict.fromkeys(names.values())))
    return Embedded(logits_NxK, *(unit(features[names[kind]]) for kind in ("hidden", "pooled")))


def scores(embedded: Embedded, reference: Reference) -> dict[str, np.ndarray]:
    """Returns each of ``SCORES`` of some images, float64 [N] each."""
    return {
        "max_probability": max_probability(embedded.logits_NxK),
        "energy": energy(embedded.logits_NxK),
        "nearest_hidden": nearest_distance(reference.hidden_MxF, embedded.hidden_NxF),
        "nearest_pooled": nearest_distance(reference.pooled_MxF, embedded.pooled_NxF),
    }


class Novelty(NamedTuple):
    """How unlike the training images some images are."""

    score_N: np.ndarray
    """The best score: the distance to the nearest training image."""
    is_unlike_N: np.ndarray
    """Whether it is above the threshold, which 5 % of the validation images exceed."""
    indices_NxK: np.ndarray
    """The nearest training images."""
    labels_NxK: np.ndarray
    """Their classes."""
    distances_NxK: np.ndarray


def novelty(embedded: Embedded, reference: Reference) -> Novelty:
    """Returns how unlike the training images some images are, by ``BEST``, and the nearest ones."""
    found_NxK, distances_NxK = nearest(reference.pooled_MxF, embedded.pooled_NxF, NEIGHBOURS)
    score_N, limit = distances_NxK[:, 0], reference.thresholds[list(SCORES).index(BEST)]
    return Novelty(
        score_N, score_N > limit, reference.indices_M[found_NxK], reference.labels_M[found_NxK], distances_NxK
    )


def make_reference(state: TrainState, splits: Splits, images: int = IMAGES) -> Reference:
    """Returns the reference of a network: the same for the same network and images.

    Args:
      state: its best state.
      splits: the images that it was trained on.
      images: maximum number of training images that are kept.
    """
    width = sum(embed(state, splits.train.images[:1])[part].shape[1] for part in (1, 2))
    most = min(images, BYTES // (4 * width), IMAGE_BYTES // splits.train.images[0].nbytes)
    kept = evenly_spaced(len(splits.train.labels), most)
    train = embed(state, splits.train.images[kept])
    without = Reference(kept, splits.train.labels[kept].astype(np.int32), *train[1:], np.zeros(0))
    val = scores(embed(state, splits.val.images), without)
    return without._replace(thresholds=np.array([threshold(val[name]) for name in SCORES]))


def network_digest(run_dir: Path | None, state: TrainState) -> str:
    """Returns the digest of what a reference follows from: the run, its network, and which scores there are."""
    run = rundir.read_identity(run_dir).digest if run_dir else "ships"
    evaluated = state.eval_state
    network = leaf_digests({"params": evaluated.params, "batch_stats": evaluated.batch_stats})
    return json_digest([run, network, layers(state), list(SCORES)])


def _digest(run_dir: Path | None, state: TrainState, reference: Reference) -> str:
    """The digest of a reference and of its network."""
    arrays = {name: [array.dtype.str, array.shape] for name, array in reference._asdict().items()}
    contents = [bytes_digest(np.ascontiguousarray(array).tobytes()) for array in reference]
    return json_digest([network_digest(run_dir, state), arrays, contents])


def _path(run_dir: Path | None) -> Path:
    return PRETRAINED.with_name(outputs.NOVELTY) if run_dir is None else run_dir / outputs.NOVELTY


def write_reference(run_dir: Path | None, state: TrainState, reference: Reference) -> None:
    """Writes ``novelty.npz`` into a run, or with None beside the network that ships.

    Raises:
      RunDirError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, sha256=np.array(_digest(run_dir, state, reference)), **reference._asdict())
    rundir.write_bytes(_path(run_dir), buffer.getvalue(), HINT)


def read_reference(run_dir: Path | None, state: TrainState) -> Reference | None:
    """Returns the reference in a run's ``novelty.npz``; with None, of the network that ships.

    None if there is none, or if it is damaged, or not of this run's network.

    Args:
      run_dir: directory of the run, or None.
      state: its best state.
    """
    try:
        content = read_regular(_path(run_dir), MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                return None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            reference = Reference(*(file[name] for name in Reference._fields))
            return reference if str(file["sha256"]) == _digest(run_dir, state, reference) else None
    except UserError:
        raise
    # On damaged bytes NumPy and zipfile raise almost any type; the file is made again.
    except Exception:
        return None


def keep_reference(run_dir: Path, state: TrainState, splits: Splits, may_fail: bool = False) -> Reference:
    """Returns the reference of a run; makes and writes it if there is none of its network.

    Args:
      run_dir: directory of the run.
      state: its best state.
      splits: its images.
      may_fail: whether it is only returned if it cannot be written, as the run may be read-only.

    Raises:
      RunDirError: it cannot be written.
    """
    reference = read_reference(run_dir, state)
    if reference is None:
        reference = make_reference(state, splits)
        with suppress(RunDirError) if may_fail else nullcontext():
            write_reference(run_dir, state, reference)
    return reference


def unlike_warning(why: str) -> str:
    """Returns the line that says that a command cannot say whether images are unlike the training images, and why."""
    return one_line(f"warning: whether images are unlike the training images is unknown: {why}")


def missing_images(data: DataConfig) -> str:
    """Returns why there are no training images, and what brings them back."""
    if data.source is not None:
        return f"those of --data.source {data.source} are not there; restore them"
    return f"those are not on this machine; python -m cnn data --data.name {data.name} fetches them"


def find_reference(
    run_dir: Path | None, state: TrainState, data: DataConfig, say: Callable[[str], Any] = lambda line: None
) -> Reference | None:
    """Returns the reference of a run, made from its images if it has none, and written if the run can be written to.

    None if the run is not finished, or its images are not on this machine, or have changed: nothing is fetched.

    Args:
      run_dir: directory of the run; None for the network that ships, whose reference is not made.
      state: its best state.
      data: its images.
      say: called with a line if it is made, which takes some seconds, or with a warning if there is none.
    """
    reference = read_reference(run_dir, state)
    if reference is not None:
        return reference
    if run_dir is None:
        say(unlike_warning(f"{_path(None)} is missing or damaged; install the package again"))
    elif not (run_dir / rundir.RESULT).exists():
        say(unlike_warning(f"{run_dir} holds an unfinished run; the command that made it resumes it"))
    elif not is_there(data):
        say(unlike_warning(f"{run_dir / outputs.NOVELTY} is made from them, but {missing_images(data)}"))
    else:
        try:
            splits = load_images(run_dir)
            say(f"making {printable(run_dir / outputs.NOVELTY)} from the training images, once")
            return keep_reference(run_dir, state, splits, may_fail=True)
        except UserError as error:
            say(unlike_warning(str(error)))
    return None
