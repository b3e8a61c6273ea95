"""What clients can do to a server, for scripts/bench-api: wait URL | hold URL MS_MAX | stop URL PID."""

import json
import os
import signal
import socket
import statistics
import sys
import time
import urllib.parse
import urllib.request

HALF_OPEN = 2_000
GOOD = 200


def connect(url, sent):
    where = urllib.parse.urlsplit(url)
    one = socket.create_connection((where.hostname, where.port), timeout=15)
    one.sendall(sent)
    return one


def ask(url, path):
    began = time.monotonic()
    with connect(url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()) as one:
        answer = b""
        while chunk := one.recv(65536):
            answer += chunk
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit(f"{path}: {answer[:200]!r}")
    return (time.monotonic() - began) * 1_000


def wait(url):
    until = time.monotonic() + 300
    while time.monotonic() < until:
        stats = json.load(urllib.request.urlopen(url + "/api/v1/stats"))
        if stats["total_events_processed"] >= 33_960:
            return
        time.sleep(0.5)
    sys.exit("the events were not loaded in time")


def hold(url, ms_max):
    held = [connect(url, b"GET /api/v1/stats HTTP/1.1\r\nHo") for _ in range(HALF_OPEN)]
    times = sorted(ask(url, "/api/v1/stats") for _ in range(GOOD))
    median = statistics.median(times)
    print(
        f"\na good client beside {len(held)} half-open connections:"
        f" median {median:.1f} ms, 99 % {times[GOOD * 99 // 100]:.1f} ms, worst {times[-1]:.1f} ms"
    )
    if median >= ms_max:
        sys.exit(f"that is more than {ms_max} ms")
    # The server drops them once their time for a head is over.
    began = time.monotonic()
    for one in held:
        one.settimeout(30)
        while one.recv(4096):
            pass
    print(f"all of them were dropped {time.monotonic() - began:.1f} s later")


def stop(url, pid):
    idle = connect(url, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    idle.recv(4096)
    listening = connect(url, b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
    listening.recv(4096)
    stalled = connect(url, b"GET /api/v1/events/NYC?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    half = connect(url, b"GET / HT")
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while time.monotonic() < began + 15:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.05)
    took = time.monotonic() - began
    print(f"ended {took:.1f} s after SIGTERM, with an idle, a listening, a stalled and a half-open client")
    for one in (idle, listening, stalled, half):
        one.close()
    if took > 10:
        sys.exit("that is more than 10 s")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wait", url]:
            wait(url)
        case ["hold", url, ms_max]:
            hold(url, float(ms_max))
        case ["stop", url, pid]:
            stop(url, int(pid))
        case _:
            sys.exit(__doc__)
