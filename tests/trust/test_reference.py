"""What a run keeps to tell the unknown: made once, refused of another network or damaged, never needed to predict."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.runs import outputs
from cnn.trust import reference
from cnn.trust.novelty import BEST, SCORES
from tests.helpers import flip_a_bit, narrow, truncate


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    """A run of one epoch, its best state and its reference."""
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    state = cnn.fit(narrow(config, epochs=1), run_dir, small).state
    return run_dir, state, reference.make_reference(state, small)


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the run, which keeps nothing yet."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def images_there(small, monkeypatch):
    """The run's images are those that its configuration names."""
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)


def _same(one, other):
    return one is not None and all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_95_percent_of_the_validation_images_are_not_above_a_threshold(finished, small):
    _, state, kept = finished
    values = reference.scores(reference.embed(state, small.val.images), kept)
    assert list(values) == list(SCORES)
    for limit, scores in zip(kept.thresholds, values.values(), strict=True):
        assert limit in scores and 0.95 <= (scores <= limit).mean() < 0.95 + 1 / 130 + 1e-9


def test_training_images_are_their_own_nearest_with_their_classes(finished, small):
    _, state, kept = finished
    np.testing.assert_array_equal(kept.indices_M, np.arange(500))
    near = reference.novelty(reference.embed(state, small.train.images[100:103]), kept)
    np.testing.assert_array_equal(near.indices_NxK[:, 0], [100, 101, 102])
    np.testing.assert_array_equal(near.labels_NxK, small.train.labels[near.indices_NxK])
    assert near.distances_NxK[:, 0] == pytest.approx(0, abs=1e-3) and not near.is_unlike_N.any()
    assert near.distances_NxK.shape == (3, 5) and (np.diff(near.distances_NxK) >= 0).all()


def test_the_features_are_bounded_evenly_spaced_and_the_same_again(finished, small, monkeypatch):
    _, state, kept = finished
    width = kept.hidden_MxF.shape[1] + kept.pooled_MxF.shape[1]
    monkeypatch.setattr(reference, "BYTES", 100 * 4 * width + 1)
    first, again = (reference.make_reference(state, small) for _ in range(2))
    assert first.hidden_MxF.nbytes + first.pooled_MxF.nbytes == 100 * 4 * width
    np.testing.assert_array_equal(first.indices_M, np.arange(0, 500, 5))
    assert _same(first, again)


def test_what_is_kept_is_read_again_and_not_executed(finished, run_dir):
    _, state, kept = finished
    assert reference.read_reference(run_dir, state) is None
    reference.write_reference(run_dir, state, kept)
    assert _same(reference.read_reference(run_dir, state), kept)
    # Objects would be pickled.
    np.savez(run_dir / outputs.NOVELTY, sha256=np.array("x"), **{**kept._asdict(), "labels_M": np.array([{}])})
    assert reference.read_reference(run_dir, state) is None


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lambda path: path.write_bytes(b"PK"), os.truncate])
def test_a_damaged_file_is_made_again(finished, run_dir, small, damage):
    _, state, kept = finished
    reference.write_reference(run_dir, state, kept)
    damage(run_dir / outputs.NOVELTY, *([0] if damage is os.truncate else []))
    assert reference.read_reference(run_dir, state) is None
    assert _same(reference.keep_reference(run_dir, state, small), kept)
    assert _same(reference.read_reference(run_dir, state), kept)


def test_a_file_of_another_network_or_run_is_not_used(finished, run_dir, config, small, tmp_path):
    _, state, kept = finished
    reference.write_reference(run_dir, state, kept)
    changed = state.replace(params={**state.params, "logits": dict.fromkeys(state.params["logits"], 0.0)})
    assert reference.read_reference(run_dir, changed) is None
    cnn.fit(narrow(config, epochs=1), tmp_path / "other", small)
    shutil.copy(run_dir / outputs.NOVELTY, tmp_path / "other")
    # The same network to the bit, but another run.
    assert reference.read_reference(tmp_path / "other", cnn.load_best(tmp_path / "other")[0]) is None


