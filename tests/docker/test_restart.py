"""One container is restarted or killed; the others, and the clients, go on."""

import asyncio
import time

import pytest
import websockets

from clients import all_echo, close_all, connect, connect_many, echoes, handshake, read_head
from compose import docker

CLIENTS = 200


def test_restarting_nginx_loses_no_websocket(demo, figures):
    async def use():
        clients = await connect_many(demo, "/ws/echo", CLIENTS)
        await all_echo(clients, "before")
        through_nginx = await connect(demo, "/proxy/echo")

        started = demo.state("nginx")["StartedAt"]
        begin = time.monotonic()
        restart = asyncio.create_task(asyncio.to_thread(demo.run, "restart", "nginx"))
        # Those handed over go on talking while there is no nginx.
        while not restart.done():
            await all_echo(clients, "during")
        await restart
        seconds = time.monotonic() - begin
        assert demo.state("nginx")["StartedAt"] != started
        figures(restart_nginx_seconds=round(seconds, 1))
        assert seconds < 9, "the engine killed nginx, instead of waiting for its end"
        with pytest.raises(websockets.ConnectionClosed):
            await echoes(through_nginx, "after")

        await asyncio.to_thread(demo.wait_healthy, "nginx")
        await all_echo(clients, "after")
        assert all(client.close_code is None for client in clients)
        new = await connect_many(demo, "/ws/echo", 10)
        await all_echo(new, "new")
        await close_all(clients + new)

    asyncio.run(use())


def test_a_backend_that_was_killed_is_served_again_without_touching_nginx(demo):
    async def lose_and_find():
        nginx = demo.state("nginx")
        client = await connect(demo, "/ws/echo")
        docker("kill", "--signal", "KILL", demo.container("backend"))
        # Whoever it served is told at once.
        await asyncio.wait_for(client.wait_closed(), 10)

        begin = time.monotonic()
        with handshake(demo, "/ws/echo") as refused, refused.makefile("rb") as reader:
            status = read_head(reader)[0].split()[1]
        assert status in ("502", "503"), status
        assert time.monotonic() - begin < 2, "an answer, not a wait"

        docker("start", demo.container("backend"))
        await asyncio.to_thread(demo.wait_healthy, "backend")
        # At once: an upstream {} with one server never takes it for down.
        client = await connect(demo, "/ws/echo")
        await echoes(client, "found again")
        await client.close()
        now = demo.state("nginx")
        assert (now["Pid"], now["StartedAt"]) == (nginx["Pid"], nginx["StartedAt"])

    asyncio.run(lose_and_find())


def test_an_nginx_that_reloads_keeps_everybody(demo):
    async def use():
        clients = await connect_many(demo, "/ws/echo", 20)
        workers = set(demo.pids("nginx"))
        demo.exec("nginx", "nginx", "-s", "reload")
        while set(demo.pids("nginx")) & workers == workers:
            await all_echo(clients, "during")
        await all_echo(clients, "after")
        new = await connect_many(demo, "/ws/echo", 5)
        await all_echo(new, "new")
        await close_all(clients + new)

    asyncio.run(use())
