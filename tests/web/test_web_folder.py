"""The folder of a run's page: what is in it, its size, and that it only replaces what its command has written."""

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.datasets import DATASETS
from cnn.look.neighbours import unit
from cnn.training.summary import layer_table
from cnn.trust import reference
from cnn.web import contents, folder, runtime
from tests.helpers import narrow

HOSTILE = ("</script><script>alert(1)</script>", "'\"&<>", "가방", "x" * 200, "..", "{{class}}", "%s\\")
"""Names of classes."""


def _strict(content: bytes) -> Any:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} in JSON")

    return json.loads(content, parse_constant=refuse)


def _cells(sheet: bytes, count: int, columns: int, height: int, width: int) -> np.ndarray:
    """The images of a sheet, uint8 [N, H, W, 3]."""
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    assert pixels.shape == (-(-count // columns) * height, columns * width, 3)
    rows = pixels.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, height, width, 3)[:count]


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("web") / "the <run>"
    cnn.fit(narrow(config, epochs=1), run_dir, small)
    return run_dir


@pytest.fixture(autouse=True)
def images_there(small, monkeypatch) -> None:
    """The runs' images are those that they were trained on."""
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)


@pytest.fixture
def runtime_dir(tmp_path, monkeypatch) -> Path:
    """A directory with stand-ins of onnxruntime-web's files."""
    (tmp_path / "runtime").mkdir()
    for name in runtime.FILES:
        (tmp_path / "runtime" / name).write_bytes(name.encode())
    monkeypatch.setattr(runtime, "FILES", {name: hashlib.sha256(name.encode()).hexdigest() for name in runtime.FILES})
    return tmp_path / "runtime"


