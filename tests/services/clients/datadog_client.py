"""A service that uses PyPI datadog as its users do: the socket comes from DD_DOGSTATSD_URL.

Two options of the client: it waits when the kernel's queue of datagrams is full (by default it drops, and only it can
count that), and it sends its own telemetry with every packet instead of every ten seconds.
"""

import sys

from datadog.dogstatsd import DogStatsd

options = {"socket_timeout": 10, "telemetry_min_flush_interval": 0}
if len(sys.argv) > 1:
    options["socket_path"] = sys.argv[1]
statsd = DogStatsd(**options)
for n in range(100):
    statsd.increment("py.orders", tags=["region:eu"])
    statsd.increment("py.orders", 2, tags=["region:us", "canary"])
statsd.decrement("py.balance_up", -5)
statsd.gauge("py.depth", 21.5)
statsd.timing("py.took", 42)
statsd.histogram("py.size", 10)
statsd.histogram("py.size", 30)
statsd.distribution("py.spread", 7)
for user in ("ann", "bob", "ann"):
    statsd.set("py.users", user)
with statsd.timed("py.block"):
    pass
statsd.event("Deployed", "version 2\nis out", tags=["env:prod"])
statsd.service_check("py.check", DogStatsd.WARNING, tags=["host:a"], message="slow")
statsd.flush()
statsd.close_socket()
