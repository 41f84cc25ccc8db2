{{/* What one value demands of another; the schema sees each by itself. */}}
{{- define "kiln.checks" -}}
{{- $v := .Values -}}
{{- if and (eq $v.tls.from "secret") (not $v.tls.secretName) -}}
{{- fail "`tls.from` is `secret`, but `tls.secretName` is empty: name a Secret with `tls.crt` and `tls.key`" -}}
{{- end -}}
{{- if eq $v.tls.from "certManager" -}}
{{- if not $v.tls.certManager.issuer.name -}}
{{- fail "`tls.from` is `certManager`, but `tls.certManager.issuer.name` is empty: name an issuer of this cluster (`kubectl get clusterissuers`)" -}}
{{- end -}}
{{- if not $v.tls.certManager.dnsNames -}}
{{- fail "`tls.from` is `certManager`, but `tls.certManager.dnsNames` is empty: list the names at which people reach the farm, such as `farm.example`" -}}
{{- end -}}
{{- $internal := printf "%s-coordinator" (include "kiln.fullname" .) -}}
{{- if has $internal $v.tls.certManager.dnsNames -}}
{{- fail (printf "`tls.certManager.dnsNames` has `%s`, where workers must be shown the farm's own certificate: leave it out" $internal) -}}
{{- end -}}
{{- end -}}
{{- if eq $v.redis.use "external" -}}
{{- if eq (empty $v.redis.external.url) (empty $v.redis.external.existingSecret) -}}
{{- fail "`redis.use` is `external`: set either `redis.external.url`, or `redis.external.existingSecret` for a URL with a password" -}}
{{- end -}}
{{- if and $v.redis.external.clientCertificate (not $v.redis.external.tlsSecret) -}}
{{- fail "`redis.external.clientCertificate` needs `redis.external.tlsSecret`, a Secret with `ca.crt`, `tls.crt` and `tls.key`" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.s3.use "external") (not $v.s3.external.url) -}}
{{- fail "`s3.use` is `external`, but `s3.external.url` is empty: set it to `s3://BUCKET/PREFIX`" -}}
{{- end -}}
{{- if gt (int $v.replicas.count) 1 -}}
{{- if eq (empty $v.replicas.redis.url) (empty $v.replicas.redis.existingSecret) -}}
{{- fail "`replicas.count` is more than 1: set either `replicas.redis.url`, or `replicas.redis.existingSecret` for a URL with a password" -}}
{{- end -}}
{{- if eq $v.s3.use "none" -}}
{{- fail "`replicas.count` is more than 1, but `s3.use` is `none`: coordinators share their blobs in a bucket, so set it to `external`" -}}
{{- end -}}
{{- end -}}
{{- if and (or (eq $v.redis.use "bundled") (eq $v.s3.use "bundled")) (not $v.networkPolicies.enabled) -}}
{{- fail "the bundled stores rely on `networkPolicies.enabled` to keep everyone but the coordinator out: leave it on, or use stores of your own" -}}
{{- end -}}
{{- range $of := list "web" "toolCaches" -}}
{{- $served := index $v.coordinator $of -}}
{{- if and $served.url (not $served.enabled) -}}
{{- fail (printf "`coordinator.%s.url` is set, but `coordinator.%s.enabled` is not: set it to `true`, or leave out the URL" $of $of) -}}
{{- end -}}
{{- end -}}
{{- if $v.webhooks.enabled -}}
{{- range $key := list "host" "tlsSecret" "hooks" -}}
{{- if empty (index $v.webhooks $key) -}}
{{- fail (printf "`webhooks.enabled` needs `webhooks.%s`" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne $v.workers.scaling.by "none" -}}
{{- $pools := include "kiln.pools" . | fromJson -}}
{{- if and $pools (not (hasKey $pools $v.workers.scaling.anyPool)) -}}
{{- fail (printf "`workers.scaling.anyPool` is `%s`, which is no pool: no pool would grow for actions that ask for no instruction set; name one of: %s" $v.workers.scaling.anyPool (keys $pools | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
