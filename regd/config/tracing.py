"""``tracing``: whether traces are exported, and where to; how it is read.

What is not given is as the ``OTEL_*`` variables say, which are those of every program that the SDK of OpenTelemetry is in, ``registry:3``
among them (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from regd.config.checks import header_fields, url_host
from regd.config.values import Parser, from_text

__all__ = ["endpoint", "ratio", "sdk_disabled", "secret_fields", "service_name", "switched_on"]

#: Where a collector takes traces, where nobody says otherwise (OTLP 1.x, "OTLP/HTTP Request").
_PATH: Final = "/v1/traces"
_RATIO: Final = re.compile(r"[0-9]{0,3}(?:\.[0-9]{1,9})?")


def endpoint() -> Parser[str]:
    """``tracing.endpoint``. A URL without a path is that of the collector as a whole."""

    def read(found: str) -> str:
        try:
            url = url_host(found)
        except ValueError:
            url = ""
        if not url:
            msg = "a URL with http or https and a host, without user and query, such as http://localhost:4318/v1/traces"
            raise ValueError(msg)
        return url if "/" in url.partition("://")[2] else url + _PATH

    return from_text(read)


def secret_fields() -> Parser[Mapping[str, tuple[str, ...]]]:
    """``tracing.headers``: as ``http.headers``, but what they are is nobody's business."""
    fields = header_fields()

    return replace(fields, read=lambda place: fields.read(replace(place, secret=True)), show=lambda found: "set" if found else "none")


def ratio() -> Parser[float]:
    """``tracing.sampleratio``."""

    def read(found: str) -> float:
        number = float(found) if found and _RATIO.fullmatch(found) is not None else -1.0
        if not 0 <= number <= 1:
            msg = "a number from 0 to 1, such as 0.1"
            raise ValueError(msg)
        return number

    return from_text(read, lambda found: f"{found:g}")


def service_name() -> Parser[str]:
    """``tracing.servicename``."""

    def read(found: str) -> str:
        if not found.isprintable() or not found.strip() or len(found) > 255:
            msg = "a name, such as regd"
            raise ValueError(msg)
        return found

    return from_text(read)


def switched_on(environ: Mapping[str, str]) -> tuple[bool, tuple[str, ...]]:
    """Whether the environment asks for traces.

    :returns: that, and what it asks for and does not get.
    """
    if sdk_disabled(environ):
        return False, ()
    exporters = {name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {"", "none"}
    warnings = []
    if others := sorted(exporters - {"otlp"}):
        warnings.append(f"OTEL_TRACES_EXPORTER: regd has no {', '.join(others)}; it exports traces with otlp")
    return "otlp" in exporters, tuple(warnings)


def sdk_disabled(environ: Mapping[str, str]) -> bool:
    """Whether the environment switches the SDK off, whatever else is said: it then makes no spans."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
