{{/* Pools that start when their weights are downloaded, so that no pod holds a GPU before: their Deployments are
paused, and a Job resumes them (docs/adr/0027).

A paused Deployment creates no pods for a new template, and keeps those of the last one. The number of pods is never
touched. */}}

{{/* Whether the Deployment of a pool is rendered as paused: (list root pool). A true value, or nothing.

It is paused while nothing serves yet (a new pool), and for weights in another directory. Every other upgrade replaces
pods without the Job. */}}
{{- define "vilix.startsPaused" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
{{- if and $root.Values.startAfterDownload.enabled $pool.serve (include "vilix.hasJob" $pool)
  (not (include "vilix.renderedAlone" $root)) -}}
{{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace $pool.name -}}
{{- $weights := dig "metadata" "annotations" "vilix/weights-directory" "" $live -}}
{{- $changed := and $weights (ne $weights (include "vilix.weightsDirectory" (list $pool $pool.weights.revision))) -}}
{{- /* Paused by an operator, it has pods of its template, and this is not for the chart to change. */ -}}
{{- $waits := and (dig "spec" "paused" false $live) (not (dig "status" "updatedReplicas" 0 $live)) -}}
{{- if or (not $live) $changed $waits -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether manifests are rendered without a cluster (helm template, Argo CD), which applies them again and again, and
would pause again what a Job has resumed. Helm then assumes versions of the API that no cluster has any more. */}}
{{- define "vilix.renderedAlone" -}}
{{- if .Capabilities.APIVersions.Has "apps/v1beta1" }}true{{ end -}}
{{- end }}

{{/* The paused pools as JSON {"pools": [...]}, in the format of services/deployment/pool_start.py. */}}
{{- define "vilix.pausedPools" -}}
{{- $root := . -}}
{{- $paused := list -}}
{{- range $pool := (include "vilix.pools" . | fromJson).pools -}}
{{- if include "vilix.startsPaused" (list $root $pool) -}}
{{- $revision := $pool.weights.revision -}}
{{- $paused = append $paused (dict "deployment" $pool.name
  "weights" (include "vilix.weightsDirectory" (list $pool $revision))
  "job" (include "vilix.downloadJob" (list $root $pool $revision))) -}}
{{- end -}}
{{- end -}}
{{ dict "pools" $paused | toJson }}
{{- end }}

{{/* The affinity by which a download prefers nodes with GPUs, as JSON. Many volumes belong to the zone or the node of
the first pod that uses them, which is the download's. */}}
{{- define "vilix.nearGpus" -}}
{{- $terms := list -}}
{{- range $label := list "nvidia.com/gpu.present" "cloud.google.com/gke-accelerator" "kubernetes.azure.com/accelerator"
  "karpenter.k8s.aws/instance-gpu-count" "eks.amazonaws.com/instance-gpu-count" -}}
{{- $terms = append $terms (dict "weight" 100 "preference" (dict "matchExpressions"
  (list (dict "key" $label "operator" "Exists")))) -}}
{{- end -}}
{{ dict "preferredDuringSchedulingIgnoredDuringExecution" $terms | toJson }}
{{- end }}
