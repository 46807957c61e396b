{{/* Names, labels, images, and fields that several resources have in common. */}}

{{- define "vilix.fullname" -}}
{{- $name := default .Release.Name .Values.fullnameOverride -}}
{{- if gt (len $name) 30 -}}
{{ fail (printf "the name %q has more than 30 characters, which is too long for a prefix; %s" $name
  "set fullnameOverride to a shorter one") }}
{{- end -}}
{{ $name }}
{{- end }}

{{/* Labels of all resources. */}}
{{- define "vilix.labels" -}}
app.kubernetes.io/name: vilix
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of one component: (list root component). They never change. */}}
{{- define "vilix.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: vilix
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels and annotations of a component's pods: (list root component settings labels annotations). What selects pods
takes precedence. */}}
{{- define "vilix.podMetadata" -}}
{{- $root := index . 0 -}}{{- $own := index . 2 -}}
{{- $labels := include "vilix.selector" . | fromYaml -}}
{{- $labels = merge $labels (deepCopy (index . 3)) (deepCopy $own.podLabels) (deepCopy $root.Values.commonLabels) -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with merge (deepCopy (index . 4)) (deepCopy $own.podAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image's reference: (list root "gateway"). */}}
{{- define "vilix.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- $repository := $image.repository -}}
{{- with $root.Values.images.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^[^/]+[.:][^/]*/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{- define "vilix.serviceAccountName" -}}
{{ default (ternary (include "vilix.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* Fields of every pod, by the restricted Pod Security Standard. */}}
{{- define "vilix.podBasics" -}}
serviceAccountName: {{ include "vilix.serviceAccountName" . }}
{{ include "vilix.podIdentity" . }}
{{- end }}

{{- define "vilix.podIdentity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- /* JSON is valid YAML; Helm's toYaml would write large numbers as 1e+06. */}}
  {{- range $name, $value := .Values.podSecurityContext }}
  {{ $name }}: {{ $value | toJson }}
  {{- end }}
{{- end }}

{{- define "vilix.containerSecurity" -}}
{{ toYaml .Values.containerSecurityContext }}
{{- end }}

{{/* Where and how the pods of a component run: (list root component settings affinity). `affinity` is added. */}}
{{- define "vilix.scheduling" -}}
{{- $root := index . 0 -}}{{- $own := index . 2 -}}
{{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with get $own $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "dnsConfig" "hostAliases" "resourceClaims" }}
{{- with get $own $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with index . 3 }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- include "vilix.tolerations" (list $root $own.tolerations) | trim | nindent 2 }}
topologySpreadConstraints:
  {{- if $own.topologySpreadConstraints }}
  {{- toYaml $own.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- include "vilix.spread" . | trim | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The given tolerations, and for how long a pod stays on a node that is lost: (list root tolerations). */}}
{{- define "vilix.tolerations" -}}
{{- $root := index . 0 -}}{{- $given := index . 1 -}}
{{- with $given }}
{{ toYaml . }}
{{- end }}
{{- range $key := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
- key: {{ $key }}
  operator: Exists
  effect: NoExecute
  tolerationSeconds: {{ int $root.Values.nodeLossSeconds }}
{{- end }}
{{- end }}

{{/* Seconds that running responses have after SIGTERM: the maximum duration, and some seconds to send their end. */}}
{{- define "vilix.drainSeconds" -}}
{{ add .Values.maxStreamSeconds 5 }}
{{- end }}

{{/* Seconds from the first byte of a request to the last one of its response, with two minutes for its upload. */}}
{{- define "vilix.longestRequestSeconds" -}}
{{- $queue := 0 -}}
{{- range .Values.gateway.tiers -}}
{{- if dig "queue" false . }}{{ $queue = max $queue (int (dig "queue_seconds" 30 .)) }}{{ end -}}
{{- end -}}
{{ add .Values.maxStreamSeconds $queue 120 }}
{{- end }}

{{/* Seconds after which Kubernetes kills a pod: preStop, draining, and the end of the sidecar. */}}
{{- define "vilix.gracePeriodSeconds" -}}
{{ add .Values.preStopSeconds (include "vilix.drainSeconds" .) 25 }}
{{- end }}

{{- define "vilix.preStop" -}}
preStop: {sleep: {seconds: {{ .Values.preStopSeconds }}}}
{{- end }}

{{/* Spread pods over zones and nodes if there are several: (list root component). */}}
{{- define "vilix.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "vilix.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* An environment variable from a `{name, key}` value: (list VARIABLE secret). */}}
{{- define "vilix.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ (index . 1).name }}, key: {{ (index . 1).key }}}}
{{- end }}

{{/* The environment variables that switch traces on in a gateway or worker, or nothing. */}}
{{- define "vilix.tracesEnv" -}}
{{- $traces := .Values.traces -}}
{{- if $traces.endpoint -}}
{{- if and .Values.networkPolicy.enabled (not $traces.egress) -}}
{{- fail "traces.egress: allow the pods to reach traces.endpoint, or set networkPolicy.enabled to false" -}}
{{- end -}}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $traces.endpoint | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $traces.protocol }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ $traces.ratio | quote }}}
- {name: VILIX_TRACES_SLOW_SECONDS, value: {{ $traces.slowSeconds | quote }}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ .Release.Namespace }}"
{{- if $traces.headersSecret.name }}
{{ include "vilix.secretEnv" (list "OTEL_EXPORTER_OTLP_HEADERS" $traces.headersSecret) }}
{{- end }}
{{- end -}}
{{- end }}

{{/* The environment variables with the address of Redis. */}}
{{- define "vilix.redisEnv" -}}
{{- if .Values.redis.urlSecret.name -}}
{{ include "vilix.secretEnv" (list "VILIX_REDIS_URL" .Values.redis.urlSecret) }}
{{- else if .Values.redis.url -}}
- {name: VILIX_REDIS_URL, value: {{ .Values.redis.url | quote }}}
{{- else if .Values.valkey.enabled -}}
{{ include "vilix.secretEnv" (list "VALKEY_PASSWORD" (include "vilix.valkeyPassword" . | fromYaml)) }}
- {name: VILIX_REDIS_URL, value: "redis://:$(VALKEY_PASSWORD)@{{ include "vilix.fullname" . }}-valkey:6379/0"}
{{- else -}}
{{- fail "no Redis is configured: set redis.url or redis.urlSecret, or set valkey.enabled to true" -}}
{{- end -}}
{{- end }}

{{/* Whether this release runs the Valkey of stored responses: a true value, or nothing. */}}
{{- define "vilix.ownResponses" -}}
{{- $responses := .Values.responses -}}
{{- $isOwn := and (not $responses.url) (not $responses.urlSecret.name) -}}
{{- if and $responses.store $responses.valkey.enabled $isOwn }}true{{ end -}}
{{- end }}

{{/* The Secret with the password of that Valkey, as YAML {name, key}: a given or the created one. */}}
{{- define "vilix.responsesPassword" -}}
{{- if .Values.responses.valkey.passwordSecret.name -}}
{{ toYaml .Values.responses.valkey.passwordSecret }}
{{- else -}}
{name: {{ include "vilix.fullname" . }}-responses, key: password}
{{- end -}}
{{- end }}

{{/* The gateways' variables about stored responses. */}}
{{- define "vilix.responsesEnv" -}}
{{- $responses := .Values.responses -}}
{{- if not $responses.store -}}
- {name: VILIX_STORE_RESPONSES, value: "false"}
{{- else -}}
{{- if $responses.urlSecret.name -}}
{{ include "vilix.secretEnv" (list "VILIX_STATE_REDIS_URL" $responses.urlSecret) }}
{{- else if $responses.url -}}
- {name: VILIX_STATE_REDIS_URL, value: {{ $responses.url | quote }}}
{{- else if $responses.valkey.enabled -}}
{{ include "vilix.secretEnv" (list "RESPONSES_PASSWORD" (include "vilix.responsesPassword" . | fromYaml)) }}
- name: VILIX_STATE_REDIS_URL
  value: "redis://:$(RESPONSES_PASSWORD)@{{ include "vilix.fullname" . }}-responses:6379/0"
{{- end }}
- {name: VILIX_STORE_SECONDS, value: {{ $responses.seconds | int64 | quote }}}
- {name: VILIX_STORE_BYTES, value: {{ $responses.maxBytes | int64 | quote }}}
- {name: VILIX_STORE_KEY_BYTES, value: {{ $responses.keyMaxBytes | int64 | quote }}}
{{- end -}}
{{- end }}

{{/* Valkey's maxmemory in bytes: its share of the container's memory limit, or nothing without a limit. */}}
{{- define "vilix.valkeyMaxmemory" -}}
{{- $limit := dig "limits" "memory" "" .Values.valkey.resources -}}
{{- if not (kindIs "string" $limit) }}{{ $limit = int64 $limit | toString }}{{ end -}}
{{- if $limit -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $number := regexFind "^[0-9.]+" $limit -}}
{{- $bytes := mulf (float64 $number) (get $units (trimPrefix $number $limit)) -}}
{{- divf (mulf $bytes .Values.valkey.maxmemoryPercent) 100 | floor | int64 -}}
{{- end -}}
{{- end }}

{{/* Whether this release runs its own Valkey: a true value, or nothing. */}}
{{- define "vilix.ownValkey" -}}
{{- if and .Values.valkey.enabled (not .Values.redis.url) (not .Values.redis.urlSecret.name) }}true{{ end -}}
{{- end }}

{{/* The Secret with the password of this release's own Valkey, as YAML {name, key}: a given or the created one. */}}
{{- define "vilix.valkeyPassword" -}}
{{- if .Values.valkey.passwordSecret.name -}}
{{ toYaml .Values.valkey.passwordSecret }}
{{- else -}}
{name: {{ include "vilix.fullname" . }}-valkey, key: password}
{{- end -}}
{{- end }}

{{/* The Secret with the keys of what clients keep, as YAML {name, key}: a given or the created one. */}}
{{- define "vilix.tokenKeys" -}}
{{- if .Values.gateway.tokenKeysSecret.name -}}
{{ toYaml .Values.gateway.tokenKeysSecret }}
{{- else -}}
{name: {{ include "vilix.fullname" . }}-token-keys, key: keys}
{{- end -}}
{{- end }}

{{/* Peers in namespaces, by name. */}}
{{- define "vilix.namespacePeers" -}}
{{- range . }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- end }}
{{- end }}

{{- define "vilix.dnsEgress" -}}
# To any address, because the DNS cache of a node is not a pod.
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* The name in all workers' certificates: gateways connect to addresses of workers, and expect this name. */}}
{{- define "vilix.workerName" -}}
{{ include "vilix.fullname" . }}-worker.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "vilix.tlsVolume" -}}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}

{{- define "vilix.certificate" -}}
duration: {{ .Values.tls.duration }}
renewBefore: {{ .Values.tls.renewBefore }}
privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
issuerRef:
  name: {{ required "tls.issuerRef.name: the issuer of the certificates is missing" .Values.tls.issuerRef.name }}
  kind: {{ .Values.tls.issuerRef.kind }}
  group: {{ .Values.tls.issuerRef.group }}
{{- end }}
