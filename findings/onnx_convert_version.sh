#!/bin/sh
# Guess: onnx.version_converter.convert_version returns a network that computes the same, or refuses.
# Instead: it returns a valid network (onnx.checker agrees) with other outputs. Downwards, Softmax over the channels of
# a picture from opset 13 to 12 keeps axis=1, which in opset 12 means "all axes from 1 on together": the probabilities
# of a pixel do not add up to 1 any more. Upwards, Resize from opset 10 to 11 (and Upsample from 9, which becomes
# Resize) does not write down the old rule of coordinates and takes the new default, half_pixel: linear resizing is
# shifted by half a pixel.
# Versions: onnx 1.23.2, run by onnxruntime 1.32.0; CPU (Linux, x86-64).
# Source: Softmax: own measurement. Resize: onnx/onnx issue 8480, open. The documentation promises an error where "some
# necessary conversion is not supported".
# Consequence: an image classifier that resizes in its graph, or a segmenting head, is brought to the opset of a
# runtime or of a browser, loads, and answers worse: images a half pixel off, scores that are not probabilities.
# Avoid: export again at the opset that is needed; or compare outputs of both files. By hand: the attribute
# coordinate_transformation_mode = "asymmetric" on each Resize, and Softmax over the last axis between two Transposes.
#
# sh findings/onnx_convert_version.sh runs the pinned versions; packages given as arguments replace them.
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
from onnx import helper, numpy_helper, version_converter

onnxruntime.set_default_logger_severity(3)


def network(op, opset, shape, out, constants=(), **attributes):
    names = ["x", *(constant.name for constant in constants)]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", out))]
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], op, values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def outputs(model, x):
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
logits = np.random.default_rng(0).normal(size=(1, 10, 2, 2)).astype(np.float32)
softmax = network("Softmax", 13, logits.shape, logits.shape, axis=1)
sums = [outputs(m, logits).sum(1).ravel() for m in (softmax, version_converter.convert_version(softmax, 12))]
print("seen: a pixel's probabilities add up to", sums[0][0], "in opset 13, and converted to 12 to", sums[1])
pixels, scales = np.array([[[[0, 8]]]], np.float32), numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32), "s")
same = True
for op, opset in (("Resize", 10), ("Upsample", 9)):
    model = network(op, opset, (1, 1, 1, 2), (1, 1, 1, 4), [scales], mode="linear")
    before, after = (outputs(m, pixels).ravel().tolist() for m in (model, version_converter.convert_version(model, 13)))
    print(f"seen: {op} of [0, 8]: {before} in opset {opset}, and converted to 13 {after}")
    same &= before == [0, 4, 8, 8] and after == [0, 2, 6, 8]
print("expected: sums of 1, and the same four pixels before and after")
raise SystemExit(not (same and np.allclose(sums[0], 1) and abs(sums[1].sum() - 1) < 1e-5))
END
