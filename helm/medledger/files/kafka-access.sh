# Adding a rule that is there is no harm, so all of it may run again.
set -euo pipefail
allow() {
  until /opt/kafka/bin/kafka-acls.sh --bootstrap-server "$BOOTSTRAP" --command-config /access/admin.properties --add "$@" >/dev/null; do
    echo "the brokers are not there yet" >&2
    sleep 1
  done
  echo "allowed: $*"
}
allow --allow-principal User:orderer --operation Describe --operation DescribeConfigs --operation Read \
  --resource-pattern-type prefixed --topic {{ .prefix }}
allow --allow-principal User:orderer --operation Create --topic {{ .prefix }}tx --topic {{ .prefix }}control --topic {{ .prefix }}attest
allow --allow-principal User:orderer --operation Write --topic {{ .prefix }}tx --topic {{ .prefix }}control
allow --allow-principal User:peer --allow-principal User:admin --operation Describe --operation DescribeConfigs --operation Read \
  --resource-pattern-type prefixed --topic {{ .prefix }}
allow --allow-principal User:peer --operation Write --topic {{ .prefix }}attest
