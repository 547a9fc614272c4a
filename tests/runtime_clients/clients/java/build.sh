#!/usr/bin/env bash
# aws-lambda-java-runtime-interface-client from Maven Central, run by the host's java. JAVA_HOME names another one.
. "$(dirname "$0")/../common.sh"
java=${JAVA_HOME:+$JAVA_HOME/bin/java}
java=${java:-$(command -v java || true)}
client java "${1:-}" "$(readlink -f "$java") $("$java" -version 2>&1 | head -1)"
for program in java javac mvn zip; do require $program; done

build() {
  mkdir -p "$work/classes"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/package/lib"
  javac --release 11 -cp "$work/package/lib/*" -d "$work/package" "$here/Handler.java"
  cat > "$work/package/bootstrap" << EOF
#!/bin/sh
exec $(readlink -f "$java") -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \\
  -cp "\$LAMBDA_TASK_ROOT:\$LAMBDA_TASK_ROOT/lib/*" com.amazonaws.services.lambda.runtime.api.client.AWSLambda "\$_HANDLER"
EOF
  chmod +x "$work/package/bootstrap"
}
finish
