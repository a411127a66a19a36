#!/bin/sh
# What NixOS' stage 2 leaves behind for systemd.
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
ln -sfn @out@ /run/booted-system
ln -sfn @out@ /run/current-system
exec /lib/systemd/systemd "$@"
