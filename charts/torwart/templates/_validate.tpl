{{/* Values that make no sense together. What one value alone may be is said by values.schema.json. */}}
{{- define "torwart.validate" -}}
{{- $full := include "torwart.fullname" . -}}
{{- $gateway := include "torwart.gateway" . -}}
{{- $values := .Values -}}
{{- if semverCompare (printf "<%s-0" $values.leastKubeVersion) .Capabilities.KubeVersion.Version -}}
{{- fail (printf "this cluster is Kubernetes %s, but at least %s is needed (leastKubeVersion)" .Capabilities.KubeVersion.Version $values.leastKubeVersion) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $full) -}}
{{- fail (printf "the names of this release would begin with %q, but those of Services are letters a-z, digits and -, and begin with a letter: set fullnameOverride, or give the release another name" $full) -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- fail (printf "the names of this release would begin with %q, which has %d characters, but Kubernetes has room for 40: set fullnameOverride, or give the release a shorter name" $full (len $full)) -}}
{{- end -}}
{{- if not $values.gateway.hostname -}}
{{- fail "gateway.hostname is needed: the gateway's own name, which it greets with and which your MX record leads to, as in --set gateway.hostname=mx.example.org" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" $gateway) -}}
{{- fail (printf "gateway.name: %q is not a name: letters a-z, digits and -, at most 63" $gateway) -}}
{{- end -}}
{{- if regexMatch "-[0-3][0-9a-f]$" $gateway -}}
{{- fail (printf "gateway.name: %q ends as the names of another gateway's ConfigMaps do (-00 to -3f); choose another name" $gateway) -}}
{{- end -}}
{{- if and $values.redis.enabled $values.store.url -}}
{{- fail "store.url and redis.enabled exclude each other: leave store.url empty, or set redis.enabled=false" -}}
{{- end -}}
{{- if not (or $values.redis.enabled $values.store.url) -}}
{{- fail "say where greylisting remembers senders: store.url, as in redis://redis.example.svc:6379, or redis.enabled=true for a small Redis of this release's own" -}}
{{- end -}}
{{- if and $values.store.url (contains "@" $values.store.url) -}}
{{- fail "store.url must not hold a user or a password, which everyone who sees the pod could read: use store.username and store.passwordSecret" -}}
{{- end -}}
{{- if and $values.store.caSecret.name (not (hasPrefix "rediss" $values.store.url)) -}}
{{- fail "store.caSecret.name does nothing without a rediss URL in store.url" -}}
{{- end -}}
{{- $edge := $values.edge -}}
{{- $drain := add $edge.drain.delaySeconds $edge.drain.timeoutSeconds -}}
{{- if lt (int64 $edge.terminationGracePeriodSeconds) (add $drain 550) -}}
{{- fail (printf "edge.terminationGracePeriodSeconds: %d is not 550 above edge.drain.delaySeconds + edge.drain.timeoutSeconds (%d): a message whose last reply is still to come, for which 9 minutes are given, would be cut off and come twice" (int64 $edge.terminationGracePeriodSeconds) $drain) -}}
{{- end -}}
{{- $drain = add $values.verdict.drain.delaySeconds $values.verdict.drain.timeoutSeconds -}}
{{- if lt (int64 $values.verdict.terminationGracePeriodSeconds) (add $drain 10) -}}
{{- fail (printf "verdict.terminationGracePeriodSeconds: %d is not 10 above verdict.drain.delaySeconds + verdict.drain.timeoutSeconds (%d): questions would be cut off" (int64 $values.verdict.terminationGracePeriodSeconds) $drain) -}}
{{- end -}}
{{- range $component := list "edge" "verdict" -}}
{{- $scaling := (get $values $component).autoscaling -}}
{{- if and $scaling.enabled (gt (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas %d is above maxReplicas %d" $component (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int64 $edge.maxConnectionsPerNetwork) (int64 $edge.maxConnections) -}}
{{- fail (printf "edge.maxConnectionsPerNetwork: %d is above edge.maxConnections %d" (int64 $edge.maxConnectionsPerNetwork) (int64 $edge.maxConnections)) -}}
{{- end -}}
{{- $spool := include "torwart.mebibytes" $edge.spool.max | int64 -}}
{{- $room := include "torwart.mebibytes" $edge.spool.sizeLimit | int64 -}}
{{- if lt $spool (include "torwart.mebibytes" $edge.maxMessageSize | int64) -}}
{{- fail (printf "edge.spool.max: %s is less than one message may have (edge.maxMessageSize: %s)" $edge.spool.max $edge.maxMessageSize) -}}
{{- end -}}
{{- if and $room (le $room $spool) -}}
{{- fail (printf "edge.spool.sizeLimit: %s is not above edge.spool.max (%s): the pod would be evicted" $edge.spool.sizeLimit $edge.spool.max) -}}
{{- end -}}
{{- if and $edge.proxyProtocol.enabled (not $edge.proxyProtocol.from) -}}
{{- fail "edge.proxyProtocol.from is needed with edge.proxyProtocol.enabled: the networks of the load balancer, as in {10.0.0.0/24}; whoever is in them is believed" -}}
{{- end -}}
{{- if and $edge.proxyProtocol.enabled (has $edge.service.cloud (list "azure" "gcp")) -}}
{{- fail (printf "edge.proxyProtocol.enabled: the load balancers of %s that a Service makes know no PROXY protocol; they keep the client's address without it" $edge.service.cloud) -}}
{{- end -}}
{{- if and $edge.proxyProtocol.from (not $edge.proxyProtocol.enabled) -}}
{{- fail "edge.proxyProtocol.from does nothing without edge.proxyProtocol.enabled=true" -}}
{{- end -}}
{{- if eq $values.tls.mode "secrets" -}}
{{- range $part := list "edge" "verdict" "operator" -}}
{{- if not (get $values.tls.secrets $part) -}}
{{- fail (printf "tls.secrets.%s is needed with tls.mode=secrets: the name of a Secret with tls.crt, tls.key and ca.crt" $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.tls.mode "job") (ne (toJson $values.tls.names) (toJson (dict "edge" "torwart-edge" "operator" "torwart-operator" "verdict" "torwart-verdict"))) -}}
{{- fail "tls.names: the certificates of tls.mode=job have the names torwart-edge, torwart-operator and torwart-verdict; others are for certManager and secrets" -}}
{{- end -}}
{{- $own := include "torwart.secretNames" . | trim | fromYamlArray -}}
{{- range list $values.tls.secrets.edge $values.tls.secrets.verdict $values.tls.secrets.operator $values.store.keySecret.name $values.redis.authSecret -}}
{{- if and . (has . $own) -}}
{{- fail (printf "the Secret %q has a name that this chart keeps for Secrets of its own; give yours another name" .) -}}
{{- end -}}
{{- end -}}
{{- $state := include "torwart.mebibytes" $values.verdict.stateSizeLimit | int64 -}}
{{- if and $state (lt $state 520) -}}
{{- fail (printf "verdict.stateSizeLimit: %s is less than 520Mi: the policy's file has up to 256 MiB, and is there twice while it is replaced" $values.verdict.stateSizeLimit) -}}
{{- end -}}
{{- if $values.redis.enabled -}}
{{- $most := include "torwart.mebibytes" $values.redis.maxMemory | int64 -}}
{{- $limit := include "torwart.mebibytes" (dig "limits" "memory" "" $values.redis.resources) | int64 -}}
{{- $disk := include "torwart.mebibytes" $values.redis.dataSizeLimit | int64 -}}
{{- if and $limit (lt $limit (mul 2 $most)) -}}
{{- fail (printf "redis.resources.limits.memory is less than twice redis.maxMemory (%s): while Redis writes its file anew it needs that much" $values.redis.maxMemory) -}}
{{- end -}}
{{- if and $disk (not $values.redis.persistence.enabled) (lt $disk (mul 4 $most)) -}}
{{- fail (printf "redis.dataSizeLimit: %s is less than four times redis.maxMemory (%s): the pod would be evicted" $values.redis.dataSizeLimit $values.redis.maxMemory) -}}
{{- end -}}
{{- end -}}
{{- if $values.resolver.enabled -}}
{{- if not $values.resolver.clusterIP -}}
{{- fail "resolver.clusterIP is needed with resolver.enabled: a free address of the cluster's Services, which is written into the resolv.conf of verdict pods" -}}
{{- end -}}
{{- if not $values.resolver.clusterDNS -}}
{{- fail "resolver.clusterDNS is needed with resolver.enabled: the address of the cluster's DNS, as `kubectl -n kube-system get service kube-dns` shows it" -}}
{{- end -}}
{{- end -}}
{{- if and $values.monitoring.alerts.enabled (not (.Files.Get "alerts/torwart.yaml")) -}}
{{- fail "monitoring.alerts.enabled: this copy of the chart lacks alerts/torwart.yaml" -}}
{{- end -}}
{{- end -}}
{{/* A size as Kubernetes or Redis writes it, in whole MiB; 0 if it is none. */}}
{{- define "torwart.mebibytes" -}}
{{- $text := . | toString | lower -}}
{{- $number := regexFind "^[0-9]+" $text | default "0" | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $text "" | trimSuffix "b" | trimSuffix "i" -}}
{{- if eq $unit "g" -}}{{ mul $number 1024 }}
{{- else if eq $unit "m" -}}{{ $number }}
{{- else if eq $unit "k" -}}{{ div $number 1024 }}
{{- else if eq $unit "" -}}{{ div $number 1048576 }}
{{- else -}}0
{{- end -}}
{{- end -}}
