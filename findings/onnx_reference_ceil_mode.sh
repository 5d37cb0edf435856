#!/bin/sh
# Guess: onnx.reference.ReferenceEvaluator, ONNX's own interpreter, is what an exported network is to be compared with.
# Instead: with ceil_mode=1, which PyTorch writes for pooling, it is wrong. AveragePool of 3 x 3, stride 3, of 7 x 7
# pixels adds the missing rows before the image, not behind it, so all windows lie elsewhere (values are shifted; an
# image of ones does not show it); MaxPool of 3 x 3, stride 1, pads 1, of 5 x 5 pixels returns 7 x 7. onnxruntime
# agrees with the formula in the operator's specification and with ONNX's own shape inference.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, opset 22; CPU (Linux, x86-64).
# Source: own measurement; onnx/onnx issue 4958 (closed as stale) mentions odd values of this kind.
# Consequence: a right export fails its comparison with the reference, and an exporter that is changed until it passes
# is wrong in every runtime.
# Avoid: compare with onnxruntime, or with the framework that the network was exported from.
#
# sh findings/onnx_reference_ceil_mode.sh runs the pinned versions; packages given as arguments replace them.
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
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(3)


def both(op, size, **attributes):
    """The outputs of onnxruntime and of the reference, and the shape that ONNX infers."""
    pixels = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, pixels.shape)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = helper.make_node(op, ["x"], ["y"], kernel_shape=[3, 3], ceil_mode=1, **attributes)
    graph = helper.make_graph([node], op, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    answers = [runner.run(None, {"x": pixels})[0][0, 0] for runner in (session, ReferenceEvaluator(model))]
    return *answers, tuple(d.dim_value for d in inferred.dim[2:])


# Windows start at 0, 3 and 6, and the last ones have a single row or column of the image.
rows = np.arange(49.0).reshape(7, 7)
expected = np.array([[rows[i : i + 3, j : j + 3].mean() for j in (0, 3, 6)] for i in (0, 3, 6)])
runtime, reference, _ = both("AveragePool", 7, strides=[3, 3])
largest, reference_largest, inferred = both("MaxPool", 5, strides=[1, 1], pads=[1, 1, 1, 1])
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
print("seen: AveragePool, onnxruntime:", runtime.tolist())
print("seen: AveragePool, reference:  ", reference.tolist())
print("expected of both:              ", expected.tolist())
print("seen: MaxPool, shapes of onnxruntime", largest.shape, "and of the reference", reference_largest.shape)
print("expected of both:", inferred)
shifted = reference.shape == expected.shape and abs(reference[0, 0] - 4) < 1e-5
right = np.allclose(runtime, expected) and largest.shape == inferred == (5, 5)
raise SystemExit(not (right and shifted and reference_largest.shape == (7, 7)))
END
