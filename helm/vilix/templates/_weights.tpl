{{/* The weights of a pool: where they are, and what downloads them.

A revision has a directory of its own in the volume, so that nothing changes under a pod that runs. A Job downloads it,
so that pods with GPUs need no connection to the internet. Each pod of a pool with ephemeral volumes downloads for
itself. */}}

{{/* Whether a claim exists that several pods could mount: a true value, or nothing. */}}
{{- define "vilix.hasClaim" -}}
{{- $volume := .weights.volume -}}
{{- if or (eq .weights.source "volume") (and (eq .weights.source "huggingface")
  (or $volume.existingClaim (not $volume.ephemeral))) }}true{{ end -}}
{{- end }}

{{/* Whether the claim can be mounted only on one node. */}}
{{- define "vilix.oneNodeClaim" -}}
{{- $modes := .weights.volume.accessModes -}}
{{- if and (include "vilix.hasClaim" .) (not (has "ReadWriteMany" $modes)) (not (has "ReadOnlyMany" $modes)) -}}
true
{{- end -}}
{{- end }}

{{/* Whether the claim is for one pod at a time. */}}
{{- define "vilix.exclusiveClaim" -}}
{{- if and (include "vilix.oneNodeClaim" .) (not .weights.volume.oneNode) }}true{{ end -}}
{{- end }}

{{- define "vilix.claimLabel" -}}
{{ trunc 63 .claim | trimSuffix "-" | trimSuffix "." }}
{{- end }}

{{/* Whether a Job downloads the weights. */}}
{{- define "vilix.hasJob" -}}
{{- if and (eq .weights.source "huggingface") (include "vilix.hasClaim" .) }}true{{ end -}}
{{- end }}

{{/* The name of the Job that downloads a revision: (list root pool revision). It says what the Job does, because the
template of a Job cannot be changed. */}}
{{- define "vilix.downloadJob" -}}
{{- $pool := index . 1 -}}
{{ trunc 46 $pool.name | trimSuffix "-" }}-weights-{{
  print $pool.name (include "vilix.downloadPod" .) | sha256sum | trunc 8 }}
{{- end }}

{{/* The directory of a revision inside the volume: (list pool revision). */}}
{{- define "vilix.weightsDirectory" -}}
{{- $pool := index . 0 -}}
{{ $pool.id }}/{{ replace "/" "--" $pool.weights.repo }}@{{ replace "/" "--" (index . 1) }}
{{- end }}

{{/* The affinity of pods that share a claim, as JSON: (list pool affinity). Pods of a claim that one node can mount
must be on the same node; the first of them may be anywhere. */}}
{{- define "vilix.claimAffinity" -}}
{{- $pool := index . 0 -}}{{- $affinity := deepCopy (index . 1) -}}
{{- if include "vilix.oneNodeClaim" $pool -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector"
  (dict "matchLabels" (dict "vilix/claim" (include "vilix.claimLabel" $pool))) -}}
{{- $own := default dict $affinity.podAffinity -}}
{{- $required := append (default list $own.requiredDuringSchedulingIgnoredDuringExecution) $term -}}
{{- $_ := set $own "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "podAffinity" $own -}}
{{- end -}}
{{ toJson $affinity }}
{{- end }}

{{/* The mount of the weights, which only their download may write. */}}
{{- define "vilix.weightsMount" -}}
{{- $weights := .weights -}}
{{- if ne $weights.source "package" }}
- name: weights
  mountPath: "/weights/{{ .id }}"
  {{- if eq $weights.source "huggingface" }}
  subPath: {{ include "vilix.weightsDirectory" (list . $weights.revision) | quote }}
  {{- else if eq $weights.source "volume" }}
  subPath: {{ default .id $weights.path | quote }}
  {{- else if $weights.path }}
  subPath: {{ $weights.path | quote }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "vilix.weightsVolume" -}}
{{- $weights := .weights -}}
{{- if eq $weights.source "image" }}
- name: weights
  image: {reference: {{ $weights.image | quote }}, pullPolicy: IfNotPresent}
{{- else if include "vilix.hasClaim" . }}
- name: weights
  persistentVolumeClaim: {claimName: {{ .claim }}}
{{- else if eq $weights.source "huggingface" }}
- name: weights
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $weights.volume.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $weights.volume.size }}}}
{{- end }}
{{- end }}

