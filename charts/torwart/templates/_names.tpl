{{/* The start of every name. */}}
{{- define "torwart.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "torwart" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-torwart
{{- end -}}
{{- end -}}

{{/* The MailGateway of this release. Cluster-scoped: the usual installation has the one that a MailDomain without a
gatewayRef belongs to, a second one has its own. */}}
{{- define "torwart.gateway" -}}
{{- $full := include "torwart.fullname" . -}}
{{ .Values.gateway.name | default (ternary "default" $full (eq $full "torwart")) }}
{{- end -}}

{{/* Names of cluster-scoped objects carry the namespace too, behind a character that neither can have. */}}
{{- define "torwart.clusterName" -}}
{{ .Release.Namespace }}:{{ include "torwart.fullname" . }}
{{- end -}}

{{/* What a Service or a pod is selected by. dict: root, component */}}
{{- define "torwart.selector" -}}
app.kubernetes.io/name: torwart
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* dict: root, component */}}
{{- define "torwart.labels" -}}
{{ include "torwart.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | trimAll "-._" | quote }}
{{- if not .root.Values.plain }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "torwart.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}{{ with $image.digest }}@{{ . }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* An address to listen on. dict: root, port */}}
{{- define "torwart.listen" -}}
{{- $host := .root.Values.listenAddress -}}
{{- if contains ":" $host }}[{{ $host }}]{{ else }}{{ $host }}{{ end }}:{{ .port }}
{{- end -}}

{{/* Names of the Secrets for mutual TLS, others for each mode: what one mode has left is not taken for the other's.
dict: root, part (edge, verdict, operator) */}}
{{- define "torwart.tlsSecret" -}}
{{- if eq .root.Values.tls.mode "secrets" -}}
{{ get .root.Values.tls.secrets .part }}
{{- else if eq .root.Values.tls.mode "certManager" -}}
{{ include "torwart.fullname" .root }}-{{ .part }}-cm-tls
{{- else -}}
{{ include "torwart.fullname" .root }}-{{ .part }}-tls
{{- end -}}
{{- end -}}

{{- define "torwart.storeKeySecret" -}}
{{ .Values.store.keySecret.name | default (printf "%s-store-key" (include "torwart.fullname" .)) }}
{{- end -}}

{{- define "torwart.redisAuthSecret" -}}
{{ .Values.redis.authSecret | default (printf "%s-redis-auth" (include "torwart.fullname" .)) }}
{{- end -}}

{{/* Whether anything must be made by `torwart secrets`: "true" or "". */}}
{{- define "torwart.makesSecrets" -}}
{{- $redis := and .Values.redis.enabled (not .Values.redis.authSecret) -}}
{{- if or (eq .Values.tls.mode "job") (not .Values.store.keySecret.name) $redis -}}true{{- end -}}
{{- end -}}

{{/* A JSON list of the ConfigMaps that hold the published policy. */}}
{{- define "torwart.policyNames" -}}
{{- $index := printf "torwart-policy-%s" (include "torwart.gateway" .) -}}
{{- $names := list $index -}}
{{- range $slot := until 64 }}{{ $names = append $names (printf "%s-%02x" $index $slot) }}{{ end -}}
{{ toJson $names }}
{{- end -}}
