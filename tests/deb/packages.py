"""The packages that are tested."""

import subprocess
from pathlib import Path

MODULE = "libnginx-mod-http-ws-handoff"
BACKEND = "ws-handoff-backend"


class Packages:
    def __init__(self, directory: Path):
        self.directory = directory
        # Before a machine is made for them.
        for revision in (1, 2):
            self.files(revision)

    def files(self, revision: int | None = None) -> list[Path]:
        """Those of a revision, the module first."""
        pattern = f"*-{revision or '*'}+deb*.deb"
        found = sorted(self.directory.glob(pattern))
        names = {file.name.split("_")[0] for file in found}
        assert names == {MODULE, BACKEND}, f"{self.directory}/{pattern}: {[file.name for file in found]}"
        return found

    def file(self, name: str, revision: int = 1) -> Path:
        return next(file for file in self.files(revision) if file.name.startswith(f"{name}_"))

    def version(self, name: str, revision: int) -> str:
        return self.field(self.file(name, revision), "Version")

    def field(self, file: Path, name: str) -> str:
        return dpkg_deb("--field", str(file), name).strip()

    def content(self, file: Path, path: str) -> str:
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, check=True).stdout
        return subprocess.run(
            ["tar", "--extract", "--to-stdout", f"./{path}"], input=archive, stdout=subprocess.PIPE, check=True
        ).stdout.decode()

    def control(self, file: Path) -> set[str]:
        """Names of the control files."""
        archive = subprocess.run(["dpkg-deb", "--ctrl-tarfile", str(file)], stdout=subprocess.PIPE, check=True).stdout
        names = subprocess.run(["tar", "--list"], input=archive, stdout=subprocess.PIPE, check=True).stdout.decode()
        return {name.removeprefix("./") for name in names.split()}


def dpkg_deb(*arguments: str) -> str:
    return subprocess.run(["dpkg-deb", *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout
