"""The checks of scripts/check-aws, which describes them and installs what they need."""

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import botocore.session
import botocore.validate
import parliament

BIN = pathlib.Path(sys.executable).parent
GUIDE_S_MAX = 600
# What moto does not know is answered here. docs/AWS.md lists it among what only AWS can show.
UNKNOWN_TO_MOTO = """
aws() {
  case "$1 $2" in
    "ssm get-parameter") command aws ec2 describe-images --query 'Images[0].ImageId' --output text ;;
    "ssm describe-instance-information") echo Online ;;
    "ssm start-session") ;;
    *) command aws "$@" ;;
  esac
}
"""


class Failed(Exception):
    """A failed check, with the reason."""


def skip(what):
    """Prints that a check is skipped, for a person and for .ci/run."""
    print(f"SKIPPED: {what}", flush=True)
    with open(os.environ.get("SKIPPED_LOG", os.devnull), "a", encoding="utf-8") as log:
        print(f"SKIPPED: {what}", file=log)


def printed(binary, *arguments, **environment):
    """Returns what the program prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run([binary, *arguments], env={**clean, **environment}, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


# --- descriptions of AWS ---------------------------------------------------------------------


def check_template(binary, folder):
    path = folder / "tables.json"
    path.write_text(printed(binary, "print", "cloudformation"))
    done = subprocess.run([BIN / "cfn-lint", "--non-zero-exit-code", "warning", path])
    if done.returncode != 0:
        raise Failed("cfn-lint complains about the template")
    return "the template by cfn-lint"


def check_policies(binary):
    count = 0
    for region, partition in (("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")):
        for role in ("consume", "serve", "notify", "tail", "verify", "init-tables"):
            text = printed(binary, "init-tables", "--print-iam-policy", role, AWS_REGION=region)
            findings = parliament.analyze_policy_string(text).findings
            if findings:
                raise Failed(f"parliament on the policy of {role}: {findings}")
            for statement in json.loads(text)["Statement"]:
                if not statement["Resource"].startswith(f"arn:{partition}:"):
                    raise Failed(f"{statement['Resource']} is not in {partition}")
            count += 1
    return f"{count} policies by parliament"


def service_model():
    return botocore.session.get_session().get_service_model("dynamodb")


def check_codes():
    """Compares the errors of the operations that src/store/rights.rs names with CODES."""
    used = set(re.findall(r'"([A-Z][A-Za-z]+)"', pathlib.Path("src/store/rights.rs").read_text()))
    model = service_model()
    operations = sorted(used & set(model.operation_names))
    errors = {error.name for name in operations for error in model.operation_model(name).error_shapes}
    text = pathlib.Path("src/store/error.rs").read_text()
    table = re.search(r"pub const CODES.*?\n];", text, re.S)[0]
    missing = errors - set(re.findall(r'\(\s*"([A-Za-z]+)",\s*StoreErrorKind::', table))
    if missing or len(operations) < 15:
        raise Failed(f"CODES lacks {sorted(missing)} of {len(operations)} operations")
    return f"{len(errors)} errors of {len(operations)} operations are in CODES"


def unknown_fields(shape, value, path=""):
    """Returns the fields of a request that the service model does not have."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{path}.{name}"
            else:
                yield from unknown_fields(shape.members[name], inner, f"{path}.{name}")
    elif kind == "list" and isinstance(value, list):
        for inner in value:
            yield from unknown_fields(shape.member, inner, path + "[]")
    elif kind == "map" and isinstance(value, dict):
        for inner in value.values():
            yield from unknown_fields(shape.value, inner, path + "{}")


def check_requests(path):
    model, validator = service_model(), botocore.validate.ParamValidator()
    counts, wrong = collections.Counter(), set()
    with open(path) as file:
        for line in file:
            request = json.loads(line)
            operation, body = request["operation"], request["body"]
            shape = model.operation_model(operation).input_shape
            counts[operation] += 1
            report = validator.validate(body, shape)
            if report.has_errors():
                wrong.add(f"{operation}: {report.generate_report()[:200]}")
            wrong.update(f"{operation}: unknown field {field}" for field in unknown_fields(shape, body))
    if wrong or not counts:
        raise Failed(f"requests do not fit the service model: {sorted(wrong) or 'there are none'}")
    return f"{sum(counts.values())} requests of {len(counts)} operations fit the service model"


