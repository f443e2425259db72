"""Bytes that two servers in a row could read in two ways."""

__all__ = ["BROKEN_CHUNKS", "EVIL", "REFUSED"]

EVIL = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"

REFUSED = {
    "length and chunked": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "chunked and length": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + EVIL,
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd" + EVIL,
    "the same length twice": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd" + EVIL,
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nabcd" + EVIL,
    "length with a sign": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd" + EVIL,
    "length with an underscore": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\nabcd" + EVIL,
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd" + EVIL,
    "empty length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n" + EVIL,
    "chunked twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "identity and chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nabcd" + EVIL,
    "chunked, chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "unknown coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + EVIL,
    "gzip, chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "vertical tab": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + EVIL,
    "chunked with 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "blank before the colon": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\nabcd" + EVIL,
    "obs-fold": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n" + EVIL,
    "obs-fold of a coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "blank before the first field": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n" + EVIL,
    "line feeds": b"GET / HTTP/1.1\nHost: x\n\n" + EVIL,
    "a line feed in a field": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 5\r\n\r\n" + EVIL,
    "a line feed after the fields": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\n\r\n\r\n" + EVIL,
    "a carriage return in a field": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 5\r\n\r\n" + EVIL,
    "NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n" + EVIL,
    "no colon": b"GET / HTTP/1.1\r\nHost: x\r\nGET /evil HTTP/1.1\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n" + EVIL,
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + EVIL,
    "the same host twice": b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n" + EVIL,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + EVIL,
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n" + EVIL,
    "a host that is none": b"GET / HTTP/1.1\r\nHost: a/b@c d\r\n\r\n" + EVIL,
    "a blank in the target": b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n" + EVIL,
    "another version": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n" + EVIL,
    "no version": b"GET /\r\nHost: x\r\n\r\n" + EVIL,
    "a line too long": b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n" + EVIL,
    "a field too long": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 5000 + b"\r\n\r\n" + EVIL,
    "too much in all": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: %b\r\n" % (b"a" * 1000) * 10 + b"\r\n" + EVIL,
    "too many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 60 + b"\r\n" + EVIL,
}

# The body is being passed on when it turns out to be none; so the upstream sees its beginning, and never an end, nor what follows.
BROKEN_CHUNKS = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "blank before": b" 3\r\nabc\r\n0\r\n\r\n",
    "line feeds": b"3\nabc\n0\n\n",
    "line feed after the size": b"3\nabc\r\n0\r\n\r\n",
    "no line break after the content": b"3\r\nabcX\r\n0\r\n\r\n",
    "longer than it says": b"3\r\nabcdef\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nabc\r\n0\r\n\r\n",
    "empty": b"\r\nabc\r\n0\r\n\r\n",
    "too large": b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n",
    "extension with a line feed": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
}
