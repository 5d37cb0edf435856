"""A page on the loopback address: its files out of memory, to this machine's browsers alone."""

import signal
import socketserver
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from cnn.errors import ConfigError, Stopped, import_extra
from cnn.exchange.exporting import PRETRAINED
from cnn.rules import integer, require
from cnn.runs import rundir
from cnn.text import one_line, reason
from cnn.training.tasks import require_task
from cnn.trust.exports import card_text
from cnn.web.contents import CARD, NETWORK, contents, read_network
from cnn.web.folder import size
from cnn.web.runtime import find_runtime

HOST = "127.0.0.1"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""By ending, whatever this machine's own table says; all others are application/octet-stream."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the files, and of / with index.html."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        server: Any = self.server
        if self.headers.get("Host") not in server.hosts:
            # Another site, whose name leads here, would read the page.
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        try:
            name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        content = server.files.get(name)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(PurePosixPath(name).suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


class PageServer(ThreadingHTTPServer):
    """A server of files by name, on the loopback address."""

    allow_reuse_port = False

    def __init__(self, port: int):
        """Binds a port, or with 0 any free one.

        Raises:
          ConfigError: the port cannot be used.
        """
        self.files: dict[str, bytes] = {}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"--port is {port}, which cannot be used ({reason(error)}); name another, or 0 for a free one"
            ) from error
        named = "" if self.server_port == 80 else f":{self.server_port}"
        self.hosts = {f"{host}{named}" for host in (HOST, "localhost")}
        self.url = f"http://{HOST}{named}/"

    def server_bind(self) -> None:
        """Binds the port without asking the network for this machine's name, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has closed its connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def _stoppable(say: Callable[[str], Any]) -> Iterator[None]:
    """Raises Stopped within the block at SIGTERM, as Python raises KeyboardInterrupt at SIGINT, and says so."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can handle signals.
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def play(
    run_dir: Path | None,
    runtime: Path | None = None,
    port: int = 0,
    open_browser: bool = True,
    say: Callable[[str], Any] = lambda line: None,
    show: Callable[[str], Any] = lambda line: None,
) -> None:
    """Serves the page of a run's best network on the loopback address until a signal; no folder is written.

    Args:
      run_dir: directory of the run; None for the network that ships.
      runtime: directory with onnxruntime-web; None for the cache, into which it is fetched once.
      port: to serve at; 0 for any free one.
      open_browser: whether the browser is told to open the page.
      say: called with a line before something is fetched or computed that takes a while, and at the end.
      show: called with the line that has the address.

    Raises:
      UserError: there is no such run, it is a detector's, a package is missing, or the port cannot be used.
      DamagedError: the checkpoint is damaged.
      KeyboardInterrupt: at SIGINT, or at SIGTERM as Stopped.
    """
    ports = integer(0, 65_535)
    require(ports.holds(port), "port", port, ports.allowed)
    import_extra("onnx")
    if run_dir is not None:
        require_task(rundir.read_description(run_dir)["config"], "classification", "play")
    with _stoppable(say), PageServer(port) as server:
        runtime_files = find_runtime(runtime, say)
        say("preparing the page")
        server.files = contents(read_network(run_dir, say), runtime_files, _card(run_dir, say))
        show(f"{server.url} serves the page ({size(server.files)}) to this machine alone; Ctrl-C ends it")
        if open_browser:
            threading.Thread(target=_open, args=(server.url,), daemon=True).start()
        server.serve_forever()


def _card(run_dir: Path | None, say: Callable[[str], Any]) -> str | None:
    """The card of ``read_network``'s network, without a result, which takes longer to measure than all else.

    None, with a line, if that of the network that ships cannot be read.
    """
    if run_dir is None:
        card = PRETRAINED.with_name(CARD)
        try:
            return card.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            say(f"warning: {one_line(f'the page has no model card: {card} cannot be read: {reason(error)}')}")
            return None
    return card_text(run_dir, {"onnx": NETWORK}, evaluate=False)


def _open(url: str) -> None:
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(url)
