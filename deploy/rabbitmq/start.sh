#!/bin/sh
# Starts RabbitMQ with the user and the password that RABBITMQ_URL holds, so that they are written down once. RabbitMQ creates
# the user when it starts for the first time. Arguments are passed on.
set -eu

case $RABBITMQ_URL in
    *://*:*@*) ;;
    *) echo "RABBITMQ_URL has no user and password: write it like amqp://USER:PASSWORD@rabbitmq:5672/%2f" >&2 && exit 1 ;;
esac
userinfo=${RABBITMQ_URL#*://}
userinfo=${userinfo%@*}
RABBITMQ_DEFAULT_USER=${userinfo%%:*}
RABBITMQ_DEFAULT_PASS=${userinfo#*:}
export RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS

exec docker-entrypoint.sh rabbitmq-server "$@"
