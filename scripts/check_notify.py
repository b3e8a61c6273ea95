"""The checks of scripts/check-notify, which describes them and installs what they need."""

import base64
import collections
import copy
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session
import botocore.validate
import httpx2
import jsonschema
import pagerduty
import slack_sdk.models.blocks
import standardwebhooks

BIN = pathlib.Path(sys.executable).parent
SCHEMAS = pathlib.Path("tests/notify")
WAIT_S = 60
REGION = "us-east-1"
PREFIX = "check-notify"
LINK = "https://city.example"
KEYS = [f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2)]
OTHER_KEY = f"whsec_{base64.b64encode(bytes(32)).decode()}"
ROUTING_KEY = "0123456789abcdef0123456789abcdef"
NASTY = '<!channel> & "quoted" <https://x.example|text> ÄÖÜ 你好 🚦 ' + "long " * 200

RULES = """
[[rule]]
name = "severe"
severity = ["high", "critical"]
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "surge"
event_type = ["traffic"]
count = 3
window = "5m"
quiet = "15m"

[[rule]]
name = "silent"
city = ["Quiet Town"]
silence = "30m"
group_by = ["city"]
"""

# The messages that each receiver gets: those of --test, then one group for each step of `run_events`.
STEPS = [
    {("Open", "test", "NYC")},
    {("Open", "severe", "São Paulo"), ("Open", "surge", "NYC")},
    {("Still open", "severe", "São Paulo")},
    {("Resolved", "severe", "São Paulo"), ("Resolved", "surge", "NYC"), ("Open", "silent", "Quiet Town")},
    {("Open", "severe", "LA")},
    {("Open", "severe", "Austin")},
    {("Open", "severe", "Chicago")},
]
ALL = set().union(*STEPS)
WORDS = {"incident.opened": "Open", "incident.updated": "Still open", "incident.resolved": "Resolved"}


class Failed(Exception):
    """A failed check, with the reason."""


def skip(what):
    """Prints that a check is skipped, for a person and for .ci/run."""
    print(f"SKIPPED: {what}", flush=True)
    with open(os.environ.get("SKIPPED_LOG", os.devnull), "a", encoding="utf-8") as log:
        print(f"SKIPPED: {what}", file=log)


def require(holds, what):
    if not holds:
        raise Failed(what)


def wait_for(what, test):
    """Waits until `test` returns something that is true, and returns that."""
    end, last = time.monotonic() + WAIT_S, None
    while time.monotonic() < end:
        try:
            last = test()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(0.1)
    raise Failed(f"waited {WAIT_S} s for {what}; the last answer was {last!r}")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


# --- receivers -------------------------------------------------------------------------------


Request = collections.namedtuple("Request", "path headers body")


class Catcher:
    """An HTTP server that keeps every request, and answers what `answer` returns for it: status, headers and body."""

    def __init__(self, answer):
        self.requests = []
        catcher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, body.decode())
                status, more, text = answer(request)
                catcher.requests.append(request)
                self.send_response(status)
                for name, value in {"content-length": str(len(text.encode())), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

    def bodies(self):
        return [json.loads(request.body) for request in list(self.requests)]


def in_words(body):
    """Returns what the body of a webhook says, in the words of a title."""
    return WORDS[body["type"]], body["rule"], body["city"]


def in_title(title):
    found = re.fullmatch(r"(Open|Still open|Resolved): ([\w-]+) in ([^,]+)(, traffic)?(, \d+ events?)?", title)
    require(found, f"{title!r} is not a title")
    return found[1], found[2], found[3]


def fails_once(answer, key):
    """Returns `answer`, except that the first time of each key is answered with 503. Nothing fails without a key."""
    failed = set()

    def answer_or_fail(request):
        answered = answer(request)
        name = key(request)
        if name is None or name in failed:
            return answered
        failed.add(name)
        return 503, {"retry-after": "1"}, "once more"

    return answer_or_fail


def opened_in_sao_paulo(request):
    body = json.loads(request.body)
    return request.headers["webhook-id"] if in_words(body) == ("Open", "severe", "São Paulo") else None


class Front:
    """Passes requests on to moto. Loses the first answer about each message, so that each is sent twice."""

    def __init__(self, moto):
        self.moto = moto
        self.catcher = Catcher(fails_once(self.answer, self.message))

    def answer(self, request):
        headers = {name: request.headers[name] for name in ("content-type", "authorization", "x-amz-date", "host")}
        forwarded = urllib.request.Request(self.moto, request.body.encode(), headers)
        try:
            with urllib.request.urlopen(forwarded, timeout=10) as answer:
                return answer.status, {"content-type": "text/xml"}, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, {"content-type": "text/xml"}, error.read().decode()

    def message(self, request):
        form = dict(urllib.parse.parse_qsl(request.body))
        said = in_words(json.loads(form["Message"]))
        return None if said in STEPS[0] else (form["TopicArn"], said)


# --- what the receivers got ------------------------------------------------------------------


def incident_schema(binary):
    """Returns the schema of a webhook's body: a listed incident of the API, without what only the list has."""
    document = json.loads(subprocess.run([binary, "print", "openapi"], stdout=subprocess.PIPE, check=True).stdout)
    schemas = document["components"]["schemas"]
    body = copy.deepcopy(schemas["ListedIncident"])
    for name in ("state", "deliveries"):
        del body["properties"][name]
    body["required"] = [name for name in body["required"] if name in body["properties"]] + ["type", "link"]
    body["properties"] |= {"type": {"enum": list(WORDS)}, "link": {"const": LINK}}
    body["additionalProperties"] = False
    return {**body, "components": {"schemas": schemas}}


def validate(value, schema):
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for error in validator.iter_errors(value):
        raise Failed(f"{error.json_path}: {error.message[:300]}")


def load(name):
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def require_messages(said, counts, what):
    """Requires that each message arrived as often as `counts` says."""
    found = collections.Counter(said)
    wrong = {message: n for message, n in found.items() if n != counts.get(message)}
    require(not wrong and found.keys() == counts.keys(), f"{what}: {found} instead of {counts}")


def check_webhook(catcher, schema):
    ids, said = {}, []
    for request in catcher.requests:
        for key in KEYS:
            body = standardwebhooks.Webhook(key).verify(request.body, request.headers)
        try:
            standardwebhooks.Webhook(OTHER_KEY).verify(request.body, request.headers)
            raise Failed("standardwebhooks accepts every key")
        except standardwebhooks.WebhookVerificationError:
            pass
        require(request.headers["authorization"] == "Bearer token-1", "the token is missing")
        validate(body, schema)
        name = request.headers["webhook-id"]
        require(re.fullmatch(re.escape(f"{body['rule']}#{body['incident']}") + r"\.\d+", name), f"the id {name}")
        require(ids.setdefault(name, in_words(body)) == in_words(body), f"{name} has two meanings")
        said.append(in_words(body))
    twice = ("Open", "severe", "São Paulo")
    require_messages(said, {message: 1 + (message == twice) for message in ALL}, "webhook")
    require(len(ids) == len(ALL), f"{len(ids)} ids for {len(ALL)} messages")
    return f"webhook: {len(said)} requests verify with both keys and no other, {len(ids)} ids, one message repeated"


def check_slack(catcher):
    said, count = [], 0
    for request, body in zip(catcher.requests, catcher.bodies()):
        require(request.path == "/services/T0/B0/secret", request.path)
        require(set(body) == {"text", "blocks"} and body["text"] and len(body["blocks"]) <= 50, str(body)[:300])
        for block in body["blocks"]:
            # The models refuse lengths and counts beyond Slack's limits. Unknown fields do not survive.
            known = slack_sdk.models.blocks.Block.parse(block)
            require(known is not None and known.to_dict() == block, f"Slack's models do not know {block}")
            texts = [text["text"] for text in block.get("fields", []) + block.get("elements", [])]
            require(all(0 < len(text) <= 2_000 for text in texts), f"the length of a text in {block}")
            count += 1
        text = json.dumps(body["blocks"][1:])
        require("<!channel>" not in text and "<https://x.example" not in text, "a description is not escaped")
        said.append(in_title(body["blocks"][0]["text"]["text"]))
    require_messages(said, dict.fromkeys(ALL, 1), "Slack")
    return f"Slack: {count} blocks of {len(said)} messages fit slack-sdk's models"


def check_pagerduty(catcher):
    events, schema, titles, said = catcher.bodies(), load("pagerduty.json"), {}, []
    for event in events:
        validate(event, schema)
        name = event["dedup_key"]
        if event["event_action"] == "trigger":
            titles[name] = in_title(event["payload"]["summary"])
            said.append(titles[name])
        else:
            require(name in titles, f"{name} is resolved and was never triggered")
            said.append(("Resolved", *titles[name][1:]))
    require(all(request.path == "/v2/enqueue" for request in catcher.requests), "the path")
    require_messages(said, dict.fromkeys(ALL, 1), "PagerDuty")
    severities = {event["payload"]["severity"] for event in events if "payload" in event}
    require(severities == {"critical", "error", "info"}, f"severities {severities}")
    sent = []

    def keep(request):
        sent.append((str(request.url), json.loads(request.content)))
        return httpx2.Response(202, json={"status": "success", "dedup_key": sent[-1][1]["dedup_key"]})

    # PagerDuty's client makes the same events. This transport sends nothing.
    client = pagerduty.EventsApiV2Client(ROUTING_KEY, transport=httpx2.MockTransport(keep))
    own = ("routing_key", "event_action", "dedup_key")
    for event in events:
        fields = {name: value for name, value in event.items() if name not in own}
        client.send_event(event["event_action"], event["dedup_key"], **fields)
        wanted = ("https://events.pagerduty.com/v2/enqueue", event)
        require(sent[-1] == wanted, f"PagerDuty's client makes {sent[-1]} instead of {wanted}")
    return f"PagerDuty: {len(events)} events fit the schema, and its client makes the same ones"


def check_ntfy(catcher):
    schema, said, told = load("ntfy.json"), [], {}
    for request, body in zip(catcher.requests, catcher.bodies()):
        require(request.path == "/" and request.headers["authorization"] == "Bearer tk_1", "the root, with a token")
        validate(body, schema)
        require(body["topic"] == "city-incidents" and len(body["message"].encode()) <= 4_096, "topic and length")
        said.append(in_title(body["title"]))
        told[said[-1]] = (body["priority"], body["tags"])
    require_messages(said, dict.fromkeys(ALL, 1), "ntfy")
    wanted = {
        ("Open", "severe", "São Paulo"): (4, ["rotating_light", "severe"]),
        ("Still open", "severe", "São Paulo"): (5, ["hourglass_flowing_sand", "severe"]),
        ("Resolved", "severe", "São Paulo"): (2, ["white_check_mark", "severe"]),
    }
    require(wanted.items() <= told.items(), f"priorities and tags: {told}")
    return f"ntfy: {len(said)} messages fit the schema, with priorities 2, 4 and 5"


def signature(request):
    """Returns the signature that botocore computes for a request, over the same headers."""
    named = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])[1].split(";")
    headers = {name: request.headers[name] for name in named if name != "host"}
    again = botocore.awsrequest.AWSRequest("POST", f"http://{request.headers['host']}/", headers, request.body.encode())
    again.context["timestamp"] = request.headers["x-amz-date"]
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials("dev", "dev"), "sns", REGION)
    return signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)


def parameters(form):
    """Returns the parameters of Publish that a form holds."""
    out, attributes = {}, collections.defaultdict(dict)
    for name, value in urllib.parse.parse_qsl(form):
        found = re.fullmatch(r"MessageAttributes\.entry\.(\d+)\.(.+)", name)
        if found:
            attributes[found[1]][found[2]] = value
        elif name not in ("Action", "Version"):
            out[name] = value
    out["MessageAttributes"] = {
        entry["Name"]: {name.removeprefix("Value."): value for name, value in entry.items() if name != "Name"}
        for entry in attributes.values()
    }
    return out


def drain(sqs, queue, count):
    """Returns `count` messages of a queue, and fails if there are more."""
    messages = []

    def receive():
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"])
        for message in answer.get("Messages", []):
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            messages.append(message)
        return len(messages) >= count

    wait_for(f"{count} messages in {queue}", receive)
    receive()
    require(len(messages) == count, f"{len(messages)} messages in {queue} instead of {count}")
    return messages


def check_sns(front, aws, schema):
    shape = botocore.session.get_session().get_service_model("sns").operation_model("Publish").input_shape
    attribute = shape.members["MessageAttributes"].value
    for request in front.catcher.requests:
        signed = f"Signature={signature(request)}"
        require(request.headers["authorization"].endswith(signed), "a signature differs from botocore's")
        fields = parameters(request.body)
        report = botocore.validate.ParamValidator().validate(fields, shape)
        unknown = fields.keys() - shape.members.keys()
        for value in fields["MessageAttributes"].values():
            unknown |= value.keys() - attribute.members.keys()
        require(not report.has_errors() and not unknown, f"parameters: {report.generate_report()} {unknown}")
        subject = fields["Subject"]
        require(len(subject) < 100 and re.fullmatch(r"[!-~][ -~]*", subject), f"subject {subject!r}")
    counts = {"plain": {message: 1 if message in STEPS[0] else 2 for message in ALL}, "fifo": dict.fromkeys(ALL, 1)}
    for name, wanted in counts.items():
        said, groups = [], collections.defaultdict(list)
        for message in drain(aws.sqs, aws.queues[name], sum(wanted.values())):
            envelope = json.loads(message["Body"])
            body = json.loads(envelope["Message"])
            attributes = {key: value["Value"] for key, value in envelope["MessageAttributes"].items()}
            known = {"rule": body["rule"], "type": body["type"], "severity": body.get("severity")}
            require(attributes == {key: value for key, value in known.items() if value}, f"attributes {attributes}")
            validate(body, schema)
            said.append(in_words(body))
            if name == "fifo":
                groups[message["Attributes"]["MessageGroupId"]].append(body["type"])
        require_messages(said, wanted, f"SNS, {name}")
        for group, types in groups.items():
            require(types == [kind for kind in WORDS if kind in types], f"the order in {group}: {types}")
    sent = len(front.catcher.requests)
    return f"SNS: {sent} signed requests, each but those of --test twice; the FIFO topic has {len(ALL)} messages, once"


# --- the run ---------------------------------------------------------------------------------


class Aws:
    """Two topics in moto, each with a queue that subscribes to it."""

    def __init__(self, url):
        made = {"endpoint_url": url, "region_name": REGION, "aws_access_key_id": "dev", "aws_secret_access_key": "dev"}
        self.sns, self.sqs = boto3.client("sns", **made), boto3.client("sqs", **made)
        self.topics, self.queues = {}, {}
        for name, end, attributes in (("plain", "", {}), ("fifo", ".fifo", {"FifoTopic": "true"})):
            topic = self.sns.create_topic(Name=f"incidents{end}", Attributes=attributes)["TopicArn"]
            settings = {"FifoQueue": "true"} if end else {}
            queue = self.sqs.create_queue(QueueName=f"incidents{end}", Attributes=settings)["QueueUrl"]
            arn = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            self.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
            self.topics[name], self.queues[name] = topic, queue


class World:
    """The processes, the receivers and the files of a run."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.running = binary, folder, []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CITYSTREAM_"))}
        self.environment = clean

    def start(self, name, command):
        """Starts a process, and returns the file of what it prints."""
        out = self.folder / f"{name}.out"
        with open(out, "wb") as file, open(self.folder / f"{name}.log", "wb") as log:
            self.running.append(subprocess.Popen(command, env=self.environment, stdout=file, stderr=log))
        return out

    def stop(self):
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self):
        paths = sorted(self.folder.glob("*.log"))
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}\n" for path in paths)

    def run(self, *arguments, code=0):
        """Runs the program to its end, and returns its output, or its errors if it is to fail."""
        command = [self.binary, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        errors = done.stderr[-1500:]
        require(done.returncode == code, f"{command} ended with {done.returncode}, not {code}: {errors}")
        return errors if code else done.stdout

    def start_dev(self):
        first = self.folder / "first.ndjson"
        first.write_text(json.dumps(event("Nowhere", "low", 0)) + "\n", encoding="utf-8")
        ports = ["--port", "0", "--kafka-port", "0", "--dynamodb-port", "0"]
        out = self.start("dev", [self.binary, "dev", *ports, "--input", first])
        text = wait_for("the greeting of dev", lambda: "list-tables\n" in (text := out.read_text()) and text)
        self.page = re.search(r"^  (http://127\.0\.0\.1:\d+)/$", text, re.MULTILINE)[1]
        exports = re.findall(r"\b([A-Z_]+)=(\S+)", "\n".join(re.findall(r"^  export (.*)$", text, re.MULTILINE)))
        # The role notify of dev has the tables without a prefix.
        self.environment |= {**dict(exports), "CITYSTREAM_TABLE_PREFIX": PREFIX}
        wait_for("dev", lambda: get(f"{self.page}/readyz"))

    def start_moto(self):
        port = free_port()
        self.start("moto", [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)])
        url = f"http://127.0.0.1:{port}"
        wait_for("moto", lambda: get(f"{url}/moto-api/"))
        self.aws, self.front = Aws(url), Front(url)
        self.environment["AWS_ENDPOINT_URL_SNS"] = self.front.catcher.url

    def start_alertmanager(self):
        program = shutil.which("prometheus-alertmanager")
        self.alertmanager = None
        if program is None:
            skip("messages in Alertmanager (needs prometheus-alertmanager)")
            return
        config = self.folder / "alertmanager.yml"
        config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
        address = f"127.0.0.1:{free_port()}"
        self.start("alertmanager", [
            program, f"--config.file={config}", f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address={address}", "--cluster.listen-address=",
        ])  # fmt: skip
        self.alertmanager = f"http://{address}"
        wait_for("Alertmanager", lambda: get(f"{self.alertmanager}/-/ready"))

    def start_receivers(self):
        def always(status, text):
            return lambda _: (status, {}, text)

        self.hook = Catcher(fails_once(always(204, ""), opened_in_sao_paulo))
        self.slack = Catcher(always(200, "ok"))
        self.pagerduty = Catcher(always(202, "{}"))
        self.ntfy = Catcher(always(200, "{}"))
        self.gone = Catcher(always(410, ""))

    def write_config(self):
        secrets = {
            "hook-secret": "\n".join(KEYS),
            "hook-token": "token-1",
            "slack-url": f"{self.slack.url}/services/T0/B0/secret",
            "pagerduty-key": ROUTING_KEY,
            "ntfy-token": "tk_1",
        }
        for name, text in secrets.items():
            (self.folder / name).write_text(text + "\n")
            (self.folder / name).chmod(0o600)
        receivers = {
            "webhook": {"url": f"{self.hook.url}/hook", "secret_file": "hook-secret", "token_file": "hook-token"},
            "slack": {"url_file": "slack-url"},
            "pagerduty": {"url": f"{self.pagerduty.url}/v2/enqueue", "routing_key_file": "pagerduty-key"},
            "ntfy": {"url": self.ntfy.url, "topic": "city-incidents", "token_file": "ntfy-token"},
        }
        if self.alertmanager:
            receivers["alertmanager"] = {"url": self.alertmanager}
        receivers = {name: {"type": name, **keys, "allow_private": True} for name, keys in receivers.items()}
        receivers |= {f"sns-{name}": {"type": "sns", "topic_arn": topic} for name, topic in self.aws.topics.items()}
        self.receivers = list(receivers)
        self.config = self.folder / "notify.toml"
        self.config.write_text(RULES + "".join(section(name, keys) for name, keys in receivers.items()))
        self.other_config = self.folder / "gone.toml"
        self.other_config.write_text(RULES + section("gone", {**receivers["webhook"], "url": self.gone.url}))

    def send(self, events):
        body = json.dumps(events).encode()
        request = urllib.request.Request(f"{self.page}/api/v1/events", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.load(answer)
        require(told["accepted"] == len(events), f"dev took {told}")

    def incident(self, rule, city):
        """Returns the stored incident of a rule and a city, and None if there is none."""
        query = urllib.parse.urlencode({"rule": rule, "city": city})
        found = json.loads(get(f"{self.serve}/api/v1/incidents?{query}"))["incidents"]
        return found[0] if found else None

    def wait_for_step(self, n):
        """Waits until every receiver has taken the messages of a step, and `notify` has stored that."""
        for kind, rule, city in STEPS[n]:
            wanted = {"Open": "opened", "Still open": "updated", "Resolved": "resolved"}[kind]

            def all_took(rule=rule, city=city, wanted=wanted):
                deliveries = (self.incident(rule, city) or {}).get("deliveries", [])
                took = {one["receiver"] for one in deliveries if (one["kind"], one["outcome"]) == (wanted, "taken")}
                return took == set(self.receivers)

            wait_for(f"{wanted} of {rule} in {city} at {self.receivers}", all_took)

    def alerts(self):
        """Returns the labels of Alertmanager's open alerts, by rule and city."""
        alerts = json.loads(get(f"{self.alertmanager}/api/v2/alerts"))
        found = collections.defaultdict(list)
        for alert in alerts:
            require(alert["status"]["state"] in ("active", "unprocessed"), str(alert))
            found[alert["labels"]["rule"], alert["labels"]["city"]].append(alert["labels"])
        return found


def section(name, keys):
    """Returns a section of the file of rules. Strings and truth values are written in TOML as in JSON."""
    keys = {"name": name, "min_interval": "1s", **keys}
    return "\n[[receiver]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def event(city, severity, minute, event_type="weather", description=""):
    return {
        "city": city, "event_type": event_type, "severity": severity, "description": description,
        "timestamp": f"2013-01-01T{6 + minute // 60:02}:{minute % 60:02}:00Z",
    }  # fmt: skip


def check_test_messages(world):
    for name in world.receivers:
        said = world.run("notify", "--config", world.config, "--test", name, "--link", LINK)
        require(f"{name} took the message test#test#0#" in said, said)
    said = world.run("notify", "--config", world.other_config, "--test", "gone", code=1)
    require("gone refused the message" in said, said)
    world.run("notify", "--config", world.config, "--test", "nobody", code=2)
    return f"--test: {len(world.receivers)} receivers took a message, one that answers 410 refused it"


def start_notify(world):
    out = world.start("notify", [
        world.binary, "notify", "--config", world.config, "--notify-group", PREFIX, "--from", "beginning",
        "--listen", "127.0.0.1:0", "--link", LINK,
    ])  # fmt: skip
    health = wait_for("the port of notify", lambda: re.search(r"http://127\.0\.0\.1:\d+", out.read_text()))[0]
    wait_for("notify", lambda: get(f"{health}/readyz"))
    port = free_port()
    world.start("serve", [world.binary, "serve", "--port", str(port)])
    world.serve = f"http://127.0.0.1:{port}"
    wait_for("serve", lambda: get(f"{world.serve}/api/v1/incidents"))


