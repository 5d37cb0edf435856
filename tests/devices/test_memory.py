import jax
import numpy as np
import pytest

import cnn
from cnn.devices import memory

LARGE = cnn.ExperimentConfig(model=cnn.DenseConfig(features=(65_536,) * 9))


def test_a_network_that_does_not_fit_into_memory_is_refused_before_anything_is_written(tmp_path, small):
    for call in (
        lambda: cnn.create_state(LARGE),
        lambda: cnn.fit(LARGE, tmp_path / "run", small),
        lambda: cnn.fit_seeds(LARGE, [0], small),
    ):
        with pytest.raises(MemoryError, match=r"the training state takes [\d,.]+ GiB, but [\d,.]+ GiB are available"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_program_whose_intermediate_values_do_not_fit_is_refused(monkeypatch):
    program = jax.jit(lambda x: (x[:, None] * x).sum(0)[::-1].sort()).lower(np.ones(4000, np.float32)).compile()
    assert memory.fitting(program) is program
    monkeypatch.setattr(memory, "available_bytes", lambda: -1)
    with pytest.raises(MemoryError, match="a step, with its activations, takes"):
        memory.fitting(program)


def test_the_memory_of_this_machine_is_known():
    assert 2**28 < memory.available_bytes() < 2**50
