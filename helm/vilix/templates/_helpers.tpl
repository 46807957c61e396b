{{/* Names, labels, images and what several resources say alike. */}}

{{- define "vilix.fullname" -}}
{{- $name := default .Release.Name .Values.fullnameOverride -}}
{{- if gt (len $name) 30 -}}{{ fail (printf "the name %q is too long for what is made of it; set fullnameOverride to at most 30 characters" $name) }}{{- end -}}
{{ $name }}
{{- end }}

{{/* Labels of everything. */}}
{{- define "vilix.labels" -}}
app.kubernetes.io/name: vilix
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that find the pods of one component: (list root component). They never change. */}}
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
{{- if $image.digest -}}{{ $repository }}@{{ $image.digest }}{{- else -}}{{ $repository }}:{{ default $root.Chart.AppVersion $image.tag }}{{- end -}}
{{- end }}

{{- define "vilix.serviceAccountName" -}}
{{ default (ternary (include "vilix.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* What every pod says, of the restricted Pod Security Standard. */}}
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
  # Volumes with a hundred files of 5 GB are not walked at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "vilix.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Seconds that running answers have after SIGTERM: the longest one, and a little for its last words. */}}
{{- define "vilix.drainSeconds" -}}
{{ add .Values.maxStreamSeconds 5 }}
{{- end }}

{{/* Kubernetes kills after it: preStop, draining, and the sidecar's end. */}}
{{- define "vilix.gracePeriodSeconds" -}}
{{ add .Values.preStopSeconds (include "vilix.drainSeconds" .) 25 }}
{{- end }}

{{- define "vilix.preStop" -}}
preStop: {sleep: {seconds: {{ .Values.preStopSeconds }}}}
{{- end }}

{{/* Spread over zones and nodes, where there are several: (list root component). */}}
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

{{/* The variables that say where Redis is. */}}
{{- define "vilix.redisEnv" -}}
{{- if .Values.redis.urlSecret.name -}}
{{ include "vilix.secretEnv" (list "VILIX_REDIS_URL" .Values.redis.urlSecret) }}
{{- else if .Values.redis.url -}}
- {name: VILIX_REDIS_URL, value: {{ .Values.redis.url | quote }}}
{{- else if .Values.valkey.enabled -}}
{{- if .Values.valkey.passwordSecret.name -}}
{{ include "vilix.secretEnv" (list "VALKEY_PASSWORD" .Values.valkey.passwordSecret) }}
- {name: VILIX_REDIS_URL, value: "redis://:$(VALKEY_PASSWORD)@{{ include "vilix.fullname" . }}-valkey:6379/0"}
{{- else -}}
- {name: VILIX_REDIS_URL, value: "redis://{{ include "vilix.fullname" . }}-valkey:6379/0"}
{{- end -}}
{{- else -}}
{{- fail "there is no Redis: set redis.url or redis.urlSecret, or valkey.enabled to true" -}}
{{- end -}}
{{- end }}

{{/* Whether this release runs its own Valkey: a true value or nothing. */}}
{{- define "vilix.ownValkey" -}}
{{- if and .Values.valkey.enabled (not .Values.redis.url) (not .Values.redis.urlSecret.name) }}true{{ end -}}
{{- end }}

{{/* Three quarters of a memory quantity, in bytes: the rest is for what Valkey does not count, such as its fork while it rewrites. */}}
{{- define "vilix.valkeyMaxMemory" -}}
{{- $text := ternary (toString .) (toString (int64 .)) (kindIs "string" .) -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "valkey.resources.limits.memory is %q; give bytes, or a number with k, M, G, T, Ki, Mi, Gi or Ti" $text) -}}
{{- end -}}
{{- int64 (mulf 0.75 (float64 $number) (get $units $unit)) -}}
{{- end }}

{{/* Peers in namespaces, by name. */}}
{{- define "vilix.namespacePeers" -}}
{{- range . }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- end }}
{{- end }}

{{- define "vilix.dnsEgress" -}}
# Anywhere: a node's own DNS cache is no pod.
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* The name that all workers' certificates carry: gateways find workers by address, and expect this name. */}}
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
issuerRef: {name: {{ required "tls.issuerRef.name: the issuer of the certificates is missing" .Values.tls.issuerRef.name }}, kind: {{ .Values.tls.issuerRef.kind }}, group: {{ .Values.tls.issuerRef.group }}}
{{- end }}
