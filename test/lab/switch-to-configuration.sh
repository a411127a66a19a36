#!/bin/sh
# The lab's switch-to-configuration: the same actions, order, lock and exit codes
# as NixOS'; the boot loader is one line in /boot/default-system.
PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
case "$1" in
  check | dry-activate | boot | test | switch) ;;
  *) echo "usage: $0 check|dry-activate|boot|test|switch" >&2; exit 1 ;;
esac
mkdir -p /run/nixos
exec 9>>/run/nixos/switch-to-configuration.lock
flock -n 9 || { echo "Could not acquire lock" >&2; exit 11; }
case "$1" in
  check | dry-activate) exit 0 ;;
  boot | switch)
    # As the real loaders do, only what is in the profile gets an entry.
    if [ "$(readlink -f /nix/var/nix/profiles/system)" = @out@ ]; then
      { echo @out@ > /boot/default-system.new && sync /boot/default-system.new &&
        mv /boot/default-system.new /boot/default-system && sync -f /boot; } ||
        { echo "the boot loader could not be written" >&2; exit 1; }
    fi ;;
esac
[ "$1" = boot ] && exit 0
# What init speaks cannot be swapped: nothing was changed, and only a boot helps.
if [ -e /run/current-system ] && ! cmp -s /run/current-system/init-interface-version @out@/init-interface-version; then
  echo 'the init interface changed: this system can only be booted into' >&2
  exit 100
fi
# Units that are other ones are stopped before the activation and started after it.
agent=nixfleet-agent.service
replaced=
if ! cmp -s /run/current-system/etc/systemd/system/$agent @out@/etc/systemd/system/$agent &&
  systemctl --quiet is-active $agent; then
  replaced=$agent
  systemctl stop $agent
fi
echo @version@ >> /var/lib/lab-made-live
ln -sfn @out@ /run/current-system
case " @fault@ " in
  *" network "*) ip link set eth0 down ;;
  *) ip link set eth0 up; ip route replace default via 10.77.0.1 ;;
esac
systemctl reset-failed
if [ -n "$replaced" ]; then
  systemctl daemon-reexec
  systemctl daemon-reload
  systemctl start $agent || failed=yes
fi
case " @fault@ " in *" slow "*)
  while [ -e /run/lab-hold ]; do sleep 0.1; done ;;
esac
case " @fault@ " in *" unit "*)
  systemd-run --quiet --unit=lab-broken --service-type=oneshot /bin/false
  echo "warning: the following units failed: lab-broken.service" >&2
  exit 4 ;;
esac
[ -z "$failed" ] || { echo "warning: the following units failed: $agent" >&2; exit 4; }
exit 0
