"""A fast server that responds with the prompt; it prints its port."""

import asyncio
import json
import sys


class Echo(asyncio.Protocol):
    """Responds to the requests of a connection, which has one at a time."""

    def __init__(self):
        self._received = b""

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._received = b""
        prompt = json.loads(body)["messages"][0]["content"]
        response = json.dumps({"id": prompt, "status": "completed", "content": prompt, "tokens_used": 1}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(response)
        self._transport.write(head + response)


async def main():
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main())
