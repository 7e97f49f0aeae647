"""500 connections of each kind, and what nginx and the backend have to show for it."""

from __future__ import annotations

from page import SCREENSHOTS, Page, wait_until

MANY = 500
# The browser opens and closes a few HTTP connections of its own for polling.
OWN = 6


def test_what_500_connections_cost(fresh_nginx: None, page: Page) -> None:
    start = figures(page)

    assert "handed over" in page.press("open-ws_handoff")
    assert page.value("clients-ws_handoff") == MANY
    page.wait_for_value("backend-connections", lambda n: n == start["backend-connections"] + MANY, "500 more")
    handed_over = figures(page)
    assert abs(handed_over["nginx-connections"] - start["nginx-connections"]) <= OWN
    handoff_cost = handed_over["nginx-memory"] - start["nginx-memory"]
    assert handoff_cost < 1e6, f"nginx: {handoff_cost / 1e6:.2f} MB for 500 connections that it does not hold"
    assert page.value("effect-ws_handoff-memory") == handoff_cost
    assert page.value("effect-ws_handoff-connections") <= OWN

    assert "proxied" in page.press("open-proxy_pass")
    assert page.value("clients-proxy_pass") == MANY
    page.wait_for_value("backend-connections", lambda n: n == start["backend-connections"] + 2 * MANY, "1000 more")
    proxied = figures(page)
    rise = proxied["nginx-connections"] - handed_over["nginx-connections"]
    assert abs(rise - MANY) <= OWN
    proxy_cost = proxied["nginx-memory"] - handed_over["nginx-memory"]
    assert proxy_cost > handoff_cost + 3e6, (
        f"nginx: {proxy_cost / 1e6:.2f} MB for 500 proxied connections, {handoff_cost / 1e6:.2f} MB for 500 handed over. "
        "If this nginx has held so many before, restart the demo."
    )
    print(f"nginx, MB: {start['nginx-memory'] / 1e6:.2f}, after 500 handed over {handed_over['nginx-memory'] / 1e6:.2f}, "
          f"after 500 proxied {proxied['nginx-memory'] / 1e6:.2f}")

    page.press("close-all")
    assert (page.value("clients-ws_handoff"), page.value("clients-proxy_pass")) == (0, 0)
    page.wait_for_value("backend-connections", lambda n: n == start["backend-connections"], "as at the start")
    page.wait_for_value("nginx-connections", lambda n: abs(n - start["nginx-connections"]) <= OWN, "as at the start")


def test_opening_again_says_that_there_are_500_already(page: Page) -> None:
    page.press("open-ws_handoff")
    assert "already" in page.press("open-ws_handoff")
    assert page.value("clients-ws_handoff") == MANY


def test_a_failure_is_shown_and_figures_that_are_old_say_so(page: Page) -> None:
    """What the page makes of servers that do not answer: requests are answered here in their place."""
    figures(page)
    page.driver.execute_script(
        """const real = window.fetch;
        window.fetch = async (path, options) => {
            const clients = { ws_handoff: 37, proxy_pass: 0 };
            const answer = (status, body) => new Response(JSON.stringify(body), { status });
            if (path === "/metrics") throw new TypeError("no answer");
            if (path === "/demo/state") return answer(200, { nginx: { memory_bytes: 7e6, processes: 3 }, clients });
            if (path.startsWith("/demo/")) return answer(502, { error: "connecting to nginx: refused", clients });
            return real(path, options);
        };
        window.restore = () => { window.fetch = real; };"""
    )
    page.element("open-ws_handoff").click()
    status, backend = page.element("clients-status"), page.element("backend-card")
    wait_until(lambda: status.get_attribute("data-state") == "failed", "the failure is shown")
    assert status.text == "connecting to nginx: refused"
    assert page.value("clients-ws_handoff") == 37, "what is open in spite of it"
    assert backend.get_attribute("data-state") == "stale"
    assert page.text("backend-problem").startswith("No answer. These figures are of ")
    assert page.element("nginx-card").get_attribute("data-state") == "live"
    page.screenshot(SCREENSHOTS / "1280-stale.png")

    page.driver.execute_script("restore()")
    wait_until(lambda: backend.get_attribute("data-state") == "live", "live figures again")
    assert page.text("backend-problem") == ""
    page.wait_for_value("clients-ws_handoff", lambda n: n == 0, "as it is")


def figures(page: Page) -> dict[str, float]:
    """The page's, once it has read them anew."""
    page.driver.execute_async_script("const done = arguments[0]; refreshAll().then(() => done())")
    names = ("nginx-memory", "nginx-connections", "backend-memory", "backend-connections")
    return {name: page.value(name) for name in names}