{{/* The container that downloads one revision: (list root pool revision). It continues after an interruption. */}}
{{- define "vilix.downloadContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}{{- $weights := $pool.weights -}}
- name: download
  image: {{ include "vilix.image" (list $root "worker") }}
  imagePullPolicy: {{ $root.Values.images.worker.pullPolicy }}
  command: [python, -m, services.inference.weights.weights_download]
  env:
    - {name: VILIX_REPO, value: {{ $weights.repo | quote }}}
    - {name: VILIX_REVISION, value: {{ index . 2 | quote }}}
    - {name: VILIX_ENDPOINT, value: {{ $weights.endpoint | quote }}}
    - {name: VILIX_DOWNLOADS, value: {{ $weights.downloads | quote }}}
    - name: VILIX_DIRECTORY
      value: "/weights/{{ include "vilix.weightsDirectory" (list $pool (index . 2)) }}"
    # A revision that is downloaded ahead removes nothing.
    - {name: VILIX_KEEP, value: {{ ternary $weights.keep 0 (eq (index . 2) $weights.revision) | quote }}}
    - {name: HOME, value: /tmp}
    {{- if $weights.tokenSecret.name }}
    {{- include "vilix.secretEnv" (list "VILIX_TOKEN" $weights.tokenSecret) | nindent 4 }}
    {{- end }}
    {{- if $weights.caConfigMap.name }}
    - {name: SSL_CERT_FILE, value: /etc/vilix/ca/ca.crt}
    {{- end }}
    {{- with $weights.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $weights.job.resources | nindent 4 }}
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /weights}
    - {name: tmp, mountPath: /tmp}
    {{- if $weights.caConfigMap.name }}
    - {name: ca, mountPath: /etc/vilix/ca, readOnly: true}
    {{- end }}
    {{- with $pool.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The certificates that the download trusts. */}}
{{- define "vilix.downloadVolumes" -}}
{{- if .weights.caConfigMap.name }}
- name: ca
  configMap:
    name: {{ .weights.caConfigMap.name }}
    items: [{key: {{ .weights.caConfigMap.key }}, path: ca.crt}]
{{- end }}
{{- end }}

{{/* The container that waits until the weights are there, or says what an existing volume lacks: (list root pool). */}}
{{- define "vilix.waitContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
- name: weights
  image: {{ include "vilix.image" (list $root "worker") }}
  imagePullPolicy: {{ $root.Values.images.worker.pullPolicy }}
  command: [python, -m, services.inference.weights.weights_wait]
  env:
    {{- if eq $pool.weights.source "volume" }}
    - {name: VILIX_DIRECTORY, value: "/weights/{{ default $pool.id $pool.weights.path }}"}
    {{- else }}
    - name: VILIX_DIRECTORY
      value: "/weights/{{ include "vilix.weightsDirectory" (list $pool $pool.weights.revision) }}"
    - {name: VILIX_DOWNLOADED_BY, value: "the Job with the label vilix/weights={{ $pool.slug }}"}
    {{- end }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /weights, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- with $pool.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The pod of the Job that downloads one revision, as YAML: (list root pool revision). */}}
{{- define "vilix.downloadPod" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}{{- $job := $pool.weights.job -}}
{{- $labels := dict "vilix/weights" $pool.slug -}}
{{- if include "vilix.oneNodeClaim" $pool -}}
{{- $_ := set $labels "vilix/claim" (include "vilix.claimLabel" $pool) -}}
{{- end -}}
{{- /* Without the pool's own labels, which may put pods into a queue for GPUs. */ -}}
{{- $settings := dict "podLabels" dict "podAnnotations" $job.podAnnotations -}}
{{- $affinity := dict -}}
{{- if not $job.nodeSelector -}}
{{- if $pool.affinity.nodeAffinity -}}
{{- $affinity = dict "nodeAffinity" $pool.affinity.nodeAffinity -}}
{{- else if and (include "vilix.oneNodeClaim" $pool) (not $pool.nodeSelector) (gt (int $pool.gpus) 0) -}}
{{- $affinity = dict "nodeAffinity" (include "vilix.nearGpus" . | fromJson) -}}
{{- end -}}
{{- end -}}
metadata:
  {{- include "vilix.podMetadata" (list $root "weights" $settings $labels dict) | nindent 2 }}
spec:
  serviceAccountName: {{ default (include "vilix.serviceAccountName" $root) $job.serviceAccountName }}
  {{- include "vilix.podIdentity" $root | nindent 2 }}
  restartPolicy: Never
  {{- with default $pool.nodeSelector $job.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "vilix.claimAffinity" (list $pool $affinity) | fromJson }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with default $pool.tolerations $job.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $field := list "dnsConfig" "hostAliases" }}
  {{- with get $pool $field }}
  {{ $field }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    {{- include "vilix.downloadContainer" . | nindent 4 }}
  volumes:
    {{- include "vilix.weightsVolume" $pool | trim | nindent 4 }}
    - {name: tmp, emptyDir: {}}
    {{- with include "vilix.downloadVolumes" $pool | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $pool.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
