#!/bin/sh
# Starts Redis with the password that REDIS_URL holds, so that it is written down once; it goes through the standard input,
# so that no list of processes shows it. Arguments are passed on.
set -eu

case $REDIS_URL in
    *://*:*@*) ;;
    *) echo "REDIS_URL has no password: write it like redis://:PASSWORD@redis:6379/0" >&2 && exit 1 ;;
esac
userinfo=${REDIS_URL#*://}
userinfo=${userinfo%@*}
password=${userinfo#*:}
config=$(cat "$(dirname "$0")/redis.conf")

exec docker-entrypoint.sh redis-server - "$@" <<END
$config
requirepass $password
END
