# A system of the lab, built by Nix from /bin/sh alone. What a real NixOS system
# has and the agent relies on is there: bin/switch-to-configuration with its
# actions, exit codes and lock, init, etc, sw, kernel, initrd, nixos-version,
# init-interface-version, system.
#
# fault: ""         a good system
#        "unit"     a unit fails during the switch, which then exits with 4
#        "probe"    the switch works, and the system lacks /healthy
{ host, version, fault ? "" }:
let
  make = name: attributes: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  } // attributes);
  # A second path, so that the closure is more than one.
  etc = make "etc-${version}" { inherit version; } ''
    mkdir -p $out/systemd/system
    printf '[Unit]\nDescription=D-Bus\n' > $out/systemd/system/dbus.service
    for unit in nixfleet-agent nixfleet-guard; do
      printf '[Unit]\nDescription=%s\n' $unit > $out/systemd/system/$unit.service
    done
    echo $version > $out/version
  '';
in
make "nixos-system-${host}-${version}" { inherit version fault etc; switch = ./switch-to-configuration.sh; init = ./init.sh; } ''
  mkdir -p $out/bin $out/sw/lib/systemd $out/specialisation
  echo kernel > $out/kernel; echo initrd > $out/initrd
  printf %s $version > $out/nixos-version
  printf 'systemd 1' > $out/init-interface-version
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
