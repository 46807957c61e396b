{{/* Copies of Valkey's data, and how one is restored. */}}

{{- define "vilix.backupClaim" -}}
{{ default (printf "%s-valkey-backup" (include "vilix.fullname" .)) .Values.valkey.backup.existingClaim }}
{{- end }}

{{/* The copy is whole or not there: an interrupted one never gets its name. */}}
{{- define "vilix.backupScript" -}}
set -eu
name=valkey-$(date -u +%Y%m%dT%H%M%SZ).rdb
rm -f /backup/*.partial
valkey-cli -h "$HOST" --rdb "/backup/$name.partial"
valkey-check-rdb "/backup/$name.partial"
mv "/backup/$name.partial" "/backup/$name"
ls -1 /backup/valkey-*.rdb | sort -r | tail -n +$((KEEP + 1)) | xargs -r rm -f
ls -l /backup
{{- end }}

{{/* Valkey reads an RDB file only without its append-only file: a server writes the one from the other. */}}
{{- define "vilix.restoreScript" -}}
set -eu
marker=/data/.restored-$COPY
if [ -e "$marker" ]; then echo "$COPY was restored before"; exit 0; fi
valkey-check-rdb "/backup/$COPY"
rm -rf /data/restoring
mkdir /data/restoring
cp "/backup/$COPY" /data/restoring/dump.rdb
socket=/tmp/restore.sock
valkey-server --port 0 --unixsocket $socket --dir /data/restoring --save "" --appendonly no &
until valkey-cli -s $socket ping 2>/dev/null | grep -q PONG; do sleep 0.2; done
valkey-cli -s $socket config set appendonly yes
until valkey-cli -s $socket info persistence | grep -q "^aof_rewrite_in_progress:0" &&
  valkey-cli -s $socket info persistence | grep -q "^aof_last_bgrewrite_status:ok" &&
  valkey-cli -s $socket info persistence | grep -q "^aof_rewrite_scheduled:0"; do sleep 0.2; done
keys=$(valkey-cli -s $socket dbsize)
valkey-cli -s $socket shutdown nosave
wait
rm -rf /data/appendonlydir.old
if [ -e /data/appendonlydir ]; then mv /data/appendonlydir /data/appendonlydir.old; fi
mv /data/restoring/appendonlydir /data/appendonlydir
rm -rf /data/restoring
touch "$marker"
echo "restored $keys keys from $COPY; the earlier data are in appendonlydir.old"
{{- end }}

{{- define "vilix.restoreContainer" -}}
- name: restore
  image: {{ include "vilix.image" (list . "valkey") }}
  imagePullPolicy: {{ .Values.images.valkey.pullPolicy }}
  command: [sh, -c]
  args:
    - |
      {{- include "vilix.restoreScript" . | nindent 6 }}
  env:
    - {name: COPY, value: {{ .Values.valkey.backup.restore | quote }}}
  resources:
    {{- toYaml .Values.valkey.resources | nindent 4 }}
  securityContext:
    {{- include "vilix.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /data}
    - {name: backup, mountPath: /backup, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}
