"""A real Mayfly for tests: starts build/mayfly on free ports with a data directory of its own, and stops it again."""
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.environ.get("MAYFLY_PROGRAM", os.path.join(ROOT, "build", "mayfly"))
ROLE = "arn:aws:iam::000000000000:role/test"


class Server:
    """One server. Use as a context manager, or start() and stop()."""

    def __init__(self, *flags, data=None, env=None):
        self.flags = list(flags)
        self.own_data = data is None
        self.data = data or tempfile.mkdtemp(prefix="mayfly-test-")
        self.extra_env = env or {}
        self.process = None
        self.log_path = self.data.rstrip("/") + ".log"

    def start(self, timeout=15):
        info_path = os.path.join(self.data, "server.json")
        if os.path.exists(info_path):
            os.unlink(info_path)
        log = open(self.log_path, "ab")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAYFLY_"))}
        environment.update(self.extra_env)
        started = time.monotonic()
        self.process = subprocess.Popen([PROGRAM, "server", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data", self.data, *self.flags],
                                        stdout=log, stderr=log, env=environment)
        while not os.path.exists(info_path):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self.process.returncode}:\n{self.log()}")
            if time.monotonic() - started > timeout:
                raise RuntimeError(f"the server was not ready within {timeout} s:\n{self.log()}")
            time.sleep(0.005)
        self.start_seconds = time.monotonic() - started
        with open(info_path, encoding="utf-8") as info:
            self.info = json.load(info)
        if "MAYFLY_ACCESS_KEY" in self.extra_env:
            self.credentials = {"access_key": self.extra_env["MAYFLY_ACCESS_KEY"], "secret_key": self.extra_env["MAYFLY_SECRET_KEY"]}
        else:
            with open(os.path.join(self.data, "credentials.json"), encoding="utf-8") as credentials:
                self.credentials = json.load(credentials)
        self.endpoint = self.info["api"]
        self.gateway = self.info["gateway"]
        return self

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-20000:]

    def stop(self, timeout=30):
        """SIGTERM, wait, and the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the server did not end within {timeout} s of SIGTERM:\n{self.log()}") from None
        finally:
            self.process = None
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def remove(self):
        if self.own_data:
            shutil.rmtree(self.data, ignore_errors=True)
            if os.path.exists(self.log_path):
                os.unlink(self.log_path)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.remove()

    @property
    def env(self):
        """Variables that point any AWS tool here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.credentials["access_key"],
            "AWS_SECRET_ACCESS_KEY": self.credentials["secret_key"],
            "AWS_REGION": self.info["region"],
            "AWS_DEFAULT_REGION": self.info["region"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service="lambda", waits=True, **config):
        """`waits`: for the end of each creation and update (see patient)."""
        import boto3
        from botocore.config import Config

        config.setdefault("retries", {"max_attempts": 0})
        config.setdefault("read_timeout", 120)
        made = boto3.client(service, endpoint_url=self.endpoint, region_name=self.info["region"], aws_access_key_id=self.credentials["access_key"],
                            aws_secret_access_key=self.credentials["secret_key"], config=Config(**config))
        return patient(made) if waits else made

    def cli(self, *words, input=None, cwd=None, timeout=120):
        """Runs a mayfly verb against this server."""
        return subprocess.run([PROGRAM, *words, "--data", self.data], input=input, capture_output=True, text=True, cwd=cwd, timeout=timeout,
                              env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAYFLY_"))})


def zip_of(files):
    """{"name": "text" or bytes or (content, mode)} as zip bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            mode = 0o644
            if isinstance(content, tuple):
                content, mode = content
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.external_attr = (0o100000 | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def python_function(client, name, source, handler="app.handler", runtime="python3.11", files=None, **settings):
    """Creates a function from Python source; returns the CreateFunction answer."""
    return client.create_function(FunctionName=name, Runtime=runtime, Role=ROLE, Handler=handler,
                                  Code={"ZipFile": zip_of({"app.py": source, **(files or {})})}, **settings)


def patient(client):
    """Makes a Lambda client wait for the end of each creation and update, as AWS wants it: a second change meanwhile is a conflict."""
    if client.meta.service_model.service_name != "lambda":
        return client

    def wait(parsed, **_):
        if "FunctionArn" in parsed:
            client.get_function_configuration(FunctionName=parsed["FunctionArn"])

    for operation in ("CreateFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration"):
        client.meta.events.register(f"after-call.lambda.{operation}", wait)
    return client


def invoke(client, name, payload=None, **settings):
    """Calls; returns (decoded payload, error or None, decoded log tail, answer)."""
    answer = client.invoke(FunctionName=name, Payload=json.dumps(payload if payload is not None else {}).encode(), LogType="Tail", **settings)
    body = answer["Payload"].read()
    return json.loads(body) if body else None, answer.get("FunctionError"), base64.b64decode(answer.get("LogResult", "")).decode(errors="replace"), answer