def run_events(world):
    """Sends events in steps, so that each message has one cause. They move the event time. Lateness is 10 minutes."""
    three = [event("NYC", "low", minute, "traffic") for minute in (1, 2, 3)]
    world.send([event("São Paulo", "high", 0, "incident", NASTY), event("Quiet Town", "low", 0), *three])
    world.wait_for_step(1)
    world.send([event("São Paulo", "critical", 5, "incident", NASTY)])
    world.wait_for_step(2)
    if world.alertmanager:
        # The alert of the lower severity has ended.
        severities = [labels["severity"] for labels in world.alerts()["severe", "São Paulo"]]
        require(severities == ["critical"], f"Alertmanager has {severities}")
    # Forty cities are in every partition.
    world.send([event(f"City {n}", "low", 60) for n in range(40)])
    world.wait_for_step(3)
    world.send([event("LA", "critical", 61, "incident")])
    world.wait_for_step(4)


def check_alertmanager(world):
    found = world.alerts()
    wanted = {("test", "NYC"), ("silent", "Quiet Town"), ("severe", "LA")}
    require(set(found) == wanted, f"Alertmanager has {dict(found)}")
    stored = world.incident("severe", "LA")
    labels = {
        "alertname": "severe", "rule": "severe", "incident": stored["incident"], "city": "LA", "severity": "critical",
    }  # fmt: skip
    require(found["severe", "LA"] == [labels], f"labels {found['severe', 'LA']}")
    require("severity" not in found["silent", "Quiet Town"][0], "a silence has no severity")
    return f"Alertmanager: {len(wanted)} open alerts with their labels; resolved and lower ones have ended"


