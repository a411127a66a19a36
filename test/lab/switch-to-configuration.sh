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
      echo @out@ > /boot/default-system.new
      sync /boot/default-system.new
      mv /boot/default-system.new /boot/default-system
      sync -f /boot
    fi ;;
esac
[ "$1" = boot ] && exit 0
# What init speaks cannot be swapped: nothing was changed, and only a boot helps.
if [ -e /run/current-system ] && ! cmp -s /run/current-system/init-interface-version @out@/init-interface-version; then
  echo 'the init interface changed: this system can only be booted into' >&2
  exit 100
fi
echo @version@ >> /var/lib/lab-made-live
ln -sfn @out@ /run/current-system
systemctl reset-failed
[ -x /etc/lab-switch-hook ] && /etc/lab-switch-hook "$1" "@version@"
if [ "@fault@" = unit ]; then
  systemd-run --quiet --unit=lab-broken --service-type=oneshot /bin/false
  echo "warning: the following units failed: lab-broken.service" >&2
  exit 4
fi
exit 0
