{{/* The network as `medledger network spec` explains it. */}}
{{- define "medledger.specification" -}}
{{- $channel := .Values.channel -}}
channel = {{ $channel.name | quote }}
partitions = {{ int $channel.partitions }}
endorsement_policy = {{ $channel.endorsementPolicy | quote }}
admin_policy = {{ $channel.adminPolicy | quote }}
{{- $orderers := fromJsonArray (include "medledger.orderers" .) }}
{{- $owners := list }}
{{- range $orderers }}
{{- $owners = append $owners (index $.Values.organisations .slug).mspId }}
{{- end }}
orderers = {{ toJson $owners }}

[kafka]
external = {{ join "," (fromJsonArray (include "medledger.kafka.brokers" .)) | quote }}
{{- if eq .Values.kafka.mode "bundled" }}
{{- $names := list (include "medledger.kafka.domain" .) }}
{{- range $i := until (int .Values.kafka.bundled.replicas) }}
{{- $names = append $names (printf "%s-kafka-%d.%s" (include "medledger.fullname" $) $i (include "medledger.kafka.domain" $)) }}
{{- end }}
certify = {{ toJson $names }}
{{- end }}
{{ range $slug, $organisation := .Values.organisations }}
[[organisations]]
msp_id = {{ $organisation.mspId | quote }}
peers = {{ int $organisation.peers.replicas }}
# One identity for all of an organisation's workers: they come and go.
workers = 1
clients = [
{{- range $name, $attributes := $organisation.clients }}
  { name = {{ $name | quote }}, attributes = {{ include "medledger.toml" $attributes }} },
{{- end }}
]
{{ end }}
{{- range $i, $orderer := $orderers }}
{{- $host := include "medledger.host" (list $ $orderer.slug "orderer" (int $orderer.ordinal)) }}
[addresses."orderer{{ $i }}"]
listen = "{{ $host }}:7050"
health = "{{ $host }}:9050"
{{ end }}
{{- range $slug, $organisation := .Values.organisations }}
{{- range $i := until (int $organisation.peers.replicas) }}
{{- $host := include "medledger.host" (list $ $slug "peer" $i) }}
[addresses."peer{{ $i }}.{{ $organisation.mspId }}"]
listen = "{{ $host }}:7051"
health = "{{ $host }}:9051"
names = [{{ include "medledger.domain" (list $ $slug "gateway") | quote }}, {{ include "medledger.workload" (list $ $slug "gateway") | quote }}]
{{ end }}
{{- $host := include "medledger.domain" (list $ $slug "worker") }}
[addresses."worker0.{{ $organisation.mspId }}"]
listen = "{{ $host }}:7071"
health = "{{ $host }}:9071"
{{ end }}
{{- range .Values.channel.contracts }}
[[contracts]]
name = {{ .name | quote }}
wasm = {{ .wasm | quote }}
policy = {{ .policy | default "" | quote }}
{{- with .functions }}
functions = {{ include "medledger.toml" . }}
{{- end }}
{{ end }}
{{- end }}

{{/* MSP id of the first organisation that is deployed. */}}
{{- define "medledger.tools.organisation" -}}
{{- $found := "" -}}
{{- range $slug, $organisation := .Values.organisations -}}
{{- if and $organisation.deploy (not $found) }}{{ $found = $organisation.mspId }}{{ end -}}
{{- end -}}
{{ $found }}
{{- end }}
