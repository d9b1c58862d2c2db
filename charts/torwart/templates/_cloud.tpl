{{/* Annotations of the load balancer. RFC 5321 section 4.5.3.2 lets a client wait ten minutes for the reply to its
message: a load balancer that forgets a connection before that makes senders bring their mail twice. */}}
{{- define "torwart.cloudAnnotations" -}}
{{- $cloud := .Values.edge.service.cloud -}}
{{- $proxy := .Values.edge.proxyProtocol.enabled -}}
{{- $port := .Values.edge.service.port -}}
{{- if eq $cloud "aws" }}
service.beta.kubernetes.io/aws-load-balancer-type: external
service.beta.kubernetes.io/aws-load-balancer-scheme: internet-facing
service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: instance
service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-{{ $port }}: tcp.idle_timeout.seconds=660
{{- /* With the PROXY protocol the node must see the load balancer as its peer: only then a header is believed. */}}
service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: deregistration_delay.connection_termination.enabled=false{{ if $proxy }},preserve_client_ip.enabled=false{{ end }}
{{- if $proxy }}
service.beta.kubernetes.io/aws-load-balancer-proxy-protocol: "*"
{{- end }}
{{- else if eq $cloud "azure" }}
service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout: "15"
{{- else if eq $cloud "gcp" }}
cloud.google.com/l4-rbs: enabled
{{- else if eq $cloud "openstack" }}
loadbalancer.openstack.org/timeout-client-data: "660000"
loadbalancer.openstack.org/timeout-member-data: "660000"
{{- if $proxy }}
loadbalancer.openstack.org/proxy-protocol: "true"
{{- end }}
{{- else if eq $cloud "digitalocean" }}
{{- if $proxy }}
service.beta.kubernetes.io/do-loadbalancer-enable-proxy-protocol: "true"
{{- end }}
{{- else if eq $cloud "hetzner" }}
{{- if $proxy }}
load-balancer.hetzner.cloud/uses-proxyprotocol: "true"
{{- end }}
{{- end }}
{{- end -}}
