#!/bin/sh
# As the entrypoint of registry:2, whose arguments it takes. The registry runs
# as the user regd, not as root: what it may not write yet is made its own, the
# files of a registry:2 that ran as root, for one. With `docker run --user` it
# runs as that user, and changes nothing.
set -e

case "$1" in
    *.yaml | *.yml) set -- registry serve "$@" ;;
    serve | garbage-collect | check-config | scrub | help | -*) set -- registry "$@" ;;
esac

if [ "$1" = registry ] && [ "$2" = serve ] && [ "$(id -u)" = 0 ]; then
    data=$(regd check-config "$3" | sed -n 's/^storage\.filesystem\.rootdirectory: "\(.*\)"$/\1/p')
    if [ -n "$data" ] && [ "$data" != / ]; then
        mkdir -p "$data"
        # Once: the directory itself comes last. One that cannot be changed (read-only, on a server) may do as it is; if not, regd says so.
        if [ "$(stat --format %U "$data")" != regd ]; then
            find "$data" -depth ! -user regd -exec chown --no-dereference regd:regd {} + 2>/dev/null || true
        fi
    fi
    exec setpriv --reuid=regd --regid=regd --init-groups --no-new-privs -- "$@"
fi
exec "$@"
