"""The metadata services of three clouds, as a server on loopback: what each says is set by the test. For tests of notices."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-imdsv2"


class Cloud:
    """Answers as EC2 (IMDSv2), Compute Engine and Azure do on 169.254.169.254."""

    def __init__(self):
        self.said: dict[str, str] = {"/metadata/instance/compute/name": "this-machine"}
        """Path -> text; a path that is not here is a 404, as with AWS before a notice."""
        self.asked: list[str] = []
        self.changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cloud": self}))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def say(self, path: str, text: str) -> None:
        with self.changed:
            self.said[path] = text
            self.changed.notify_all()

    def azure_takes(self, *machines: str, event: str = "Preempt") -> None:
        told = {"EventType": event, "Resources": list(machines), "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT"}
        self.say("/metadata/scheduledevents", json.dumps({"DocumentIncarnation": 1, "Events": [told]}))

    def close(self) -> None:
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cloud: Cloud

    def do_PUT(self):
        if self.path == "/latest/api/token" and int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0:
            return self._send(200, TOKEN)
        return self._send(405, "")

    def do_GET(self):
        url = urlsplit(self.path)
        self.cloud.asked.append(self.path)
        if url.path.startswith("/latest/") and self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            return self._send(401, "")
        if url.path.startswith("/computeMetadata/") and self.headers["Metadata-Flavor"] != "Google":
            return self._send(403, "")
        if url.path.startswith("/metadata/") and (self.headers["Metadata"] != "true" or "api-version" not in url.query):
            return self._send(400, "")
        if "wait_for_change" in parse_qs(url.query):
            with self.cloud.changed:
                self.cloud.changed.wait(timeout=60)
        if url.path in self.cloud.said:
            return self._send(200, self.cloud.said[url.path])
        return self._send(404, "")

    def _send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass
