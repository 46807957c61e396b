{{/* Inference pools: one per entry of models. */}}

{{/* The engines that the catalog entry of a model lists, the default one first, as JSON {"engines": [...]}: (list root
id pool). An entry among the values replaces that of the catalog. */}}
{{- define "vilix.listedEngines" -}}
{{- $root := index . 0 -}}{{- $id := index . 1 -}}{{- $entry := (index . 2).catalog -}}
{{- $engines := list -}}
{{- range concat (default list $entry.engines) (compact (list $entry.engine)) -}}
  {{- $engines = append $engines .name -}}
{{- end -}}
{{- if not $engines -}}
  {{- $engines = default list (get ($root.Files.Get "files/engines.json" | fromJson) $id) -}}
{{- end -}}
{{ dict "engines" $engines | toJson }}
{{- end }}

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
    {{- $listed := (include "vilix.listedEngines" (list $root $id $pool) | fromJson).engines -}}
    {{- $_ := set $pool "engine" (coalesce $pool.engine (first $listed) "trtllm") -}}
    {{- $_ := set $pool "imageName" (ternary "tritonVllm" "triton" (eq $pool.engine "vllm")) -}}
    {{- include "vilix.checkPool" (list $root $id $pool) -}}
    {{- $surge := ternary (ternary 0 1 (ne (include "vilix.exclusiveClaim" $pool) "")) $pool.maxSurge
      (eq (toString $pool.maxSurge) "") -}}
    {{- $_ := set $pool "maxSurge" $surge -}}
    {{- if eq (toString $pool.maxUnavailable) "" -}}
      {{- $_ := set $pool "maxUnavailable" (ternary 1 0 (has (toString $surge) (list "0" "0%"))) -}}
    {{- end -}}
    {{- $_ := set $pool "id" $id -}}
    {{- $_ := set $pool "slug" $slug -}}
    {{- $_ := set $pool "component" (printf "model-%s" $slug) -}}
    {{- $_ := set $pool "name" (printf "%s-%s" (include "vilix.fullname" $root) $slug) -}}
    {{- $_ := set $pool "port" (ternary 9001 9002 $chat) -}}
    {{- $_ := set $pool "module" (ternary "services.inference" "services.embeddings" $chat) -}}
    {{- $_ := set $pool "loadMetric" (ternary "vilix_engine_load_ratio" "vilix_embeddings_load_ratio" $chat) -}}
    {{- $_ := set $pool "weightsRoot" (ternary "/opt/vilix/weights" "/weights" (eq $pool.weights.source "package")) -}}
    {{- $_ := set $pool "claim" (default (printf "%s-%s-weights" (include "vilix.fullname" $root) $slug)
      $pool.weights.volume.existingClaim) -}}
    {{- $pools = append $pools $pool -}}
  {{- end -}}
{{- end -}}
{{- include "vilix.checkNames" $pools -}}
{{ dict "pools" $pools | toJson }}
{{- end }}

{{/* Comma-separated HOST:PORT of the workers of one kind: (list root "chat"). */}}
{{- define "vilix.workerTargets" -}}
{{- $root := index . 0 -}}{{- $kind := index . 1 -}}
{{- $targets := list -}}
{{- range (include "vilix.pools" $root | fromJson).pools -}}
{{- if eq .kind $kind -}}
{{- /* With the dot at the end, a resolver asks once, and not for each domain of its search list. */ -}}
{{- $targets = append $targets
  (printf "%s.%s.svc.%s.:%d" .name $root.Release.Namespace $root.Values.clusterDomain (int .port)) -}}
{{- end -}}
{{- end -}}
{{ join "," $targets }}
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

{{/* Labels of a pool's pods. */}}
{{- define "vilix.poolLabels" -}}
{{- $labels := dict "vilix/worker" "true" -}}
{{- if include "vilix.oneNodeClaim" . -}}
{{- $_ := set $labels "vilix/claim" (include "vilix.claimLabel" .) -}}
{{- end -}}
{{ toJson $labels }}
{{- end }}

{{/* How fast the number of a pool's pods changes. Loading takes minutes, and a removed pod finishes its responses. */}}
{{- define "vilix.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 30
  policies: [{type: Pods, value: {{ int .autoscaling.scaleUpPods }}, periodSeconds: 120}]
scaleDown:
  stabilizationWindowSeconds: {{ int .autoscaling.scaleDownSeconds }}
  policies: [{type: Pods, value: 1, periodSeconds: 60}]
{{- end }}
