"""DinoAir's services: typed events as JSON over a datagram socket, a stream socket and HTTP; then its own consumers.

Arguments: the socket directory, the address of HTTP.
"""

import json
import socket
import sys
import time
import urllib.request

directory, address = sys.argv[1:]
gram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
gram.connect(f"{directory}/app.socket")
stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
stream.connect(f"{directory}/app-stream.socket")


def get(path):
    return urllib.request.urlopen(f"http://{address}{path}").read().decode()


def post(path, body):
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


for n in range(20):
    event = {"event": "api_request", "service": "comfyui", "endpoint": "/generate", "response_time": 0.25, "status_code": 200 if n else 500, "method": "POST"}
    gram.send(json.dumps(event).encode())
for n in range(10):
    event = {"event": "model_generation", "model_name": "llama2-7b", "generation_time": 15.4, "success": n % 2 == 0, "prompt_length": 256}
    stream.sendall(json.dumps(event).encode() + b"\n")
answer = post("/api/v1/events?sync=true", [
    {"event": "session_start", "session_id": "a", "user_agent": "Mozilla/5.0"},
    {"event": "session_start", "session_id": "b"},
    {"event": "workflow_execution", "workflow_name": "image_generation", "execution_time": 45.2, "success": True, "steps_completed": 5, "total_steps": 5},
    {"event": "file_operation", "operation": "upload", "file_size": 1024000, "duration": 2.1, "success": True},
])
assert answer == {"accepted": 4, "rejected": 0, "errors": []}, answer

# What the dashboard of the system read from its collector, here from the exports.
deadline = time.time() + 30
while time.time() < deadline:
    metrics = json.loads(get("/api/metrics?format=json"))["metrics"]
    counted = sum(sample["value"] for sample in metrics.get("dinoair_custom_api_requests_total", {}).get("samples", []))
    generated = sum(sample["value"] for sample in metrics.get("dinoair_custom_model_generations_total", {}).get("samples", []))
    if counted == 20 and generated == 10:
        break
    time.sleep(0.05)
assert (counted, generated) == (20, 10), (counted, generated)
assert metrics["dinoair_custom_active_sessions"]["value"] == 2
assert metrics["dinoair_custom_api_errors_total"]["value"] == 1
assert "dinoair_custom_file_size_bytes_sum{operation=\"upload\"} 1024000\n" in get("/api/metrics")
