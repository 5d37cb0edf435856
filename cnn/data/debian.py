"""Fashion-MNIST as published, from the Debian and Ubuntu package, with apt, without root."""

import struct
import subprocess
from pathlib import Path

from cnn.data.idx import IDX_FILES, IdxFile
from cnn.errors import DataError

DEBIAN_PACKAGE = "dataset-fashion-mnist"


DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
"""Directory in which the package installs its files."""


NETWORK_SECONDS = 20
"""Timeout for a server that does not respond."""


COMMAND_SECONDS = 300
"""Timeout of a package manager command."""


def _run(*command: str, cwd: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=cwd,
            timeout=COMMAND_SECONDS,
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.splitlines() or [f"exit status {error.returncode}"])[-1]
        raise DataError(f"{command[0]} failed: {reason}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{command[0]} failed: {error}") from None


def publish_gzip(content: bytes, file: IdxFile) -> bytes:
    """Returns Debian's gzip file with the published header, which has the file's name and time (RFC 1952)."""
    has_name = 8
    header = struct.pack("<2sBBI", b"\x1f\x8b", 8, has_name, file.mtime)
    return header + content[8:10] + file.name.encode() + b"\0" + content[10:]


def fetch_debian_package(directory: Path) -> Path:
    """Returns a new directory with Fashion-MNIST as published, from the Debian or Ubuntu package. Needs no root.

    Args:
      directory: working directory.

    Raises:
      DataError: apt, the network or the package is not available.
    """
    apt = ["apt-get", "-qq", "-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={NETWORK_SECONDS}"]
    apt += ["-o", f"Acquire::https::Timeout={NETWORK_SECONDS}"]
    try:
        _run(*apt, "download", DEBIAN_PACKAGE, cwd=directory)
    except DataError:
        # The system's package lists are missing or old. Private ones need no root and leave the system as it is.
        state, cache = directory / "state", directory / "cache"
        (state / "lists/partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
        apt += ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root"]
        _run(*apt, "update", cwd=directory)
        _run(*apt, "download", DEBIAN_PACKAGE, cwd=directory)
    for package in directory.glob(f"{DEBIAN_PACKAGE}_*.deb"):
        _run("dpkg-deb", "-x", str(package), str(directory / "package"), cwd=directory)
    unpacked = directory / "package" / DEBIAN_DIRECTORY.relative_to("/")
    published = directory / "published"
    published.mkdir()
    for file in IDX_FILES.values():
        path = unpacked / f"{file.name}.gz"
        if not path.exists():
            raise DataError(f"the package {DEBIAN_PACKAGE} has no {path.name}")
        (published / path.name).write_bytes(publish_gzip(path.read_bytes(), file))
    return published
