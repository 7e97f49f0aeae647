"""An nginx as people have it: without the module, and so without what the module has OpenSSL tell of each TLS handshake."""

import shutil
from pathlib import Path

from servers import Servers, make_certificate


class Proxy(Servers):
    """One nginx more, with `proxy_pass` alone, to the backend of `servers`, which has to be started first."""

    FILES, TLS_FILES = ["proxy.conf"], ["tls-proxy.conf"]

    def __init__(self, directory: Path, servers: Servers):
        super().__init__(directory, tls=servers.certificate is not None)
        self.servers = servers
        self.backend_port = servers.backend_port

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "temp").mkdir(parents=True)
        if self.certificate:
            make_certificate(self.certificate)
        try:
            self._start_nginx()
        except BaseException:
            self.__exit__()
            raise
        return self

    def backend_pids(self) -> list[int]:
        return self.servers.backend_pids()

    def backend_connections(self) -> int:
        return self.servers.backend_connections()