def test_a_file_that_expands_beyond_the_limit_is_not_read(finished, run_dir, monkeypatch):
    _, state, kept = finished
    zeros = kept._replace(hidden_MxF=np.zeros((500, 5_000), np.float32))
    np.savez_compressed(run_dir / outputs.NOVELTY, sha256=np.array("x"), **zeros._asdict())
    assert (run_dir / outputs.NOVELTY).stat().st_size < 100_000
    monkeypatch.setattr(np, "load", lambda *arguments, **options: pytest.fail("reads"))
    assert reference.read_reference(run_dir, state) is None


@pytest.fixture
def noise(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_predict_makes_the_file_once_and_says_so(finished, run_dir, noise, images_there, small, capsys):
    _, state, kept = finished
    Image.fromarray(small.train.images[7, :, :, 0]).save(noise.with_name("known.png"))
    command = ["predict", str(run_dir), str(noise), str(noise.with_name("known.png"))]
    main(command)
    printed = capsys.readouterr()
    assert printed.err == f"making {run_dir / 'novelty.npz'} from the training images, once\n"
    strange, known = printed.out.splitlines()
    assert strange.endswith("; unlike the training images") and "unlike" not in known
    main([*command, "--json"])
    printed = capsys.readouterr()
    strange, known = map(json.loads, printed.out.splitlines())
    assert printed.err == ""
    assert strange["unlike_training"] is True and known["unlike_training"] is False
    assert strange["novelty"] > kept.thresholds[list(SCORES).index(BEST)]
    assert strange["novelty"] == strange["nearest"][0]["distance"]
    assert len(known["nearest"]) == 5 and known["nearest"][0]["index"] == 7
    names = cnn.class_names(cnn.DataConfig())
    assert [near["class"] for near in known["nearest"]] == [
        names[small.train.labels[near["index"]]] for near in known["nearest"]
    ]


UNKNOWN = "warning: whether images are unlike the training images is unknown: "


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_predict_goes_without_if_the_images_are_not_there_and_says_so(
    run_dir, noise, tmp_path, monkeypatch, capsys, as_json
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: pytest.fail("fetches"))
    main(["predict", str(run_dir), str(noise), str(noise), *as_json])
    printed = capsys.readouterr()
    # Once, however many files: without it, a line would look like that of an image that is like them.
    (warning,) = printed.err.splitlines()
    assert warning.startswith(UNKNOWN) and "novelty.npz is made from them" in warning
    assert warning.endswith("python -m cnn data --data.name fashion_mnist fetches them")
    if as_json:
        line = json.loads(printed.out.splitlines()[0])
        assert len(line["classes"]) == 3
        assert (line["unlike_training"], line["novelty"], line["nearest"]) == (None, None, [])
    assert not (run_dir / outputs.NOVELTY).exists()


def test_predict_says_that_the_images_have_changed(run_dir, noise, monkeypatch, small, capsys):
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small._replace(val=small.test))
    main(["predict", str(run_dir), str(noise)])
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"{UNKNOWN}{run_dir} was trained on other images") and len(warning) <= 300


def test_the_network_that_ships_says_that_its_file_is_damaged(noise, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "PRETRAINED", tmp_path / "model.safetensors")
    (tmp_path / "novelty.npz").write_bytes(b"PK")
    main(["predict", "--pretrained", str(noise)])
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == f"{UNKNOWN}{tmp_path / 'novelty.npz'} is missing or damaged; install the package again"


def test_a_read_only_run_still_predicts(run_dir, noise, images_there, monkeypatch, capsys):
    def refuse(*paths):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    main(["predict", str(run_dir), str(noise)])
    assert capsys.readouterr().out.endswith("; unlike the training images\n")
    assert not (run_dir / outputs.NOVELTY).exists()


def test_an_unfinished_run_is_left_alone(run_dir, noise, images_there, capsys):
    (run_dir / "result.json").unlink()
    before = sorted(path.name for path in run_dir.iterdir())
    main(["predict", str(run_dir), str(noise)])
    printed = capsys.readouterr()
    assert "unlike" not in printed.out
    assert printed.err.startswith(UNKNOWN) and "holds an unfinished run" in printed.err
    assert sorted(path.name for path in run_dir.iterdir()) == before


def test_the_result_of_a_run_does_not_change(finished, run_dir, config, small):
    _, state, kept = finished
    reference.write_reference(run_dir, state, kept)
    again = cnn.fit(narrow(config, epochs=1), run_dir, small)
    assert again.summary == json.loads((run_dir / "result.json").read_text())
    assert reference.read_reference(run_dir, again.state) is not None
