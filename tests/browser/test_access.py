"""Keyboard, small windows, and what the page looks like."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from page import SCREENSHOTS, Page, wait_until


def test_everything_by_keyboard(page: Page) -> None:
    tab_to(page, "way-ws_handoff")
    assert outlined(page), "the switch shows that it has the focus"
    press(page, Keys.ARROW_DOWN)
    page.wait_for_links("/proxy/")
    press(page, Keys.ARROW_UP)
    page.wait_for_links("/ws/")

    tab_to(page, "chat-text")
    press(page, "typed", Keys.ENTER)
    page.wait_for_message("typed")
    assert page.element("chat-text").get_attribute("value") == ""

    tab_to(page, "open-ws_handoff")
    assert outlined(page)
    press(page, Keys.ENTER)
    page.wait_for_value("clients-ws_handoff", lambda n: n == 500, "500")
    wait_until(lambda: page.element("clients-status").get_attribute("data-state") == "done", "done")
    assert focused(page) == "open-ws_handoff", "a button that is busy keeps the focus"
    tab_to(page, "close-all")
    press(page, Keys.SPACE)
    page.wait_for_value("clients-ws_handoff", lambda n: n == 0, "none")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_looks_as_the_screenshots_show(
    fresh_nginx: None, page: Page, width: int, scheme: str
) -> None:
    """The pictures in build/screenshots are for people; that nothing sticks out is checked."""
    page.resize(width, 844 if width < 600 else 900)
    page.prefer(color_scheme=scheme)
    assert page.overflowing() == []

    page.use("proxy_pass")
    page.wait_for_value("rtt-proxy_pass-samples", lambda n: n >= 24, "a row of points")
    page.use("ws_handoff")
    page.write("chat-name", "Ada")
    other = page.second_tab()
    other.write("chat-name", "Grace")
    other.use("proxy_pass")
    other.say("Hi Ada! My socket goes through nginx.")
    page.show().wait_for_message("Hi Ada! My socket goes through nginx.")
    page.say("And the backend holds mine itself. Same room!")
    page.say("https://example.invalid/" + "a-very-long-address-without-a-space/" * 3)
    page.wait_for_value("rtt-ws_handoff-samples", lambda n: n >= 36, "a longer row of points")
    page.press("open-ws_handoff")
    page.press("open-proxy_pass")
    page.wait_for_value("backend-connections", lambda n: n >= 1000, "all of them")
    assert page.overflowing() == []
    assert too_small(page) == []
    page.screenshot(SCREENSHOTS / f"{width}-{scheme}.png")


def tab_to(page: Page, id: str) -> None:
    for _ in range(30):
        if focused(page) == id:
            return
        press(page, Keys.TAB)
    raise AssertionError(f"{id} is not reached by the Tab key")


def press(page: Page, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def focused(page: Page) -> str:
    return page.driver.execute_script("return document.activeElement.id")


def outlined(page: Page) -> bool:
    return page.driver.execute_script(
        """const shown = (element) => element && getComputedStyle(element).outlineStyle === "solid"
            && parseFloat(getComputedStyle(element).outlineWidth) >= 2;
        return shown(document.activeElement) || shown(document.activeElement.closest("label"))"""
    )


def too_small(page: Page) -> list[str]:
    """What is to be tapped, and is not 44 pixels high and wide."""
    return page.driver.execute_script(
        """return [...document.querySelectorAll("button, a, input[type=text], .switch label")]
            .filter((element) => {
                const { width, height } = element.getBoundingClientRect();
                return width < 44 || height < 43.5;
            }).map((element) => `${element.tagName} ${element.id} ${element.textContent.trim()}`)"""
    )
