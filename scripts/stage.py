"""Copies what cargo built to where nginx's configurations and the scripts look for it.

    cargo build --workspace --message-format=json-render-diagnostics | python3 scripts/stage.py build
    cargo build --workspace --examples --message-format=… | python3 scripts/stage.py build examples

Reads cargo's JSON messages, so that the place of each file comes from cargo itself: target directories hold results of
several builds side by side, and only cargo knows which one is current. Each file is written beside its destination and
renamed over it: a running nginx or backend keeps the file that it was started from.
"""

import filecmp
import json
import os
import shutil
import sys
from pathlib import Path

NGINX = "sbin/nginx"
MODULE = "modules/ngx_http_ws_handoff_module.so"
BACKEND = "bin/ws-handoff-backend"
DEMO = "bin/ws-handoff-demo"
LOAD = "bin/ws-handoff-load"
EXAMPLES = ("examples/axum", "examples/fastwebsockets")


def main() -> int:
    destination = Path(sys.argv[1])
    found, succeeded = read_messages(sys.stdin)
    if not succeeded:
        return 1
    expected = EXAMPLES if sys.argv[2:] == ["examples"] else (NGINX, MODULE, BACKEND, DEMO, LOAD)
    missing = [name for name in expected if name not in found]
    if missing:
        print(f"cargo reported no file for: {', '.join(missing)}", file=sys.stderr)
        return 1
    for name in expected:
        if install(found[name], destination / name):
            print(f"{destination / name}")
    return 0


def read_messages(lines) -> tuple[dict[str, Path], bool]:
    """The built files by their staged names, and whether the build succeeded."""
    found = {}
    succeeded = False
    for line in lines:
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        match message["reason"]:
            case "build-script-executed" if package_name(message["package_id"]) == "nginx-sys":
                if nginx := vendored_nginx(message):
                    found[NGINX] = nginx
            case "compiler-artifact":
                target = message["target"]
                if "example" in target["kind"]:
                    found[f"examples/{target['name']}"] = Path(message["executable"])
                elif target["name"] == "ngx_http_ws_handoff_module":
                    found[MODULE] = Path(next(f for f in message["filenames"] if f.endswith(".so")))
                elif target["name"] == "ws-handoff-backend" and message["executable"]:
                    found[BACKEND] = Path(message["executable"])
                elif target["name"] == "ws-handoff-demo" and message["executable"]:
                    found[DEMO] = Path(message["executable"])
                elif target["name"] == "ws-handoff-load" and message["executable"]:
                    found[LOAD] = Path(message["executable"])
            case "build-finished":
                succeeded = message["success"]
    return found, succeeded


def vendored_nginx(message: dict) -> Path | None:
    """The nginx that nginx-sys compiled, unless it was pointed at another build (NGINX_BUILD_DIR)."""
    candidates = [Path(message["out_dir"], "objs/nginx")]
    if build_dir := os.environ.get("NGINX_BUILD_DIR"):
        candidates.insert(0, Path(build_dir, "nginx"))
    return next((path for path in candidates if path.is_file()), None)


def package_name(package_id: str) -> str:
    """From `registry+https://…#nginx-sys@0.5.0`, or `path+file:///…/nginx-sys#0.5.0`."""
    place, _, fragment = package_id.partition("#")
    name, at, _ = fragment.partition("@")
    return name if at else place.rstrip("/").rpartition("/")[2]


def install(source: Path, destination: Path) -> bool:
    """Whether the destination changed."""
    if destination.is_file() and filecmp.cmp(source, destination, shallow=False):
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o755)
    temporary.rename(destination)
    return True


if __name__ == "__main__":
    sys.exit(main())
