"""The page's main point, measured in containers: what 500 WebSockets cost nginx, handed over and proxied."""

import json

from compose import docker, wait_until

CLIENTS = 500


def test_500_websockets_cost_nginx_nothing(demo, fresh_nginx, figures):
    # Once beforehand: what nginx allocates for 500 handshakes in a row is its own, whoever the clients are.
    open_clients(demo, "ws_handoff")
    close_clients(demo)
    before = measure(demo)

    open_clients(demo, "ws_handoff")
    handed_over = measure(demo)
    assert handed_over["clients"] == CLIENTS
    assert handed_over["held by nginx"] == before["held by nginx"]
    close_clients(demo)

    open_clients(demo, "proxy_pass")
    proxied = measure(demo)
    assert proxied["clients"] == CLIENTS
    # Its connections with the clients; stub_status does not count those with the backend.
    assert proxied["held by nginx"] == before["held by nginx"] + CLIENTS
    close_clients(demo)

    cost = {name: figure["nginx"] - before["nginx"] for name, figure in (("fd", handed_over), ("proxy", proxied))}
    figures(before=before, handed_over=handed_over, proxied=proxied)
    assert cost["fd"] < 500_000, cost
    assert cost["proxy"] > CLIENTS * 8_000, cost


def open_clients(demo, way):
    demo.request("POST", f"/demo/clients?way={way}&count={CLIENTS}", timeout=60)


def close_clients(demo):
    demo.request("DELETE", "/demo/clients")
    wait_until("the clients are gone", lambda: demo.metric("websocket_connections_active") == 0)


def measure(demo):
    state = json.loads(demo.get("/demo/state"))
    containers = docker("stats", "--no-stream", "--format={{.MemUsage}}", demo.container("nginx"), demo.container("backend"))
    return {
        "clients": demo.metric("websocket_connections_active"),
        "held by nginx": demo.active_connections(),
        "nginx": state["nginx"]["memory_bytes"],
        "backend": demo.metric("process_resident_memory_bytes"),
        "docker stats": containers.split("\n")[:2],
    }
