{{/* The pools that are enabled, each with what it does not say filled in from the defaults, as JSON. */}}
{{- define "kiln.pools" -}}
{{- $pools := dict -}}
{{- $root := . -}}
{{- range $name, $pool := .Values.workers.pools -}}
{{- if and $pool (ne $pool.enabled false) -}}
{{- $scaling := pick $root.Values.workers.scaling "min" "max" -}}
{{- range $key, $value := $pool.scaling -}}
{{- $_ := set $scaling $key $value -}}
{{- end -}}
{{- $merged := deepCopy $root.Values.workers.defaults -}}
{{- /* One by one: `mergeOverwrite` takes nothing that is empty or zero. */ -}}
{{- range $key, $value := deepCopy $pool -}}
{{- $default := get $merged $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $default) -}}
{{- $value = mergeOverwrite $default $value -}}
{{- end -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- $_ := set $merged "scaling" $scaling -}}
{{- if and (ne $root.Values.workers.scaling.by "none") (hasKey $pool "replicas") -}}
{{- fail (printf "pool `%s` has `replicas`, but `workers.scaling.by` is `%s`, which would undo it: leave out one of them" $name $root.Values.workers.scaling.by) -}}
{{- end -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "pool `%s` scales from %d to %d workers: make `min` at most `max`" $name (int $scaling.min) (int $scaling.max)) -}}
{{- end -}}
{{- $_ := set $pools $name $merged -}}
{{- end -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* A pool's instruction set as the farm's metrics name it. */}}
{{- define "kiln.isa" -}}
{{- get (dict "amd64" "x86-64" "arm64" "arm-a64") . -}}
{{- end -}}
