"""A link of TCP connections that can be broken: what connects to `Link.url` reaches another server through it."""

import asyncio
import threading


class Link:
    """Passes connections to a server in one of three modes.

    - open: both directions pass;
    - refuse: nothing listens, and connections are cut;
    - mute: requests pass, and everything that comes back is thrown away.
    """

    def __init__(self, upstream):
        host, port = upstream.removeprefix("http://").rstrip("/").rsplit(":", 1)
        self.upstream = host, int(port)
        self.mode, self.writers = "open", set()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = 0
        self.run(self.listen())
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def set(self, mode):
        """Changes the mode. Connections from before end, so that no answer to an old request arrives later."""
        self.run(self.change(mode))

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def change(self, mode):
        before, self.mode = self.mode, mode
        for writer in list(self.writers):
            writer.transport.abort()
        if mode == "refuse":
            self.server.close()
        elif before == "refuse":
            await self.listen()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.upstream)
            self.writers.add(upstream_writer)
            await asyncio.gather(
                self.pump(reader, upstream_writer, True), self.pump(upstream_reader, writer, False)
            )
            self.writers.discard(upstream_writer)
        except OSError:
            writer.transport.abort()
        finally:
            self.writers.discard(writer)

    async def pump(self, reader, writer, is_request):
        try:
            while data := await reader.read(65_536):
                if is_request or self.mode != "mute":
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
