#!/bin/sh
# Guess: onnx.reference.ReferenceEvaluator computes LSTM, GRU and RNN with all inputs and attributes of the operators, or
# raises.
# Instead: it leaves out sequence_lens and clip, and of an LSTM activations and input_forget, without a word. A sequence
# of 2 steps that is padded to 5 gets the state after the padding, gates are not clipped, and an LSTM with Relu gates is
# computed with sigmoids. onnxruntime gives the padded sequence the state of the same sequence alone.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, opset 22; CPU (Linux, x86-64).
# Source: own measurement.
# Consequence: a right export of a recurrent network for sequences of several lengths fails its comparison with the
# reference, and one that has forgotten the lengths passes it.
# Avoid: compare with onnxruntime; check that padding changes no state.
#
# sh findings/onnx_reference_sequence_lens.sh runs the pinned versions; packages given as arguments replace them.
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
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

STEPS, INPUTS, UNITS = 5, 3, 4
rng = np.random.default_rng(0)
sequence = rng.normal(size=(STEPS, 1, INPUTS)).astype(np.float32)


def states(op, gates, length, **attributes):
    """The last hidden state of onnxruntime and of the reference, for a sequence of some of the steps."""
    weights = np.random.default_rng(1)
    shapes = {"w": (1, gates * UNITS, INPUTS), "r": (1, gates * UNITS, UNITS)}
    constants = [numpy_helper.from_array(weights.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    constants.append(numpy_helper.from_array(np.array([length], np.int32), "lengths"))
    x = sequence if length == STEPS or attributes.pop("padded", False) else sequence[:length]
    node = helper.make_node(op, ["x", "w", "r", "", "lengths"], ["", "h"], hidden_size=UNITS, **attributes)
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)
    result = helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, (1, 1, UNITS))
    graph = helper.make_graph([node], op, [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [runner.run(None, {"x": x})[0].ravel() for runner in (session, ReferenceEvaluator(model))]


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
as_recorded = []
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    (alone, alone_reference), (padded, padded_reference) = states(op, gates, 2), states(op, gates, 2, padded=True)
    clipped, clipped_reference = states(op, gates, STEPS, clip=0.25)
    whole, whole_reference = states(op, gates, STEPS)
    moved = [np.abs(a - b).max() for a, b in ((padded, alone), (padded_reference, alone_reference))]
    changed = [np.abs(a - b).max() for a, b in ((clipped, whole), (clipped_reference, whole_reference))]
    print(f"seen: {op}: padding moves the state by {moved[0]:.3f} in onnxruntime, {moved[1]:.3f} in the reference;")
    print(f"      clip=0.25 changes it by {changed[0]:.3f} and {changed[1]:.3f}")
    agree = np.allclose(alone, alone_reference, atol=1e-5) and np.allclose(whole, whole_reference, atol=1e-5)
    as_recorded.append(agree and moved[0] < 1e-5 < 0.01 < moved[1] and changed[1] < 1e-5 < 0.01 < changed[0])
whole, whole_reference = states("LSTM", 4, STEPS)
for attributes in ({"activations": ["Relu", "Tanh", "Tanh"]}, {"input_forget": 1}):
    other, other_reference = states("LSTM", 4, STEPS, **attributes)
    changed = np.abs(other - whole).max(), np.abs(other_reference - whole_reference).max()
    print(f"seen: LSTM: {next(iter(attributes))} changes the state by {changed[0]:.3f} and {changed[1]:.3f}")
    as_recorded.append(changed[1] < 1e-5 < 0.01 < changed[0])
print("expected: padding moves no state, and both are changed alike by clip and the rest")
raise SystemExit(not all(as_recorded))
END
