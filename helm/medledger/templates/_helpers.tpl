{{/* With the longest organisation and kind it must leave room for what a StatefulSet's pods are labelled with. */}}
{{- define "medledger.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 23 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 23 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 23 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{- define "medledger.secrets" -}}
{{- default (include "medledger.fullname" .) .Values.certificates.secretPrefix }}
{{- end }}

{{/* Labels that select; (list root component organisation), the organisation may be empty. */}}
{{- define "medledger.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: medledger
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- with index . 2 }}
medledger.io/organisation: {{ . }}
{{- end }}
{{- end }}

{{- define "medledger.labels" -}}
{{- $root := index . 0 -}}
{{ include "medledger.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* (list root role) */}}
{{- define "medledger.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $digest := index $image.digests (index . 1) -}}
{{ $image.registry }}/{{ index . 1 }}{{ if $digest }}@{{ $digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "medledger.kafka.image" -}}
{{- $image := .Values.kafka.bundled.image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{/* (list root slug kind): the name of an organisation's workload and of its service */}}
{{- define "medledger.workload" -}}
{{- $root := index . 0 -}}
{{- $organisation := index $root.Values.organisations (index . 1) -}}
{{- $elsewhere := default dict $organisation.elsewhere -}}
{{ default (include "medledger.fullname" $root) $elsewhere.fullname }}-{{ index . 1 }}-{{ index . 2 }}
{{- end }}

{{/* (list root slug kind): the service's whole DNS name */}}
{{- define "medledger.domain" -}}
{{- $root := index . 0 -}}
{{- $organisation := index $root.Values.organisations (index . 1) -}}
{{- $elsewhere := default dict $organisation.elsewhere -}}
{{ include "medledger.workload" . }}.{{ default $root.Release.Namespace $elsewhere.namespace }}.svc.{{ $root.Values.clusterDomain }}
{{- end }}

{{/* (list root slug kind ordinal): host of one pod */}}
{{- define "medledger.host" -}}
{{- include "medledger.workload" . }}-{{ index . 3 }}.{{ include "medledger.domain" . }}
{{- end }}

{{- define "medledger.kafka.domain" -}}
{{ include "medledger.fullname" . }}-kafka.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{/* JSON list of host:port */}}
{{- define "medledger.kafka.brokers" -}}
{{- if eq .Values.kafka.mode "bundled" -}}
{{- $brokers := list -}}
{{- range $i := until (int .Values.kafka.bundled.replicas) -}}
{{- $brokers = append $brokers (printf "%s-kafka-%d.%s:9092" (include "medledger.fullname" $) $i (include "medledger.kafka.domain" $)) -}}
{{- end -}}
{{ toJson $brokers }}
{{- else -}}
{{ toJson .Values.kafka.brokers }}
{{- end -}}
{{- end }}

{{/* `[kafka]` of a role's settings, JSON: (list root role identity), the directory of the process's own identity */}}
{{- define "medledger.kafka.settings" -}}
{{- $root := index . 0 -}}
{{- $kafka := $root.Values.kafka -}}
{{- $user := index $kafka.users (index . 1) -}}
{{- $properties := dict -}}
{{- if or (eq $kafka.mode "bundled") $kafka.ca.secret -}}
{{- $_ := set $properties "security.protocol" "ssl" -}}
{{- $_ := set $properties "ssl.ca.location" "/kafka/ca.pem" -}}
{{- $own := or (eq $kafka.mode "bundled") (not $user.secret) -}}
{{- if or $own $user.certificate -}}
{{- $directory := ternary (index . 2) "/kafka" $own -}}
{{- $_ := set $properties "ssl.certificate.location" (printf "%s/cert.pem" $directory) -}}
{{- $_ := set $properties "ssl.key.location" (printf "%s/key.pem" $directory) -}}
{{- end -}}
{{- end -}}
{{- $settings := dict "brokers" (fromJsonArray (include "medledger.kafka.brokers" $root)) "properties" (merge (deepCopy $kafka.properties) $properties) -}}
{{- if and (ne $kafka.mode "bundled") $user.secret $user.properties -}}
{{- $_ := set $settings "properties_file" "/kafka/client.properties" -}}
{{- end -}}
{{ toJson $settings }}
{{- end }}

{{/* Sources of the volume /kafka, for a role: (list root role) */}}
{{- define "medledger.kafka.sources" -}}
{{- $root := index . 0 -}}
{{- $kafka := $root.Values.kafka -}}
{{- $user := index $kafka.users (index . 1) -}}
{{- if eq $kafka.mode "bundled" }}
- secret:
    name: {{ include "medledger.secrets" $root }}-kafka-trust
    items: [{key: ca.pem, path: ca.pem}]
{{- else }}
{{- with $kafka.ca.secret }}
- secret:
    name: {{ . }}
    items: [{key: {{ $kafka.ca.key | quote }}, path: ca.pem}]
{{- end }}
{{- with $user.secret }}
- secret:
    name: {{ . }}
    items:
      {{- with $user.certificate }}
      - {key: {{ . | quote }}, path: cert.pem}
      - {key: {{ $user.key | quote }}, path: key.pem}
      {{- end }}
      {{- with $user.properties }}
      - {key: {{ . | quote }}, path: client.properties}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value in TOML, on one line. Numbers of YAML are floats by now; ours are whole. */}}
{{- define "medledger.toml" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- if not $first }},{{ end }} {{ $key | quote }} = {{ include "medledger.toml" $value }}
{{- $first = false -}}
{{- end -}}
{{- end }} }
{{- else if kindIs "slice" . -}}
[{{ range $i, $value := . }}{{ if $i }}, {{ end }}{{ include "medledger.toml" $value }}{{ end }}]
{{- else if kindIs "string" . -}}{{ toJson . }}
{{- else if kindIs "bool" . -}}{{ . }}
{{- else if ne (float64 (int64 .)) (float64 .) -}}{{ fail (printf "settings: %v is no whole number, and no setting is a fraction" .) }}
{{- else -}}{{ int64 . }}
{{- end -}}
{{- end }}

{{/* A settings file: one line for each name. It stands in a ConfigMap, and its Kafka's properties in the tools' environment. */}}
{{- define "medledger.settings" -}}
{{- range $name, $value := dig "kafka" "properties" dict . }}
{{- if regexMatch "(?i)password|passphrase|secret|jaas|oauthbearer\\.config|key\\.pem" $name }}
{{- fail (printf "kafka.properties.%s: would stand in a ConfigMap; put it into a Secret's file that kafka.users.<role>.properties names" $name) }}
{{- else if contains "\n" (toString $value) }}
{{- fail (printf "kafka.properties.%s: has several lines; name a file, as with ssl.ca.location" $name) }}
{{- end }}
{{- end }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "medledger.toml" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Every orderer of the network, JSON: slug of its organisation, ordinal of its pod. Round by round, so that one more of
one organisation renames none of another's. */}}
{{- define "medledger.orderers" -}}
{{- $most := 0 -}}
{{- range .Values.organisations }}{{ $most = max $most (int (.orderers).replicas) }}{{ end -}}
{{- $orderers := list -}}
{{- range $round := until (int $most) -}}
{{- range $slug, $organisation := $.Values.organisations -}}
{{- if lt $round (int ($organisation.orderers).replicas) }}{{ $orderers = append $orderers (dict "slug" $slug "ordinal" $round) }}{{ end -}}
{{- end -}}
{{- end -}}
{{ toJson $orderers }}
{{- end }}

{{/* Seconds that every other orderer serves on for longer. */}}
{{- define "medledger.orderer.stagger" -}}12{{- end }}

{{/* How long an orderer that was told to end serves on, in ms: (list root slug ordinal). An upgrade ends all of them at
once; every other one stays until its neighbour is back. */}}
{{- define "medledger.orderer.linger" -}}
{{- $root := index . 0 -}}
{{- $slug := index . 1 -}}
{{- $ordinal := index . 2 -}}
{{- $more := mul 1000 (int (include "medledger.orderer.stagger" $root)) -}}
{{- range $place, $orderer := fromJsonArray (include "medledger.orderers" $root) -}}
{{- if and (eq $orderer.slug $slug) (eq (int $orderer.ordinal) $ordinal) -}}
{{ add (int $root.Values.lingerOnEndMs) (mul (mod $place 2) $more) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Addresses of all orderers, JSON. */}}
{{- define "medledger.ordererAddresses" -}}
{{- $addresses := list -}}
{{- range $slug, $organisation := .Values.organisations -}}
{{- range $i := until (int ($organisation.orderers).replicas) -}}
{{- $addresses = append $addresses (printf "%s:7050" (include "medledger.host" (list $ $slug "orderer" $i))) -}}
{{- end -}}
{{- end -}}
{{ toJson $addresses }}
{{- end }}

{{/* Files of an identity in a Secret whose keys are <name>.cert.pem: (list name directory) */}}
{{- define "medledger.identity.items" -}}
{{- $name := index . 0 -}}
{{- $directory := index . 1 -}}
- {key: {{ $name }}.cert.pem, path: {{ $directory }}/cert.pem}
- {key: {{ $name }}.key.pem, path: {{ $directory }}/key.pem}
{{- end }}

{{/* Sources of the volume with the identities of an organisation's processes of one kind:
(list root slug kind count) */}}
{{- define "medledger.identity.sources" -}}
{{- $root := index . 0 -}}
{{- $slug := index . 1 -}}
{{- $kind := index . 2 -}}
{{- if eq $root.Values.certificates.mode "cert-manager" }}
{{- range $i := until (int (index . 3)) }}
- secret:
    name: {{ include "medledger.workload" (list $root $slug $kind) }}-{{ $i }}-tls
    items:
      - {key: tls.crt, path: {{ $kind }}{{ $i }}/cert.pem}
      - {key: tls.key, path: {{ $kind }}{{ $i }}/key.pem}
{{- end }}
{{- else }}
- secret:
    name: {{ include "medledger.secrets" $root }}-{{ $slug }}-{{ $kind }}
    items:
      {{- range $i := until (int (index . 3)) }}
      {{- include "medledger.identity.items" (list (printf "%s%d" $kind $i) (printf "%s%d" $kind $i)) | nindent 6 }}
      {{- end }}
{{- end }}
{{- end }}

{{- define "medledger.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "medledger.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What all pods have: (list root component organisation user) */}}
{{- define "medledger.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "medledger.podSecurity" (index . 3) | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := default list $root.Values.tolerations }}
{{- if eq (index . 1) "worker" }}
{{- /* Without state: another node takes its place long before the five minutes that others are given. */}}
{{- range list "not-ready" "unreachable" }}
{{- $tolerations = append $tolerations (dict "key" (printf "node.kubernetes.io/%s" .) "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 20) }}
{{- end }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ add (int $root.Values.terminationGracePeriodSeconds) (ternary (include "medledger.orderer.stagger" $root | int) 0 (eq (index . 1) "orderer")) }}
# Our names are whole; the first look-up is the right one.
dnsConfig: {options: [{name: ndots, value: "2"}]}
{{- $component := index . 1 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $root.Values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ ternary $root.Values.topologySpread.whenUnsatisfiable "ScheduleAnyway" (has $component (list "kafka" "orderer")) }}
    # A node that is drained or dead is nobody's place.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- /* Of all organisations together: any two orderers do the same work, and no node has every worker. */}}
        {{- include "medledger.selector" (list $root $component "") | nindent 8 }}
{{- if has $component (list "worker" "peer") }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      # An organisation's own apart from each other.
      - weight: 100
        podAffinityTerm:
          topologyKey: {{ $root.Values.topologySpread.topologyKey }}
          labelSelector:
            matchLabels:
              {{- include "medledger.selector" (list $root $component (index . 2)) | nindent 14 }}
{{- end }}
{{- end }}

{{/* Kafka away, peers away, workers away: nothing of it restarts a process. */}}
{{- define "medledger.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{- define "medledger.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: RUST_LOG
  value: {{ .Values.logFilter | quote }}
{{- end }}

{{/* Changes of settings restart pods; of keys, processes take note themselves. */}}
{{- define "medledger.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "medledger.selector" (list $root (index . 1) (index . 2)) | nindent 2 }}
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  medledger.io/settings: {{ index . 3 | sha256sum | trunc 16 | quote }}
  {{- with $root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
