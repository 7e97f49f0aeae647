"""Two tabs in a room."""

from __future__ import annotations

from page import Page, wait_until


def test_two_tabs_talk(page: Page) -> None:
    page.write("chat-name", "Ada")
    other = page.second_tab()
    assert other.link("chat") == ("open", "/ws/rooms/lobby")
    other.write("chat-name", "Grace")
    other.say("Hello from the second tab")
    page.show().say("Hello from the first tab")
    for tab in (page, other):
        tab.show()
        assert tab.wait_for_message("Hello from the second tab") == ("Grace", "ws_handoff")
        assert tab.wait_for_message("Hello from the first tab") == ("Ada", "ws_handoff")


def test_a_room_is_one_room_whichever_way_its_members_came(page: Page) -> None:
    other = page.second_tab()
    other.use("proxy_pass")
    assert other.link("chat") == ("open", "/proxy/rooms/lobby")
    other.say("through nginx")
    page.show().say("past nginx")
    for tab in (page, other):
        tab.show()
        assert tab.wait_for_message("through nginx")[1] == "proxy_pass"
        assert tab.wait_for_message("past nginx")[1] == "ws_handoff"


def test_rooms_are_apart_and_named_in_the_address(page: Page) -> None:
    other = page.second_tab()
    other.write("chat-room", "Ça va / 2")
    other.element("chat-text").click()
    wait_until(lambda: other.link("chat") == ("open", "/ws/rooms/%C3%87a-va-2"), "the other room")
    assert other.driver.current_url.endswith("/#%C3%87a-va-2")
    page.show().say("only in the lobby")
    page.wait_for_message("only in the lobby")
    other.show().say("only here")
    other.wait_for_message("only here")
    assert len(other.messages()) == 1
    third = other.second_tab()
    assert third.link("chat") == ("open", "/ws/rooms/%C3%87a-va-2")


def test_what_others_send_is_text(page: Page) -> None:
    attack = '<img src=x onerror="document.title=1"><b>bold</b>'
    page.write("chat-name", "<i>Eve</i>")
    page.say(attack)
    assert page.wait_for_message(attack)[0] == "<i>Eve</i>"
    # Whoever is in the room can send anything: no JSON, JSON of another shape.
    page.driver.execute_async_script(
        """const done = arguments[0];
        const socket = new WebSocket(`ws://${location.host}/ws/rooms/lobby`);
        socket.onopen = () => {
            for (const text of ["plain", "null", "[1]", '{"text":7}', '{"text":"odd","name":{},"way":"toString"}'])
                socket.send(text);
            socket.close();
        };
        socket.onclose = () => done();"""
    )
    for text in ("plain", "null", "[1]", '{"text":7}', "odd"):
        assert page.wait_for_message(text)[0] == "somebody"
    assert page.driver.execute_script('return document.querySelectorAll("#messages img, #messages i").length') == 0


def test_a_lost_connection_is_told_and_comes_back(page: Page) -> None:
    # A frame that no server may accept: the backend closes the connection.
    page.driver.execute_script("chat.socket.send(new Uint8Array(2 << 20))")
    wait_until(lambda: "Connection lost (1009)" in page.text("messages"), "the loss is told")
    page.wait_for_links("/ws/")
    page.say("back again")
    page.wait_for_message("back again")
