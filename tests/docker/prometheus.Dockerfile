# In the place of prom/prometheus, which an engine without a registry cannot pull: Debian's, started in the same way.
FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl prometheus \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["prometheus"]
