"""WebSocket clients, run by the tests in the machine's network namespace; each prints what it saw as a line of JSON.

    client.py echo TEXT                 sends a text and receives it
    client.py hold SECONDS              echoes once, says so, and waits for a close: its code
    client.py stubborn NUMBER SECONDS   opens connections that answer nothing, not even a close, for so long
    client.py knock SECONDS INTERVAL    opens a connection each INTERVAL, echoes and closes: how long each handshake took
"""

import asyncio
import json
import sys
import time

import websockets
from websockets.asyncio.client import connect

URL = "ws://127.0.0.1:8080/ws/test"


def say(**values):
    print(json.dumps(values), flush=True)


async def echo(text):
    async with connect(URL) as websocket:
        await websocket.send(text)
        say(received=await websocket.recv())


async def hold(seconds):
    async with connect(URL) as websocket:
        await websocket.send("held")
        say(received=await websocket.recv())
        try:
            async with asyncio.timeout(float(seconds)):
                await websocket.recv()
        except websockets.ConnectionClosed as closed:
            say(closed=closed.rcvd.code if closed.rcvd else None)
        except TimeoutError:
            await websocket.send("still")
            say(received=await websocket.recv())


async def stubborn(number, seconds):
    request = (
        "GET /ws/stubborn HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    connections = [await asyncio.open_connection("127.0.0.1", 8080) for _ in range(int(number))]
    for reader, writer in connections:
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
    say(connected=len(connections))
    await asyncio.sleep(float(seconds))


async def knock(seconds, interval):
    """Each connection is a task, so that one that waits keeps no other from being opened."""
    tasks = []
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        tasks.append(asyncio.create_task(one(len(tasks))))
        await asyncio.sleep(float(interval))
    say(knocks=await asyncio.gather(*tasks))


async def one(number):
    begin = time.monotonic()
    try:
        async with connect(URL, open_timeout=60) as websocket:
            took = time.monotonic() - begin
            try:
                await websocket.send(str(number))
                await websocket.recv()
            except websockets.ConnectionClosed:
                # Served, and told to go.
                pass
            return {"took": took}
    except Exception as error:
        return {"refused": repr(error)}


asyncio.run({"echo": echo, "hold": hold, "stubborn": stubborn, "knock": knock}[sys.argv[1]](*sys.argv[2:]))
