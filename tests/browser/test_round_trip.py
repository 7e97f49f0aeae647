"""The echo's times, and the switch between the two ways."""

from __future__ import annotations

from page import Page, wait_until


def test_times_appear_as_figures_and_points(page: Page) -> None:
    page.wait_for_value("rtt-ws_handoff-samples", lambda n: n >= 8, "eight round trips")
    median = page.value("rtt-ws_handoff-median")
    assert 0 < median <= page.value("rtt-ws_handoff-p99") < 1000
    assert page.text("rtt-ws_handoff-median").endswith(("µs", "ms"))
    assert page.value("rtt-proxy_pass-samples") is None
    assert drawn(page, "--handoff") > 20
    assert drawn(page, "--proxy") == 0

    page.use("proxy_pass")
    page.wait_for_value("rtt-proxy_pass-samples", lambda n: n >= 8, "eight round trips through nginx")
    assert 0 < page.value("rtt-proxy_pass-median") < 1000
    assert drawn(page, "--proxy") > 20, "the other way's points are drawn too"
    assert drawn(page, "--handoff") > 20, "and the first way's stay"


def test_the_switch_moves_this_tabs_sockets(page: Page) -> None:
    assert "/ws/" in page.text("way-note")
    wait_until(lambda: held_by_nginx(page) == 0, "nginx holds no socket of this tab")
    held = page.wait_for_value("backend-connections", lambda n: n == 2, "chat and echo")

    page.use("proxy_pass")
    assert page.link("chat")[1] == "/proxy/rooms/lobby"
    assert page.link("echo")[1] == "/proxy/echo"
    assert "/proxy/" in page.text("way-note")
    wait_until(lambda: held_by_nginx(page) == 2, "nginx holds chat and echo")
    page.wait_for_value("backend-connections", lambda n: n == held, "as many as before")

    page.use("ws_handoff")
    wait_until(lambda: held_by_nginx(page) == 0, "nginx holds neither any more")


def held_by_nginx(page: Page) -> float:
    """Of its connections, those that are neither idle nor the one that asks."""
    return page.driver.execute_script(
        """return ["nginx-connections", "nginx-idle"].map((id) => +document.getElementById(id).dataset.value)
            .reduce((all, idle) => all - idle - 1)"""
    )


def test_a_hidden_tab_is_silent(page: Page) -> None:
    page.wait_for_value("rtt-ws_handoff-samples", lambda n: n >= 2, "round trips")
    # A tab behind another one; headless Chromium has no such thing.
    page.driver.execute_script(
        """Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
        window.asked = 0;
        window.fetch = new Proxy(fetch, { apply: (...call) => { asked++; return Reflect.apply(...call); } });"""
    )
    # What was under way may end; then two polls and eight round trips are due, and none may come.
    silent_for(page, 2.2)
    page.driver.execute_script(
        """delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))"""
    )
    wait_until(lambda: page.driver.execute_script("return asked") > 0, "it asks again when it is seen")


def silent_for(page: Page, seconds: float) -> None:
    """Observes for as long as it takes that the page neither asks nor measures anything."""
    counts = page.driver.execute_async_script(
        """const [milliseconds, done] = arguments;
        const count = () => [asked, sequence];
        setTimeout(() => {
            const before = count();
            setTimeout(() => done([before, count()]), milliseconds);
        }, 300);""",
        seconds * 1000,
    )
    assert counts[0] == counts[1]


def drawn(page: Page, variable: str) -> int:
    """Pixels of the plot that have the colour of the CSS variable."""
    return page.driver.execute_script(
        """draw();
        const name = getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim();
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(name.slice(at, at + 2), 16));
        // A copy, which is meant to be read.
        const plot = document.getElementById("plot");
        const context = new OffscreenCanvas(plot.width, plot.height).getContext("2d", { willReadFrequently: true });
        context.drawImage(plot, 0, 0);
        const { data } = context.getImageData(0, 0, plot.width, plot.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4) {
            // Points of the way that is not in use are translucent, edges are anti-aliased.
            const alike = (x, y) => Math.abs(x - y) < 12;
            if (data[i + 3] > 120 && alike(data[i], r) && alike(data[i + 1], g) && alike(data[i + 2], b)) found++;
        }
        return found;""",
        variable,
    )
