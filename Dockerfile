# farcall in a container: docker build --tag farcall .
# The working directory is the volume /data. Needs `server.tokens` to listen for others: see monitoring/compose.yml.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package farcall-cli --bin farcall

FROM debian:bookworm-slim
# The roots that upstreams' certificates are checked against.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data farcall \
    && install --directory --owner farcall --mode 0700 /data
COPY --from=build /src/target/release/farcall /usr/local/bin/farcall
USER farcall
VOLUME /data
EXPOSE 8888
# SIGTERM drains: give it `server.drain_timeout` (30 s) before it is killed.
STOPSIGNAL SIGTERM
# Through the socket, which needs no token.
HEALTHCHECK --interval=10s --timeout=5s CMD ["farcall", "list", "--limit", "1", "--quiet", "--dir", "/data"]
ENTRYPOINT ["farcall"]
CMD ["serve", "/data"]
