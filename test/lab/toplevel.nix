# A system of the lab, built by Nix from /bin/sh alone. What a real NixOS system
# has and the agent relies on is there: bin/switch-to-configuration with its
# actions, exit codes and lock, init, etc, sw, kernel, initrd, nixos-version,
# init-interface-version, system.
#
# agent:            the store path of its agent
# fault:            none for a good system, or some of
#        unit       a unit fails during the switch, which then exits with 4
#        probe      the switch works, and the system lacks /healthy
#        network    its activation takes the network down
#        rescue     it boots into rescue mode
#        no-agent   it does not start its agent at a boot
#        slow       its switch lasts until somebody removes /run/lab-hold
# dbus:             the version of D-Bus, which may not be swapped in a running system
# guard:            no for a system without the unit of its guard
# interface:        that of the init interface; another than the running one exits 100
{ host, version, agent, fault ? "", dbus ? "1", interface ? "1", guard ? "yes" }:
let
  make = name: attributes: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  } // attributes);
  program = builtins.storePath agent;
  # Paths of their own, which systems share as long as these do not change.
  bus = make "dbus-${dbus}" { } ''
    mkdir $out; printf '[Unit]\nDescription=D-Bus\n' > $out/dbus.service
  '';
  linux = make "linux-6.1" { } ''
    mkdir $out; echo kernel > $out/bzImage
  '';
  etc = make "etc-${version}" { inherit version bus program guard; } ''
    mkdir -p $out/systemd/system
    ln -s $bus/dbus.service $out/systemd/system/dbus.service
    printf '[Service]\nExecStart=%s/bin/nixfleet-agent\n' $program > $out/systemd/system/nixfleet-agent.service
    [ $guard = no ] || printf '[Unit]\nDescription=guard\n' > $out/systemd/system/nixfleet-guard.service
    echo $version > $out/version
  '';
in
make "nixos-system-${host}-${version}" {
  inherit version fault interface etc linux program;
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
  ln -s $program $out/agent
  case " $fault " in *" probe "*) ;; *) echo yes > $out/healthy ;; esac
  for file in switch init; do
    sed "s|@out@|$out|g; s|@version@|$version|g; s|@fault@|$fault|g" \
      $(eval echo \$$file) > $out/$file.new
  done
  mv $out/switch.new $out/bin/switch-to-configuration; mv $out/init.new $out/init
  printf '#!/bin/sh\nexit 0\n' > $out/activate
  chmod +x $out/bin/switch-to-configuration $out/init $out/activate
''
