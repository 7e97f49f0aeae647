"""Runs the Autobahn test suite through nginx, the module and the backend.

    python3 tests/autobahn/run.py --suite DIR [--tls [user | kernel]] [CASE...]

With --tls the suite speaks TLS, and its sessions are handed over with its sockets; the backend carries them on, or its kernel. DIR
is where install.sh has put the suite. CASEs are as the suite numbers them, `1.*` or `6.4.3`; without any, 1 to 10: all but
compression. Prints what is not plainly right, and ends with 0 if nothing but that was seen.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]

# What these show is up to the server, and not judged by the suite either.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

NGINX = """
load_module {module};
daemon off;
{user}
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{
            ws_handoff unix:{socket};
            ws_handoff_fallback off;
        }}
    }}
}}
"""
TLS = """ ssl;
        ssl_certificate cert.pem;
        ssl_certificate_key cert.key;
        ws_handoff_tls on"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--engine", default="parked", choices=["parked", "tasks"])
    parser.add_argument("--tls", nargs="?", const="user", choices=["user", "kernel"])
    parser.add_argument("cases", nargs="*", default=CASES)
    arguments = parser.parse_args()
    if arguments.tls and arguments.engine == "tasks":
        parser.error("--engine tasks carries no TLS session on: nothing would be handed over")
    with tempfile.TemporaryDirectory(prefix="autobahn-") as directory:
        directory = Path(directory)
        processes = []
        try:
            port = serve(directory, arguments, processes)
            url = f"{'wss' if arguments.tls else 'ws'}://127.0.0.1:{port}/"
            verdicts = fuzz(directory, arguments.suite, url, arguments.cases)
            if arguments.tls:
                carried = sessions(directory / "admin.sock")
                if set(carried) != {arguments.tls}:
                    sys.exit(f"TLS sessions, by who carried them on: {carried}")
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in reversed(processes):
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
        return judge(verdicts, arguments)


def serve(directory: Path, arguments, processes: list) -> int:
    """Starts the backend and nginx; the port to connect to."""
    (directory / "temp").mkdir()
    backend_socket = directory / "backend.sock"
    # Case 9 sends 16 MiB; a ping or a close of this side's would not be expected.
    backend = [BUILD / "bin/ws-handoff-backend", "--app", "echo", "--engine", arguments.engine, "--socket", backend_socket,
               "--max-message-size", "64m", "--max-queue", "64m", "--ping-interval", "0", "--idle-timeout", "0",
               "--drain-timeout", "1"]  # fmt: skip
    if arguments.engine == "parked":
        backend.append("--compression")
    if arguments.tls:
        backend += ["--tls", arguments.tls, "--admin", f"unix:{directory}/admin.sock"]
    with open(directory / "backend.log", "wb") as log:
        processes.append(subprocess.Popen(backend, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    wait_until(backend_socket.exists, "the backend")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if arguments.tls:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                   "-keyout", directory / "cert.key", "-out", directory / "cert.pem"]  # fmt: skip
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    (directory / "nginx.conf").write_text(
        NGINX.format(
            module=BUILD / "modules/ngx_http_ws_handoff_module.so",
            user="user root;" if os.geteuid() == 0 else "",
            port=port,
            tls=TLS if arguments.tls else "",
            socket=backend_socket,
        )
    )
    command = [BUILD / "sbin/nginx", "-p", f"{directory}/", "-c", "nginx.conf", "-e", "error.log"]
    processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    wait_until(lambda: listens(port), "nginx")
    return port


def fuzz(directory: Path, suite: Path, url: str, cases: list[str]) -> dict:
    """The suite's verdicts by case."""
    spec = directory / "spec.json"
    server = {"agent": "server", "url": url}
    spec.write_text(
        json.dumps(
            {
                "outdir": str(directory / "report"),
                "options": {"failByDrop": False},
                "servers": [server],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    program = "import sys; from autobahntestsuite.wstest import run; sys.exit(run())"
    with open(directory / "suite.log", "wb") as log:
        command = [suite / "python2", "-c", program, "-m", "fuzzingclient", "-s", spec]
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    if status != 0:
        sys.exit(f"the suite ended with {status}:\n{(directory / 'suite.log').read_text()[-2000:]}")
    return json.loads((directory / "report/index.json").read_text())["server"]


def sessions(admin: Path) -> dict[str, int]:
    """TLS sessions that the backend has taken, by who carried them on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(admin))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n")
        answer = connection.makefile("rb").read().decode()
    found = re.findall(r'^websocket_tls_sessions_total\{carrier="(\w+)"\} (\d+)', answer, re.MULTILINE)
    return {carrier: int(count) for carrier, count in found if int(count) > 0}


def judge(verdicts: dict, arguments) -> int:
    failed = 0
    for case in sorted(verdicts, key=lambda case: [int(part) for part in case.split(".")]):
        seen = {verdicts[case]["behavior"], verdicts[case]["behaviorClose"]}
        allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
        # 12 and 13 may be declined: a window of 256 bytes, which zlib does not have.
        if case.startswith(("12.", "13.")):
            allowed |= {"UNIMPLEMENTED"}
        if not seen <= allowed:
            failed += 1
        if seen != {"OK"}:
            print(f"  {case}: {', '.join(sorted(seen))}")
    over = f", wss, --tls {arguments.tls}" if arguments.tls else ""
    print(f"autobahn ({arguments.engine}{over}): {len(verdicts)} cases, {failed} failed")
    return 1 if failed or not verdicts else 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, what: str):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} does not start")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
