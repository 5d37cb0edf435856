import dataclasses
import gzip
import json

import numpy as np
import pytest

import cnn
from cnn.look import cost
from cnn.look.cost import format_cost, matmul_rate, plain_flops, step_cost
from cnn.training.state import create_state
from cnn.training.summary import layer_table
from experiments import fashion_cnn


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The cost of a step of the shipped experiment, and the directory of its profile."""
    profile = tmp_path_factory.mktemp("profile")
    return step_cost(fashion_cnn.CONFIG, steps=3, profile=profile), profile


def test_flops_of_a_step_are_those_of_its_matrix_products(measured):
    (step, profile), config = measured, fashion_cnn.CONFIG
    forward = {row.name: row.flops for row in layer_table(create_state(config))}
    # Backward costs twice the forward pass, without the gradient of the images.
    products = config.optim.batch_size * (3 * sum(forward.values()) - forward["conv1"])
    # XLA omits the products with the padding (a border pixel has 6 of 9 kernel values), and adds activations, pooling
    # and Adam, some operations per value.
    assert 0.9 * products < step["flops"] < 1.1 * products
    assert step["share_of_matmul"] == pytest.approx(
        step["flops"] / step["step_seconds"] / step["matmul_flops_per_second"]
    )
    # Parameters, two moments and a batch of images.
    assert step["argument_bytes"] == pytest.approx(3 * 4 * 333_526 + 32 * 784, rel=0.01)
    assert step["flops_per_byte"] == pytest.approx(step["flops"] / step["bytes"])
    (trace,) = profile.rglob("*.trace.json.gz")
    assert "ThunkExecutor::Execute" in {event.get("name") for event in json.load(gzip.open(trace))["traceEvents"]}


def test_a_refused_configuration_leaves_no_directory_for_the_profile(tmp_path):
    data = dataclasses.replace(fashion_cnn.CONFIG.data, source=str(tmp_path / "missing"), name="images")
    config = dataclasses.replace(fashion_cnn.CONFIG, data=data)
    with pytest.raises(cnn.DataError, match="missing"):
        step_cost(config, profile=tmp_path / "new" / "trace")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("profile", ["file/trace", "run/trace", "x" * 256, "/dev/null"])
def test_a_profile_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch, profile):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere")
    monkeypatch.setattr(cost, "create_state", None)
    with pytest.raises(cnn.ConfigError, match="--profile is .*; name another directory"):
        step_cost(fashion_cnn.CONFIG, profile=tmp_path / profile)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "file", "run"]


def test_flops_are_proportional_to_the_batch_size(measured):
    batch = cnn.Batch(np.zeros((64, 28, 28, 1), np.uint8), np.zeros(64, np.int32))
    assert plain_flops(create_state(fashion_cnn.CONFIG), batch) == pytest.approx(2 * measured[0]["flops"], rel=0.01)


def test_matmul_rate_is_operations_per_second(monkeypatch):
    monkeypatch.setattr(cost, "_seconds", lambda call: 0.5)
    assert matmul_rate(size=8) == 2 * 8**3 / 0.5


def test_the_table_has_a_unit_for_every_value():
    text = format_cost(
        {"trace_seconds": 0.25, "bytes": 2**21, "flops": 3e6, "flops_per_second": 4e9, "share_of_matmul": 0.5}, "a step"
    )
    assert [line.split()[-2:] for line in text.splitlines()] == [
        ["a", "step"],
        ["250.0", "ms"],
        ["2.0", "MiB"],
        ["3.0", "MFLOP"],
        ["4.0", "GFLOP/s"],
        ["matmul", "50%"],
    ]
