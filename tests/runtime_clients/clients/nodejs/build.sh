#!/usr/bin/env bash
# aws-lambda-ric from npm (3.3.0, the line for Node 18 to 22), run by the node found on the host at its path. Compiles its bundled
# curl: about 100 s once. CLIENT_NODE names another interpreter.
. "$(dirname "$0")/../common.sh"
node=${CLIENT_NODE:-$(command -v node || true)}
client nodejs "${1:-}" "$node $("$node" --version 2> /dev/null)"
for program in node npm autoreconf automake libtoolize cmake g++ make zip; do require $program; done

build() {
  mkdir -p "$work/npm"
  cd "$work/npm"
  echo '{"private": true}' > package.json
  npm install --no-audit --no-fund aws-lambda-ric@3.3.0
  local client=node_modules/aws-lambda-ric kept=$work/package/node_modules/aws-lambda-ric
  mkdir -p "$kept"
  cp -r $client/package.json $client/bin $client/dist "$kept/" # all that runs; the rest is sources and build tools
  cp "$here/index.js" "$work/package/"
  cat > "$work/package/bootstrap" << EOF
#!/bin/sh
cd "\$LAMBDA_TASK_ROOT" && exec $(readlink -f "$node") node_modules/aws-lambda-ric/bin/index.mjs "\$_HANDLER"
EOF
  chmod +x "$work/package/bootstrap"
  cd /
  rm -rf "$work/npm"
}
finish