def check_silence(world, name):
    world.send([event("Chicago", "critical", 62, "incident")])
    wait_for("the row of Chicago", lambda: world.incident("severe", "Chicago"))
    # By the time that this one arrived, Chicago's message would have been sent.
    world.send([event("Austin", "critical", 63, "incident")])
    world.wait_for_step(5)
    silenced = world.incident("severe", "Chicago")
    require((silenced["state"], silenced["deliveries"]) == ("open", []), f"a silence covers {silenced}")
    require(all("Chicago" not in request.body for request in world.hook.requests), "a silenced message arrived")
    world.run("silence", "end", name)
    begin = time.monotonic()
    require(world.run("silence", "list") == "", "the silence has ended and is listed")
    world.run("silence", "end", name, code=2)
    world.wait_for_step(6)
    took = time.monotonic() - begin
    if world.alertmanager:
        require(("severe", "Chicago") in world.alerts(), "Alertmanager lacks the incident after the silence")
    return f"silence: the incident was stored and not sent, and was sent {took:.1f} s after the end"


def add_silence(world):
    added = world.run("silence", "add", "--city", "Chicago", "--for", "1h", "--why", "marathon")
    found = re.fullmatch(r"(\w{6})  until \S+  city Chicago: marathon\n", added)
    require(found and world.run("silence", "list") == added, f"silence add printed {added!r}")
    return found[1]


def run(world):
    begin = time.monotonic()
    schema = incident_schema(world.binary)
    world.start_dev()
    world.start_moto()
    world.start_alertmanager()
    world.start_receivers()
    world.write_config()
    world.run("init-tables", "--incidents")
    print("ok:", check_test_messages(world), flush=True)
    silence = add_silence(world)
    start_notify(world)
    run_events(world)
    if world.alertmanager:
        print("ok:", check_alertmanager(world), flush=True)
    print("ok:", check_silence(world, silence), flush=True)
    print("ok:", check_webhook(world.hook, schema), flush=True)
    print("ok:", check_sns(world.front, world.aws, schema), flush=True)
    print("ok:", check_slack(world.slack), flush=True)
    print("ok:", check_pagerduty(world.pagerduty), flush=True)
    print("ok:", check_ntfy(world.ntfy), flush=True)
    print(f"{len(ALL)} messages to each of {len(world.receivers)} receivers in {time.monotonic() - begin:.0f} s")


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as name:
        world = World(binary, pathlib.Path(name))
        try:
            run(world)
        except Exception as error:
            print(f"{world.logs()}check-notify: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        finally:
            world.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
