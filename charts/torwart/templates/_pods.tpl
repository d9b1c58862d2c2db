{{/* The pods of all parts have this in common: restricted, spread, and no token unless asked for.
dict: root, component, values (of the part), token (bool) */}}
{{- define "torwart.podSpec" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "torwart.fullname" $root }}-{{ .component }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "torwart.podSecurity" $root | nindent 2 }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $root.Values.topologySpread.topologyKeys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "torwart.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The Pod Security Standard `restricted`, for a pod. */}}
{{- define "torwart.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ . }}
{{- end }}
{{- with .Values.podSecurity.runAsGroup }}
runAsGroup: {{ . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The same, for a container. */}}
{{- define "torwart.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* No version is among the labels: another one would replace pods that run what they ran before, and Redis's records with
its pod. dict: root, component, values, annotations (optional, more) */}}
{{- define "torwart.podMetadata" -}}
labels:
  {{- include "torwart.selector" . | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (deepCopy (.annotations | default dict)) .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Probes at the admin port. A dependency that is down fails none of them. */}}
{{- define "torwart.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: admin
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /healthz
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* Flags that every process has. */}}
{{- define "torwart.logArgs" -}}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
- --log-addresses={{ .Values.log.addresses }}
{{- with .Values.traces.endpoint }}
- --otlp-endpoint={{ . }}
- --trace-sample-ratio={{ $.Values.traces.sampleRatio }}
{{- end }}
{{- end -}}

{{/* Flags of whoever asks the verdict. */}}
{{- define "torwart.askArgs" -}}
- --verdict-ca=/etc/torwart/tls/ca.crt
- --verdict-cert=/etc/torwart/tls/tls.crt
- --verdict-key=/etc/torwart/tls/tls.key
- --verdict-server-name={{ .Values.tls.names.verdict }}
{{- end -}}

{{/* A Secret as a volume. Mounted whole, never by subPath: what changes in it is seen and read again.
dict: name, secret, items (optional list) */}}
{{- define "torwart.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
