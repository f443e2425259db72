#!/usr/bin/python3
"""
A client of a registry, for tests on a machine that has no other.

client.py push URL NAME LAYERS SECONDS: push an image of so many layers, as docker does: what fails is tried again, five times, and what is
acknowledged is written down, a line for each. It takes about so many seconds. client.py pull URL NAME: pull it and compare each byte with
its digest. client.py check URL NAME < LINES: all that was acknowledged is there.
"""

import hashlib
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def ask(method, url, body=None, **headers):
    """The answer to a request, and what was in it."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=60) as answer:
        return answer, answer.read()


def digest_of(content):
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def again(attempt):
    """Try up to six times; the pauses grow, as docker's do."""
    for number in range(5):
        try:
            return attempt()
        except (OSError, urllib.error.URLError) as error:
            print(f"again, after {error}", file=sys.stderr)
            time.sleep(number + 1)
    return attempt()


def push_blob(url, name, content, seconds=0.0):
    """Send a blob, in pieces over some time."""

    def attempt():
        answer, _ = ask("POST", f"{url}/v2/{name}/blobs/uploads/", b"")
        location = urllib.parse.urljoin(url, answer.headers["Location"])
        piece = len(content) // 4 + 1
        for start in range(0, len(content), piece):
            part = content[start : start + piece]
            answer, _ = ask("PATCH", location, part, Content_Type="application/octet-stream")
            location = urllib.parse.urljoin(url, answer.headers["Location"])
            time.sleep(seconds / 4)
        digest = digest_of(content)
        sign = "&" if "?" in location else "?"
        answer, _ = ask("PUT", f"{location}{sign}digest={urllib.parse.quote(digest)}", b"")
        assert answer.status == 201, answer.status
        print(f"blobs/{digest}", flush=True)
        return {"digest": digest, "size": len(content)}

    return again(attempt)


def push(url, name, layers, seconds):
    """Push an image."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **push_blob(url, name, b"{}")}
    sent = []
    for number in range(layers):
        content = hashlib.shake_256(f"{name} {number}".encode()).digest(1024 * 1024)
        sent.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **push_blob(url, name, content, seconds / layers)})
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": sent}).encode()
    again(lambda: ask("PUT", f"{url}/v2/{name}/manifests/latest", manifest, Content_Type=MANIFEST))
    print(f"manifests/{digest_of(manifest)}", flush=True)


def pull(url, name):
    """Pull it, and look at each byte."""
    answer, manifest = ask("GET", f"{url}/v2/{name}/manifests/latest", Accept=MANIFEST)
    assert answer.headers["Docker-Content-Digest"] == digest_of(manifest)
    image = json.loads(manifest)
    for part in (image["config"], *image["layers"]):
        _, content = ask("GET", f"{url}/v2/{name}/blobs/{part['digest']}")
        assert digest_of(content) == part["digest"]
    print(f"pulled {name}, {len(image['layers'])} layers")


def check(url, name):
    """What was acknowledged is there."""
    lines = sys.stdin.read().split()
    for line in lines:
        ask("HEAD", f"{url}/v2/{name}/{line}", Accept=MANIFEST)
    print(f"all {len(lines)} that were acknowledged are there")


command, address, repository, *more = sys.argv[1:]
numbers = [kind(text) for kind, text in zip((int, float), more, strict=False)]
{"push": push, "pull": pull, "check": check}[command](address, repository, *numbers)
