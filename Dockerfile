# Two images: that of the static program alone (`docker build .`), and with `--target shell` one with a shell, which GitLab's runners need.
ARG RUST=1.95

FROM docker.io/library/rust:${RUST}-alpine AS build
# hadolint ignore=DL3018
RUN apk add --no-cache build-base cmake perl
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package dray \
 && cp target/release/dray /dray \
 && mkdir -m 1777 /scratch \
 && install -d -o 65532 -g 65532 /data

FROM docker.io/library/alpine:3.22 AS shell
# hadolint ignore=DL3018
RUN apk add --no-cache ca-certificates
COPY --from=build /dray /usr/local/bin/dray
COPY --from=build --chown=65532:65532 /data /data
ENV XDG_STATE_HOME=/data/state XDG_CACHE_HOME=/data/cache TMPDIR=/tmp
USER 65532:65532
ENTRYPOINT ["dray"]

FROM scratch AS dray
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /dray /dray
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build /scratch /tmp
# What earlier runs learnt. Mount a volume here.
ENV XDG_STATE_HOME=/data/state XDG_CACHE_HOME=/data/cache TMPDIR=/tmp
USER 65532:65532
ENTRYPOINT ["/dray"]
CMD ["--help"]
