# One static binary and the certificates of the authorities that browsers trust; nothing else, not even a shell.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t torwart:0.1.0 .
#
# Builds for the platform that it runs on. Another one is built on a machine of that kind, not by emulation.

FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN --mount=type=cache,id=torwart-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=torwart-target-$TARGETARCH,target=/src/target \
    set -eu; \
    binary="$(bash tests/static-build | tail -n 1)"; \
    install -D --mode=0755 "$binary" /image/torwart; \
    strip --strip-debug /image/torwart; \
    install -D --mode=0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="torwart" \
      org.opencontainers.image.description="Kubernetes-native anti-spam gateway that stands in front of mail servers" \
      org.opencontainers.image.source="https://github.com/torwart-dev/torwart" \
      org.opencontainers.image.documentation="https://github.com/torwart-dev/torwart/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /image/ /
# Numbers: there is no /etc/passwd, and runAsNonRoot wants to see that it is not 0. What is written goes to volumes.
USER 10001:10001
ENTRYPOINT ["/torwart"]
