"""Bad clients for scripts/bench-api and bench-accept: wait URL | hold URL MS_MAX PID | accept URL MS_MAX PID | stop URL PID."""

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
UNREAD = 200
# What all clients together may cost the server: the bytes in flight and the buffers of each connection.
MIB_MAX = 192
# The server closes a connection that takes no bytes for 20 s. Its first check may come a little later.
UNREAD_S_MAX = 30
GOOD = 200
# Half-open clients of `produce --accept` may cost less, because no answer is large: 48 KiB each.
ACCEPT_MIB_MAX = 96
# When the server closes a connection without a whole head, and one without a whole body. Timers of a busy host are late.
HEAD_S, BODY_S, LATE_S_MAX = 10, 20, 10
EVENT = b'{"city":"NYC","event_type":"traffic","severity":"low","timestamp":"now"}'


def connect(url, sent, client=None):
    """Connects from the address that belongs to the number `client`, or from any address."""
    where = urllib.parse.urlsplit(url)
    source = client is not None and (f"127.0.1.{client % 16 + 1}", 0) or None
    one = socket.create_connection((where.hostname, where.port), timeout=15, source_address=source)
    one.sendall(sent)
    return one


def unread(url, client):
    """Requests more than any buffer holds, and reads nothing."""
    return connect(url, b"GET /api/v1/events/NYC?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100, client)


def mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1_024


def read_all(one):
    answer = b""
    try:
        while chunk := one.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def ask(url, path, method="GET", body=b""):
    began = time.monotonic()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(url, head.encode() + body) as one:
        answer = read_all(one)
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


def hold(url, ms_max, pid):
    before = mib(pid)
    begin = time.monotonic()
    stalled = [unread(url, n) for n in range(UNREAD)]
    held = [connect(url, b"GET /api/v1/stats HTTP/1.1\r\nHo", n) for n in range(HALF_OPEN)]
    times = sorted(ask(url, "/api/v1/stats") for _ in range(GOOD))
    median = statistics.median(times)
    print(
        f"\na good client beside {len(held)} half-open connections and {len(stalled)} that read nothing:"
        f" median {median:.1f} ms, 99 % {times[GOOD * 99 // 100]:.1f} ms, worst {times[-1]:.1f} ms"
    )
    if median >= ms_max:
        sys.exit(f"that is more than {ms_max} ms")
    # The server drops these connections when the time for a request's head has passed.
    began = time.monotonic()
    for one in held:
        one.settimeout(30)
        while one.recv(4096):
            pass
    print(f"all half-open ones were dropped {time.monotonic() - began:.1f} s later")
    worst = mib(pid) - before
    time.sleep(max(0.0, begin + UNREAD_S_MAX - time.monotonic()))
    for one in stalled:
        one.settimeout(5)
        try:
            while one.recv(1 << 20):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            sys.exit("a client that reads nothing is still connected")
    worst = max(worst, mib(pid) - before)
    print(f"so were the others; together they cost {worst:.0f} MiB")
    if worst > MIB_MAX:
        sys.exit(f"that is more than {MIB_MAX} MiB")


def accept(url, ms_max, pid):
    """Half of the clients never finish the head of a request, and the others never finish its body."""
    path = "/api/v1/events"
    post = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
    body = f"{post}Content-Type: application/json\r\nContent-Length: {len(EVENT)}\r\n\r\n".encode() + EVENT[:-1]
    ask(url, path, "POST", EVENT)
    before = mib(pid)
    begin = time.monotonic()
    heads = [connect(url, post.encode(), n) for n in range(HALF_OPEN // 2)]
    bodies = [connect(url, body, n) for n in range(HALF_OPEN // 2)]
    opened = time.monotonic()
    times = []
    while len(times) < GOOD and time.monotonic() < opened + HEAD_S / 2:
        times.append(ask(url, path, "POST", EVENT))
    times.sort()
    median = statistics.median(times)
    worst = mib(pid) - before
    print(
        f"\na client that sends events beside {HALF_OPEN} half-open connections:"
        f" median {median:.1f} ms, 99 % {times[len(times) * 99 // 100]:.1f} ms, worst {times[-1]:.1f} ms; they cost {worst:.0f} MiB"
    )
    if median >= ms_max:
        sys.exit(f"that is more than {ms_max} ms")
    if worst > ACCEPT_MIB_MAX:
        sys.exit(f"that is more than {ACCEPT_MIB_MAX} MiB")
    for what, held, closed_s, answer in (("head", heads, HEAD_S, b""), ("body", bodies, BODY_S, b"HTTP/1.1 408")):
        for one in held:
            one.settimeout(closed_s + LATE_S_MAX)
            try:
                got = read_all(one)
            except TimeoutError:
                sys.exit(f"a client without a whole {what} is still connected")
            if not got.startswith(answer):
                sys.exit(f"a client without a whole {what} got {got[:200]!r}")
        first, last = time.monotonic() - opened, time.monotonic() - begin
        print(f"those without a whole {what} were closed within {last:.1f} s")
        if first < closed_s - (opened - begin) or first > closed_s + LATE_S_MAX:
            sys.exit(f"that is not {closed_s} s")


def stop(url, pid):
    idle = connect(url, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle.recv(4096)
    listening = connect(url, b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    listening.recv(4096)
    stalled = connect(url, b"GET /api/v1/events/NYC?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
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
        case ["hold", url, ms_max, pid]:
            hold(url, float(ms_max), int(pid))
        case ["accept", url, ms_max, pid]:
            accept(url, float(ms_max), int(pid))
        case ["stop", url, pid]:
            stop(url, int(pid))
        case _:
            sys.exit(__doc__)
