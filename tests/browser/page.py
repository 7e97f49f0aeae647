"""The demo page as a person sees it: what it shows, and what can be done with it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

Value = TypeVar("Value")

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"


def wait_until(condition: Callable[[], Value], what: str, seconds: float = 20) -> Value:
    """The first true value of `condition`, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


class Page:
    """One tab. Tabs share a browser, which has one of them in front: `show` first."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.handle = driver.current_window_handle

    # Tabs

    def open(self, fragment: str = "") -> None:
        self.driver.get(f"{self.url}/{fragment}")
        self.wait_for_links()

    def reload(self) -> None:
        self.driver.refresh()
        self.wait_for_links()

    def second_tab(self) -> Page:
        """Opened as the page offers it."""
        before = set(self.driver.window_handles)
        self.element("second-tab").click()
        (handle,) = wait_until(lambda: set(self.driver.window_handles) - before, "a second tab")
        self.driver.switch_to.window(handle)
        tab = Page(self.driver, self.url)
        tab.wait_for_links()
        return tab

    def show(self) -> Page:
        self.driver.switch_to.window(self.handle)
        return self

    # What it shows

    def element(self, id: str) -> WebElement:
        return self.driver.find_element(By.ID, id)

    def text(self, id: str) -> str:
        return self.element(id).text

    def value(self, id: str) -> float | None:
        """The number that an element shows, before it was formatted."""
        text = self.element(id).get_attribute("data-value")
        return None if text is None else float(text)

    def wait_for_value(self, id: str, matches: Callable[[float], bool], what: str) -> float:
        def found() -> tuple[float] | None:
            value = self.value(id)
            return (value,) if value is not None and matches(value) else None

        try:
            return wait_until(found, f"{id}: {what}")[0]
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.value(id)}") from None

    def link(self, name: str) -> tuple[str, str]:
        """A socket's state and the path of its URL."""
        element = self.element(f"{name}-link")
        url = element.get_attribute("data-url") or ""
        return element.get_attribute("data-state"), "/" + url.split("/", 3)[-1]

    def wait_for_links(self, prefix: str = "/") -> None:
        """Until chat and echo are connected, below `prefix`."""

        def connected() -> bool:
            links = [self.link("chat"), self.link("echo")]
            return all(state == "open" and path.startswith(prefix) for state, path in links)

        wait_until(connected, f"chat and echo are connected below {prefix}")

    def messages(self) -> list[tuple[str, str, str]]:
        """Sender, way and text of each."""
        return self.driver.execute_script(
            """return [...document.querySelectorAll("#messages .said")].map((said) => [
                said.querySelector("b").textContent,
                said.classList.contains("handoff") ? "ws_handoff" : "proxy_pass",
                said.querySelector(".text").textContent])"""
        )

    def wait_for_message(self, text: str) -> tuple[str, str]:
        """Its sender and way."""

        def found() -> tuple[str, str] | None:
            matching = [(name, way) for name, way, said in self.messages() if said == text]
            assert len(matching) < 2, f"{text!r} came {len(matching)} times"
            return matching[0] if matching else None

        return wait_until(found, f"the message {text!r}")

    def complaints(self) -> list[str]:
        """Errors on the console of any tab, since asked last."""
        return [
            f"{entry['source']}: {entry['message']}"
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    # What can be done

    def use(self, way: str) -> None:
        self.element(f"way-{way}").click()
        self.wait_for_links({"ws_handoff": "/ws/", "proxy_pass": "/proxy/"}[way])

    def write(self, id: str, text: str) -> None:
        """In the place of what is there, as a person does it; WebDriver's own clear() leaves the field in between."""
        self.element(id).send_keys(Keys.CONTROL + "a", Keys.NULL, text)

    def say(self, text: str) -> None:
        self.write("chat-text", text)
        self.element("chat-send").click()

    def press(self, id: str) -> str:
        """Presses one of the buttons under "500 connections", and returns what it says when it is done."""
        self.element(id).click()
        status = self.element("clients-status")
        wait_until(lambda: status.get_attribute("data-state") in ("done", "failed"), f"{id} is done", seconds=60)
        assert status.get_attribute("data-state") == "done", status.text
        return status.text

    # How it is shown

    def resize(self, width: int, height: int) -> None:
        """The viewport, as a phone has it: windows have a least width."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600},
        )

    def prefer(self, **features: str) -> None:
        """Sets media features, as in prefer(color_scheme="dark"); those that are not given are as usual."""
        named = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def overflowing(self) -> list[str]:
        """What reaches to the right beyond the window, or beyond the room that its card has for it."""
        return self.driver.execute_script(
            """const room = (element) => {
                const card = element.parentElement.closest(".card, .server, .said");
                if (!card) return document.documentElement.clientWidth;
                return card.getBoundingClientRect().right - parseFloat(getComputedStyle(card).paddingRight);
            };
            const wide = [...document.querySelectorAll("body *")].filter((element) =>
                element.getBoundingClientRect().right > room(element) + 1);
            if (document.documentElement.scrollWidth > document.documentElement.clientWidth)
                wide.unshift(document.documentElement);
            return wide.map((element) => `${element.tagName} ${element.id} ${element.className}`)"""
        )

    def screenshot(self, path: Path) -> None:
        """All of the page, however long."""
        height, width = self.driver.execute_script(
            "return [document.documentElement.scrollHeight, document.documentElement.clientWidth]"
        )
        image = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(image["data"]))
