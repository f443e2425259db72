# A container image of the Debian package: `make deb image`. It is used as the
# image registry:2 is, with its arguments, port, volume, paths and environment,
# so that a compose file changes only the name of its image.
FROM debian:12-slim

COPY dist/regd_*.deb etc/image/ /tmp/regd/
# The configuration has a second name where version 3 of the image has it; a new volume is its user's.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates /tmp/regd/regd_*.deb \
    && install -D -m 644 /tmp/regd/config.yml /etc/docker/registry/config.yml \
    && install -d /etc/distribution \
    && ln -s /etc/docker/registry/config.yml /etc/distribution/config.yml \
    && install -m 755 /tmp/regd/entrypoint.sh /entrypoint.sh \
    && install -m 755 /tmp/regd/registry /bin/registry \
    && install -d -o regd -g regd -m 755 /var/lib/registry \
    && rm -rf /tmp/regd /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt/*

VOLUME ["/var/lib/registry"]
EXPOSE 5000
ENTRYPOINT ["/entrypoint.sh"]
CMD ["/etc/docker/registry/config.yml"]
