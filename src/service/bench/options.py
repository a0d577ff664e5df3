"""The texts of the command line read into values: ranges, sweeps, the SLO. Each raises ValueError with the remedy."""

from __future__ import annotations

import msgspec

from service.bench.connection import parse_base_url
from service.bench.metrics import Slo
from service.bench.workload import LengthRange


def parse_url(text: str) -> str:
    """A base URL; one without a path gets the /v1 of OpenAI's API. Raises ValueError."""
    address = parse_base_url(text.strip())
    return text.strip().rstrip("/") if address.path else f"{text.strip().rstrip('/')}/v1"


def parse_range(text: str) -> LengthRange:
    """Read `32-512`, or `128` for one length."""
    low, _, high = text.partition("-")
    try:
        lengths = LengthRange(int(low), int(high or low))
    except ValueError:
        raise ValueError(f"{text!r} is not a range of tokens; an example is 32-512") from None
    if not 1 <= lengths.low <= lengths.high:
        raise ValueError(f"{text!r} does not rise from at least 1; an example is 32-512")
    return lengths


def parse_counts(text: str) -> list[int]:
    """Read `1,8,32`: positive numbers."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers; an example is 1,8,32") from None
    if min(counts) < 1:
        raise ValueError(f"{text!r} has a number below 1; an example is 1,8,32")
    return counts


def parse_rates(text: str) -> list[float]:
    """Read `0.5,2,8`: requests a second."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of rates; an example is 0.5,2,8") from None
    if not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"{text!r} has a rate that is not above 0; an example is 0.5,2,8")
    return rates


def parse_slo(text: str) -> Slo:
    """Read `ttft=500,itl=50`, in milliseconds."""
    names = ", ".join(Slo.__struct_fields__)
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in Slo.__struct_fields__:
            raise ValueError(f"{name!r} is not a latency with a limit; known are {names}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ValueError(f"{part!r} has no limit in ms; an example is ttft=500,itl=50") from None
    return msgspec.convert(limits, Slo)
