"""What somebody who opens the demo gets: the page, WebSockets that nginx hands over, and figures."""

import asyncio

import pytest

from clients import ACCEPT, connect, echoes, handshake, read_head, text_frame


def test_the_page_is_served(demo):
    page = demo.get("/")
    assert page.lower().startswith("<!doctype html>")
    assert "/ws/" in page and "/demo/" in page


@pytest.mark.parametrize(("path", "source"), [("/ws/echo", "handoff"), ("/proxy/echo", "tunnel")])
def test_a_websocket_is_handed_over_or_goes_through_nginx(demo, path, source):
    series = f'websocket_connections_total{{source="{source}"}}'

    async def use():
        served, held = demo.metric(series), demo.active_connections()
        client = await connect(demo, path)
        for number in range(3):
            await echoes(client, f"hello {number}")
        assert demo.metric(series) == served + 1
        assert demo.metric("websocket_connections_active") >= 1
        # Through nginx: the client's connection. Handed over: none.
        assert demo.active_connections() - held == (1 if source == "tunnel" else 0)
        await client.close()

    asyncio.run(use())


def test_what_a_client_sends_before_it_has_its_answer_arrives(demo):
    texts = [f"early {number}" for number in range(20)]
    early = b"".join(text_frame(text, mask=True) for text in texts)
    with handshake(demo, "/ws/echo", early) as client, client.makefile("rb") as reader:
        head = read_head(reader)
        assert head[0] == "HTTP/1.1 101 Switching Protocols"
        assert f"Sec-WebSocket-Accept: {ACCEPT}" in head
        expected = b"".join(text_frame(text, mask=False) for text in texts)
        assert reader.read(len(expected)) == expected


def test_two_clients_meet_in_a_room(demo):
    async def chat():
        first, second = await connect(demo, "/ws/rooms/docker"), await connect(demo, "/ws/rooms/docker")
        # A member gets its own messages too. The backend has it a moment after the client has its 101.
        await echoes(second, "I am here")
        await first.send("is anybody there?")
        assert await asyncio.wait_for(second.recv(), 10) == "is anybody there?"
        await first.close()
        await second.close()

    asyncio.run(chat())


def test_the_figures_are_there(demo):
    assert demo.metric("process_resident_memory_bytes") > 1e6
    assert demo.metric("process_max_fds") == 16384
    assert demo.get("/nginx_status").startswith("Active connections: ")
