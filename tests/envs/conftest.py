"""A server on this machine that does to a download what servers do: cuts, refusals, other versions, silence."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclasses.dataclass
class Behaviour:
    """What the server does; tests change it between requests."""

    body: bytes = b""
    tag: str | None = '"one"'
    changed: str | None = None
    ranges: bool = True
    obeys_if_range: bool = True
    stated_length: int | None = None  # Content-Length of a whole answer, if not the true one
    cuts: list[int] = dataclasses.field(default_factory=list)  # bytes of the body per request, then all
    states: list[int] = dataclasses.field(default_factory=list)  # HTTP states per request, then 200 or 206
    redirect: str | None = None
    silent: bool = False
    gate: threading.Event | None = None
    asked: list[dict[str, str]] = dataclasses.field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, behaviour: Behaviour, *args: Any) -> None:
        self.does = behaviour
        super().__init__(*args)

    def do_GET(self) -> None:
        does = self.does
        does.asked.append({"path": self.path, **dict(self.headers)})
        if does.gate is not None:
            does.gate.wait(10)
        if does.silent:
            threading.Event().wait(0.6)
            return
        if does.states and (state := does.states.pop(0)) != 200:
            self.send_response(state)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gone")
            return
        if does.redirect and self.path != does.redirect:
            self.send_response(301)
            self.send_header("Location", does.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(does)

    def _send(self, does: Behaviour) -> None:
        asked = self.headers.get("Range")
        same = not does.obeys_if_range or self.headers.get("If-Range") in (does.tag, does.changed)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and does.ranges and same else None
        if first is not None and first >= len(does.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(does.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = does.body[first or 0 :]
        self.send_response(200 if first is None else 206)
        length = does.stated_length if does.stated_length is not None and first is None else len(rest)
        if length >= 0:
            self.send_header("Content-Length", str(length))
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{len(does.body) - 1}/{len(does.body)}")
        if does.tag:
            self.send_header("ETag", does.tag)
        if does.changed:
            self.send_header("Last-Modified", does.changed)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(rest[: does.cuts.pop(0)] if does.cuts else rest)

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""


class Server:
    """A server in a thread, its behaviour and the address of its file."""

    def __init__(self) -> None:
        self.does = Behaviour()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self.does))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/data/set.hdf5"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def http_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.close()
