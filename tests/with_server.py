"""with_server.py COMMAND...: runs COMMAND against a server of its own, with the AWS variables set; ends with its status."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mayfly_server import Server  # noqa: E402

with Server() as server:
    status = subprocess.run(sys.argv[1:], env={**os.environ, **server.env}, check=False).returncode
sys.exit(status)
