# A system of the lab, built by Nix from /bin/sh alone. What a real NixOS system
# has and the agent relies on is there: bin/switch-to-configuration with its
# actions, exit codes and lock, init, etc, sw, kernel, initrd, nixos-version,
# init-interface-version, system.
#
# fault: ""         a good system
#        "unit"     a unit fails during the switch, which then exits with 4
#        "probe"    the switch works, and the system lacks /healthy
# dbus:             the version of D-Bus, which may not be swapped in a running system
# interface:        that of the init interface; another than the running one exits 100
{ host, version, fault ? "", dbus ? "1", interface ? "1" }:
let
  make = name: attributes: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  } // attributes);
  # Paths of their own, which systems share as long as these do not change.
  bus = make "dbus-${dbus}" { } ''
    mkdir $out; printf '[Unit]\nDescription=D-Bus\n' > $out/dbus.service
  '';
  linux = make "linux-6.1" { } ''
    mkdir $out; echo kernel > $out/bzImage
  '';
  etc = make "etc-${version}" { inherit version bus; } ''
    mkdir -p $out/systemd/system
    ln -s $bus/dbus.service $out/systemd/system/dbus.service
    for unit in nixfleet-agent nixfleet-guard; do
      printf '[Unit]\nDescription=%s\n' $unit > $out/systemd/system/$unit.service
    done
    echo $version > $out/version
  '';
in
make "nixos-system-${host}-${version}" {
  inherit version fault interface etc linux;
  switch = ./switch-to-configuration.sh;
  init = ./init.sh;
} ''
  mkdir -p $out/bin $out/sw/lib/systemd $out/specialisation
  ln -s $linux/bzImage $out/kernel; echo initrd > $out/initrd
  printf %s $version > $out/nixos-version
  printf 'systemd %s' $interface > $out/init-interface-version
  printf %s $system > $out/system
  ln -s /lib/systemd/systemd $out/sw/lib/systemd/systemd
  ln -s $out/sw $out/systemd
  ln -s $etc $out/etc
  [ "$fault" = probe ] || echo yes > $out/healthy
  sed "s|@out@|$out|g; s|@version@|$version|g; s|@fault@|$fault|g" $switch > $out/bin/switch-to-configuration
  sed "s|@out@|$out|g" $init > $out/init
  printf '#!/bin/sh\nexit 0\n' > $out/activate
  chmod +x $out/bin/switch-to-configuration $out/init $out/activate
''
