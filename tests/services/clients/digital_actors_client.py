"""Digital Actors: events as JSON over UDP and a stream socket, a custom counter by PyPI datadog, a guarded scrape.

Arguments: the socket directory, the UDP port, the address of HTTP, the token.
"""

import json
import socket
import sys
import time
import urllib.error
import urllib.request

from datadog.dogstatsd import DogStatsd

directory, port, address, token = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(("127.0.0.1", int(port)))
stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
stream.connect(f"{directory}/app-stream.socket")
for n in range(30):
    status = "error" if n == 0 else "success"
    udp.send(json.dumps({"event": "message", "scene": "tavern", "character": "eleanor", "status": status, "response_time": 1.8}).encode())
for name in ("a", "b", "c"):
    udp.send(json.dumps({"event": "websocket_open", "session_id": name}).encode())
lines = [
    {"event": "llm_call", "provider": "anthropic", "model": "claude", "duration": 1.1},
    {"event": "tts_call", "duration": 0.7},
    {"event": "db_query", "operation": "select", "duration": 0.004},
    {"event": "actor_error", "error_type": "llm", "message": "overloaded"},
]
stream.sendall("".join(json.dumps(line) + "\n" for line in lines).encode())
statsd = DogStatsd(socket_path=f"unix://{directory}/app.socket", socket_timeout=10)
statsd.increment("custom_events_total", tags=["event_type:player_action"])
statsd.flush()

try:
    urllib.request.urlopen(f"http://{address}/metrics")
    raise AssertionError("open without a token")
except urllib.error.HTTPError as refused:
    assert refused.code == 401 and refused.headers["WWW-Authenticate"] == "Bearer"

request = urllib.request.Request(f"http://{address}/metrics", headers={"Authorization": f"Bearer {token}"})
wanted = [
    'digital_actors_requests_total{scene="tavern",character="eleanor",status="success"} 29\n',
    "digital_actors_active_sessions 2\n",
    'digital_actors_errors_total{error_type="llm"} 1\n',
    'digital_actors_custom_events_total{event_type="player_action"} 1\n',
    'digital_actors_llm_latency_seconds_sum{provider="anthropic",model="claude"} 1.1\n',
    "digital_actors_tts_latency_seconds_count 1\n",
]


def missing(text):
    """Label order is the exporter's own business."""
    split = lambda line: (line.split("{")[0], frozenset(line[line.find("{") + 1 : line.find("}")].split(",")), line.split()[-1])
    have = {split(line) for line in text.splitlines() if not line.startswith("#")}
    return [line for line in wanted if split(line.strip()) not in have]


def wait(condition):
    """The text of the first scrape of which it is true, else of the last."""
    deadline = time.time() + 30
    while True:
        text = urllib.request.urlopen(request).read().decode()
        if condition(text) or time.time() > deadline:
            return text
        time.sleep(0.05)


# Events without a time have that of their arrival, and two sockets have no common order: the end follows its start.
text = wait(lambda text: "digital_actors_active_sessions 3\n" in text)
assert "digital_actors_active_sessions 3\n" in text, text
stream.sendall(b'{"event": "websocket_close", "session_id": "b"}\n')
text = wait(lambda text: not missing(text))
assert not missing(text), (missing(text), text)
