#!/bin/sh
# What NixOS' stage 2 leaves behind for systemd.
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
ln -sfn @out@ /run/booted-system
ln -sfn @out@ /run/current-system
mkdir -p /nix/var/nix/gcroots
ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
wants=/etc/systemd/system/multi-user.target.wants/nixfleet-agent.service
case " @fault@ " in
  *" no-agent "*) rm -f $wants ;;
  *) ln -sfn /usr/local/lib/systemd/system/nixfleet-agent.service $wants ;;
esac
case " @fault@ " in
  *" network "*) ip link set eth0 down ;;
  *) ip link set eth0 up; ip route replace default via 10.77.0.1 ;;
esac
case " @fault@ " in *" rescue "*) set -- --unit=rescue.target "$@" ;; esac
exec /lib/systemd/systemd "$@"
