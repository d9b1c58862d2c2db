{{/* Annotations of a hook; none where the manifests are applied without Helm. Lines are to be put below
`annotations:`. dict: root, events, weight, always (whether it goes although the hook failed) */}}
{{- define "torwart.hook" -}}
{{- if not .root.Values.plain }}
annotations:
  helm.sh/hook: {{ .events }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded{{ if .always }},hook-failed{{ end }}
{{- end }}
{{- end -}}

{{/* A ServiceAccount with a Role. dict: root, name, events (of a hook, or ""), rules (YAML) */}}
{{- define "torwart.secretsAccount" -}}
{{- $part := dict "root" .root "component" "secrets" -}}
{{- $namespace := .root.Release.Namespace -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "torwart.labels" $part | nindent 4 }}
  {{- with .events }}
  {{- include "torwart.hook" (dict "root" $.root "events" . "weight" -20 "always" true) | nindent 2 }}
  {{- end }}
automountServiceAccountToken: false
{{- if .root.Values.rbac.create }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "torwart.labels" $part | nindent 4 }}
  {{- with .events }}
  {{- include "torwart.hook" (dict "root" $.root "events" . "weight" -20 "always" true) | nindent 2 }}
  {{- end }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "torwart.labels" $part | nindent 4 }}
  {{- with .events }}
  {{- include "torwart.hook" (dict "root" $.root "events" . "weight" -20 "always" true) | nindent 2 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .name }}
    namespace: {{ $namespace }}
{{- end }}
{{- end -}}

{{/* What a Job does. dict: root, name (of the ServiceAccount), args (list) */}}
{{- define "torwart.secretsPod" -}}
{{- $part := dict "root" .root "component" "secrets" "values" .root.Values.secretsJob -}}
metadata:
  {{- include "torwart.podMetadata" $part | nindent 2 }}
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ .name }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "torwart.podSecurity" .root | nindent 4 }}
  {{- with .root.Values.secretsJob.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.secretsJob.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: secrets
      image: {{ include "torwart.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      resources:
        {{- toYaml .root.Values.secretsJob.resources | nindent 8 }}
      securityContext:
        {{- include "torwart.containerSecurity" .root | nindent 8 }}
{{- end -}}

{{/* What the Job makes certificates for, and no more. */}}
{{- define "torwart.renewArgs" -}}
{{ include "torwart.certificateArgs" . }}
- --no-store-key
{{- end -}}

{{/* Whose Secrets, and the names in its certificates if they are made here. */}}
{{- define "torwart.certificateArgs" -}}
- secrets
- ensure
- --namespace={{ .Release.Namespace }}
- --prefix={{ include "torwart.fullname" . }}
{{- if eq .Values.tls.mode "job" }}
- --verdict-name={{ include "torwart.fullname" . }}-verdict
- --verdict-name={{ include "torwart.fullname" . }}-verdict.{{ .Release.Namespace }}.svc
{{- end }}
{{- end -}}

{{- define "torwart.ensureArgs" -}}
{{ include "torwart.certificateArgs" . }}
{{- if .Values.store.keySecret.name }}
- --no-store-key
{{- end }}
{{- if and .Values.redis.enabled (not .Values.redis.authSecret) }}
- --redis
{{- end }}
{{- end -}}

{{/* A YAML list of all Secrets that may be made. */}}
{{- define "torwart.secretNames" -}}
{{- $full := include "torwart.fullname" . -}}
{{- include "torwart.certificateNames" . }}
{{- range list "store-key" "redis-auth" }}
- {{ $full }}-{{ . }}
{{- end }}
{{- end -}}

{{/* A YAML list of those that are renewed. */}}
{{- define "torwart.certificateNames" -}}
{{- $full := include "torwart.fullname" . -}}
{{- range list "ca" "edge-tls" "verdict-tls" "operator-tls" }}
- {{ $full }}-{{ . }}
{{- end }}
{{- end -}}

{{/* dict: names (YAML list of Secrets) */}}
{{- define "torwart.ensureRules" -}}
# Creating can't be limited to names.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, update]
  resourceNames:
    {{- .names | trim | nindent 4 }}
{{- end -}}

{{- define "torwart.deleteRules" -}}
# Nothing is deleted while the installation is there.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get]
  resourceNames:
    {{- range list "edge" "verdict" "operator" }}
    - {{ include "torwart.fullname" $ }}-{{ . }}
    {{- end }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, delete]
  resourceNames:
    {{- include "torwart.secretNames" . | trim | nindent 4 }}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [delete]
  resourceNames:
    {{- include "torwart.policyNames" . | fromJsonArray | toYaml | nindent 4 }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [delete]
  resourceNames: [torwart-operator-{{ include "torwart.gateway" . }}]
{{- end -}}
