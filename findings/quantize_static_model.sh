#!/bin/sh
# Guess: quantize_static(model, ...) with a model in memory reads it, as it reads a file, and leaves it alone.
# Instead: the caller's model is emptied. Its constants now name a file of a temporary directory that is gone when the
# call returns, so that saving, running or quantizing the same model again fails, far from the cause.
# Versions: onnx 1.23.2, onnxruntime 1.32.0; CPU (Linux, x86-64).
# Source: own measurement. The model is saved with external data to pass it on by path, and onnx.save_model with
# save_as_external_data=True changes the model that it is given. The documentation says neither.
# Consequence: one calibrates twice to compare two settings, or measures float32 after int8, and the second step fails;
# a program that had the only copy of a network loses its weights.
# Avoid: give the path of a file, or a copy (copy.deepcopy of the ModelProto).
#
# sh findings/quantize_static_model.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- onnx==1.23.2 onnxruntime==1.32.0 ml_dtypes==0.6.0 protobuf==7.36.2 \
    "numpy==2.5.5; python_version >= '3.12'" "numpy==2.4.6; python_version < '3.12'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cd "$work"
"$work/venv/bin/python" - <<'END'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

logging.disable(logging.WARNING)
onnxruntime.set_default_logger_severity(3)
rng = np.random.default_rng(0)
kernel = rng.normal(size=(784, 10)).astype(np.float32)
values = [helper.make_tensor_value_info(*v) for v in (("x", 1, ["N", 784]), ("y", 1, ["N", 10]))]
node = helper.make_node("MatMul", ["x", "kernel"], ["y"])
graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(kernel, "kernel")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": rng.random((100, 784), np.float32)}])

    def get_next(self):
        return next(self.batches, None)


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
before = model.ByteSize()
quantize_static(model, "int8.onnx", Reader())
after = model.ByteSize()
outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
print(f"seen: the caller's model had {before:,} bytes, and has {after:,}; constants in another file: {outside}")
errors = {}
for name, use in (
    ("run", lambda: onnxruntime.InferenceSession(model.SerializeToString())),
    ("quantize again", lambda: quantize_static(model, "again.onnx", Reader())),
):
    try:
        use()
        errors[name] = None
    except Exception as error:
        errors[name] = type(error).__name__
print(f"seen: {errors}")
print("expected: the model is as before, and both succeed")
raise SystemExit(not (after < before / 10 and outside == ["kernel"] and all(errors.values())))
END
