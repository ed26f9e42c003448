"""A local server that interrupts transfers, sends wrong lengths, web pages or nothing."""

import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `content` with the fault `fault`, and records the requested ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content, fault = self.server.content, self.server.fault
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fault != "no ranges" else 0
        if fault == "missing":
            self.send_error(404)
            return
        if wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/zip")
        stated = {"length too large": len(body) + 1000, "length too small": len(body) - 1000}.get(
            fault, len(body)
        )
        self.send_header("Content-Length", str(stated))
        self.end_headers()
        cut = fault == "always interrupted" or (
            fault in ("interrupted", "no ranges") and len(self.server.ranges) < 3
        )
        try:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        except (BrokenPipeError, ConnectionResetError):  # the client has received the stated length
            pass
        self.close_connection = True

    def log_message(self, *_):
        pass
