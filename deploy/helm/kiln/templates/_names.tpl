{{- define "kiln.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What all objects' names begin with: short enough for the longest that is added, and for a pod's number. */}}
{{- define "kiln.fullname" -}}
{{- $name := include "kiln.name" . -}}
{{- $made := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $made | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What pods are selected by. A StatefulSet's selector cannot change: never add a version, or anything that a value changes. */}}
{{- define "kiln.selector" -}}
app.kubernetes.io/name: kiln
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
kiln/pool: {{ . }}
{{- end }}
{{- end -}}

{{- define "kiln.labels" -}}
{{ include "kiln.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kiln.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := index $images .of -}}
{{- $name := ternary $image.repository (printf "%s/%s" $images.registry $image.repository) (empty $images.registry) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($images.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "kiln.account" -}}
{{- $account := index .root.Values.serviceAccounts .of -}}
{{- if .root.Values.serviceAccounts.create -}}
{{- $account.name | default (printf "%s-%s" (include "kiln.fullname" .root) .of) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificate that people are shown; empty if it is the farm's own. */}}
{{- define "kiln.tlsSecret" -}}
{{- if eq .Values.tls.from "secret" -}}
{{- .Values.tls.secretName -}}
{{- else if eq .Values.tls.from "certManager" -}}
{{- .Values.tls.secretName | default (printf "%s-coordinator-tls" (include "kiln.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "kiln.s3Secret" -}}
{{- if eq .Values.s3.use "external" -}}
{{- .Values.s3.external.existingSecret -}}
{{- else if eq .Values.s3.use "bundled" -}}
{{- .Values.s3.bundled.existingSecret | default (printf "%s-s3" (include "kiln.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "kiln.joinSecret" -}}
{{- ternary (printf "%s-join" (include "kiln.fullname" .)) .Values.join.existingSecret (not (empty .Values.join.token)) -}}
{{- end -}}

{{/* Where pods run: what both kinds of pods have of these. */}}
{{- define "kiln.placement" -}}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "kiln.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}