# --- the guides ------------------------------------------------------------------------------


def blocks(guide, heading=None):
    """Returns the commands of a guide, those after a heading or those before it."""
    text = pathlib.Path(guide).read_text()
    if heading:
        before, after = text.split(f"\n{heading}\n")
        return [commands(before), commands(after)]
    return commands(text)


def commands(text):
    """Returns the blocks that use `aws`, and those that create the files for such a block."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [block for kind, block in found if not kind and re.search(r"\baws |--print-iam-policy \w", block)]


def guide_script():
    before, after = blocks("docs/EC2.md", "## 12. Teardown")
    cloudwatch, its_teardown = blocks("docs/CLOUDWATCH.md", "## Teardown")
    script = [UNKNOWN_TO_MOTO, "printf package >citystream_0.1.0_amd64.deb\n"]
    for block in [*before, *cloudwatch, *its_teardown, *after]:
        script.append(f"echo '--- {block.splitlines()[0][:60]}' | tr -d \"'\" >&2\n".replace("$", ""))
        script.append(block)
    text = "".join(script).replace("BUCKET", "a-bucket-of-yours").replace("YOU@EXAMPLE.COM", "you@example.com")
    return text.replace("Value=HOST", "Value=ip-10-0-0-1"), len(before + after + cloudwatch + its_teardown)


# Prints what a teardown has left behind, one line each.
LEFT = """
aws iam list-roles --query "Roles[?RoleName=='citystream'].RoleName" --output text
aws iam list-instance-profiles --query 'InstanceProfiles[].InstanceProfileName' --output text
aws ec2 describe-security-groups --filters Name=group-name,Values=citystream --query 'SecurityGroups[].GroupId' --output text
aws ec2 describe-vpc-endpoints --query 'VpcEndpoints[?State!=`deleted`].VpcEndpointId' --output text
aws ec2 describe-instances --query 'Reservations[].Instances[?State.Name!=`terminated`][].InstanceId' --output text
aws cloudwatch describe-alarms --query 'MetricAlarms[].AlarmName' --output text
aws logs describe-log-groups --query 'logGroups[].logGroupName' --output text
aws sns list-topics --query 'Topics[].TopicArn' --output text
aws s3api list-buckets --query 'Buckets[].Name' --output text
aws cloudformation list-stacks --stack-status-filter CREATE_COMPLETE --query 'StackSummaries[].StackName' --output text
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_moto(folder):
    port = free_port()
    environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    with open(folder / "moto.log", "wb") as log:
        command = [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url + "/moto-api/").read()
            return process, url
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise Failed((folder / "moto.log").read_text()[-2000:])


def check_guides(binary, folder):
    moto, url = start_moto(folder)
    try:
        environment = {
            "PATH": f"{folder}:{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
        (folder / "citystream").symlink_to(pathlib.Path(binary).resolve())
        script, count = guide_script()

        def run(text):
            return subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, timeout=GUIDE_S_MAX,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        done = run(script)
        if done.returncode != 0:
            raise Failed(f"a block of the guides failed:\n{done.stderr[-3000:]}")
        left = run(LEFT)
        if left.returncode != 0 or left.stdout.split() not in ([], ["None"]):
            raise Failed(f"after the teardown there is left: {left.stdout}{left.stderr}")
        return f"{count} blocks of the guides with aws run against moto, and their teardown leaves nothing"
    finally:
        moto.send_signal(signal.SIGTERM)
        moto.wait()


def main():
    binary = sys.argv[1]
    log = os.environ.get("AWS_REQUEST_LOG")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            print("ok:", check_template(binary, folder), flush=True)
            print("ok:", check_policies(binary), flush=True)
            print("ok:", check_codes(), flush=True)
            if log:
                print("ok:", check_requests(log), flush=True)
            else:
                skip("requests against the service model (AWS_REQUEST_LOG names no log)")
            print("ok:", check_guides(binary, folder), flush=True)
        except Failed as failed:
            print(f"check-aws: {failed}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
