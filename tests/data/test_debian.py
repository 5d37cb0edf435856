import gzip
import os
import shutil
import stat
import subprocess

import numpy as np
import pytest

from cnn.data import debian, idx
from cnn.data import tfds as tfds_source
from cnn.data.idx import IdxFile
from cnn.errors import DataError
from tests.data.published import archives, assert_equal, write


@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt downloads the package")
def test_debian_package_gives_the_published_files_and_tfds_arrays(tmp_path, capfd, pin, monkeypatch):
    fetched = debian.fetch_debian_package(tmp_path)
    expected = idx.read_idx_directory(fetched)
    # Checked against the SHA-256 that TFDS has registered.
    assert_equal(tfds_source.read_archives("fashion_mnist", fetched), expected)
    # TFDS checks the files, too. Each image takes as long as these, and all of them half a minute.
    decode = tfds_source.decode_files

    def decode_first(name, files):
        pin(name, first := idx.Arrays(*(array[:2000] for array in decode(name, files))))
        return first

    monkeypatch.setattr(tfds_source, "decode_files", decode_first)
    prepared = tfds_source.fetch_with_tfds("fashion_mnist", tmp_path / "work", fetched)
    assert_equal(prepared, idx.Arrays(*(array[:2000] for array in expected)))
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    # Known values: the first labels, and the number of images of each class.
    assert expected.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert np.bincount(expected.train_labels).tolist() == [6000] * 10
    assert np.bincount(expected.test_labels).tolist() == [1000] * 10


def test_gzip_header_is_as_published():
    file = IdxFile("name", "", 1504176606)
    content = gzip.compress(b"content", mtime=7)
    actual = debian.publish_gzip(content, file)
    assert actual[3] == 8 and int.from_bytes(actual[4:8], "little") == 1504176606 and actual[10:15] == b"name\0"
    assert gzip.decompress(actual) == b"content"


def fake_apt(tmp_path, monkeypatch, script: str) -> None:
    path = write(tmp_path / "bin", {"apt-get": f"#!/bin/sh\n{script}\n".encode()}) / "apt-get"
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb unpacks the package")
def test_private_package_lists_are_downloaded_if_missing(tmp_path, monkeypatch, tiny):
    arrays = tiny("fashion_mnist")
    root = tmp_path / "root"
    (root / debian.DEBIAN_DIRECTORY.relative_to("/")).mkdir(parents=True)
    write(root / debian.DEBIAN_DIRECTORY.relative_to("/"), archives("fashion_mnist", arrays))
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {debian.DEBIAN_PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    deb = tmp_path / f"{debian.DEBIAN_PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
    fake_apt(
        tmp_path,
        monkeypatch,
        f"""case "$*" in
        *Dir::State=*update) touch updated ;;
        *Dir::State=*download*) test -e updated && cp {deb} . ;;
        *) echo "E: Unable to locate package" >&2; exit 100 ;;
        esac""",
    )
    (tmp_path / "work").mkdir()
    assert_equal(idx.read_idx_directory(debian.fetch_debian_package(tmp_path / "work")), arrays)


def test_apt_error_message_is_reported(tmp_path, monkeypatch):
    fake_apt(tmp_path, monkeypatch, "echo 'E: Unable to locate package x' >&2; exit 100")
    with pytest.raises(DataError, match="^apt-get failed: E: Unable to locate package x$"):
        debian.fetch_debian_package(tmp_path)


def test_hanging_apt_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "COMMAND_SECONDS", 0.1)
    fake_apt(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(DataError, match="apt-get failed: .*timed out"):
        debian.fetch_debian_package(tmp_path)


def test_missing_apt_is_a_data_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get failed: .*No such file"):
        debian.fetch_debian_package(tmp_path)
