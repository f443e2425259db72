"""Listen addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.addresses import AddressError, TCPAddress, UnixAddress, parse_tcp_address, parse_unix_address


class TCPTests(SynchronousTestCase):
    def test_what_is_read(self) -> None:
        for text, host, port in (
            (":5000", "", 5000),
            ("0.0.0.0:80", "0.0.0.0", 80),
            ("localhost:0", "localhost", 0),
            ("my_host.example.com.:65535", "my_host.example.com.", 65535),
            ("[::1]:5000", "::1", 5000),
            ("[::]:5000", "::", 5000),
            ("[fe80::1%eth0]:5000", "fe80::1%eth0", 5000),
            (":05000", "", 5000),
        ):
            self.assertEqual(parse_tcp_address(text), TCPAddress(host, port))

    def test_what_is_refused(self) -> None:
        for text, allowed in {
            "": "host:port",
            "5000": "host:port",
            "::1": "host:port",
            "localhost": "host:port",
            "localhost:": "number",
            ":http": "number",
            ":65536": "number",
            ":-1": "number",
            ":\u0665": "number",
            ":000005000": "number",
            "::1:5000": "brackets",
            "[::1:5000": "brackets",
            "[localhost]:5000": "IPv6",
            "[]:5000": "IPv6",
            "[::1%]:5000": "IPv6",
            "[fe80::1%a/b]:5000": "IPv6",
            "256.0.0.1:5000": "IPv4",
            "1.2.3:5000": "IPv4",
            "a b:5000": "name",
            "-a:5000": "name",
            "a..b:5000": "name",
            "http://localhost:5000": "brackets",
            f"{'a' * 64}:1": "name",
        }.items():
            error = self.assertRaises(AddressError, parse_tcp_address, text)
            self.assertIn(allowed, str(error), text)

    @given(st.ip_addresses().map(str) | st.just(""), st.integers(0, 65535))
    def test_round_trip(self, host: str, port: int) -> None:
        address = TCPAddress(host, port)
        self.assertEqual(parse_tcp_address(str(address)), address)

    @given(st.text() | st.text("0123456789abf.:[]%-_"))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            address = parse_tcp_address(text)
        except AddressError:
            return
        self.assertEqual(parse_tcp_address(str(address)), address)


class UnixTests(SynchronousTestCase):
    def test_paths(self) -> None:
        self.assertEqual(parse_unix_address("/run/regd.sock"), UnixAddress("/run/regd.sock"))
        self.assertEqual(str(UnixAddress("/run/regd.sock")), "/run/regd.sock")
        self.assertEqual(parse_unix_address("/" + "a" * 106).path, "/" + "a" * 106)

    def test_what_is_refused(self) -> None:
        for text in ("", "@abstract", "a\0b", "/" + "a" * 107, "/" + "\u00e4" * 54):
            self.assertRaises(AddressError, parse_unix_address, text)
