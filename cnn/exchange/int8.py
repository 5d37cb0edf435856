"""A network as ONNX with integers of 8 bits, by onnxruntime, and what that costs: accuracy, size, time.

Kernels are rounded to 8 bits, with a scale for each output channel, and activations with scales from the least and
greatest values on validation images (static quantization, B. Jacob et al., arXiv:1712.05877).
"""

import contextlib
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.data.splits import Split
from cnn.errors import import_extra
from cnn.exchange.exporting import check_export, write_export
from cnn.exchange.onnx_graph import make_graph
from cnn.intervals import accuracy_interval, difference_interval
from cnn.runs import rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.result import load_images

CALIBRATION = 500
"""Number of validation images from which the scales of the activations come."""

OPSET = 13
"""The first with a scale for each channel."""

OPERATORS = ("Conv", "MatMul", "Relu", "MaxPool")
"""What is computed in integers. Not Softmax: its output would be in steps of 1/255, and of some classes 0. Not Add,
which is a bias here or joins branches: it costs accuracy, and saves no time."""

FILE = "model-int8.onnx"

BATCH = 100
"""Number of images that are calibrated and classified at a time."""

CALLS = {1: 200, BATCH: 20}
"""Number of timed calls, by batch size."""


class Compared(NamedTuple):
    """What ``export_int8`` wrote, and measured."""

    path: Path
    values: dict[str, Any]


def quantize(model: Any, images_NxHxWxC: np.ndarray) -> bytes:
    """Returns an ONNX model with integers of 8 bits, as a file; images and probabilities are as before.

    Args:
      model: from ``make_graph``, with opset ``OPSET`` or later.
      images_NxHxWxC: uint8, for the scales of the activations.

    Raises:
      UserError: the package onnxruntime is missing.
    """
    quantization = import_extra("onnxruntime.quantization", "int8")
    onnx = import_extra("onnx", "int8")
    batches = [{"images": images_NxHxWxC[i : i + BATCH]} for i in range(0, len(images_NxHxWxC), BATCH)]

    class Reader(quantization.CalibrationDataReader):
        """Gives the batches, then None."""

        remaining = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.remaining, None)

    with tempfile.TemporaryDirectory() as directory, _without_warnings():
        source, target = Path(directory, "float.onnx"), Path(directory, "int8.onnx")
        # As a file: of a model in memory, onnxruntime 1.32 moves the constants to a file that it then removes.
        source.write_bytes(model.SerializeToString())
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            # Kernels in 7 bits of the 8, as sums of products saturate on x86 without VNNI.
            reduce_range=True,
            # Products of two activations, as in attention, stay in float32.
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = onnx.load(target)
    quantized.producer_name = model.producer_name
    onnx.checker.check_model(quantized, full_check=True)
    return quantized.SerializeToString()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences the advice to pre-process, which needs sympy, and would change nothing in these graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def export_int8(run_dir: Path, output: Path | None = None) -> Compared:
    """Writes the best network of a run in 8 bits, and beside it, as JSON, what that costs on the run's test images.

    Args:
      run_dir: directory of the run.
      output: path of the file; None for ``export/model-int8.onnx`` in the run directory.

    Raises:
      UserError: there is no such run, its images are missing, a package is missing, or a file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    for package in ("onnx", "onnxruntime"):
        import_extra(package, "int8")
    path = check_export(run_dir, FILE, "onnx", output)
    measured = measurements_path(path)
    check_export(run_dir, measured.name, "int8", None if output is None else measured)
    state, config = load_best(run_dir)
    splits = load_images(run_dir)
    val = splits.val.images
    chosen = val[np.unique(np.linspace(0, len(val) - 1, CALIBRATION).astype(int))]
    model = make_graph(state, config, OPSET)
    files = {"float32": model.SerializeToString(), "int8": quantize(model, chosen)}
    values = compare(files, splits.test)
    values = {**values, "step": int(state.step), "calibration_images": len(chosen)}
    write_export(path, files["int8"])
    rundir.write_json(measured, values, "fix that, or name another path with --output")
    return Compared(path, values)


def measurements_path(path: Path) -> Path:
    """Returns the path of the measurements that lie beside a file of ``export_int8``."""
    return Path(f"{path}.json")


def compare(files: dict[str, bytes], test: Split) -> dict[str, Any]:
    """Returns size, accuracy and time of ONNX files of one network, as plain numbers.

    Args:
      files: content of the files, ``float32`` and ``int8``.
      test: images and labels.
    """
    onnxruntime = import_extra("onnxruntime", "int8")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    networks: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for name, content in files.items():
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        networks[name] = lambda images, session=session: session.run(None, {"images": images})[0]
    images, count = test.images, len(test.labels)
    right = {
        name: np.concatenate([network(images[i : i + BATCH]).argmax(1) for i in range(0, count, BATCH)]) == test.labels
        for name, network in networks.items()
    }
    milliseconds = {size: _milliseconds(networks, images[np.arange(size) % count], CALLS[size]) for size in CALLS}
    difference = difference_interval(right["int8"], right["float32"])
    return {
        "quantization": "int8, static, per channel, by the least and greatest values",
        "onnxruntime": onnxruntime.__version__,
        "threads": 1,
        "test_images": count,
        **{
            name: {
                "bytes": len(content),
                "accuracy": float(right[name].mean()),
                "accuracy_interval": list(accuracy_interval(int(right[name].sum()), count)),
                "milliseconds": {str(size): times[name] for size, times in milliseconds.items()},
            }
            for name, content in files.items()
        },
        "size_ratio": len(files["int8"]) / len(files["float32"]),
        "accuracy_difference": float(right["int8"].mean() - right["float32"].mean()),
        "accuracy_difference_interval": list(difference),
    }


def _milliseconds(networks: dict[str, Any], images: np.ndarray, calls: int) -> dict[str, float]:
    """The median time of a call of each network, which take turns, so that another process slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(calls):
        for name, network in networks.items():
            start = time.perf_counter()
            network(images)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def format_comparison(values: dict[str, Any]) -> str:
    """Returns what ``export_int8`` measured as a table."""
    before, after = values["float32"], values["int8"]
    low, high = values["accuracy_difference_interval"]
    lines = [
        f"{'':22}{'float32':>12}{'int8':>12}",
        f"{'bytes':22}{before['bytes']:>12,}{after['bytes']:>12,}   {values['size_ratio']:.3f} of the size",
        f"{'test accuracy':22}{before['accuracy']:>12.4f}{after['accuracy']:>12.4f}   "
        f"{values['accuracy_difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, "
        f"{values['test_images']:,} images",
    ]
    for size, time_before in before["milliseconds"].items():
        time_after = after["milliseconds"][size]
        label = f"ms a batch of {size}"
        lines.append(f"{label:22}{time_before:>12.3f}{time_after:>12.3f}   {time_after / time_before:.2f} of the time")
    return "\n".join(
        [*lines, f"onnxruntime {values['onnxruntime']}, {values['threads']} thread, median of calls in turn"]
    )
