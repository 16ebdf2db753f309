"""A service that uses PyPI statsd over a Unix stream, whose framing is newlines."""

import sys

import statsd

client = statsd.UnixSocketStatsClient(sys.argv[1], prefix="etsy")
for _ in range(50):
    client.incr("hits")
    client.incr("hits", 3)
client.timing("took", 320)
client.gauge("depth", 10)
client.gauge("depth", 5, delta=True)
client.gauge("debt", -3)
client.set("users", "ann")
client.set("users", "bob")
with client.pipeline() as pipe:
    pipe.incr("piped", 7)
    pipe.timing("took", 80)
client.close()
