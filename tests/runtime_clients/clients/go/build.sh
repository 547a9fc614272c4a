#!/usr/bin/env bash
# aws-lambda-go, static, as `provided.al2023`.
. "$(dirname "$0")/../common.sh"
client go "${1:-}" "$(go version 2> /dev/null)"
for program in go zip; do require $program; done

build() {
  cd "$here"
  CGO_ENABLED=0 go build -tags lambda.norpc -trimpath -ldflags '-s -w' -o "$work/package/bootstrap" .
}
finish
