package identity

import (
	"crypto/x509"
	"net/url"
	"strings"
)

// RoleKind is what a certificate's holder is.
type RoleKind string

// The kinds of roles.
const (
	Agent    RoleKind = "agent"
	Operator RoleKind = "operator"
)

// Role is who a certificate speaks for: a host by its machine id, or an operator
// by name.
type Role struct {
	Kind RoleKind
	Name string
}

// uri is the subject alternative name that carries the role.
func (r Role) uri() *url.URL {
	return &url.URL{Scheme: roleScheme, Opaque: string(r.Kind) + ":" + r.Name}
}

const roleScheme = "nixfleet"

func (r Role) check() bool {
	switch r.Kind {
	case Agent:
		return CheckHostName(r.Name) == nil
	case Operator:
		return CheckOperatorName(r.Name) == nil
	}
	return false
}

// RoleOf reads the role of a certificate that the caller has verified. One
// without exactly one URI of the form nixfleet:agent:<host> or
// nixfleet:operator:<name> has no role, and so has one that is a CA.
func RoleOf(cert *x509.Certificate) (Role, bool) {
	if cert == nil || cert.IsCA {
		return Role{}, false
	}
	var roles []Role
	for _, uri := range cert.URIs {
		if uri.Scheme != roleScheme {
			continue
		}
		kind, name, _ := strings.Cut(uri.Opaque, ":")
		roles = append(roles, Role{Kind: RoleKind(kind), Name: name})
	}
	if len(roles) != 1 || !roles[0].check() {
		return Role{}, false
	}
	return roles[0], true
}
