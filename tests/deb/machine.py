"""A clean Debian root, booted with its own systemd and without a network (systemd-nspawn), and removed at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")

# A mount namespace of its own: systemd 257 wants the unified hierarchy of cgroups, whatever this machine has, and
# systemd-nspawn a /run that is in memory. No registration: this machine may have no systemd that runs. It ends when the tests
# do, however they do. bpf(2) is for IPAddressDeny=.
BOOT = """
mount --make-rprivate /
if ! [ "$(stat --file-system --format=%T /sys/fs/cgroup)" = cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t tmpfs tmpfs /run
exec setpriv --pdeathsig TERM systemd-nspawn --quiet --register=no --keep-unit --private-network --system-call-filter=bpf \\
    --boot --console=pipe --directory="$1"
"""


class Machine:
    """Used with `with`: made, booted, and gone afterwards."""

    def __init__(self, suite: str):
        self.suite = suite
        self.root = ROOT / "build" / "roots" / f"deb-{suite}"
        self.log = self.root.with_suffix(".log")
        self.nspawn = None
        self.leader = 0

    def __enter__(self):
        self.remove()
        try:
            self.bootstrap()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.power_off()
        self.remove()

    def bootstrap(self):
        """A minimal Debian with systemd."""
        self.root.mkdir(parents=True)
        output(["debootstrap", "--variant=minbase", self.suite, str(self.root), MIRROR], timeout=600)
        for name in ("resolv.conf", "hosts"):
            target = self.root / "etc" / name
            target.unlink(missing_ok=True)
            target.write_text(Path("/etc", name).read_text())
        self.chroot("apt-get", "update", "-qq")
        self.chroot("apt-get", "install", "-y", "-qq", "--no-install-recommends", "systemd", "systemd-sysv", "dbus")

    def chroot(self, *command: str) -> str:
        """Before it is booted: with this machine's network, and no service started."""
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        try:
            return output(["chroot", str(self.root), "env", "-i", *ENVIRONMENT, *command], timeout=600)
        finally:
            policy.unlink()

    def boot(self):
        with self.log.open("w") as log:
            self.nspawn = subprocess.Popen(
                ["unshare", "--mount", "bash", "-euc", BOOT, "boot", str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        wait_until("the machine has a first process", self.find_leader)
        wait_until("the machine is up", lambda: self.state() in ("running", "degraded"))
        assert self.state() == "running", self.run("systemctl", "--failed")

    def find_leader(self) -> bool:
        assert self.nspawn.poll() is None, self.log.read_text()
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        self.leader = next((int(pid) for pid in children if comm(pid) == "systemd"), 0)
        return self.leader > 0

    def state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).strip()

    def power_off(self):
        if self.nspawn and self.nspawn.poll() is None:
            # systemd-nspawn has systemd shut down at the first signal, and ends it at the second.
            self.nspawn.send_signal(signal.SIGTERM)
            try:
                self.nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self.nspawn.send_signal(signal.SIGTERM)
                self.nspawn.wait(30)

    def remove(self):
        mounts = Path("/proc/self/mounts").read_text()
        assert f" {self.root}/" not in mounts, f"something is mounted below {self.root}; not removed"
        if self.root.exists():
            shutil.rmtree(self.root)

    def enter(self, *command: str) -> list[str]:
        return [
            "nsenter", f"--target={self.leader}", "--all", "--root", "--wd", "env", "-i", *ENVIRONMENT, *command,
        ]

    def run(self, *command: str, check: bool = True, timeout: float = 180) -> str:
        """Runs a command in the machine; what it prints."""
        return output(self.enter(*command), timeout=timeout, check=check)

    def shell(self, script: str, check: bool = True, timeout: float = 180) -> str:
        return self.run("sh", "-euc", script, check=check, timeout=timeout)

    def install(self, *files: str, simulate: bool = False, check: bool = True) -> str:
        """apt-get install, from files that are in /root."""
        options = ["--simulate"] if simulate else ["-y"]
        return self.run("apt-get", "install", *options, *(f"/root/{file}" for file in files), check=check)

    def write(self, path: str, text: str):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def client(self, *arguments: str) -> "Client":
        return Client(self, *arguments)

    def echo(self, text: str):
        with self.client("echo", text) as client:
            assert client.said() == {"received": text}

    def access_log(self) -> list[str]:
        return (self.root / "var/log/nginx/access.log").read_text().splitlines()

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "--lines=60", "--output=cat", check=False) if self.leader else ""


# What apt and the maintainer scripts are run with, and nothing of this machine's.
ENVIRONMENT = (
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive",
    "PAGER=cat",
)


class Client:
    """client.py, with the files of this machine and the network of the other one."""

    def __init__(self, machine: Machine, *arguments: str):
        script = Path(__file__).with_name("client.py")
        self.process = subprocess.Popen(
            ["nsenter", f"--target={machine.leader}", "--net", sys.executable, str(script), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def said(self) -> dict:
        """Its next line; it ends by itself, so that this does."""
        line = self.process.stdout.readline()
        assert line, f"the client ended with {self.process.wait()}"
        return json.loads(line)


def comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def output(command: list[str], timeout: float, check: bool = True) -> str:
    """What a command prints; if it fails, everything that it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def wait_until(what: str, is_so, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
