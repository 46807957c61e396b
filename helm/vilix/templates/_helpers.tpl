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
{{- end }}

{{/* Labels that select the pods of one component: (list root component). They never change. */}}
{{- define "vilix.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: vilix
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
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
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Kubernetes does not change the owner of each of a hundred files of 5 GB at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "vilix.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Seconds that running responses have after SIGTERM: the maximum duration, and some seconds to send their end. */}}
{{- define "vilix.drainSeconds" -}}
{{ add .Values.maxStreamSeconds 5 }}
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
