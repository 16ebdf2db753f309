"""Reads an exposition from standard input with PyPI prometheus-client's own parsers; fails on the first wrong line."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

parse = {"openmetrics": openmetrics, "text": text}[sys.argv[1]]
families = list(parse(sys.stdin.read()))
samples = sum(len(family.samples) for family in families)
print(f"{len(families)} families, {samples} samples")
