"""Dream.OS's services: Python's own `logging` with a JSON formatter over TCP, and events as JSON datagrams.

Arguments: the socket directory, the TCP port of the log source, the address of HTTP.
"""

import json
import logging
import logging.handlers
import socket
import sys
import time
import urllib.request

directory, port, address = sys.argv[1:]


class JsonFormatter(logging.Formatter):
    """Every attribute of the record that JSON can hold: the message, the extras, and much that no schema names."""

    def format(self, record):
        return json.dumps({key: value for key, value in vars(record).items() if isinstance(value, (str, int, float))} | {"message": record.getMessage()})


class LineHandler(logging.handlers.SocketHandler):
    def makePickle(self, record):
        return self.format(record).encode() + b"\n"


handler = LineHandler("127.0.0.1", int(port))
handler.setFormatter(JsonFormatter())
logger = logging.getLogger("dreamos.files")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
for n in range(50):
    logger.info("file_write", extra={"path": f"data-{n % 5}.txt", "bytes": 100, "encoding": "utf-8"})
logger.error("file_write_error", extra={"path": "data-0.txt", "error": "disk is full"})
logger.info("file_read", extra={"path": "data-0.txt", "bytes": 100, "encoding": "utf-8"})
logger.info("directory_created", extra={"path": "out"})

gram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
gram.connect(f"{directory}/app.socket")
for _ in range(30):
    gram.send(json.dumps({"event": "request", "endpoint": "/run", "duration": 0.2, "success": True}).encode())
gram.send(b'{"event":"agent_status","agent":"planner","up":true,"cpu_percent":12.5}')

deadline = time.time() + 30
wanted = ['directory_ops_total{operation="created"} 1\n', 'file_errors_total{operation="write"} 1\n', 'file_bytes_total{operation="write"} 5000\n']
while time.time() < deadline:
    text = urllib.request.urlopen(f"http://{address}/metrics/file").read().decode()
    if all(line in text for line in wanted):
        break
    time.sleep(0.05)
assert all(line in text for line in wanted), text
assert "dreamos_" not in text, "the group holds the file families alone"
