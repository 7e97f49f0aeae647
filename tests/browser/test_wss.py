"""The page with TLS: its WebSockets are handed over with their sessions, and the browser does not notice."""

from __future__ import annotations

import json
import os
import signal
import ssl
import urllib.request
from pathlib import Path

from page import Page, wait_until
from test_round_trip import held_by_nginx

RUN = Path(__file__).resolve().parents[2] / "build" / "run"


def test_chat_and_echo_are_handed_over_with_their_sessions(demo_url: str, secure_page: Page) -> None:
    handed_over = requests(demo_url)["tls"]
    assert handed_over >= 2, "chat and echo"
    assert requests(demo_url)["tunnel"] == 0
    for name in ("chat", "echo"):
        assert secure_page.element(f"{name}-link").get_attribute("data-url").startswith("wss://")
    wait_until(lambda: held_by_nginx(secure_page) == 0, "nginx holds no socket of this tab")
    secure_page.wait_for_value("rtt-ws_handoff-samples", lambda n: n >= 8, "eight round trips")
    assert 0 < secure_page.value("rtt-ws_handoff-median") < 1000
    secure_page.reload()
    wait_until(lambda: requests(demo_url)["tls"] == handed_over + 2, "both once more, over TLS")


def test_a_room_has_members_with_tls_and_without(demo_url: str, secure_page: Page) -> None:
    secure_page.driver.switch_to.new_window("tab")
    plain = Page(secure_page.driver, demo_url)
    plain.open()
    plain.say("in the clear")
    secure_page.show().say("in private")
    for tab in (plain, secure_page):
        tab.show()
        tab.wait_for_message("in the clear")
        tab.wait_for_message("in private")


def test_large_and_many_messages_come_back(secure_page: Page) -> None:
    outcome = secure_page.driver.execute_async_script(
        """const done = arguments[0];
        const socket = new WebSocket(`wss://${location.host}/ws/echo`);
        socket.binaryType = "arraybuffer";
        const answers = [];
        let wake = () => {};
        socket.onmessage = ({ data }) => { answers.push(data); wake(); };
        socket.onerror = () => done("an error");
        const next = async () => {
            while (!answers.length) await new Promise((resolve) => { wake = resolve; });
            return answers.shift();
        };
        const bytes = (size) => Uint8Array.from({ length: size }, (_, at) => at * 31 + at / 251);
        socket.onopen = async () => {
            for (const size of [0, 1, 125, 126, 16384, 65535, 65536, 1 << 20]) {
                const sent = bytes(size);
                socket.send(sent);
                const got = new Uint8Array(await next());
                if (got.length !== size || got.some((byte, at) => byte !== sent[at])) return done(`${size} bytes`);
                const text = "🦀abcd".repeat(size / 8);
                socket.send(text);
                if (await next() !== text) return done(`text of ${size} bytes`);
            }
            for (let number = 0; number < 10000; number++) socket.send(`message ${number}`);
            for (let number = 0; number < 10000; number++)
                if (await next() !== `message ${number}`) return done(`message ${number}`);
            socket.onclose = ({ code, wasClean }) => done([code, wasClean]);
            socket.close(1000);
        };"""
    )
    assert outcome == [1000, True]


def test_what_the_browser_has_open_outlives_a_reload_of_nginx(secure_page: Page) -> None:
    master = int((RUN / "nginx.pid").read_text())
    before = workers(master)
    os.kill(master, signal.SIGHUP)
    wait_until(lambda: not workers(master) & before, "the workers are others", seconds=30)
    secure_page.say("through the reload")
    secure_page.wait_for_message("through the reload")
    assert "Connection lost" not in secure_page.text("messages")


def requests(demo_url: str) -> dict[str, int]:
    """How many there were, by what became of them."""
    asked = urllib.request.Request(f"{demo_url}/handoff", headers={"Accept": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as response:
        return json.load(response)["total"]["requests"]


def workers(master: int) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()}
