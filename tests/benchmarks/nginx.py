"""Debian's nginx as a registry that answers as fast as files can be sent."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_CONFIG = """
daemon off;
{user}
worker_processes 2;
pid {scratch}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=20000 inactive=10m;
    open_file_cache_valid 10m;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        # Every repository has the same number of tags, on one page.
        add_header Content-Range 0-{tags}/{tags};
    }}
}}
"""


@contextmanager
def serving(root: Path, tags: int) -> Iterator[str]:
    """Serve the files below a folder, each as the only page of a list.

    Args:
        root: The folder.
        tags: The number of rows in each list.

    Yields:
        The URL of the endpoint, once it answers.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is needed: apt-get install nginx-light")
    with TemporaryDirectory(prefix="tagsync-nginx-") as scratch:
        port = _free_port()
        # Started as root, nginx would switch to a user who may not read the folder.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        config = Path(scratch) / "nginx.conf"
        config.write_text(
            _CONFIG.format(user=user, scratch=scratch, port=port, root=root, tags=tags)
        )
        # If this process is killed, nginx must not keep running.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", program, "-e", "stderr", "-c", config]
        )
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise ChildProcessError("nginx did not start: it says why above")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nginx does not answer on port {port}")
