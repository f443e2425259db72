# A container image of the Debian package: `make deb image`. It is used as the
# image registry:2 is, with its arguments, port, volume, paths and environment,
# so that a compose file changes only the name of its image.
FROM debian:12-slim

COPY dist/regd_*.deb /tmp/
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates /tmp/regd_*.deb \
    && rm -rf /tmp/regd_*.deb /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt/*

COPY etc/image/config.yml /etc/docker/registry/config.yml
COPY etc/image/entrypoint.sh /entrypoint.sh
COPY etc/image/registry /bin/registry
# Where version 3 of the image has it, and where the data are: a new volume is its user's.
RUN mkdir -p /etc/distribution \
    && ln -s /etc/docker/registry/config.yml /etc/distribution/config.yml \
    && install -d -o regd -g regd -m 755 /var/lib/registry

VOLUME ["/var/lib/registry"]
EXPOSE 5000
ENTRYPOINT ["/entrypoint.sh"]
CMD ["/etc/docker/registry/config.yml"]
