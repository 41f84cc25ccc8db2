{{/* The coordinator's variables: addresses of what it shares, and where their passwords are. */}}
{{- define "kiln.coordinatorEnv" -}}
{{- $redis := .Values.redis -}}
{{- if gt (int .Values.replicas.count) 1 }}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
# Where the others reach this one. They know each other by the farm's authority, so the certificate needs none of these names.
- { name: KILN_ADVERTISE, value: "https://$(POD_NAME).{{ include "kiln.fullname" . }}-coordinator.$(POD_NAMESPACE).svc:8980" }
{{- with .Values.replicas.redis }}
{{- if .existingSecret }}
- name: KILN_REPLICAS
  valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .key }} } }
{{- else }}
- { name: KILN_REPLICAS, value: {{ .url | quote }} }
{{- end }}
{{- end }}
{{- end }}
{{- with include "kiln.absentPools" . }}
- { name: KILN_POOLS, value: {{ . | quote }} }
{{- end }}
{{- if eq $redis.use "bundled" }}
- { name: KILN_REDIS, value: "redis://{{ include "kiln.fullname" . }}-redis:6379" }
{{- else if eq $redis.use "external" }}
{{- if $redis.external.existingSecret }}
- name: KILN_REDIS
  valueFrom: { secretKeyRef: { name: {{ $redis.external.existingSecret }}, key: {{ $redis.external.key }} } }
{{- else }}
- { name: KILN_REDIS, value: {{ $redis.external.url | quote }} }
{{- end }}
{{- if $redis.external.tlsSecret }}
- { name: KILN_REDIS_CA, value: /etc/kiln-redis/ca.crt }
{{- if $redis.external.clientCertificate }}
- { name: KILN_REDIS_CERT, value: /etc/kiln-redis/tls.crt }
- { name: KILN_REDIS_KEY, value: /etc/kiln-redis/tls.key }
{{- end }}
{{- end }}
{{- end }}
{{- if ne .Values.s3.use "none" }}
{{- $external := .Values.s3.external }}
{{- if eq .Values.s3.use "bundled" }}
- { name: KILN_S3, value: "s3://kiln/farm" }
- { name: AWS_REGION, value: us-east-1 }
- { name: AWS_ENDPOINT_URL, value: "http://{{ include "kiln.fullname" . }}-s3:8333" }
{{- else }}
- { name: KILN_S3, value: {{ $external.url | quote }} }
{{- with $external.region }}
- { name: AWS_REGION, value: {{ . | quote }} }
{{- end }}
{{- with $external.endpoint }}
- { name: AWS_ENDPOINT_URL, value: {{ . | quote }} }
{{- end }}
{{- end }}
{{- with include "kiln.s3Secret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_ACCESS_KEY_ID } }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_SECRET_ACCESS_KEY } }
{{- end }}
{{- end }}
{{- if .Values.webhooks.enabled }}
- { name: KILN_WEBHOOKS, value: /etc/kiln-webhooks/webhooks.toml }
{{- end }}
{{- with .Values.coordinator.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the pools are that a scaler may scale to zero: the coordinator waits for their workers though none is there. */}}
{{- define "kiln.absentPools" -}}
{{- $platforms := list -}}
{{- if ne .Values.workers.scaling.by "none" -}}
{{- range $name, $pool := include "kiln.pools" . | fromJson -}}
{{- if eq (int $pool.scaling.min) 0 -}}
{{- $platforms = append $platforms (printf "linux/%s" $pool.arch) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $platforms | uniq | join ";" -}}
{{- end -}}

{{/* The file of `--webhooks`. JSON's strings and lists are TOML's. */}}
{{- define "kiln.webhooks" -}}
listen = "0.0.0.0:8981"
insecure = true          # the Ingress speaks TLS
{{- range $name, $hook := .Values.webhooks.hooks }}

[hooks.{{ $name }}]
{{- range $key, $value := omit $hook "secretKey" "tokenKey" }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
secret_file = "/etc/kiln-webhooks/secrets/{{ $hook.secretKey | default "secret" }}"
token_file = "/etc/kiln-webhooks/secrets/{{ $hook.tokenKey | default "token" }}"
{{- end }}
{{ end -}}

{{/* The keys that the webhooks' Secret has, as JSON. */}}
{{- define "kiln.webhookKeys" -}}
{{- $keys := list -}}
{{- range .Values.webhooks.hooks -}}
{{- $keys = concat $keys (list (.secretKey | default "secret") (.tokenKey | default "token")) -}}
{{- end -}}
{{- $keys | uniq | toJson -}}
{{- end -}}
