#!/usr/bin/env bash
# Prepares `docker compose up`: makes up the secrets, once, and says in .env whom the containers run as.
# Existing secrets are kept. Back up deploy/secrets/field-keys: without it no stored AWS secret can be read again.
set -euo pipefail
cd "$(dirname "$0")"

# Bind mounts keep the host's owners, so the containers run as whoever owns these files.
uid=$(id -u); gid=$(id -g)
if [ "$uid" = 0 ]; then uid=10001; gid=10001; fi

umask 077
mkdir -p secrets data/cpm data/redis
random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
once() { [ -s "secrets/$1" ] || printf '%s\n' "$2" > "secrets/$1"; }

once secret-key "$(random)"
# A Fernet key is 32 random bytes in URL-safe base64.
once field-keys "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
once database-password "$(random)"
once database-url "postgresql://cpm:$(cat secrets/database-password)@postgres:5432/cpm"
redis_password=$(random)
once redis.conf "requirepass $redis_password
appendonly yes
save \"\"
maxmemory-policy noeviction
dir /data"
once redis-url "redis://:$(sed -n 's/^requirepass //p' secrets/redis.conf)@redis:6379/0"

if [ "$(id -u)" = 0 ]; then chown -R "$uid:$gid" secrets data/cpm data/redis; fi
printf 'CPM_UID=%s\nCPM_GID=%s\n' "$uid" "$gid" > ../.env
echo "Secrets are in deploy/secrets. Now run: docker compose up --build"
