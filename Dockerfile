# Three images: nginx with the module, the backend, and what the demo page needs besides them. compose.yaml runs them.
#
#   docker build --target nginx --tag ws-handoff-nginx .
#   docker build --target backend --tag ws-handoff-backend .
#
# Debian's own nginx and Rust; nothing here needs BuildKit. A module fits one version of nginx only: images of both stages
# come from the same DEBIAN (trixie-slim or later: the Rust of older ones is too old).
ARG DEBIAN=trixie-slim


FROM debian:${DEBIAN} AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates cargo gcc libc6-dev libclang-dev libpcre2-dev libssl-dev make nginx-dev python3 rustc zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY tests/tests.rs tests/
COPY scripts/deps.sh scripts/module.sh scripts/
COPY handoff-protocol handoff-protocol
COPY handoff-tls handoff-tls
COPY handoff-websocket handoff-websocket
COPY handoff-metrics handoff-metrics
COPY ngx-handoff-module ngx-handoff-module
COPY backend backend
COPY demo/Cargo.toml demo/
COPY demo/src demo/src
# Not built, but members of the workspace.
COPY bench/load bench/load
COPY examples examples
RUN scripts/module.sh debian \
    && cargo build --release --locked -p ws-handoff-backend -p ws-handoff-demo


# Nothing but the program. It needs no network: clients come as descriptors over the Unix socket in /run/ws-handoff.
FROM debian:${DEBIAN} AS backend

LABEL org.opencontainers.image.title="ws-handoff-backend" \
      org.opencontainers.image.description="Serves WebSocket clients whose sockets nginx hands over" \
      org.opencontainers.image.licenses="Apache-2.0"

# curl asks the admin socket for the backend's health.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --gid www-data --no-create-home --shell /usr/sbin/nologin ws-handoff
COPY --from=build /build/target/release/ws-handoff-backend /usr/local/bin/

# The group of nginx's workers: who is in it can connect to the socket.
USER 10001:33
STOPSIGNAL SIGTERM
ENTRYPOINT ["ws-handoff-backend"]


# Opens the demo page's connections, and reads how much memory nginx takes.
FROM debian:${DEBIAN} AS demo

LABEL org.opencontainers.image.title="ws-handoff-demo" \
      org.opencontainers.image.description="Opens WebSockets for ngx-ws-handoff's demo page" \
      org.opencontainers.image.licenses="Apache-2.0"

RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10002 --gid www-data --no-create-home --shell /usr/sbin/nologin ws-handoff-demo
COPY --from=build /build/target/release/ws-handoff-demo /usr/local/bin/

USER 10002:33
STOPSIGNAL SIGTERM
ENTRYPOINT ["ws-handoff-demo"]


# Debian's nginx with the module and the demo's configuration, all of it as www-data.
FROM debian:${DEBIAN} AS nginx

LABEL org.opencontainers.image.title="nginx with ws_handoff" \
      org.opencontainers.image.description="Debian's nginx, which hands WebSocket clients' sockets over to a backend" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-2-Clause"

RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl nginx \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/build/debian/modules/ngx_http_ws_handoff_module.so /usr/lib/nginx/modules/
COPY nginx/container.conf /etc/nginx/nginx.conf
COPY nginx/demo_locations.conf /etc/nginx/
COPY demo/index.html /usr/share/ws-handoff-demo/

USER 33:33
EXPOSE 8080
# Lets requests that are under way end; SIGTERM would cut them off.
STOPSIGNAL SIGQUIT
CMD ["nginx"]
