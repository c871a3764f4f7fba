"""A local S3 server in a process of its own (moto), to be stopped, broken and looked into."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "2",
}
LISTED = 100
"""Objects that one answer lists; the others come with the next."""


class S3Server:
    """The server, started on a free port; what it holds is in its memory, and goes with it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": str(LISTED)}
        self._process = subprocess.Popen(command, env=environment, **quiet)
        for _ in range(400):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=5).close()
                return
            assert self._process.poll() is None, "the S3 server ended"
            time.sleep(0.05)
        self.stop()
        raise AssertionError("the S3 server did not come up")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.endpoint}

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()

    def stop(self) -> None:
        """Be gone at once, as after a power cut."""
        self._process.kill()
        self._process.wait()


class CuttingProxy:
    """Passes connections on to a server, and cuts each of the first `cuts` after `after` bytes of answers."""

    def __init__(self, port: int, *, after: int, cuts: int) -> None:
        self._port, self._after, self.cuts = port, after, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if is_answer and self.cuts > 0 and passed > self._after:
                    self.cuts -= 1
                    target.sendall(data[: len(data) - (passed - self._after)])
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
