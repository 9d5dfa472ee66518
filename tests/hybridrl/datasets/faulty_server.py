"""A local web server that misbehaves on request."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under any path. The attributes choose the faults; `requests` records the headers received."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b""
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.cuts: list[int] = []  # bytes of the body to send before cutting the connection, one per request
        self.statuses: list[int] = []  # statuses to answer first, one per request
        self.content_type = "application/octet-stream"
        self.headers: dict[str, str | None] = {}  # headers to change; None drops one
        self.ranges = True
        self.pause = 0.0  # seconds between pieces of 10 kB
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, status = server.content, 200
        headers = {"Content-Type": server.content_type, "ETag": server.etag, "Last-Modified": server.modified}
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if asked and server.ranges and condition in (None, server.etag, server.modified):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                body, status = b"", 416
            else:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
        headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for name, value in (headers | server.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        body = body[: server.cuts.pop(0)] if server.cuts else body
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 10_000):
                self.wfile.write(body[start : start + 10_000])
                time.sleep(server.pause)


@contextlib.contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
