"""The end of the demo: nothing is left of it."""

import asyncio
import os
import socket

import pytest

from clients import connect, echoes
from compose import SERVICES, Compose


@pytest.fixture
def another(images):
    """A second demo beside the first, to be ended by the test."""
    with Compose("down") as compose:
        compose.up()
        yield compose


def test_down_leaves_nothing(another):
    async def use():
        client = await connect(another, "/ws/echo")
        await echoes(client, "here")
        processes = [pid for service in SERVICES for pid in another.pids(service)]
        assert len(processes) > 5 and all(map(is_running, processes))
        assert len(another.objects("network", "ls")) == 1
        assert len(another.objects("volume", "ls")) == 2

        await asyncio.to_thread(another.run, "down")
        # It was told: 1001, going away.
        await asyncio.wait_for(client.wait_closed(), 10)
        assert client.close_code == 1001
        return processes

    processes = asyncio.run(use())
    assert another.containers() == []
    assert another.objects("network", "ls") == []
    assert not any(map(is_running, processes))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", another.port), timeout=5)

    another.run("down", "--volumes")
    assert another.objects("volume", "ls") == []


def is_running(pid):
    return os.path.exists(f"/proc/{pid}")
