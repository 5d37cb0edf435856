#!/bin/sh
# Guess: a network has one answer for an image, whatever other images are in the batch.
# Instead: after onnxruntime's quantize_dynamic, the other images decide. The range of the inputs of a layer is
# measured in each call over the whole batch, so one bright image leaves a dark one a few of 256 steps: of 200 images
# of 2 % of the brightness, 98 % keep their class if each is given alone, and 82 % if one image of full brightness is
# in the batch.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, opset 21; CPU (Linux, x86-64), one thread and two.
# Source: own measurement. The documentation says that the ranges are computed on the fly, and not: for the batch.
# Consequence: accuracy in evaluation (batches of many images) is not that in use (one image), a prediction cannot be
# repeated, and one user's image changes another's answer in a server that collects requests to batches.
# Avoid: batches of one image; or quantize_static, whose ranges are fixed when calibrated. (The recorded effect is of
# brightness; activations of deeper layers differ between images as well.)
#
# sh findings/quantize_dynamic_batch.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- onnx==1.23.2 onnxruntime==1.32.0 ml_dtypes==0.6.0 protobuf==7.36.2 \
    "numpy==2.5.5; python_version >= '3.12'" "numpy==2.4.6; python_version < '3.12'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'END'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)
onnxruntime.set_default_logger_severity(3)
rng = np.random.default_rng(0)
kernel = rng.normal(size=(784, 10)).astype(np.float32)
kernel -= kernel.mean(0)  # Or else one class has the largest output for all images.
values = [helper.make_tensor_value_info(*v) for v in (("x", 1, ["N", 784]), ("y", 1, ["N", 10]))]
node = helper.make_node("MatMul", ["x", "kernel"], ["y"])
graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(kernel, "kernel")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), "float.onnx")
quantize_dynamic("float.onnx", "int8.onnx")
dark = rng.random((200, 784), np.float32) * 0.02
bright = rng.random((1, 784), np.float32)
classes = (dark @ kernel).argmax(1)
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
seen = {}
for threads in (1, 2):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession("int8.onnx", options, providers=["CPUExecutionProvider"])

    def share(batches, session=session):
        """The share of dark images that have the class of the float network."""
        predicted = np.concatenate([session.run(None, {"x": batch})[0][:200].argmax(1) for batch in batches])
        return float((predicted == classes).mean())

    alone, mixed = share(np.split(dark, 200)), share([np.concatenate([dark, bright])])
    seen[threads] = alone, mixed
    print(f"seen: {threads} threads: right class {alone:.3f} alone, {mixed:.3f} with a bright image in the batch")
print("expected: the same share for both")
raise SystemExit(not all(alone > 0.95 and mixed < 0.9 for alone, mixed in seen.values()))
END
