"""The vision service: typed events as JSON, its own metrics by PyPI datadog, and its export script on /metrics.json.

Arguments: the socket directory, the address of HTTP.
"""

import json
import socket
import sys
import time
import urllib.request

from datadog.dogstatsd import DogStatsd

directory, address = sys.argv[1:]
statsd = DogStatsd(socket_path=f"unix://{directory}/app.socket", socket_timeout=10, constant_tags=["env:prod"])
for _ in range(40):
    statsd.increment("api_requests", tags=["endpoint:/detect", "method:POST", "status:200"])
statsd.timing("processing_time", 150, tags=["operation:preprocessing"])
with statsd.timed("response_time", tags=["endpoint:/detect"]):
    pass
statsd.flush()

gram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
gram.connect(f"{directory}/app.socket")
for n in range(25):
    gram.send(json.dumps({"event": "frame_processed", "model": "owlv2", "success": n > 0}).encode())
    gram.send(json.dumps({"event": "detection_latency", "model": "owlv2", "duration": 0.15, "stage": "inference"}).encode())
gram.send(b'{"event":"memory_usage","rss":734003200,"vms":2147483648}')


def export(url):
    """The conversion of the page's export script, unchanged."""
    metrics = json.load(urllib.request.urlopen(f"{url}/metrics.json"))
    datadog_metrics = []
    for metric_name, metric_data in metrics.items():
        for sample in metric_data.get("samples", []):
            datadog_metrics.append({
                "metric": metric_name,
                "points": [[sample["timestamp"], sample["value"]]],
                "tags": [f"{k}:{v}" for k, v in sample["labels"].items()],
            })
    return datadog_metrics


def value(series, name, tags):
    found = [s["points"][0][1] for s in series if s["metric"] == "vision_detect_segment_" + name and set(s["tags"]) == set(tags)]
    return found[0] if found else None


deadline = time.time() + 30
while time.time() < deadline:
    series = export(f"http://{address}")
    if value(series, "memory_usage_bytes", ["type:vms"]) and value(series, "api_requests_total", ["endpoint:/detect", "method:POST", "status:200"]) == 40:
        break
    time.sleep(0.05)
assert value(series, "api_requests_total", ["endpoint:/detect", "method:POST", "status:200"]) == 40, series
assert value(series, "frames_processed_total", ["model:owlv2", "status:success"]) == 24
assert value(series, "frames_processed_total", ["model:owlv2", "status:error"]) == 1
assert value(series, "detection_latency_seconds", ["model:owlv2", "stage:inference"]) == 25
assert value(series, "memory_usage_bytes", ["type:rss"]) == 734003200
