"""Sweeps: the grid, the runs, the table, and what goes wrong."""

import dataclasses
import json
import types

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.errors import UserError
from cnn.runs import sweeps
from tests.helpers import narrow


def test_every_combination_is_a_variant():
    grid = {"augment.flip": [True, False], "optim.learning_rate": [0.1, 0.2, 0.3]}
    found = sweeps.variants(cnn.ExperimentConfig(), grid)
    assert [(v.config.augment.flip, v.config.optim.learning_rate) for v in found] == [
        (flip, rate) for flip in (True, False) for rate in (0.1, 0.2, 0.3)
    ]
    assert found[0].name == "augment.flip=true,optim.learning_rate=0.1"
    assert [variant.config for variant in sweeps.variants(cnn.ExperimentConfig(), {})] == [cnn.ExperimentConfig()]


def test_a_command_line_is_read_as_values_by_field():
    line = "--augment.flip true False --optim.name muon adam --model.features [64,32] --seeds 3 --run-dir 1.50"
    grid = sweeps.parse_grid(line.split())
    assert grid == {
        "augment.flip": [True, False],
        "optim.name": ["muon", "adam"],
        "model.features": [[64, 32]],
        "seeds": [3],
        "run_dir": ["1.50"],
    }


def test_a_sweep_writes_a_table_and_repeats_no_run(config, small, tmp_path):
    lines: list[str] = []
    args = narrow(config, epochs=1), {"optim.batch_size": [32, 64]}, [0, 1], tmp_path, small, lines.append
    found = cnn.sweep(*args)
    assert len(lines) == 4 and lines[3].startswith("optim.batch_size=64  seed 1  val loss ")
    alone = dataclasses.replace(found[1].config, train=dataclasses.replace(found[1].config.train, seed=1))
    assert found[1].rows[1]["val_loss"] == cnn.fit(alone, tmp_path / "alone", small).summary["val_loss"]
    losses = [row["val_loss"] for row in found[0].rows]
    assert found[0].estimates["val_loss"].mean == pytest.approx(np.mean(losses))
    assert found[0].estimates["val_loss"].std == pytest.approx(np.std(losses, ddof=1))
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 4 and table[3].startswith("| `64` | 2 | ")
    saved = json.loads((tmp_path / "sweep.json").read_text())["variants"]
    assert [variant["rows"] for variant in saved] == [variant.rows for variant in found]

    epoch_files = list(tmp_path.rglob("metrics.jsonl"))
    times = [path.stat().st_mtime_ns for path in epoch_files]
    assert [v.rows for v in cnn.sweep(*args)] == [v.rows for v in found]
    assert [path.stat().st_mtime_ns for path in epoch_files] == times


def test_seeds_in_one_call_equal_seeds_in_turn_and_are_not_repeated(config, small, tmp_path, monkeypatch):
    config = narrow(config, epochs=1)
    (in_turn,) = cnn.sweep(config, {}, [0, 1], tmp_path / "in_turn", small)
    (together,) = cnn.sweep(config, {}, [0, 1], tmp_path / "together", small, together=True)
    for ours, theirs in zip(together.rows, in_turn.rows, strict=True):
        # One program for all seeds rounds in another order.
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
    monkeypatch.setattr(sweeps, "fit_seeds", None)
    assert cnn.sweep(config, {}, [0, 1], tmp_path / "together", small, together=True)[0].rows == together.rows


def test_a_diverged_seed_in_one_call_does_not_lose_the_others(config, small, tmp_path, monkeypatch):
    whole = sweeps.fit_seeds

    def fit_seeds(config, seeds, splits):
        if 1 in seeds:
            raise FloatingPointError("non-finite loss with seeds [1]")
        return whole(config, seeds, splits)

    monkeypatch.setattr(sweeps, "fit_seeds", fit_seeds)
    (found,) = cnn.sweep(narrow(config, epochs=1), {}, [0, 1], tmp_path, small, together=True)
    assert found.rows[0]["val_loss"] > 0 and "non-finite loss" in found.rows[1]["diverged"]
    # Nor is any of it repeated.
    monkeypatch.setattr(sweeps, "fit_seeds", None)
    assert cnn.sweep(narrow(config, epochs=1), {}, [0, 1], tmp_path, small, together=True)[0].rows == found.rows


def test_fewer_or_other_seeds_in_one_call_lose_no_rows_and_repeat_none(config, small, tmp_path, monkeypatch):
    trained = []

    def fit_seeds(config, seeds, splits):
        trained.extend(seeds)
        numbers = {**dict.fromkeys(sweeps.NUMBERS, 0.5), "best_epoch": 1, "stopped_epoch": 1}
        return types.SimpleNamespace(rows=[{"seed": seed, **numbers} for seed in seeds])

    def found(seeds):
        (variant,) = cnn.sweep(narrow(config), {}, seeds, tmp_path, small, together=True)
        return [row["seed"] for row in variant.rows]

    monkeypatch.setattr(sweeps, "fit_seeds", fit_seeds)
    assert found([0, 1, 2]) == [0, 1, 2] and found([1]) == [1] and found([5, 1]) == [5, 1]
    saved = json.loads((tmp_path / "as-it-is" / "seeds.json").read_text())
    assert trained == saved["seeds"] == [row["seed"] for row in saved["rows"]] == [0, 1, 2, 5]


