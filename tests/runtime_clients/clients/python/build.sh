#!/usr/bin/env bash
# awslambdaric from PyPI, run by the interpreter that CLIENT_PYTHON names (default /usr/bin/python3) at its host path.
. "$(dirname "$0")/../common.sh"
python=${CLIENT_PYTHON:-/usr/bin/python3}
client python "${1:-}" "$("$python" -c 'import sys; print(sys.executable, sys.version)')"
require zip

build() {
  "$python" -m venv --clear "$work/venv"
  "$work/venv/bin/pip" install -q --disable-pip-version-check --only-binary awslambdaric --target "$work/package" awslambdaric==4.2.2
  rm -rf "$work/package/bin" "$work/venv"
  cp "$here/index.py" "$work/package/"
  printf '#!/bin/sh\nexport PYTHONPATH=$LAMBDA_TASK_ROOT\nexec %s -m awslambdaric "$_HANDLER"\n' "$python" > "$work/package/bootstrap"
  chmod +x "$work/package/bootstrap"
}
finish
