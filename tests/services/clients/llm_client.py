"""An AI service: `llm_request` events over HTTP and UDP, its API's own metrics by PyPI datadog, and its JSON export.

Arguments: the socket directory, the UDP port, the address of HTTP.
"""

import json
import socket
import sys
import threading
import time
import urllib.request

from datadog.dogstatsd import DogStatsd

directory, port, address = sys.argv[1:]


def record_llm_request(duration, success, tokens, model):
    body = json.dumps({"event": "llm_request", "duration": duration, "success": success, "tokens": tokens, "model": model}).encode()
    request = urllib.request.Request(f"http://{address}/api/v1/events", body, {"Content-Type": "application/json"})
    assert urllib.request.urlopen(request).status == 202


for _ in range(5):
    record_llm_request(1.5, True, 750, "gpt-4")
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b'{"event":"llm_request","duration":0.2,"success":false,"tokens":0,"model":"gpt-4"}', ("127.0.0.1", int(port)))


def service():
    statsd = DogStatsd(socket_path=f"unix://{directory}/app.socket", socket_timeout=10)
    for _ in range(100):
        statsd.increment("api_requests_total")
        statsd.timing("api_request_duration", 100)
    statsd.flush()
    statsd.close_socket()


threads = [threading.Thread(target=service) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

deadline = time.time() + 30
while time.time() < deadline:
    data = json.load(urllib.request.urlopen(f"http://{address}/api/metrics?format=json"))
    metrics = data["metrics"]
    if metrics["api_requests_total"]["value"] == 1000 and metrics.get("llm_requests_error", {}).get("value") == 1:
        break
    time.sleep(0.05)
assert metrics["api_requests_total"]["value"] == 1000, metrics["api_requests_total"]
assert metrics["llm_requests_total"]["value"] == 6
assert metrics["llm_requests_success"]["value"] == 5
assert metrics["llm_requests_error"]["value"] == 1
assert metrics["llm_tokens_total"]["value"] == 3750
duration = metrics["api_request_duration"]["samples"][0]
assert (duration["count"], duration["mean"]) == (1000, 0.1), duration
assert data["uptime_seconds"] > 0 and len(data["metrics"]) > 9