def test_images_are_loaded_once_for_all_combinations(config, small, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(sweeps, "load_named", lambda data: loaded.append(data) or (data, small))
    monkeypatch.setattr(sweeps, "_in_turn", lambda *arguments: [])
    monkeypatch.setattr(sweeps, "write", lambda directory, found: None)
    grid = {"optim.learning_rate": [0.1, 0.2], "data.split_seed": [1, 2]}
    cnn.sweep(narrow(config), grid, [0], tmp_path)
    assert [data.split_seed for data in loaded] == [1, 2]


def test_accelerators_train_seeds_in_one_call_if_the_experiment_allows(config, small, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(sweeps, "find_devices", lambda device: [types.SimpleNamespace(platform="gpu")])
    monkeypatch.setattr(sweeps, "_together", lambda *arguments: taken.append("together") or [])
    monkeypatch.setattr(sweeps, "_in_turn", lambda *arguments: taken.append("in turn") or [])
    monkeypatch.setattr(sweeps, "write", lambda directory, found: None)
    for augment in (cnn.AugmentConfig(flip=True), cnn.AugmentConfig(flip=True, test_time=True)):
        cnn.sweep(dataclasses.replace(narrow(config), augment=augment), {}, [0], tmp_path, small)
    assert taken == ["together", "in turn"]


@pytest.mark.parametrize("together", [False, True])
def test_an_unusable_directory_is_refused_before_training(config, small, tmp_path, monkeypatch, together):
    monkeypatch.setattr(sweeps, "fit_seeds", None)
    monkeypatch.setattr("cnn.runs.fit._train", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(cnn.RunDirError, match="cannot use"):
        cnn.sweep(narrow(config, epochs=1), {}, [0], tmp_path / "file", small, together=together)


def test_a_sweep_never_writes_over_what_it_has_not_written(config, small, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "fit", None)
    monkeypatch.setattr(sweeps, "fit_seeds", None)

    def refused(name, message, content, together=False):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
        with pytest.raises(cnn.RunDirError, match=message):
            cnn.sweep(narrow(config), {"train.patience": [1]}, [0], tmp_path, small, together=together)
        assert (tmp_path / name).read_text() == content
        (tmp_path / name).unlink()

    refused("table.md", "table.md is not of this command", "my table")
    refused("table.md", "table.md is not of this command", "| augment.flip | n | val loss |")
    refused("sweep.json", "sweep.json is not of this command", '{"mine": 1}')
    refused("train.patience=1/seed-0/notes.txt", "seed-0 holds something else .notes.txt.", "mine")
    refused("train.patience=1/seeds.json", "seeds.json is of another configuration or data", "mine", together=True)
    other = json.dumps({"config": {}, "seeds": [0], "data_sha256": "", "rows": []})
    refused("train.patience=1/seeds.json", "seeds.json is of another configuration or data", other, together=True)
    refused(".lock", "seed-0 is inside of the run|run is inside of the run", "process 1 on elsewhere")


@pytest.mark.parametrize("seeds", [[], [0, 0], [0, -1], [True]])
def test_invalid_seeds_are_refused_before_training(config, small, tmp_path, seeds):
    with pytest.raises(cnn.ConfigError, match="seeds are"):
        cnn.sweep(narrow(config), {}, seeds, tmp_path / "sweep", small)
    assert not (tmp_path / "sweep").exists()


def test_a_diverged_run_is_reported_and_the_others_continue(config, small, tmp_path):
    sgd = dataclasses.replace(narrow(config, epochs=1), optim=cnn.OptimConfig(name="sgd"))
    found = cnn.sweep(sgd, {"optim.learning_rate": [1e30, 0.01]}, [0], tmp_path, small)
    assert "non-finite loss" in found[0].rows[0]["diverged"] and found[1].rows[0]["val_loss"] > 0
    assert "| 0, 1 diverged |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "no experiment is named"),
        ("experiments.nothing", "cannot import"),
        ("experiments.softmax --optim.speed 3", "unknown field optim.speed"),
        ("experiments.softmax --speed.optim 3", "unknown field speed.optim"),
        ("experiments.softmax --optim.batch_size 32 0", "--optim.batch_size is 0"),
        ("experiments.softmax --optim.batch_size", "--optim.batch_size has no value"),
        ("experiments.softmax 3", "'3' has no field before it"),
        ("experiments.softmax --seeds 0", "--seeds is 0"),
        ("experiments.softmax --seeds true", "--seeds is True"),
        ("experiments.softmax --run-dir", "--run-dir is"),
        ("experiments.softmax --seeds 1 2", "must be one value"),
        ("experiments.softmax --train.seed 1 2", "--seeds sets the number of seeds"),
        ("experiments.softmax --name a b", "name cannot be compared"),
        ("experiments.softmax --optim.momentum 0 0", "is given twice"),
        ("experiments.softmax --train.epochs 1 --optim.batch_size 32 99999", "--optim.batch_size is 99999"),
        ("experiments.softmax --train.epochs 1 --mesh.data 0 7", "--mesh.data 7 and --mesh.model 1 do not fit"),
        ('experiments.softmax --optim.learning_rate_multipliers ["conv=0"]', "'conv', but must be a pattern of logits"),
        ("experiments.softmax --optim.momentum 0 --optim.momentum 0.9", "is given twice"),
    ],
)
def test_a_wrong_command_line_is_refused_before_the_first_run(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["sweep", *arguments.split()])
    assert not list(tmp_path.iterdir())


def test_help_shows_the_usage(capsys):
    main(["sweep", "--help"])
    assert "--augment.flip true false" in capsys.readouterr().out
