"""A network of one's own: README's example in a module of its own, trained, and looked at by every command."""

import json
import re
import sys

import pytest

import cnn
from cnn.__main__ import main
from cnn.errors import ConfigError, RunDirError
from cnn.models.family import families
from cnn.serialization import from_dict
from tests.helpers import ROOT

EXAMPLE = re.search(
    r"```python\n(# experiments/mine\.py\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
)
MODULE = "mine_of_the_test"


@pytest.fixture(scope="module")
def run_dir(small, tmp_path_factory):
    """A finished run of the example, whose module has been forgotten since, as in another process."""
    assert EXAMPLE, "README.md has no example of one's own network"
    directory = tmp_path_factory.mktemp("own")
    (directory / f"{MODULE}.py").write_text(EXAMPLE[1], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        module = __import__(MODULE)
        config = cnn.ExperimentConfig(**{**vars(module.CONFIG), "train": cnn.TrainConfig(epochs=1)})
        cnn.fit(config, directory / "run", small)
        yield directory / "run"


def test_the_family_is_remembered_by_its_importable_name(run_dir):
    family = json.loads((run_dir / "config.json").read_text())["config"]["model"]["family"]
    module, _, name = family.rpartition(".")
    assert module == MODULE and families()[family] is getattr(sys.modules[MODULE], name)


def test_maps_and_layers_of_own_blocks(run_dir, small):
    state, config = cnn.load_best(run_dir)
    maps = cnn.feature_maps(state, small.test.images[:2])
    rows = {row.name: row for row in cnn.layer_table(state)}
    assert list(maps) == list(rows)
    assert all(maps[name].shape[1:] == row.output_shape[1:] for name, row in rows.items())
    assert rows["block1"].parameters > 0 and maps["block1"].shape[:3] == (2, 28, 28)


def test_layers_that_onnx_does_not_know_are_one_line(run_dir):
    with pytest.raises(cnn.UserError, match="^block1 is a Block, which the ONNX export does not support"):
        main(["export", str(run_dir), "--format", "onnx"])


def test_a_command_needs_the_module_of_an_own_network(run_dir, monkeypatch):
    known = {name: cls for name, cls in families().items() if not name.startswith(MODULE)}
    monkeypatch.setattr("cnn.serialization.families", lambda: known)
    for verb in (["verify"], ["evaluate"], ["export", "--format", "safetensors"]):
        with pytest.raises(
            RunDirError, match=rf"--model.family is '{MODULE}.\w+', but .* --experiment MODULE names it$"
        ):
            main([verb[0], str(run_dir), *verb[1:]])


def test_no_file_makes_the_program_import(monkeypatch):
    values = {"model": {"family": "antigravity.Flying"}}
    with pytest.raises(ConfigError, match="^--model.family is 'antigravity.Flying', but must be one of cnn, dense,"):
        from_dict(values)
    assert "antigravity" not in sys.modules


def test_the_module_that_the_user_names_is_imported(run_dir, capsys):
    main(["verify", str(run_dir), "--experiment", MODULE])
    assert "config.json           good" in capsys.readouterr().out