@pytest.fixture(scope="module")
def files(finished, small) -> dict[str, bytes]:
    """The files of a run's page, without onnxruntime-web."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn.runs.result.load_data", lambda config: small)
        return contents.contents(contents.read_network(finished), {}, "the card")


def test_the_facts_of_a_run_on_a_published_data_set(files, finished, small, full_config):
    facts, state = _strict(files["network.json"]), cnn.load_best(finished)[0]
    names = cnn.class_names(full_config.data)
    assert (facts["name"], facts["run"], facts["classes"]) == (full_config.name, "the <run>", list(names))
    assert facts["korean"] == list(DATASETS["fashion_mnist"].korean_names)
    assert facts["image"] == {"height": 28, "width": 28, "channels": 1, "invert": "auto", "resize": "pad"}
    assert facts["parameters"] == sum(row.parameters for row in layer_table(state))
    saved = json.loads((finished / "result.json").read_text())
    expected = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "best_epoch", "stopped_epoch", "params")
    assert facts["result"] == {name: saved[name] for name in expected}
    assert [layer["name"] for layer in facts["layers"]] == [row.name for row in layer_table(state)]
    assert facts["grad_cam"] == "pool2" and facts["files"] == sorted(files)
    assert facts["runtime"] == {"name": "onnxruntime-web", "version": "1.30.0", "license": "MIT"}
    assert {"index.html", "page.css", "network.onnx", "README.md", "ort/README.txt"} < set(files)
    examples = facts["examples"]
    assert examples["indices"] == [i * 110 // 100 for i in range(100)] and examples["count"] == 100
    assert (examples["height"], examples["width"]) == (28, 28)
    assert examples["labels"] == small.test.labels[examples["indices"]].tolist()
    cells = _cells(files["examples.webp"], 100, examples["columns"], 28, 28)
    np.testing.assert_array_equal(cells, small.test.images[examples["indices"]].repeat(3, -1))


def _nearest(facts: dict[str, Any], content: bytes) -> np.ndarray:
    features = np.frombuffer(content, "<f2").reshape(facts["images"], facts["features"])
    return features.astype(np.float32)


def test_the_page_says_of_the_same_images_as_predict_that_they_are_unlike_the_training_images(files, finished, small):
    facts, state = _strict(files["network.json"])["novelty"], cnn.load_best(finished)[0]
    kept = reference.read_reference(finished, state)
    assert kept is not None and facts["layer"] == "pool2"
    assert (facts["indices"], facts["labels"]) == (kept.indices_M.tolist(), kept.labels_M.tolist())
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    embedded = reference.embed(state, np.concatenate([small.test.images, noise]))
    expected = reference.novelty(embedded, kept)
    features = _nearest(facts, files[facts["file"]])
    distances = np.linalg.norm(embedded.pooled_NxF[:, None] - features, axis=2).min(1)
    # The features have 11 bits.
    np.testing.assert_allclose(distances, expected.score_N, atol=5e-4)
    sure = np.abs(expected.score_N - facts["threshold"]) > 5e-4
    assert sure.sum() >= 125 and 10 <= expected.is_unlike_N.sum() < 60
    np.testing.assert_array_equal(distances[sure] > facts["threshold"], expected.is_unlike_N[sure])
    cells = _cells(files[facts["sheet"]], 500, facts["columns"], facts["height"], facts["width"])
    errors = np.abs(cells[..., 0].astype(int) - small.train.images[kept.indices_M][..., 0])
    assert errors.mean() < 12 and errors.mean((1, 2)).max() < 40


def _own(shape: Any, counts: tuple[int, int]) -> contents.Network:
    """A network for own images with hostile names, untrained."""
    rng = np.random.default_rng(0)
    names = HOSTILE
    data = cnn.DataConfig(name="images", image_size=shape[:2], channels=shape[2], class_names=names, resize="crop")
    config = cnn.ExperimentConfig(name="own", data=data, model=cnn.DenseConfig(features=(4,), classes=len(names)))
    state = cnn.create_state(config, 10)

    def split(count: int) -> cnn.Split:
        labels = (np.arange(count) % len(names)).astype(np.int32)
        return cnn.Split(rng.integers(0, 256, (count, *shape), np.uint8), labels)

    splits = cnn.Splits(split(counts[0]), split(10), split(counts[1]))
    return contents.Network(state, config, "run", None, splits, reference.make_reference(state, splits))


def test_own_colour_images_of_any_shape_with_hostile_class_names():
    network = _own((40, 60, 3), (30, 7))
    files = contents.contents(network, {})
    facts = _strict(files["network.json"])
    assert facts["classes"] == list(HOSTILE) and facts["korean"] is None and facts["result"] is None
    assert facts["image"] == {"height": 40, "width": 60, "channels": 3, "invert": False, "resize": "crop"}
    assert facts["grad_cam"] is None and "README.md" not in files and network.splits
    examples, novelty = facts["examples"], facts["novelty"]
    cells = _cells(files["examples.webp"], 7, examples["columns"], 40, 60)
    np.testing.assert_array_equal(cells, network.splits.test.images)
    # Every third pixel, so that no side is above 28.
    assert (novelty["height"], novelty["width"], novelty["columns"]) == (14, 20, 6)
    cells = _cells(files["nearest.webp"], 30, 6, 14, 20)
    assert np.corrcoef(cells.ravel(), network.splits.train.images[:, ::3, ::3].ravel())[0, 1] > 0.5


@pytest.mark.parametrize(
    ("shape", "count", "least", "most"),
    [
        ((64, 64, 3), 200, 60, 90),
        ((1, 4096, 1), 200, 100, 100),
        ((4096, 1, 1), 200, 30, 30),
        ((1200, 1200, 3), 2, 0, 0),
    ],
)
def test_the_sheet_of_test_images_has_at_most_a_megabyte_and_webps_sides(shape, count, least, most):
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    made = contents._examples(cnn.Split(images, np.zeros(count, np.int32)))
    assert least <= (made[0]["count"] if made else 0) <= most
    if made:
        assert len(made[1]) <= 1_000_000
        cells = _cells(made[1], made[0]["count"], made[0]["columns"], *shape[:2])
        np.testing.assert_array_equal(cells, images[made[0]["indices"]].repeat(3 // shape[2], -1))


def test_the_chapters_network_with_its_page_has_less_than_3_mb(full_config, splits):
    state = cnn.create_state(full_config, 48_000)
    indices = reference.evenly_spaced(len(splits.train.labels), reference.IMAGES)
    features = unit(np.random.default_rng(0).standard_normal((reference.IMAGES, 64), np.float32))
    kept = reference.Reference(indices, splits.train.labels[indices], features, features, np.ones(4))
    network = contents.Network(state, full_config, "run", None, splits, kept)
    files = contents.contents(network, {"ort.wasm.min.mjs": bytes(1000)}, "a card " * 500)
    assert _strict(files["network.json"])["parameters"] == 333_526
    own = sum(len(content) for name, content in files.items() if not name.startswith("ort/"))
    assert 2_500_000 < own < 3_000_000
    assert folder.size(files) == f"{own / 1e6:.2f} MB, and 0.0 MB of onnxruntime-web"


UNKNOWN = "warning: whether images are unlike the training images is unknown: "


@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "changed"])
def test_without_the_images_the_page_has_neither_neighbours_nor_examples_and_a_line_says_so(
    finished, monkeypatch, is_there
):
    def changed(run_dir):
        raise cnn.RunDirError("it was trained on other images")

    monkeypatch.setattr(contents, "is_there", lambda config: is_there)
    monkeypatch.setattr(contents, "load_images", changed)
    said = []
    files = contents.contents(contents.read_network(finished, said.append), {})
    facts = _strict(files["network.json"])
    assert facts["novelty"] is facts["examples"] is None
    assert not {"nearest.bin", "nearest.webp", "examples.webp"} & set(files)
    (line,) = said
    assert line.startswith(UNKNOWN)
    assert line.endswith("have changed; restore them" if is_there else "data --data.name fashion_mnist fetches them")


def test_a_damaged_file_of_the_network_that_ships_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "PRETRAINED", tmp_path / "model.safetensors")
    said = []
    assert contents.read_network(None, said.append).reference is None
    assert said == [f"{UNKNOWN}{tmp_path / 'novelty.npz'} is missing or damaged; install the package again"]


def test_the_network_that_ships_has_a_page(monkeypatch):
    monkeypatch.setattr(contents, "is_there", lambda config: False)
    files = contents.contents(contents.read_network(None), {})
    facts = _strict(files["network.json"])
    assert facts["result"]["test_accuracy"] > 0.93 and len(facts["classes"]) == 10 and "network.onnx" in files


def test_the_command_writes_the_folder_and_writes_it_again(finished, runtime_dir, tmp_path, capsys):
    target = tmp_path / "page"
    command = ["export", str(finished), "--format", "web", "--runtime", str(runtime_dir), "--output", str(target)]
    main(command)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == str(target)
    assert out[1].endswith(
        f" MB of onnxruntime-web; python -m http.server --bind 127.0.0.1 --directory {target} serves it"
    )
    first = _tree(target)
    assert set(first) == set(_strict(first["network.json"])["files"])
    assert first["ort/ort.wasm.min.mjs"] == b"ort.wasm.min.mjs" and b"MIT license" in first["ort/README.txt"]
    card = first["README.md"].decode()
    assert "Test accuracy **" in card and 'InferenceSession("network.onnx").run(["probabilities"], ' in card
    (target / "network.json").write_bytes(first["network.json"].replace(b'"the <run>"', b'"another"'))
    (target / "index.html").unlink()
    main(command)
    assert _tree(target) == first and sorted(path.name for path in tmp_path.iterdir()) == ["page", "runtime"]


def _tree(directory: Path) -> dict[str, bytes]:
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def test_the_default_place_is_in_the_run(finished, tmp_path):
    (tmp_path / "run").mkdir()
    expected = tmp_path / "run" / "export" / "web"
    assert folder.check_folder(tmp_path / "run") == expected
    folder.write_folder(expected, {"network.json": b"{}"})
    assert _tree(tmp_path) == {"run/export/web/network.json": b"{}"}


def _add(target: Path, kind: str) -> None:
    """Puts something else into the folder of a page."""
    if kind == "file":
        (target / "notes.txt").write_text("mine")
    elif kind == "file below":
        (target / "ort" / "mine").write_text("mine")
    elif kind == "directory":
        (target / "mine").mkdir()
    elif kind == "link":
        (target / "ort" / "x").unlink()
        (target / "ort" / "x").symlink_to("/")
    elif kind == "another page's facts":
        (target / "network.json").write_text('{"files": []}')
    elif kind == "no facts":
        (target / "network.json").unlink()
    elif kind == "facts that are no JSON":
        (target / "network.json").write_bytes(b'{\n"runtime": {"name": "onnxruntime-web", ')


@pytest.mark.parametrize(
    "kind", ["file", "file below", "directory", "link", "another page's facts", "no facts", "facts that are no JSON"]
)
def test_a_folder_with_anything_else_in_it_is_refused_and_stays(kind, finished, tmp_path):
    target = tmp_path / "page"
    facts = {"files": ["index.html", "network.json", "ort/x"]}
    text = f'{json.dumps(facts)[:-1]},\n"runtime": {{"name": "onnxruntime-web", "version": ""}}}}'
    folder.write_folder(target, {"index.html": b"", "ort/x": b"", "network.json": text.encode()})
    assert folder.check_folder(finished, target) == target
    _add(target, kind)
    before = _tree(target)
    with pytest.raises(cnn.ConfigError, match="--output is .* that this command has not written; name a"):
        folder.check_folder(finished, target)
    assert _tree(target) == before


@pytest.mark.parametrize("folder_is_there", [True, False])
def test_what_a_killed_command_has_left_is_removed_or_put_back(folder_is_there, tmp_path):
    target = tmp_path / "web"
    if folder_is_there:
        folder.write_folder(target, {"index.html": b"old"})
    for name, age in ((".incomplete-web-dead", 3600), (".incomplete-web-alive", 0), (".incomplete-other-dead", 3600)):
        (tmp_path / name / "old").mkdir(parents=True)
        (tmp_path / name / "old" / "index.html").write_bytes(b"older")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    folder._sweep(target, ".incomplete-web-")
    assert (target / "index.html").read_bytes() == (b"old" if folder_is_there else b"older")
    left = [".incomplete-other-dead", ".incomplete-web-alive", "web"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(("name", "other"), [("web", "[vw]eb"), ("[vw]eb", "web")])
def test_what_a_neighbours_command_has_left_stays(name, other, tmp_path):
    left = [f".incomplete-{name}-2-dead", f".incomplete-{other}-dead"]
    for neighbour in left:
        (tmp_path / neighbour / "old").mkdir(parents=True)
        os.utime(tmp_path / neighbour, (0, 0))
    folder.write_folder(tmp_path / name, {"index.html": b"new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*left, name])


@pytest.mark.parametrize("stops", ["writing", "the first rename", "the second rename"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_command_leaves_the_old_folder_and_nothing_else(stops, error, tmp_path, monkeypatch):
    target = tmp_path / "page"
    folder.write_folder(target, {"index.html": b"old", "ort/x": b"old"})
    renames, rename = [], Path.rename

    def stop(*arguments: Any) -> None:
        raise error

    def counted(path: Path, to: Path) -> Path:
        renames.append(path)
        if len(renames) == ["the first rename", "the second rename"].index(stops) + 1:
            stop()
        return rename(path, to)

    if stops == "writing":
        monkeypatch.setattr(os, "fsync", stop)
    else:
        monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises((KeyboardInterrupt, cnn.RunDirError)):
        folder.write_folder(target, {"index.html": b"new"})
    assert _tree(tmp_path) == {"page/index.html": b"old", "page/ort/x": b"old"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx", "--runtime", "x"], "--runtime has an effect only with --format web"),
        (["--format", "web", "--int8"], "--int8 has an effect only with --format onnx"),
        (["--format", "web", "--runtime", "nowhere"], "--runtime is 'nowhere'"),
    ],
)
def test_an_option_without_effect_or_a_wrong_one_is_refused_before_anything_is_computed(
    options, message, finished, monkeypatch
):
    monkeypatch.setattr(folder, "read_network", lambda *arguments: pytest.fail("computes"))
    before = _tree(finished)
    with pytest.raises(cnn.UserError) as caught:
        main(["export", str(finished), *options])
    assert str(caught.value).startswith(message) and _tree(finished) == before
